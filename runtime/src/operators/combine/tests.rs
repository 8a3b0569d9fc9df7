//! When a combiner sends what, and that both stages together come to what one stage comes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use thalweg_common::clock::ManualClock;

use super::worth::{MEASURED_RECORDS, PASSED_ON_RECORDS};
use super::*;
use crate::event::Event;
use crate::operators::{MergedAggregate, MergedReduce, Unmerged, aggregate, keyed_process, reduce};
use crate::snapshot::OperatorSnapshot;
use crate::testing::{OperatorHarness, Setup};

/// Collects the records of a key in their order: associative, but not commutative, and no value is like another.
#[derive(Clone)]
struct List;

impl<T: Record> MergeAggregate<T> for List {
    type Accumulator = Vec<T>;
    type Out = Vec<T>;

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, accumulator: &mut Vec<T>, record: T) {
        accumulator.push(record);
    }

    fn merge(&self, accumulator: &mut Vec<T>, mut later: Vec<T>) {
        accumulator.append(&mut later);
    }

    fn result(&self, accumulator: &Vec<T>) -> Vec<T> {
        accumulator.clone()
    }
}

#[derive(Clone)]
struct Count;

impl MergeAggregate<u64> for Count {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, accumulator: &mut u64, _: u64) {
        *accumulator += 1;
    }

    fn merge(&self, accumulator: &mut u64, later: u64) {
        *accumulator += later;
    }

    fn result(&self, accumulator: &u64) -> u64 {
        *accumulator
    }
}

/// Counts numbers by themselves, on a clock that the test moves.
fn counting(policy: CombinePolicy) -> (OperatorHarness<u64, (u64, u64)>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let setup = Setup { clock: clock.clone(), ..Setup::default() };
    let factory = combine_aggregate(|number: &u64| *number, Count, policy);
    (OperatorHarness::open(factory.as_ref(), setup).unwrap(), clock)
}

#[test]
fn keys_leave_in_the_order_in_which_they_came() {
    let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
    combiner.push(vec![7, 3, 7, 9]).unwrap();
    combiner.push(vec![3, 7]).unwrap();
    assert_eq!(combiner.output(), [], "held back until there is a reason to send");
    combiner.flush().unwrap();
    assert_eq!(combiner.output(), [(7, 3), (3, 2), (9, 1)]);
    combiner.push(vec![9]).unwrap();
    combiner.flush().unwrap();
    assert_eq!(combiner.output(), [(9, 1)], "the table is empty after it was sent");
}

#[test]
fn barriers_and_the_end_come_behind_what_was_combined() {
    let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
    combiner.push(vec![1, 1]).unwrap();
    let snapshot = combiner.barrier(1).unwrap();
    assert_eq!(combiner.output(), [(1, 2)]);
    assert_eq!(snapshot, OperatorSnapshot::default(), "nothing of it is in a checkpoint");
    combiner.push(vec![1]).unwrap();
    combiner.end().unwrap();
    assert_eq!(combiner.output(), [(1, 1)]);
    assert!(matches!(combiner.events()[..], [Event::Barrier(_), Event::EndOfInput]));
}

#[test]
fn a_full_output_does_not_make_it_lose_anything() {
    let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
    combiner.set_blocked(true);
    combiner.push(vec![1, 1]).unwrap();
    assert_eq!(combiner.flush(), Ok(Flushed::Blocked));
    combiner.set_blocked(false);
    assert_eq!(combiner.flush(), Ok(Flushed::All));
    assert_eq!(combiner.output(), [(1, 2)]);
}

#[test]
fn a_full_table_is_sent() {
    let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
    let keys = COMBINER_KEYS as u64;
    combiner.push((0..keys - 1).chain(0..keys - 1).collect()).unwrap();
    assert_eq!(combiner.output(), []);
    combiner.push(vec![keys - 1, 0]).unwrap();
    let output = combiner.output();
    assert_eq!(output.len(), COMBINER_KEYS, "the key behind it begins a new table");
    assert_eq!((output[0], output[COMBINER_KEYS - 1]), ((0, 2), (keys - 1, 1)));
    combiner.flush().unwrap();
    assert_eq!(combiner.output(), [(0, 1)]);
}

#[test]
fn many_records_of_few_keys_are_sent() {
    let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
    let batches = COMBINER_RECORDS / BATCH_RECORDS;
    for _ in 0..batches - 1 {
        combiner.push(vec![5; BATCH_RECORDS]).unwrap();
    }
    assert_eq!(combiner.output(), []);
    combiner.push(vec![5; BATCH_RECORDS]).unwrap();
    assert_eq!(combiner.output(), [(5, COMBINER_RECORDS as u64)]);
}

#[test]
fn what_has_waited_long_enough_is_sent() {
    let (mut combiner, clock) = counting(CombinePolicy::WhilePaying);
    clock.advance(Duration::from_secs(1));
    combiner.push(vec![1]).unwrap();
    clock.advance(Duration::from_millis(COMBINER_LATENCY_MS - 1));
    combiner.push(vec![1]).unwrap();
    assert_eq!(combiner.output(), [], "the time counts from the first record of the table");
    clock.advance(Duration::from_millis(1));
    combiner.push(vec![2]).unwrap();
    assert_eq!(combiner.output(), [(1, 2), (2, 1)]);
}

#[test]
fn it_gives_up_where_keys_differ_and_tries_again() {
    let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
    // Keys that come once each, and then one that comes always.
    combiner.push((0..MEASURED_RECORDS as u64).collect()).unwrap();
    assert_eq!(combiner.output().len(), MEASURED_RECORDS, "everything has left before records are passed on");
    for _ in 0..PASSED_ON_RECORDS / BATCH_RECORDS {
        combiner.push(vec![5; BATCH_RECORDS]).unwrap();
        assert_eq!(combiner.output(), vec![(5, 1); BATCH_RECORDS], "passed on in the same form");
    }
    combiner.push(vec![5, 5, 5]).unwrap();
    assert_eq!(combiner.output(), []);
    combiner.flush().unwrap();
    assert_eq!(combiner.output(), [(5, 3)]);

    let (mut always, _) = counting(CombinePolicy::Always);
    always.push((0..MEASURED_RECORDS as u64 + 1).collect()).unwrap();
    always.output();
    always.push(vec![5, 5]).unwrap();
    always.flush().unwrap();
    let last_of_the_first = MEASURED_RECORDS as u64;
    assert_eq!(always.output(), [(last_of_the_first, 1), (5, 2)]);
}

type Word = (String, u64);

fn later_and_more(before: Word, next: Word) -> Word {
    (next.0, before.1 + next.1)
}

#[test]
fn reduced_values_go_to_the_key_of_their_records() {
    let word = |word: &str, number| (word.to_string(), number);
    // The function changes what the key is made of: `bb` has the length of `aa`.
    let factory =
        combine_reduce(|word: &Word| word.0.len() as u64, later_and_more, CombinePolicy::WhilePaying);
    let mut combiner =
        OperatorHarness::<Word, (u64, Word)>::open(factory.as_ref(), Setup::default()).unwrap();
    combiner.push(vec![word("aa", 1), word("ccc", 5), word("bb", 2)]).unwrap();
    combiner.flush().unwrap();
    let combined = combiner.output();
    assert_eq!(combined, [(2, word("bb", 3)), (3, word("ccc", 5))]);

    let merged = || keyed_process(|pair: &(u64, Word)| pair.0, MergedReduce::new(later_and_more));
    let mut merge = OperatorHarness::<(u64, Word), Word>::open(merged().as_ref(), Setup::default()).unwrap();
    merge.push(combined).unwrap();
    merge.push(vec![(2, word("dd", 4))]).unwrap();
    assert_eq!(merge.output(), [word("bb", 3), word("ccc", 5), word("dd", 7)]);

    // A checkpoint of the one is one of the other.
    let snapshot = merge.barrier(1).unwrap();
    let plain = reduce(|word: &Word| word.0.len() as u64, later_and_more);
    let setup = Setup::default().restoring(snapshot);
    let mut plain = OperatorHarness::<Word, Word>::open(plain.as_ref(), setup).unwrap();
    plain.push(vec![word("xx", 1)]).unwrap();
    assert_eq!(plain.output(), [word("xx", 8)]);
    let setup = Setup::default().restoring(plain.barrier(2).unwrap());
    let mut merge = OperatorHarness::<(u64, Word), Word>::open(merged().as_ref(), setup).unwrap();
    merge.push(vec![(2, word("yy", 2))]).unwrap();
    assert_eq!(merge.output(), [word("yy", 10)]);
}

/// The key of a record, the partition that reads it, and its number there.
type Read = (u8, u8, u32);
type Lists = BTreeMap<u8, Vec<Read>>;

/// Combiners of several partitions and the operator behind them, with what is needed to go back to the last checkpoint.
struct Stages {
    input: Vec<Vec<u8>>,
    positions: Vec<usize>,
    combiners: Vec<OperatorHarness<Read, (u8, Vec<Read>)>>,
    merge: OperatorHarness<(u8, Vec<Read>), (u8, Vec<Read>)>,
    clock: Arc<ManualClock>,
    policy: CombinePolicy,
    results: Lists,
    checkpoint: (Vec<usize>, Option<OperatorSnapshot>, Lists),
}

impl Stages {
    fn new(input: Vec<Vec<u8>>, policy: CombinePolicy) -> Self {
        let clock = Arc::new(ManualClock::new(0));
        let positions = vec![0; input.len()];
        let (combiners, merge) = Self::open(input.len(), policy, &clock, None);
        let checkpoint = (positions.clone(), None, Lists::new());
        Self { input, positions, combiners, merge, clock, policy, results: Lists::new(), checkpoint }
    }

    #[expect(clippy::type_complexity, reason = "two kinds of harnesses")]
    fn open(
        partitions: usize,
        policy: CombinePolicy,
        clock: &Arc<ManualClock>,
        restored: Option<OperatorSnapshot>,
    ) -> (Vec<OperatorHarness<Read, (u8, Vec<Read>)>>, OperatorHarness<(u8, Vec<Read>), (u8, Vec<Read>)>)
    {
        let combiner = combine_aggregate(|event: &Read| event.0, List, policy);
        let setup = || Setup { clock: clock.clone(), ..Setup::default() };
        let combiners =
            (0..partitions).map(|_| OperatorHarness::open(combiner.as_ref(), setup()).unwrap()).collect();
        let merge = keyed_process(|pair: &(u8, Vec<Read>)| pair.0, MergedAggregate::<Read, List>::new(List));
        let setup = restored.into_iter().fold(setup(), Setup::restoring);
        (combiners, OperatorHarness::open(merge.as_ref(), setup).unwrap())
    }

    fn read(&mut self, partition: usize, records: usize) {
        let keys = &self.input[partition];
        let start = self.positions[partition];
        let end = keys.len().min(start + records);
        let event = |number: usize| (keys[number], partition as u8, number as u32);
        self.combiners[partition].push((start..end).map(event).collect()).unwrap();
        self.positions[partition] = end;
        self.deliver(partition);
    }

    fn deliver(&mut self, partition: usize) {
        self.merge.push(self.combiners[partition].output()).unwrap();
        self.results.extend(self.merge.output());
    }

    fn take(&mut self, step: Step) {
        let partitions = self.input.len();
        match step {
            Step::Read(partition, records) => self.read(partition % partitions, records),
            Step::Idle(partition) => {
                self.combiners[partition % partitions].flush().unwrap();
                self.deliver(partition % partitions);
            }
            Step::Wait(milliseconds) => self.clock.advance(Duration::from_millis(milliseconds)),
            Step::Checkpoint => {
                for partition in 0..partitions {
                    self.combiners[partition].barrier(1).unwrap();
                    self.deliver(partition);
                }
                let snapshot = self.merge.barrier(1).unwrap();
                self.checkpoint = (self.positions.clone(), Some(snapshot), self.results.clone());
            }
            Step::Fail => {
                let (positions, snapshot, results) = self.checkpoint.clone();
                (self.combiners, self.merge) = Self::open(partitions, self.policy, &self.clock, snapshot);
                (self.positions, self.results) = (positions, results);
            }
        }
    }

    fn finish(mut self) -> Lists {
        for partition in 0..self.input.len() {
            self.read(partition, usize::MAX / 2);
            self.combiners[partition].end().unwrap();
            self.deliver(partition);
        }
        self.results
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A batch of this partition, of so many records.
    Read(usize, usize),
    Idle(usize),
    Wait(u64),
    Checkpoint,
    /// Everything starts again from the last checkpoint.
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..40_usize).prop_map(|(partition, records)| Step::Read(partition, records)),
        1 => (0..3_usize).prop_map(Step::Idle),
        1 => (0..COMBINER_LATENCY_MS + 1).prop_map(Step::Wait),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Fail),
    ]
}

/// The records of each key as one stage lists them, partition after partition.
fn in_one_stage(input: &[Vec<u8>]) -> Lists {
    let factory = aggregate(|event: &Read| event.0, Unmerged(List));
    let mut plain =
        OperatorHarness::<Read, (u8, Vec<Read>)>::open(factory.as_ref(), Setup::default()).unwrap();
    for (partition, keys) in input.iter().enumerate() {
        let events = keys.iter().zip(0..).map(|(key, number)| (*key, partition as u8, number));
        plain.push(events.collect()).unwrap();
    }
    plain.output().into_iter().collect()
}

proptest! {
    #[test]
    fn two_stages_come_to_what_one_comes_to(
        input in prop::collection::vec(prop::collection::vec(0..6_u8, 0..200), 1..4),
        steps in prop::collection::vec(step(), 0..40),
        always in any::<bool>(),
    ) {
        let policy = if always { CombinePolicy::Always } else { CombinePolicy::WhilePaying };
        let mut stages = Stages::new(input.clone(), policy);
        steps.into_iter().for_each(|step| stages.take(step));
        let mut lists = stages.finish();
        for events in lists.values_mut() {
            // Partitions mix as they like; inside each the order stays.
            events.sort_by_key(|event| event.1);
        }
        prop_assert_eq!(lists, in_one_stage(&input));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Long enough for tables to fill, and for combining to be given up and taken up again.
    #[test]
    fn nothing_is_lost_when_combining_comes_and_goes(
        spread in prop::collection::vec(prop_oneof![Just(1_u64), Just(50), Just(1_000_000)], 1..8),
        batch in 1..3_000_usize,
    ) {
        let (mut combiner, _) = counting(CombinePolicy::WhilePaying);
        let (mut expected, mut counts) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
        let mut numbers = Vec::new();
        for (part, spread) in (0_u64..).zip(spread) {
            numbers.extend((0..50_000_u64).map(|n| (n + part).wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread));
        }
        for numbers in numbers.chunks(batch) {
            numbers.iter().for_each(|number| *expected.entry(*number).or_default() += 1);
            combiner.push(numbers.to_vec()).unwrap();
            combiner.output().into_iter().for_each(|(key, count)| *counts.entry(key).or_default() += count);
        }
        combiner.end().unwrap();
        combiner.output().into_iter().for_each(|(key, count)| *counts.entry(key).or_default() += count);
        prop_assert_eq!(counts, expected);
    }
}
