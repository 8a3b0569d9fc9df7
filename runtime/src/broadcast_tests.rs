//! Broadcast state and what subtasks remember: restored by as many subtasks, by more and by fewer.
#![allow(clippy::unwrap_used)]

use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_state::{Declarations, Declare, StateKey, ValueState};

use super::*;
use crate::operators;
use crate::snapshot::OperatorSnapshot;
use crate::testing::{OperatorHarness, Setup};

/// Counts the records of each key times the factor that was broadcast for its rest.
#[derive(Clone, Default)]
struct Weighted {
    count: ValueState<u64>,
}

impl State for Weighted {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.count.declare("count", declarations);
    }
}

type Factors = BroadcastState<u64, u64>;
type Harness = OperatorHarness<Either<u64, (u64, u64)>, (u64, u64)>;

impl KeyedBroadcastProcess<u64, u64, (u64, u64)> for Weighted {
    type Key = u64;
    type Value = u64;
    type Out = (u64, u64);

    fn on_record(
        &mut self,
        number: u64,
        factors: &Factors,
        context: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), Failure> {
        let count = self.count.get_or_insert_with(context, || 0);
        *count += factors.get(&(number % 2)).copied().unwrap_or(1);
        let count = *count;
        context.emit((number, count));
        Ok(())
    }

    fn on_broadcast(
        &mut self,
        (rest, factor): (u64, u64),
        factors: &mut Factors,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), Failure> {
        factors.insert(rest, factor);
        context.emit((1_000 + rest, factor));
        Ok(())
    }

    fn on_end(
        &mut self,
        factors: &Factors,
        context: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), Failure> {
        let key = *context.key();
        context.emit((key, factors.len() as u64));
        Ok(())
    }
}

fn open(setup: Setup) -> Harness {
    let factory =
        operators::keyed_broadcast::<u64, u64, (u64, u64), _, _>(|number: &u64| *number, Weighted::default());
    OperatorHarness::open(factory.as_ref(), setup).unwrap()
}

fn owned(number: u64, index: u32, parallelism: u32) -> bool {
    let group = key_group(key_hash(&number, &mut Vec::new()), 128);
    subtask_of(group, parallelism, 128) == index
}

#[test]
fn records_see_what_was_broadcast_before_them() {
    let mut weighted = open(Setup::default());
    let (number, factor) = (Either::First, |rest, factor| Either::Second((rest, factor)));
    weighted.push(vec![number(3), factor(1, 10), number(3), number(4), factor(1, 5), number(3)]).unwrap();
    assert_eq!(weighted.output(), [(3, 1), (1_001, 10), (3, 11), (4, 1), (1_001, 5), (3, 16)]);
    weighted.end().unwrap();
    let mut ended = weighted.output();
    ended.sort_unstable();
    assert_eq!(ended, [(3, 1), (4, 1)]);
}

#[test]
fn after_a_change_of_parallelism_each_subtask_has_the_state_of_one() {
    let mut before: Vec<Harness> = (0..2).map(|index| open(Setup::default().subtask(index, 2))).collect();
    let mut snapshots: Vec<OperatorSnapshot> = Vec::new();
    for (index, weighted) in (0..).zip(&mut before) {
        weighted.push(vec![Either::Second((0, 7)), Either::Second((1, 9))]).unwrap();
        let mine = (0..20).filter(|number| owned(*number, index, 2));
        weighted.push(mine.map(Either::First).collect()).unwrap();
        snapshots.push(weighted.barrier(1).unwrap());
    }
    for parallelism in [1, 2, 3, 5] {
        let mut found = Vec::new();
        for index in 0..parallelism {
            let mut setup = Setup::default().subtask(index, parallelism);
            // Like a job manager, which gives the snapshots of those who had its key groups.
            for (former, snapshot) in (0..).zip(&snapshots) {
                let shares = (0..128).any(|group| {
                    subtask_of(group, 2, 128) == former && subtask_of(group, parallelism, 128) == index
                });
                if shares {
                    setup = setup.restoring(snapshot.clone());
                }
            }
            let mut after = open(setup);
            after
                .push(
                    (0..20).filter(|number| owned(*number, index, parallelism)).map(Either::First).collect(),
                )
                .unwrap();
            found.extend(after.output());
        }
        found.sort_unstable();
        let factor = |number: u64| if number.is_multiple_of(2) { 7 } else { 9 };
        assert_eq!(
            found,
            (0..20).map(|number| (number, 2 * factor(number))).collect::<Vec<_>>(),
            "{parallelism}"
        );
    }
}

/// Remembers numbers, dealt and united, and emits both lists when it is told to by a zero.
#[derive(Clone, Default)]
struct Lists {
    dealt: Vec<u64>,
    united: Vec<String>,
}

impl Process<u64> for Lists {
    type Out = (Vec<u64>, Vec<String>);

    fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
        states.split_list("dealt", &mut self.dealt);
        states.union_list("united", &mut self.united);
    }

    fn on_record(&mut self, number: u64, context: &mut ProcessContext<'_, Self::Out>) -> Result<(), Failure> {
        if number == 0 {
            context.emit((self.dealt.clone(), self.united.clone()));
        } else {
            self.dealt.push(number);
            self.united = vec![format!("{} of {}", self.dealt.len(), context.open_context().subtask_index)];
        }
        Ok(())
    }
}

#[test]
fn lists_are_dealt_or_united() {
    let open = |index, parallelism, snapshots: &[OperatorSnapshot]| {
        let mut setup = Setup::default().subtask(index, parallelism);
        setup.restored = snapshots.to_vec();
        let factory = operators::process(Lists::default());
        OperatorHarness::<u64, (Vec<u64>, Vec<String>)>::open(factory.as_ref(), setup).unwrap()
    };
    let mut snapshots = Vec::new();
    for (index, numbers) in [(0, vec![1, 2, 3]), (1, vec![4])] {
        let mut lists = open(index, 2, &[]);
        lists.push(numbers).unwrap();
        snapshots.push(lists.barrier(1).unwrap());
    }
    let table: [&[&[u64]]; 3] = [&[&[1, 2, 3, 4]], &[&[1, 2, 3], &[4]], &[&[1, 4], &[2], &[3]]];
    for expected in table {
        for (index, dealt) in (0..).zip(expected) {
            let mut lists = open(index, expected.len() as u32, &snapshots);
            lists.push(vec![0]).unwrap();
            let united = ["3 of 0", "1 of 1"].map(String::from).to_vec();
            assert_eq!(lists.output(), [(dealt.to_vec(), united)], "{index} of {}", expected.len());
        }
    }
}

#[test]
fn values_of_another_type_are_not_read() {
    #[derive(Clone, Default)]
    struct Other(Vec<(u64, u64)>);

    impl Process<u64> for Other {
        type Out = u64;

        fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
            states.split_list("dealt", &mut self.0);
        }

        fn on_record(&mut self, _: u64, _: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
            Ok(())
        }
    }
    let factory = operators::process(Lists::default());
    let mut lists =
        OperatorHarness::<u64, (Vec<u64>, Vec<String>)>::open(factory.as_ref(), Setup::default()).unwrap();
    lists.push(vec![1, 2]).unwrap();
    let restoring = Setup::default().restoring(lists.barrier(1).unwrap());
    let other = OperatorHarness::<u64, u64>::open(operators::process(Other::default()).as_ref(), restoring);
    let failure = other.err().unwrap();
    assert!(
        failure.message.contains("the state `dealt` was written with values of another type"),
        "{failure}"
    );
}
