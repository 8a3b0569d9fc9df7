//! Joins against models that recompute everything: any order of records, watermarks and restarts with another parallelism.
//!
//! `THALWEG_JOIN_CASES=10000 cargo nextest run -p thalweg-runtime --test joins` runs as many cases in memory.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use thalweg_common::Timestamp;
use thalweg_common::clock::ManualClock;
use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_common::record::Record;
use thalweg_common::ttl::StateTtl;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::co_process::{Co, Either, KeyedCoProcess};
use thalweg_runtime::joins::{Change, IntervalBounds, IntervalJoin, JoinKind, Pair, PairMap, RegularJoin};
use thalweg_runtime::operators;
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::testing::{OperatorHarness, Setup};

/// Its key and its number.
type Item = (u8, u32);
type Input = Either<Item, Item>;

const LATE_LEFT: OutputTag<Item> = OutputTag::new("late-left");
const LATE_RIGHT: OutputTag<Item> = OutputTag::new("late-right");

fn key(input: &Input) -> u8 {
    match input {
        Either::First(item) | Either::Second(item) => item.0,
    }
}

/// Where the state is.
enum Store {
    Memory,
    /// In RocksDB below a directory, each subtask of each attempt in its own, with so little memory that keys leave it.
    #[cfg(feature = "rocksdb")]
    Disk(tempfile::TempDir, std::cell::Cell<u32>),
}

impl Store {
    #[cfg(feature = "rocksdb")]
    fn on_disk() -> Self {
        Self::Disk(tempfile::tempdir().unwrap(), std::cell::Cell::default())
    }

    fn setup(&self) -> Setup {
        match self {
            Self::Memory => Setup::default(),
            #[cfg(feature = "rocksdb")]
            Self::Disk(directory, next) => {
                next.set(next.get() + 1);
                Setup::default().on_disk(&directory.path().join(next.get().to_string()), 4 << 20)
            }
        }
    }
}

/// The subtasks of a join.
struct Subtasks<P, Out> {
    process: P,
    clock: Arc<ManualClock>,
    store: Store,
    running: Vec<OperatorHarness<Input, Out>>,
}

impl<Out, P> Subtasks<P, Out>
where
    Out: Record,
    P: KeyedCoProcess<u8, Item, Item, Out = Out>,
{
    fn new(process: P, store: Store, parallelism: u32) -> Self {
        let clock = Arc::new(ManualClock::new(1_000));
        let mut subtasks = Self { process, clock, store, running: Vec::new() };
        subtasks.restart(parallelism);
        subtasks
    }

    /// A checkpoint, a failure, and a restart with this many subtasks.
    fn restart(&mut self, parallelism: u32) {
        let mut snapshots: Vec<_> = Vec::new();
        for harness in &mut self.running {
            snapshots.push(harness.barrier(1).unwrap());
        }
        let open = |index| {
            let mut setup = self.store.setup().subtask(index, parallelism);
            setup.restored = snapshots.clone();
            setup.clock = self.clock.clone();
            let factory = operators::keyed_process(key, Co(self.process.clone()));
            OperatorHarness::open(factory.as_ref(), setup).unwrap()
        };
        self.running = (0..parallelism).map(open).collect();
    }

    fn push(&mut self, input: Input, at: Timestamp) -> &mut OperatorHarness<Input, Out> {
        let group = key_group(key_hash(&key(&input), &mut Vec::new()), 128);
        let owner = subtask_of(group, self.running.len() as u32, 128);
        let harness = &mut self.running[owner as usize];
        harness.push_batch(Batch::from_parts(vec![input], vec![at])).unwrap();
        harness
    }

    fn watermark(&mut self, at: Timestamp) {
        self.running.iter_mut().for_each(|harness| harness.watermark(at).unwrap());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Left(u8, Timestamp),
    Right(u8, Timestamp),
    Watermark(Timestamp),
    Wait(u16),
    Restart(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u8..3, -20i64..100).prop_map(|(key, at)| Step::Left(key, at)),
        8 => (0u8..3, -20i64..100).prop_map(|(key, at)| Step::Right(key, at)),
        4 => (-30i64..110).prop_map(Step::Watermark),
        2 => (0u16..400).prop_map(Step::Wait),
        1 => prop::sample::select(vec![1u32, 2, 4]).prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 0..60)
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("THALWEG_JOIN_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(200))
}

/// What an interval join of these steps must emit: pairs with their times, and what was late on either side.
#[derive(Debug, Default, PartialEq)]
struct Joined {
    pairs: Vec<((Item, Item), Option<Timestamp>)>,
    late: [Vec<Item>; 2],
}

impl Joined {
    fn sorted(mut self) -> Self {
        self.pairs.sort();
        self.late.iter_mut().for_each(|late| late.sort());
        self
    }
}

/// Whether it is of the left stream, the record, and its time.
type Came = (bool, Item, Timestamp);

/// Looks at every two records, and at everything between them.
fn interval_model(bounds: IntervalBounds, steps: &[Step]) -> Joined {
    let mut joined = Joined::default();
    let mut watermark = None;
    // For each step its record if it was accepted, or the watermark that it brought.
    let mut seen: Vec<(Option<Came>, Option<Timestamp>)> = Vec::new();
    for (number, step) in (0u32..).zip(steps) {
        let mut this = (None, None);
        match step {
            Step::Left(key, at) | Step::Right(key, at) => {
                let is_left = matches!(step, Step::Left(..));
                if watermark.is_some_and(|watermark| *at < watermark) {
                    joined.late[usize::from(!is_left)].push((*key, number));
                } else {
                    this.0 = Some((is_left, (*key, number), *at));
                }
            }
            Step::Watermark(at) if watermark.is_none_or(|watermark| *at > watermark) => {
                (watermark, this.1) = (Some(*at), Some(*at));
            }
            Step::Restart(_) => watermark = None,
            _ => {}
        }
        seen.push(this);
    }
    for (second, (later, _)) in seen.iter().enumerate() {
        let Some((later_is_left, later, later_at)) = later else { continue };
        for (first, (earlier, _)) in seen[..second].iter().enumerate() {
            let Some((is_left, earlier, earlier_at)) = earlier else { continue };
            if is_left == later_is_left || earlier.0 != later.0 {
                continue;
            }
            let (left, right, left_at, right_at) = if *is_left {
                (earlier, later, earlier_at, later_at)
            } else {
                (later, earlier, later_at, earlier_at)
            };
            let gone_at =
                if *is_left { left_at + bounds.upper_ms.max(0) } else { right_at - bounds.lower_ms.min(0) };
            let is_gone =
                seen[first..second].iter().any(|(_, watermark)| watermark.is_some_and(|at| at >= gone_at));
            if !is_gone && (bounds.lower_ms..=bounds.upper_ms).contains(&(right_at - left_at)) {
                joined.pairs.push(((*left, *right), Some(*left_at.max(right_at))));
            }
        }
    }
    joined
}

fn interval_join(bounds: IntervalBounds, store: Store, parallelism: u32, steps: &[Step]) -> Joined {
    let pair = PairMap(|left: &Item, right: &Item| (*left, *right));
    let join = IntervalJoin::new(bounds, Some(LATE_LEFT), Some(LATE_RIGHT), pair);
    let mut subtasks = Subtasks::new(join, store, parallelism);
    let mut joined = Joined::default();
    let mut watermark = None;
    for (number, step) in (0u32..).zip(steps) {
        match step {
            Step::Left(key, at) | Step::Right(key, at) => {
                let item = (*key, number);
                let is_left = matches!(step, Step::Left(..));
                let input = if is_left { Either::First(item) } else { Either::Second(item) };
                let harness = subtasks.push(input, *at);
                joined.pairs.extend(harness.output_batch().drain_with_timestamps());
                joined.late[0].extend(harness.side_output(&LATE_LEFT).drain());
                joined.late[1].extend(harness.side_output(&LATE_RIGHT).drain());
            }
            Step::Watermark(at) if watermark.is_none_or(|watermark| *at > watermark) => {
                watermark = Some(*at);
                subtasks.watermark(*at);
            }
            Step::Restart(parallelism) => {
                subtasks.restart(*parallelism);
                watermark = None;
            }
            _ => {}
        }
    }
    // Behind the last watermark nothing is left.
    subtasks.watermark(Timestamp::MAX);
    for harness in &mut subtasks.running {
        let snapshot = harness.barrier(9).unwrap();
        assert!(snapshot.keyed_state.values().all(|state| state.groups.is_empty()), "{snapshot:?}");
    }
    joined
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn interval_join_is_that_of_the_model(
        lower_ms in -40i64..40,
        width_ms in 0i64..60,
        parallelism in prop::sample::select(vec![1u32, 2, 4]),
        steps in steps(),
    ) {
        let bounds = IntervalBounds { lower_ms, upper_ms: lower_ms + width_ms };
        let joined = interval_join(bounds, Store::Memory, parallelism, &steps).sorted();
        prop_assert_eq!(joined, interval_model(bounds, &steps).sorted());
    }

    #[test]
    fn regular_join_is_that_of_the_model(
        kind in prop::sample::select(vec![JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full]),
        parallelism in prop::sample::select(vec![1u32, 2, 4]),
        steps in steps(),
    ) {
        regular_join(kind, Store::Memory, parallelism, &steps)?;
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn joins_on_disk_are_those_of_the_models(
        lower_ms in -40i64..40,
        width_ms in 0i64..60,
        kind in prop::sample::select(vec![JoinKind::Inner, JoinKind::Full]),
        parallelism in prop::sample::select(vec![1u32, 2]),
        steps in steps(),
    ) {
        let bounds = IntervalBounds { lower_ms, upper_ms: lower_ms + width_ms };
        let joined = interval_join(bounds, Store::on_disk(), parallelism, &steps).sorted();
        prop_assert_eq!(joined, interval_model(bounds, &steps).sorted());
        regular_join(kind, Store::on_disk(), parallelism, &steps)?;
    }
}

const RETAINED_MS: i64 = 500;

/// After each step the changes so far must come to the result, computed from nothing.
fn regular_join(kind: JoinKind, store: Store, parallelism: u32, steps: &[Step]) -> Result<(), TestCaseError> {
    let retained = StateTtl::new(Duration::from_millis(RETAINED_MS as u64));
    let mut subtasks =
        Subtasks::new(RegularJoin::<Item, Item, _>::changes(kind, retained), store, parallelism);
    let mut result: Vec<Pair<Item, Item>> = Vec::new();
    // With the time at which they came.
    let mut came: Vec<Came> = Vec::new();
    let mut now_ms = 0;
    for (number, step) in (0u32..).zip(steps) {
        match step {
            Step::Left(key, _) | Step::Right(key, _) => {
                let item = (*key, number);
                let is_left = matches!(step, Step::Left(..));
                came.push((is_left, item, now_ms));
                let input = if is_left { Either::First(item) } else { Either::Second(item) };
                for change in subtasks.push(input, 0).output() {
                    match change {
                        Change::Insert(row) => result.push(row),
                        Change::Delete(row) => {
                            let place = result.iter().position(|other| *other == row);
                            prop_assert!(place.is_some(), "{:?} is deleted and was not there", row);
                            result.swap_remove(place.unwrap());
                        }
                    }
                }
                let mut found = result.clone();
                found.sort();
                prop_assert_eq!(found, regular_model(kind, &came));
            }
            Step::Wait(milliseconds) => {
                now_ms += i64::from(*milliseconds);
                subtasks.clock.advance(Duration::from_millis(u64::from(*milliseconds)));
            }
            Step::Restart(parallelism) => subtasks.restart(*parallelism),
            Step::Watermark(_) => {}
        }
    }
    Ok(())
}

/// Every two records that were retained when the later one came, and every record without any such.
fn regular_model(kind: JoinKind, came: &[Came]) -> Vec<Pair<Item, Item>> {
    let meet = |one: &Came, other: &Came| {
        one.0 != other.0 && one.1.0 == other.1.0 && (one.2 - other.2).abs() < RETAINED_MS
    };
    let mut rows: Vec<Pair<Item, Item>> = Vec::new();
    for record in came {
        let partners: Vec<_> = came.iter().filter(|other| meet(record, other)).collect();
        if record.0 {
            rows.extend(partners.iter().map(|partner| (Some(record.1), Some(partner.1))));
        }
        let stands_alone = match kind {
            JoinKind::Inner => false,
            JoinKind::Left => record.0,
            JoinKind::Right => !record.0,
            JoinKind::Full => true,
        };
        if partners.is_empty() && stands_alone {
            rows.push(if record.0 { (Some(record.1), None) } else { (None, Some(record.1)) });
        }
    }
    rows.sort();
    rows
}

#[test]
fn acceptance_ds_28_interval_join() {
    let bounds = IntervalBounds { lower_ms: -10_000, upper_ms: 30_000 };
    let join = |bounds| IntervalJoin::new(bounds, None, None, PairMap(|_: &Item, right: &Item| *right));
    // In either order, with the watermark as far as it may be.
    for left_first in [true, false] {
        let mut subtasks = Subtasks::new(join(bounds), Store::Memory, 1);
        let rights = [(1, 89_999), (2, 90_000), (3, 100_000), (4, 130_000), (5, 130_001)];
        let mut found: Vec<((u8, u32), Option<Timestamp>)> = Vec::new();
        let mut push = |subtasks: &mut Subtasks<_, Item>, input, at| {
            found.extend(subtasks.push(input, at).output_batch().drain_with_timestamps());
        };
        if left_first {
            push(&mut subtasks, Either::First((7, 0)), 100_000);
        }
        for (number, at) in rights {
            push(&mut subtasks, Either::Second((7, number)), at);
            subtasks.watermark(if left_first { at - 1 } else { at.min(99_999) });
        }
        if !left_first {
            push(&mut subtasks, Either::First((7, 0)), 100_000);
        }
        let expected = [((7, 2), Some(100_000)), ((7, 3), Some(100_000)), ((7, 4), Some(130_000))];
        assert_eq!(found, expected);
    }
}

#[test]
fn an_interval_join_needs_timestamps() {
    let bounds = IntervalBounds { lower_ms: 0, upper_ms: 0 };
    let join = IntervalJoin::new(bounds, None, None, PairMap(|left: &Item, _: &Item| *left));
    let factory = operators::keyed_process(key, Co(join));
    let mut harness = OperatorHarness::<Input, Item>::open(factory.as_ref(), Setup::default()).unwrap();
    let failure = harness.push(vec![Either::First((1, 1))]).unwrap_err();
    assert!(failure.message.contains("give its source timestamps and watermarks"), "{failure}");
}

#[test]
fn an_inner_join_emits_pairs() {
    let retained = StateTtl::new(Duration::from_secs(1));
    let mut subtasks = Subtasks::new(RegularJoin::<Item, Item, _>::inner(retained), Store::Memory, 2);
    assert_eq!(subtasks.push(Either::First((1, 1)), 0).output(), []);
    assert_eq!(subtasks.push(Either::First((1, 2)), 0).output(), []);
    assert_eq!(subtasks.push(Either::Second((1, 3)), 0).output(), [((1, 1), (1, 3)), ((1, 2), (1, 3))]);
    assert_eq!(subtasks.push(Either::Second((2, 4)), 0).output(), []);
}
