//! Operators without a runtime: what they emit, snapshot, restore and refuse.

use std::collections::BTreeMap;
use std::convert::Infallible;

use thalweg_common::failure::{Failure, Fault};
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_common::limits::BATCH_RECORDS;
use thalweg_runtime::event::Event;
use thalweg_runtime::link::Flushed;
use thalweg_runtime::operator::{Aggregate, Context, KeyedProcess};
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_state::{State, ValueState};

type Harness<In, Out> = OperatorHarness<In, Out>;

#[test]
fn map_filter_and_flat_map() {
    let mut map =
        Harness::<u64, String>::open(operators::map(|n: u64| n.to_string()).as_ref(), Setup::default())
            .unwrap();
    map.push(vec![1, 2]).unwrap();
    assert_eq!(map.output(), ["1", "2"]);

    let even = operators::filter(|n: &u64| n.is_multiple_of(2));
    let mut filter = Harness::<u64, u64>::open(even.as_ref(), Setup::default()).unwrap();
    filter.push(vec![1, 2, 3, 4]).unwrap();
    filter.push(vec![5]).unwrap();
    assert_eq!(filter.output(), [2, 4]);

    let words = operators::flat_map(|line: String| line.split(' ').map(str::to_string).collect::<Vec<_>>());
    let mut flat_map = Harness::<String, String>::open(words.as_ref(), Setup::default()).unwrap();
    flat_map.push(vec!["to be".into(), "or".into()]).unwrap();
    assert_eq!(flat_map.output(), ["to", "be", "or"]);
    flat_map.end().unwrap();
    assert_eq!(flat_map.events(), [Event::EndOfInput]);
}

#[test]
fn one_record_may_become_many_batches() {
    let range = operators::flat_map(|n: u64| 0..n);
    let mut harness = Harness::<u64, u64>::open(range.as_ref(), Setup::default()).unwrap();
    let many = 2 * BATCH_RECORDS as u64 + 1;
    harness.push(vec![many]).unwrap();
    assert_eq!(harness.output(), (0..many).collect::<Vec<_>>());
}

#[test]
fn a_closure_is_cloned_for_every_subtask() {
    let mut seen = 0;
    let number = operators::map(move |n: u64| {
        seen += 1;
        (seen, n)
    });
    let mut one = Harness::<u64, (i32, u64)>::open(number.as_ref(), Setup::default()).unwrap();
    let mut two = Harness::<u64, (i32, u64)>::open(number.as_ref(), Setup::default()).unwrap();
    one.push(vec![7, 8]).unwrap();
    two.push(vec![9]).unwrap();
    assert_eq!((one.output(), two.output()), (vec![(1, 7), (2, 8)], vec![(1, 9)]));
}

#[test]
fn fallible_functions_fail_with_the_operators_name() {
    let parse = operators::try_map(|text: String| text.parse::<u64>());
    let mut harness = Harness::<String, u64>::open(parse.as_ref(), Setup::default()).unwrap();
    harness.push(vec!["1".into()]).unwrap();
    let failure = harness.push(vec!["x".into()]).unwrap_err();
    assert_eq!(
        (failure.fault, failure.message.as_str()),
        (Fault::User, "tested: invalid digit found in string")
    );
    assert_eq!(harness.output(), [1]);

    // A failure that user code made stays what it is.
    let give_up = operators::try_filter(|_: &u64| Err::<bool, _>(Failure::external("no disk").permanent()));
    let mut harness = Harness::<u64, u64>::open(give_up.as_ref(), Setup::default()).unwrap();
    assert_eq!(harness.push(vec![1, 2]), Err(Failure::external("tested: no disk").permanent()));

    let halves =
        operators::try_flat_map(
            |n: u64| if n == 0 { Err("zero has no halves") } else { Ok([n / 2, n - n / 2]) },
        );
    let mut harness = Harness::<u64, u64>::open(halves.as_ref(), Setup::default()).unwrap();
    harness.push(vec![5]).unwrap();
    assert_eq!(harness.output(), [2, 3]);
    assert_eq!(harness.push(vec![0]).unwrap_err().message, "tested: zero has no halves");
}

#[test]
fn a_link_of_another_type_is_refused() {
    let map = operators::map(|n: u64| n);
    let failure = Harness::<u64, String>::open(map.as_ref(), Setup::default()).err().unwrap();
    assert_eq!((failure.fault, failure.retryable), (Fault::Internal, false));
    assert!(failure.message.contains("tested") && failure.message.contains("u64"), "{failure}");
}

#[test]
fn reduce_emits_every_update() {
    let sum =
        operators::reduce(|record: &(String, u64)| record.0.clone(), |a: (String, u64), b| (a.0, a.1 + b.1));
    let mut harness = Harness::<(String, u64), (String, u64)>::open(sum.as_ref(), Setup::default()).unwrap();
    let record = |key: &str, value| (key.to_string(), value);
    harness.push(vec![record("a", 1), record("b", 10), record("a", 2)]).unwrap();
    assert_eq!(harness.output(), [record("a", 1), record("b", 10), record("a", 3)]);

    let snapshot = harness.barrier(1).unwrap();
    assert!(matches!(harness.events()[..], [Event::Barrier(barrier)] if barrier.id == 1));
    harness.push(vec![record("a", 100)]).unwrap();

    let setup = Setup::default().restoring(snapshot);
    let mut restored = Harness::<(String, u64), (String, u64)>::open(sum.as_ref(), setup).unwrap();
    restored.push(vec![record("a", 4), record("b", 1)]).unwrap();
    assert_eq!(restored.output(), [record("a", 7), record("b", 11)]);
}

#[derive(Clone)]
struct Mean;

impl Aggregate<(u8, f64)> for Mean {
    type Accumulator = (f64, u64);
    type Out = f64;

    fn create(&self) -> (f64, u64) {
        (0.0, 0)
    }

    fn add(&self, accumulator: &mut (f64, u64), record: (u8, f64)) {
        *accumulator = (accumulator.0 + record.1, accumulator.1 + 1);
    }

    fn result(&self, accumulator: &(f64, u64)) -> f64 {
        accumulator.0 / accumulator.1 as f64
    }
}

#[test]
fn aggregates_emit_key_and_result() {
    let mean = operators::aggregate(|record: &(u8, f64)| record.0, Mean);
    let mut harness = Harness::<(u8, f64), (u8, f64)>::open(mean.as_ref(), Setup::default()).unwrap();
    harness.push(vec![(1, 2.0), (2, 5.0), (1, 4.0)]).unwrap();
    assert_eq!(harness.output(), [(1, 2.0), (2, 5.0), (1, 3.0)]);
}

/// Counts the words of each length; says at the end how many there were.
#[derive(State, Clone, Default)]
#[state(crate = crate::krate)]
struct CountAtEnd {
    count: ValueState<u64>,
}

impl KeyedProcess<u64, String> for CountAtEnd {
    type Out = (u64, u64);

    fn on_record(&mut self, word: String, context: &mut Context<'_, u64, (u64, u64)>) -> Result<(), Failure> {
        match word.as_str() {
            "forget" => self.count.clear(context),
            "fail" => return Err(Failure::user("told to")),
            _ => self.count.update(context, |count| Some(count.unwrap_or(0) + 1)),
        }
        Ok(())
    }

    fn on_end(&mut self, context: &mut Context<'_, u64, (u64, u64)>) -> Result<(), Failure> {
        let count = self.count.take(context).unwrap_or(0);
        context.emit((*context.key(), count));
        Ok(())
    }
}

fn count_at_end(setup: Setup) -> Harness<String, (u64, u64)> {
    let factory = operators::keyed_process(|word: &String| word.len() as u64, CountAtEnd::default());
    Harness::open(factory.as_ref(), setup).unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn the_end_is_told_once_for_every_key_with_state() {
    let mut harness = count_at_end(Setup::default());
    harness.push(words(&["to", "be", "or", "not", "gone67", "forget"])).unwrap();
    assert!(harness.output().is_empty());
    harness.end().unwrap();
    let counts: BTreeMap<u64, u64> = harness.output().into_iter().collect();
    assert_eq!(counts, BTreeMap::from([(2, 3), (3, 1)]));
    assert_eq!(harness.events(), [Event::EndOfInput]);

    // A checkpoint behind the end is restored behind the end.
    let snapshot = harness.barrier(1).unwrap();
    let mut restored = count_at_end(Setup::default().restoring(snapshot.clone()));
    restored.end().unwrap();
    assert_eq!((restored.output(), restored.events()), (vec![], vec![Event::EndOfInput]));

    // Unless there is more, as behind the savepoint of a drained job.
    let mut goes_on = count_at_end(Setup::default().restoring(snapshot));
    goes_on.push(words(&["more"])).unwrap();
    goes_on.end().unwrap();
    assert_eq!(goes_on.output(), [(4, 1)]);
}

#[test]
fn a_full_output_holds_up_the_end() {
    let mut harness = count_at_end(Setup::default());
    let keys = 3 * BATCH_RECORDS;
    for length in 0..keys {
        harness.push(vec!["x".repeat(length)]).unwrap();
    }
    harness.set_blocked(true);
    harness.end().unwrap();
    assert_eq!(harness.flush(), Ok(Flushed::Blocked));
    assert_eq!((harness.output(), harness.events()), (vec![], vec![]));
    assert!(harness.barrier(1).is_err(), "half of an end cannot be restored");
    harness.set_blocked(false);
    assert_eq!(harness.flush(), Ok(Flushed::All));
    assert_eq!(harness.output().len(), keys);
    assert_eq!(harness.events(), [Event::EndOfInput]);
}

#[test]
fn failures_of_keyed_functions_name_the_operator() {
    let mut harness = count_at_end(Setup::default());
    assert_eq!(harness.push(words(&["fail"])), Err(Failure::user("tested: told to")));
}

#[test]
fn keyed_state_moves_with_its_key_groups() {
    let sum = || operators::reduce(|record: &(u32, u64)| record.0, |a: (u32, u64), b| (a.0, a.1 + b.1));
    let open = |setup| Harness::<(u32, u64), (u32, u64)>::open(sum().as_ref(), setup).unwrap();
    let owner = |key: u32, parallelism| {
        let group = key_group(key_hash(&key, &mut Vec::new()), 128);
        subtask_of(group, parallelism, 128)
    };
    let of = |subtask, parallelism| (0..100).filter(move |key| owner(*key, parallelism) == subtask);

    let snapshots: Vec<OperatorSnapshot> = (0..2)
        .map(|subtask| {
            let mut harness = open(Setup::default().subtask(subtask, 2));
            harness.push(of(subtask, 2).map(|key| (key, u64::from(key))).collect()).unwrap();
            harness.barrier(1).unwrap()
        })
        .collect();
    for subtask in 0..3 {
        let setup = snapshots.iter().cloned().fold(Setup::default().subtask(subtask, 3), Setup::restoring);
        let mut harness = open(setup);
        harness.push(of(subtask, 3).map(|key| (key, 1_000)).collect()).unwrap();
        let expected: Vec<_> = of(subtask, 3).map(|key| (key, u64::from(key) + 1_000)).collect();
        assert_eq!(harness.output(), expected);
    }
    // A record of another subtask's key would silently get empty state: it is refused.
    let foreign = (0..100).find(|key| owner(*key, 2) == 1).unwrap();
    let failure = open(Setup::default().subtask(0, 2)).push(vec![(foreign, 1)]).unwrap_err();
    assert!(failure.message.contains("key_by must always give the same key"), "{failure}");
}

#[test]
fn infallible_functions_may_say_so() {
    let map = operators::try_map(|n: u64| Ok::<_, Infallible>(n));
    let mut harness = Harness::<u64, u64>::open(map.as_ref(), Setup::default()).unwrap();
    harness.push(vec![3]).unwrap();
    assert_eq!(harness.output(), [3]);
}
