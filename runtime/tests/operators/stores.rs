//! Keyed operators over both stores: the same code, the same results, and snapshots that change stores and parallelism.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_runtime::aggregating::ExpiringAggregating;
use thalweg_runtime::operator::{Aggregate, Context, KeyedProcess};
use thalweg_runtime::operators;
use thalweg_runtime::program::OperatorFactory;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_state::{ExpiringList, ExpiringReducing, ExpiringValue, State};

type Harness = OperatorHarness<(u64, u64), (u64, u64)>;

const KEYS: u64 = 30_000;
/// A cache for a part of the keys.
const MEMORY: u64 = 1536 << 10;

/// Counts records by key.
fn count() -> Arc<dyn OperatorFactory> {
    operators::reduce(|pair: &(u64, u64)| pair.0, |a: (u64, u64), b: (u64, u64)| (a.0, a.1 + b.1))
}

fn ones(keys: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    keys.into_iter().map(|key| (key, 1)).collect()
}

fn open(setup: Setup) -> Harness {
    Harness::open(count().as_ref(), setup).unwrap()
}

/// The keys of one subtask.
fn owned(keys: impl IntoIterator<Item = u64>, index: u32, parallelism: u32) -> Vec<u64> {
    let mut scratch = Vec::new();
    let mut owner = |key: &u64| subtask_of(key_group(key_hash(key, &mut scratch), 128), parallelism, 128);
    keys.into_iter().filter(|key| owner(key) == index).collect()
}

/// Counts every key below `KEYS` once, and every tenth once more after the barrier.
fn snapshot_at(setup: Setup, keys: Vec<u64>) -> OperatorSnapshot {
    let mut harness = open(setup);
    for part in keys.chunks(1_000) {
        harness.push(ones(part.iter().copied())).unwrap();
    }
    let frozen = harness.freeze(1).unwrap();
    // Behind the barrier: not part of the snapshot, although it comes before that is written.
    let later: Vec<u64> = keys.iter().copied().filter(|key| key % 10 == 0).collect();
    let mut later = later.chunks(100);
    // Beside the writer, because a full cache waits for it.
    let snapshot = frozen.finish(|| {
        if let Some(later) = later.next() {
            harness.push(ones(later.iter().copied()))?;
        }
        harness.encode()
    });
    let snapshot = snapshot.unwrap();
    // In memory nothing is left to be written, and they come here.
    for part in later {
        harness.push(ones(part.iter().copied())).unwrap();
    }
    let tenth = keys.iter().filter(|key| *key % 10 == 0).count();
    assert_eq!(harness.output().len(), keys.len() + tenth);
    snapshot
}

fn counts(setup: Setup, keys: Vec<u64>) -> BTreeMap<u64, u64> {
    let mut harness = open(setup);
    harness.push(ones(keys)).unwrap();
    harness.output().into_iter().collect()
}

fn setups(folder: &Path, name: &str) -> [Setup; 2] {
    [Setup::default(), Setup::default().on_disk(&folder.join(name), MEMORY)]
}

#[test]
fn state_is_what_it_was_at_the_barrier_in_both_stores_and_from_memory_to_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let expected: BTreeMap<u64, u64> = (0..KEYS).map(|key| (key, 2)).collect();
    let [memory, disk] = setups(temporary.path(), "first");
    let (in_memory, on_disk) =
        (snapshot_at(memory, (0..KEYS).collect()), snapshot_at(disk, (0..KEYS).collect()));
    assert!(in_memory.store.is_none() && on_disk.keyed_state.is_empty());
    for (number, snapshot) in [&in_memory, &on_disk, &in_memory].into_iter().enumerate() {
        let [memory, disk] = setups(temporary.path(), &format!("again-{number}"));
        let setup = if number == 0 { memory } else { disk };
        assert_eq!(counts(setup.restoring(snapshot.clone()), (0..KEYS).collect()), expected, "{number}");
    }
    let refused = Harness::open(count().as_ref(), Setup::default().restoring(on_disk));
    let message = refused.err().unwrap().message;
    assert!(message.contains("`state.backend.type`") && message.contains("savepoint"), "{message}");
}

#[test]
fn files_are_restored_at_another_parallelism() {
    let temporary = tempfile::tempdir().unwrap();
    let setup = |name: &str, index, parallelism| {
        let directory = temporary.path().join(format!("{name}-{index}"));
        Setup::default().on_disk(&directory, MEMORY).subtask(index, parallelism)
    };
    let snapshots: Vec<_> =
        (0..2).map(|index| snapshot_at(setup("two", index, 2), owned(0..KEYS, index, 2))).collect();
    for parallelism in [1, 3] {
        let mut all = BTreeMap::new();
        for index in 0..parallelism {
            let mut setup = setup(&format!("at-{parallelism}"), index, parallelism);
            for snapshot in &snapshots {
                setup = setup.restoring(snapshot.clone());
            }
            all.extend(counts(setup, owned(0..KEYS, index, parallelism)));
        }
        assert_eq!(all, (0..KEYS).map(|key| (key, 2)).collect(), "parallelism {parallelism}");
    }
}

#[test]
fn a_failure_while_a_snapshot_is_written_is_told_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let mut harness = open(Setup::default().on_disk(temporary.path(), MEMORY));
    harness.push(ones(0..1_000)).unwrap();
    let frozen = harness.freeze(1).unwrap();
    let error = frozen.finish(|| Err(Failure::internal("the operator has failed"))).unwrap_err();
    assert_eq!(error.message, "the operator has failed");
}

/// Lets a key pass once in ten seconds.
#[derive(State, Clone, Default)]
#[state(crate = crate::krate)]
struct Distinct {
    #[state(ttl = "10s")]
    seen: ExpiringValue<bool>,
}

impl KeyedProcess<u64, (u64, u64)> for Distinct {
    type Out = (u64, u64);

    fn on_record(
        &mut self,
        record: (u64, u64),
        context: &mut Context<'_, u64, (u64, u64)>,
    ) -> Result<(), Failure> {
        if self.seen.get(context).is_none() {
            self.seen.set(context, true);
            context.emit(record);
        }
        Ok(())
    }
}

#[test]
fn state_expires_by_the_clock_of_its_task_in_both_stores_and_over_a_restore() {
    let distinct = operators::keyed_process(|record: &(u64, u64)| record.0, Distinct::default());
    let temporary = tempfile::tempdir().unwrap();
    let folder = |name: &str| temporary.path().join(name);
    for is_on_disk in [false, true] {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let setup = |name: &str| {
            let setup = Setup { clock: clock.clone(), ..Setup::default() };
            if is_on_disk { setup.on_disk(&folder(name), MEMORY) } else { setup }
        };
        let mut harness = Harness::open(distinct.as_ref(), setup("first")).unwrap();
        let passed = |harness: &mut Harness| {
            harness.push(ones([1, 2, 1])).unwrap();
            harness.output().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(passed(&mut harness), [1, 2]);
        clock.advance(Duration::from_secs(9));
        assert!(passed(&mut harness).is_empty());
        let snapshot = harness.barrier(1).unwrap();
        let mut restored =
            Harness::open(distinct.as_ref(), setup("second").restoring(snapshot.clone())).unwrap();
        assert!(passed(&mut restored).is_empty());
        clock.advance(Duration::from_secs(1));
        for harness in [&mut harness, &mut restored] {
            assert_eq!(passed(harness), [1, 2]);
        }
        let mut late = Harness::open(distinct.as_ref(), setup("third").restoring(snapshot)).unwrap();
        assert_eq!(passed(&mut late), [1, 2], "what is restored is over");
    }
}

/// Counts records.
#[derive(Clone)]
struct Counting;

impl Aggregate<u64> for Counting {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, count: &mut u64, _: u64) {
        *count += 1;
    }

    fn result(&self, count: &u64) -> u64 {
        *count
    }
}

/// The numbers of a key in the last ten seconds: which, the largest, and how many since the last pause of so long.
#[derive(State, Clone)]
#[state(crate = crate::krate)]
struct Recent {
    #[state(ttl = "10s")]
    all: ExpiringList<u64>,
    #[state(ttl = "10s")]
    largest: ExpiringReducing<u64>,
    #[state(ttl = "10s")]
    count: ExpiringAggregating<u64, Counting>,
}

/// What [`Recent`] shows of a key.
type Shown = (Vec<u64>, u64, u64);

impl KeyedProcess<u64, (u64, u64)> for Recent {
    type Out = Shown;

    fn on_record(
        &mut self,
        (_, number): (u64, u64),
        context: &mut Context<'_, u64, Shown>,
    ) -> Result<(), Failure> {
        self.all.add(context, number);
        self.largest.add(context, number);
        self.count.add(context, number);
        let all = self.all.get(context).copied().collect();
        let largest = self.largest.get(context).copied().unwrap_or_default();
        let count = self.count.get(context).unwrap_or_default();
        assert_eq!(self.count.peek(context), Some(&count));
        context.emit((all, largest, count));
        Ok(())
    }
}

#[test]
fn lists_and_what_is_combined_expire_in_both_stores_and_over_a_restore() {
    let recent = Recent {
        all: ExpiringList::default(),
        largest: ExpiringReducing::new(|one, other| one.max(other)),
        count: ExpiringAggregating::new(Counting),
    };
    let factory = operators::keyed_process(|record: &(u64, u64)| record.0, recent);
    let temporary = tempfile::tempdir().unwrap();
    for is_on_disk in [false, true] {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let setup = |name: &str| {
            let setup = Setup { clock: clock.clone(), ..Setup::default() };
            if is_on_disk { setup.on_disk(&temporary.path().join(name), MEMORY) } else { setup }
        };
        let mut harness = OperatorHarness::<(u64, u64), Shown>::open(factory.as_ref(), setup("one")).unwrap();
        let show = |harness: &mut OperatorHarness<(u64, u64), Shown>, number, after_seconds| {
            harness.push(vec![(1, number)]).unwrap();
            clock.advance(Duration::from_secs(after_seconds));
            harness.output().remove(0)
        };
        assert_eq!(show(&mut harness, 9, 6), (vec![9], 9, 1));
        assert_eq!(show(&mut harness, 5, 6), (vec![9, 5], 9, 2));
        let snapshot = harness.barrier(1).unwrap();
        let restored = setup("two").restoring(snapshot);
        let mut restored = OperatorHarness::<(u64, u64), Shown>::open(factory.as_ref(), restored).unwrap();
        // The oldest element is over; what is combined was changed six seconds ago.
        assert_eq!(show(&mut restored, 3, 10), (vec![5, 3], 9, 3));
        assert_eq!(show(&mut restored, 4, 0), (vec![4], 4, 1));
        assert_eq!(show(&mut harness, 2, 0), (vec![2], 2, 1));
    }
}
