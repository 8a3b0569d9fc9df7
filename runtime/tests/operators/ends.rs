//! Sources and sinks without a runtime: what they read, write, snapshot, restore and commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::BATCH_RECORDS;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Sink, SinkContext, Source, SourceContext, SourceStatus};
use thalweg_runtime::operators::{self, Collected, CollectionSource, GeneratorSource, PrintSink};
use thalweg_runtime::program::{Polled, SourceFactory};
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup, SourceHarness};

fn open<T: Record>(factory: &Arc<dyn SourceFactory>, setup: Setup) -> SourceHarness<T> {
    SourceHarness::open(factory.as_ref(), setup).unwrap()
}

#[test]
fn a_collection_is_split_among_subtasks_and_read_once() {
    let total = 2 * BATCH_RECORDS as u64 + 5;
    let source = operators::source(CollectionSource::new(0..total));
    let mut all = Vec::new();
    for subtask in 0..3 {
        let mut harness = open::<u64>(&source, Setup::default().subtask(subtask, 3));
        assert_eq!(harness.poll_all(), Ok(Polled::EndOfInput));
        let records = harness.output();
        assert!(records.is_sorted());
        all.extend(records);
    }
    all.sort_unstable();
    assert_eq!(all, (0..total).collect::<Vec<_>>());
}

#[test]
fn a_restored_source_goes_on_behind_its_snapshot_also_at_its_end() {
    let sources = [
        operators::source(CollectionSource::new(0..3_000_u64)),
        operators::source(GeneratorSource::new(|n| n).count(3_000)),
    ];
    for source in sources {
        let setup = Setup::default().subtask(1, 2);
        let mut harness = open::<u64>(&source, setup.clone());
        assert_eq!(harness.poll(), Ok(Polled::Progress));
        let snapshot = harness.barrier(1).unwrap();
        assert_eq!(harness.output().len(), BATCH_RECORDS);
        assert_eq!(harness.poll_all(), Ok(Polled::EndOfInput));
        let rest = harness.output();
        let at_end = harness.barrier(2).unwrap();

        let mut restored = open::<u64>(&source, setup.clone().restoring(snapshot));
        assert_eq!(restored.poll_all(), Ok(Polled::EndOfInput));
        assert_eq!(restored.output(), rest);

        let mut restored = open::<u64>(&source, setup.clone().restoring(at_end.clone()));
        assert_eq!(restored.poll(), Ok(Polled::EndOfInput));
        assert!(restored.output().is_empty());

        let half = Setup::default().restoring(at_end);
        let failure = SourceHarness::<u64>::open(source.as_ref(), half).err().unwrap();
        assert!(failure.message.contains("not from all subtasks"), "{failure}");
    }
}

#[test]
fn a_source_with_splits_goes_on_with_any_parallelism_and_reads_each_record_once() {
    let total = 40_000_u64;
    let sources = [
        operators::source(CollectionSource::new(0..total)),
        operators::source(GeneratorSource::new(|n| n).count(total)),
    ];
    for source in sources {
        let (mut all, mut snapshots) = (Vec::new(), Vec::new());
        for (checkpoint, parallelism) in [2, 3, 1, 8, 5].into_iter().enumerate() {
            let restored = std::mem::take(&mut snapshots);
            for subtask in 0..parallelism {
                let mut setup = Setup::default().subtask(subtask, parallelism);
                setup.restored.clone_from(&restored);
                let mut harness = open::<u64>(&source, setup);
                // Some are faster than others, and some have ended.
                for _ in 0..=subtask {
                    harness.poll().unwrap();
                }
                if parallelism == 5 {
                    assert_eq!(harness.poll_all(), Ok(Polled::EndOfInput));
                }
                snapshots.push(harness.barrier(checkpoint as u64).unwrap());
                all.extend(harness.output());
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..total).collect::<Vec<_>>());
        let mut setup = Setup::default().subtask(1, 2);
        setup.restored = snapshots;
        assert_eq!(
            open::<u64>(&source, setup).poll(),
            Ok(Polled::EndOfInput),
            "behind the end nothing begins anew"
        );
    }
}

#[test]
fn a_source_without_splits_keeps_its_parallelism() {
    let source = operators::source(Greedy);
    let mut snapshot = open::<u64>(&source, Setup::default()).barrier(1).unwrap();
    snapshot.operator_state = vec![b"position".to_vec()];
    let two = Setup::default().restoring(snapshot.clone()).restoring(snapshot);
    let failure = SourceHarness::<u64>::open(source.as_ref(), two).err().unwrap();
    assert!(failure.message.contains("another parallelism"), "{failure}");
}

#[test]
fn empty_inputs_end_at_once() {
    for source in [
        operators::source(CollectionSource::new(Vec::<u64>::new())),
        operators::source(GeneratorSource::new(|n| n).count(0)),
        // Fewer records than subtasks.
        operators::source(CollectionSource::new([7_u64])),
        operators::source(GeneratorSource::new(|n| n).count(1)),
    ] {
        let mut harness = open::<u64>(&source, Setup::default().subtask(1, 4));
        assert_eq!((harness.poll(), harness.output()), (Ok(Polled::EndOfInput), vec![]));
    }
}

#[test]
fn a_generator_keeps_its_rate_over_all_subtasks() {
    let clock = Arc::new(ManualClock::new(0));
    let setup = Setup { clock: clock.clone(), ..Setup::default().subtask(0, 2) };
    let source = operators::source(GeneratorSource::new(|n| n).records_per_second(200.0));
    let mut harness = open::<u64>(&source, setup);
    let mut read = |advance_ms| {
        clock.advance(Duration::from_millis(advance_ms));
        let polled = harness.poll_all().unwrap();
        (harness.output().len(), polled)
    };
    let idle = |ms| Polled::Idle { retry_after: Some(Duration::from_millis(ms)) };
    // 100 a second for this one of two subtasks: one at once, then one each 10 ms.
    assert_eq!(read(0), (1, idle(10)));
    assert_eq!(read(4), (0, idle(6)));
    assert_eq!(read(6), (1, idle(10)));
    assert_eq!(read(95), (9, idle(5)));
    assert_eq!(read(905), (91, idle(10)));
    // What was missed for long is not made up for beyond a second.
    assert_eq!(read(60_000), (100, idle(10)));
    assert_eq!(read(10), (1, idle(10)));
}

#[test]
fn a_fast_generator_wakes_once_a_millisecond() {
    let clock = Arc::new(ManualClock::new(0));
    let setup = Setup { clock: clock.clone(), ..Setup::default() };
    let source = operators::source(GeneratorSource::new(|n| n).records_per_second(1_000_000.0));
    let mut harness = open::<u64>(&source, setup);
    let shortest = Polled::Idle { retry_after: Some(Duration::from_millis(1)) };
    assert_eq!((harness.poll_all(), harness.output().len()), (Ok(shortest), 1));
    clock.advance(Duration::from_millis(1));
    assert_eq!((harness.poll_all(), harness.output().len()), (Ok(shortest), 1_000));
}

#[test]
fn a_rate_that_is_none_is_refused() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let source = operators::source(GeneratorSource::new(|n| n).records_per_second(rate));
        let failure = SourceHarness::<u64>::open(source.as_ref(), Setup::default()).err().unwrap();
        assert!(!failure.retryable && failure.message.contains("no rate"), "{failure}");
    }
}

/// Gives twice as much as it may.
#[derive(Clone)]
struct Greedy;

impl Source for Greedy {
    type Out = u64;

    fn open(&mut self, _: &SourceContext, _: Option<&[u8]>) -> Result<(), Failure> {
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<u64>, max: usize) -> Result<SourceStatus, Failure> {
        out.extend(vec![0; 2 * max]);
        Ok(SourceStatus::Ready)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

#[test]
fn a_source_that_gives_too_much_fails() {
    let mut harness = open::<u64>(&operators::source(Greedy), Setup::default());
    assert!(harness.poll().unwrap_err().message.contains("respect `max`"));
}

fn collecting(collected: &Collected<u64>, setup: Setup) -> OperatorHarness<u64> {
    OperatorHarness::open_sink(operators::sink(collected.sink()).as_ref(), setup).unwrap()
}

#[test]
fn collected_records_appear_with_the_commit() {
    let collected = Collected::default();
    let mut sink = collecting(&collected, Setup::default());
    sink.push(vec![1, 2]).unwrap();
    sink.barrier(1).unwrap();
    sink.push(vec![3]).unwrap();
    assert!(collected.is_empty());
    sink.completed(1).unwrap();
    assert_eq!(collected.take(), [1, 2]);
    sink.completed(1).unwrap();
    assert!(collected.is_empty(), "a repeated commit commits nothing");

    // An aborted checkpoint's records belong to the next one.
    sink.barrier(2).unwrap();
    sink.aborted(2).unwrap();
    sink.push(vec![4]).unwrap();
    sink.barrier(3).unwrap();
    assert!(collected.is_empty());
    sink.completed(3).unwrap();
    assert_eq!(collected.take(), [3, 4]);
}

#[test]
fn recovery_commits_what_was_prepared_and_forgets_the_rest() {
    let collected = Collected::default();
    let mut sink = collecting(&collected, Setup::default().subtask(0, 2));
    let mut other = collecting(&collected, Setup::default().subtask(1, 2));
    sink.push(vec![1]).unwrap();
    let first = sink.barrier(1).unwrap();
    other.push(vec![100]).unwrap();
    other.barrier(1).unwrap();
    sink.push(vec![2]).unwrap();
    sink.barrier(2).unwrap();
    sink.push(vec![3]).unwrap();
    // Checkpoint 1 completed, but this sink failed before it was told.
    let mut restored = collecting(&collected, Setup::default().subtask(0, 2).restoring(first.clone()));
    assert_eq!(collected.take(), [1]);
    restored.push(vec![2, 3]).unwrap();
    restored.barrier(3).unwrap();
    restored.completed(3).unwrap();
    assert_eq!(collected.take(), [2, 3]);
    // Told twice.
    collecting(&collected, Setup::default().subtask(0, 2).restoring(first));
    assert!(collected.is_empty());
    other.completed(1).unwrap();
    assert_eq!(collected.take(), [100], "other subtasks are left alone");
}

#[test]
fn a_start_from_nothing_forgets_what_failed_before_the_first_checkpoint() {
    let collected = Collected::default();
    let mut sink = collecting(&collected, Setup::default());
    sink.push(vec![1]).unwrap();
    sink.barrier(1).unwrap();
    let mut again = collecting(&collected, Setup::default());
    again.push(vec![1]).unwrap();
    again.barrier(2).unwrap();
    again.completed(2).unwrap();
    assert_eq!(collected.take(), [1]);
}

#[test]
fn printing_needs_no_checkpoint() {
    let sink = operators::sink(PrintSink::<u64>::display());
    let mut harness = OperatorHarness::<u64>::open_sink(sink.as_ref(), Setup::default()).unwrap();
    harness.push(vec![]).unwrap();
    harness.flush().unwrap();
    assert_eq!(harness.barrier(1).unwrap().parts.unwrap().list, []);
    harness.completed(1).unwrap();
}

/// Commits nothing before it was asked so many times.
#[derive(Clone, Default)]
struct Unwilling {
    commits: Arc<AtomicU64>,
    needed: u64,
}

impl Sink<u64> for Unwilling {
    type Committable = CheckpointId;

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<u64>) -> Result<(), Failure> {
        batch.clear();
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<CheckpointId>, Failure> {
        Ok(vec![checkpoint])
    }

    fn commit(&mut self, _: &[CheckpointId]) -> Result<(), Failure> {
        let asked = 1 + self.commits.fetch_add(1, Ordering::Relaxed);
        if asked < self.needed { Err(Failure::external("not yet")) } else { Ok(()) }
    }
}

#[test]
fn a_commit_that_failed_is_repeated_by_a_later_flush_and_part_of_snapshots_until_then() {
    let (clock, sink) = (Arc::new(ManualClock::new(0)), Unwilling { needed: 3, ..Unwilling::default() });
    let asked = || sink.commits.load(Ordering::Relaxed);
    let setup = Setup { clock: clock.clone(), ..Setup::default() };
    let factory = operators::sink::<u64, _>(sink.clone());
    let mut harness = OperatorHarness::<u64>::open_sink(factory.as_ref(), setup).unwrap();
    let prepared = |snapshot: OperatorSnapshot| snapshot.parts.unwrap().list.len();
    assert_eq!(prepared(harness.barrier(1).unwrap()), 1);
    harness.completed(1).unwrap();
    harness.flush().unwrap();
    assert_eq!(asked(), 1, "it waits a while");
    assert_eq!(prepared(harness.barrier(2).unwrap()), 2);
    clock.advance(Duration::from_millis(100));
    harness.flush().unwrap();
    clock.advance(Duration::from_millis(100));
    harness.flush().unwrap();
    assert_eq!(asked(), 2, "the second pause is longer");
    clock.advance(Duration::from_millis(100));
    harness.flush().unwrap();
    assert_eq!((asked(), prepared(harness.barrier(3).unwrap())), (3, 2));
}

#[test]
fn transactions_of_any_parallelism_are_recovered_once() {
    let collected = Collected::default();
    let mut snapshots = Vec::new();
    for subtask in 0..3 {
        let mut sink = collecting(&collected, Setup::default().subtask(subtask, 3));
        sink.push(vec![u64::from(subtask)]).unwrap();
        snapshots.push(sink.barrier(1).unwrap());
        // Of no checkpoint that completes.
        sink.push(vec![100]).unwrap();
        sink.barrier(2).unwrap();
    }
    for subtask in 0..2 {
        let mut setup = Setup::default().subtask(subtask, 2);
        setup.restored.clone_from(&snapshots);
        collecting(&collected, setup);
        assert_eq!(collected.take(), [&[0, 2][..], &[1]][subtask as usize]);
    }
}
