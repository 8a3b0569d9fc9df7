//! Checkpoints of tasks that do not get on: unaligned ones complete, aligned ones wait.

use std::sync::atomic::AtomicBool;

use thalweg_common::Timestamp;
use thalweg_common::clock::Clock;
use thalweg_common::key_group::groups_of;

use super::*;
use crate::event::WatermarkStatus;
use crate::link::Link;
use crate::program::OperatorFactory;
use crate::snapshot::TaskSnapshot;

const RECORDS: u64 = 50_000;

/// The end of a chain: collects what it is given, and behind it there is no room while a test says so. It remembers nothing, so that it
/// may change its parallelism.
#[derive(Clone, Default)]
struct Stuck {
    is_stuck: Arc<AtomicBool>,
    collected: Arc<std::sync::Mutex<Vec<Pair>>>,
}

impl OperatorFactory for Stuck {
    fn build(&self, _: &mut OperatorContext, _: Option<AnyLink>) -> Result<AnyLink, Failure> {
        Ok(AnyLink::new::<Pair>(Box::new(self.clone())))
    }
}

impl Link<Pair> for Stuck {
    fn process(&mut self, batch: &mut Batch<Pair>) -> Result<(), Failure> {
        self.collected.lock().unwrap().extend(batch.drain());
        Ok(())
    }

    fn watermark(&mut self, _timestamp: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    fn watermark_status(&mut self, _status: WatermarkStatus) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn snapshot(&mut self, _: Barrier, _: &mut SnapshotBuilder) -> Result<(), Failure> {
        Ok(())
    }

    fn completed(&mut self, _: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn aborted(&mut self, _: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    fn flush(&mut self, _: bool) -> Result<Flushed, Failure> {
        Ok(if self.is_stuck.load(Ordering::SeqCst) { Flushed::Blocked } else { Flushed::All })
    }
}

/// A job of two sources and so many tasks that add up.
fn job(end: &Stuck, sums: u32, aligned_timeout_ms: Option<u64>) -> Arc<Program> {
    let sum = operators::reduce(|pair: &Pair| pair.0, |a: Pair, b: Pair| (a.0, a.1 + b.1));
    let source = operators::source(CollectionSource::new(pairs(RECORDS)));
    let mut program = program(source, sum, Arc::new(end.clone()), 2);
    program.graph.vertices[SUMS as usize].parallelism = sums;
    program.graph.checkpointing.unaligned = aligned_timeout_ms.is_some();
    program.graph.checkpointing.aligned_timeout_ms = aligned_timeout_ms.unwrap_or_default();
    Arc::new(program)
}

/// A job with two tasks that add up, which runs until nothing goes on, because nobody reads.
async fn stuck(end: &Stuck, aligned_timeout_ms: Option<u64>) -> Running {
    end.is_stuck.store(true, Ordering::SeqCst);
    let mut running = Running::all(&job(end, 2, aligned_timeout_ms), 1, &NOTHING);
    running.all_are(TaskStatus::Running).await;
    let goes_on = || {
        running.counted(SOURCES).any(|counted| counted.output_queue_length == 0)
            || running.counted(SUMS).any(|counted| counted.back_pressured_ns == 0)
    };
    let stuck = async {
        while goes_on() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, stuck).await.expect("the channels are full, and nobody reads");
    running
}

/// Goes on from a checkpoint to the end with another number of tasks that add up: each is given the snapshots of those whose key
/// groups it shares. Every record has been counted once.
async fn goes_on(end: &Stuck, sums: u32, checkpoint: &Checkpoint) {
    end.is_stuck.store(false, Ordering::SeqCst);
    let mut given = Checkpoint::new();
    for (former, snapshots) in checkpoint {
        if former.vertex == SOURCES {
            given.insert(*former, snapshots.clone());
            continue;
        }
        let there = groups_of(former.index, 2, 128);
        for index in 0..sums {
            let groups = groups_of(index, sums, 128);
            if there.start.max(groups.start) < there.end.min(groups.end) {
                let subtask = SubtaskId { vertex: SUMS, index };
                given.entry(subtask).or_default().extend(snapshots.iter().cloned());
            }
        }
    }
    let before = end.collected.lock().unwrap().clone();
    let mut running = Running::all(&job(end, sums, Some(0)), 2, &given);
    running.all_are(TaskStatus::Drained).await;
    running.finish(9).await;
    let records = std::mem::replace(&mut *end.collected.lock().unwrap(), before);
    assert_eq!(
        (records.len() as u64, final_sums(&records)),
        (RECORDS, expected_sums(RECORDS)),
        "{sums} tasks"
    );
}

fn read(running: &Running) -> u64 {
    running.counted(SUMS).map(|counted| counted.records_in).sum()
}

/// How many records are on their way in a checkpoint: to tasks, and kept by them.
fn on_their_way(checkpoint: &Checkpoint) -> (usize, usize) {
    let mut sum = (0, 0);
    for bytes in checkpoint.values().flatten() {
        let TaskSnapshot { in_flight, .. } = codec::from_bytes(bytes).unwrap();
        let records = |batch: &crate::exchange::StoredBatch| batch.decode::<Pair>().unwrap().len();
        sum.0 += in_flight.inputs.values().flatten().map(records).sum::<usize>();
        sum.1 += in_flight.outputs.values().flatten().map(records).sum::<usize>();
    }
    sum
}

#[tokio::test]
async fn an_unaligned_checkpoint_completes_while_nobody_reads() {
    let end = Stuck::default();
    let mut running = stuck(&end, Some(0)).await;
    let before = read(&running);
    let first = running.checkpoint(1, false).await;
    let second = running.checkpoint(2, false).await;
    assert_eq!(read(&running), before, "nothing was read");
    for checkpoint in [&first, &second] {
        let (inputs, outputs) = on_their_way(checkpoint);
        assert!(inputs > 0 && outputs > 0, "{inputs} to tasks, {outputs} kept");
    }
    running.cancel().await;
    for sums in [2, 1, 3, 5] {
        goes_on(&end, sums, &second).await;
    }
}

#[tokio::test]
async fn an_aligned_checkpoint_waits_until_its_timeout() {
    let end = Stuck::default();
    let mut running = stuck(&end, Some(100)).await;
    let timestamp_ms = SystemClock::new().now_ms();
    running.tell(Mail::Trigger(Barrier { id: 1, timestamp_ms, is_final: false, is_savepoint: false }));
    let mut checkpoint = Checkpoint::new();
    while checkpoint.len() < 4 {
        let report = running.report().await;
        let News::Snapshot(mut taken) = report.news else { panic!("{report:?}") };
        if report.subtask.vertex == SUMS {
            assert!(SystemClock::new().now_ms() >= timestamp_ms + 100, "it was aligned before");
        }
        let recorded = taken.in_flight.take().expect("every task has records on their way");
        taken.snapshot.in_flight = recorded.wait().await.unwrap();
        checkpoint.insert(report.subtask, vec![codec::to_bytes(&taken.snapshot).unwrap().into()]);
    }
    let (inputs, outputs) = on_their_way(&checkpoint);
    assert!(inputs > 0 && outputs > 0, "{inputs} to tasks, {outputs} kept");
    running.cancel().await;
    goes_on(&end, 2, &checkpoint).await;
}

#[tokio::test]
async fn an_aligned_checkpoint_waits_for_those_who_read() {
    let end = Stuck::default();
    let mut running = stuck(&end, None).await;
    running.tell(Mail::Trigger(Barrier { id: 1, timestamp_ms: 0, is_final: false, is_savepoint: false }));
    for _ in 0..2 {
        let Report { subtask, news, .. } = running.report().await;
        assert!(matches!(news, News::Snapshot(_)) && subtask.vertex == SOURCES, "{subtask}: {news:?}");
    }
    // The others were told of the barrier by now, or never are.
    running.tell(Mail::Completed { checkpoint: 0, is_final: false });
    assert!(running.reports.try_recv().is_err());
    end.is_stuck.store(false, Ordering::SeqCst);
    running.tasks.values().for_each(|(mailbox, _)| mailbox.wake());
    let mut taken = 0;
    while taken < 2 {
        if let Report { subtask, news: News::Snapshot(_), .. } = running.report().await {
            assert_eq!(subtask.vertex, SUMS);
            taken += 1;
        }
    }
    running.cancel().await;
}
