//! Tasks in one process: real slots with their threads, real channels, and a test in the place of the worker and the job manager.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_common::clock::SystemClock;
use thalweg_common::codec;
use thalweg_common::failure::Fault;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::task_scope::{ErrorPolicy, TaskScope, ThreadHandle};

use super::counters::{Counted, Counters};
use super::mailbox::{Cancellation, Mail, Mailbox, mailbox};
use super::*;
use crate::batch::Batch;
use crate::erased::{AnyReceiver, AnySender};
use crate::exchange::TaskWaker;
use crate::fixtures::{Pair, SOURCES, SUMS, expected_sums, final_sums, pairs, program, sums};
use crate::link::Flushed;
use crate::operator::{Sink, SinkContext, Source, SourceContext, SourceStatus};
use crate::operators::{self, Collected, CollectionReader, CollectionSource, NumberSplit};
use crate::program::{AnyLink, OperatorContext, Polled, SourceFactory};
use crate::slot;
use crate::split::{SourceReader, SplitSource};

const DEADLINE: Duration = Duration::from_secs(30);

/// Reads pairs as far as a test allows, so that the test knows where a checkpoint falls.
#[derive(Clone)]
struct Gated {
    pairs: CollectionSource<Pair>,
    /// How many records each subtask may give in all.
    allowed: Arc<AtomicU64>,
}

impl Gated {
    fn new(count: u64, allowed: u64) -> Self {
        Self { pairs: CollectionSource::new(pairs(count)), allowed: Arc::new(allowed.into()) }
    }
}

impl SplitSource for Gated {
    type Out = Pair;
    type Split = NumberSplit;
    type Reader = GatedReader;

    fn splits(&self, context: &SourceContext) -> Result<Vec<NumberSplit>, Failure> {
        self.pairs.splits(context)
    }

    fn reader(&self, context: &SourceContext) -> Result<GatedReader, Failure> {
        let pairs = self.pairs.reader(context)?;
        Ok(GatedReader { pairs, allowed: Arc::clone(&self.allowed), given: 0 })
    }
}

struct GatedReader {
    pairs: CollectionReader<Pair>,
    allowed: Arc<AtomicU64>,
    given: u64,
}

impl SourceReader for GatedReader {
    type Out = Pair;
    type Split = NumberSplit;

    fn add_splits(&mut self, splits: Vec<NumberSplit>) -> Result<(), Failure> {
        self.pairs.add_splits(splits)
    }

    fn poll(&mut self, out: &mut Batch<Pair>, max: usize) -> Result<SourceStatus, Failure> {
        let left = self.allowed.load(Ordering::SeqCst).saturating_sub(self.given) as usize;
        if left == 0 {
            return Ok(SourceStatus::Idle { retry_after: Duration::from_millis(1) });
        }
        let status = self.pairs.poll(out, max.min(left))?;
        self.given += out.len() as u64;
        Ok(status)
    }

    fn snapshot(&mut self) -> Result<Vec<NumberSplit>, Failure> {
        self.pairs.snapshot()
    }
}

/// The snapshots of all tasks, as bytes; several for a task after a change of parallelism.
type Checkpoint = BTreeMap<SubtaskId, Vec<Bytes>>;

/// What a task is built from, without channels.
fn parts(attempt: Attempt, subtask: SubtaskId, waker: TaskWaker) -> ChainParts {
    ChainParts {
        job_id: JobId(1),
        attempt,
        subtask,
        is_local: true,
        clock: SystemClock::shared(),
        waker,
        runtime: None,
        counters: Counters::default(),
        stores: Default::default(),
        restored: Vec::new(),
        receivers: Vec::new(),
        senders: BTreeMap::new(),
        kept_open: Vec::new(),
    }
}

/// The tasks of a program.
struct Running {
    tasks: BTreeMap<SubtaskId, (Mailbox, Counters)>,
    /// One for each slot.
    threads: Vec<ThreadHandle>,
    reports: mpsc::Receiver<Report>,
    cancellation: Cancellation,
    /// Ends of channels whose task does not run.
    _loose: Vec<(AnySender, AnyReceiver)>,
    _scope: TaskScope,
}

impl Running {
    /// Starts all tasks of a program, or only those of some vertices.
    fn start(program: &Arc<Program>, attempt: Attempt, restored: &Checkpoint, vertices: &[u32]) -> Self {
        let (mut receivers, mut senders) =
            (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, BTreeMap<_, Vec<_>>>::new());
        let mut loose = Vec::new();
        for channel in program.graph.channels(0) {
            let (sender, receiver) = program.edges[0].record_type.operations().local_channel(channel);
            let from = SubtaskId { vertex: SOURCES, index: channel.from };
            let to = SubtaskId { vertex: SUMS, index: channel.to };
            if vertices.contains(&SUMS) {
                receivers.entry(to).or_default().push(receiver);
            } else {
                // Nobody reads it, and nobody closes it.
                loose.push((program.edges[0].record_type.operations().local_channel(channel).0, receiver));
            }
            senders.entry(from).or_default().entry(channel.edge).or_default().push(sender);
        }
        let scope = TaskScope::with_policy("test", ErrorPolicy::LogOnly);
        let (reports_sender, reports) = mpsc::channel(1_024);
        let (cancellation, mut tasks) = (Cancellation::default(), BTreeMap::new());
        let mut slots = BTreeMap::<_, Vec<_>>::new();
        for subtask in program.graph.subtasks().filter(|subtask| vertices.contains(&subtask.vertex)) {
            slots.entry(subtask.index).or_default().push(subtask);
        }
        let (mut threads, mut seats) = (Vec::new(), BTreeMap::new());
        for (index, subtasks) in slots {
            let (slot, taken) = slot::slot(subtasks.len(), SystemClock::shared());
            threads.push(scope.spawn_thread(&format!("slot {index}"), move || slot.run()));
            seats.extend(subtasks.into_iter().zip(taken));
        }
        let subtasks: Vec<SubtaskId> = seats.keys().copied().collect();
        for subtask in subtasks {
            let seat = seats.remove(&subtask).unwrap();
            let (mailbox, inbox) = mailbox(seat.waker(), cancellation.clone());
            let parts = ChainParts {
                receivers: receivers.remove(&subtask).unwrap_or_default(),
                senders: senders.remove(&subtask).unwrap_or_default(),
                ..parts(attempt, subtask, seat.waker())
            };
            let counters = parts.counters.clone();
            let reporter = Reporter { attempt, subtask, reports: reports_sender.clone() };
            let restored: Vec<Bytes> = restored.get(&subtask).cloned().unwrap_or_default();
            drop(seat.take(Task::new(inbox, reporter, Arc::clone(program), parts, restored)));
            tasks.insert(subtask, (mailbox, counters));
        }
        Self { tasks, threads, reports, cancellation, _loose: loose, _scope: scope }
    }

    fn all(program: &Arc<Program>, attempt: Attempt, restored: &Checkpoint) -> Self {
        Self::start(program, attempt, restored, &[SOURCES, SUMS])
    }

    /// The counters of the first subtask of a vertex.
    fn counters(&self, vertex: u32) -> Counters {
        self.tasks[&SubtaskId { vertex, index: 0 }].1.clone()
    }

    async fn report(&mut self) -> Report {
        let report = tokio::time::timeout(DEADLINE, self.reports.recv()).await;
        report.expect("a report within the deadline").expect("tasks report until they end")
    }

    /// Reads reports until every task has reported this status. Failures fail the test.
    async fn all_are(&mut self, status: TaskStatus) {
        let mut missing: Vec<SubtaskId> = self.tasks.keys().copied().collect();
        while !missing.is_empty() {
            match self.report().await {
                Report { subtask, news: News::Status(found), .. } if found == status => {
                    missing.retain(|other| *other != subtask);
                }
                Report { news: News::Status(_), .. } => {}
                report => panic!("{report:?} while waiting for {status}"),
            }
        }
    }

    fn tell(&self, mail: Mail) {
        for (subtask, (mailbox, _)) in &self.tasks {
            if subtask.vertex == SOURCES || !matches!(mail, Mail::Trigger(_)) {
                mailbox.send(mail).unwrap();
            }
        }
    }

    /// Triggers a checkpoint and collects the snapshots of all tasks.
    async fn checkpoint(&mut self, id: CheckpointId, is_final: bool) -> Checkpoint {
        self.tell(Mail::Trigger(Barrier { id, timestamp_ms: 0, is_final, is_savepoint: false }));
        let mut snapshots = BTreeMap::new();
        while snapshots.len() < self.tasks.len() {
            match self.report().await {
                Report { subtask, news: News::Snapshot(mut taken), .. } => {
                    assert_eq!((taken.barrier.id, taken.barrier.is_final), (id, is_final));
                    if let Some(in_flight) = taken.in_flight.take() {
                        taken.snapshot.in_flight = in_flight.wait().await.unwrap();
                    }
                    let bytes = codec::to_bytes(&taken.snapshot).unwrap();
                    assert!(
                        snapshots.insert(subtask, vec![bytes.into()]).is_none(),
                        "{subtask} took two snapshots"
                    );
                }
                Report { news: News::Status(_), .. } => {}
                report => panic!("{report:?} during checkpoint {id}"),
            }
        }
        snapshots
    }

    /// Brings a drained job to its end.
    async fn finish(mut self, id: CheckpointId) {
        self.checkpoint(id, true).await;
        self.tell(Mail::Completed { checkpoint: id, is_final: true });
        self.all_are(TaskStatus::Finished).await;
        self.join().await;
    }

    fn request_cancellation(&self) {
        self.cancellation.cancel();
        self.tasks.values().for_each(|(mailbox, _)| mailbox.wake());
    }

    async fn cancel(mut self) {
        self.request_cancellation();
        self.all_are(TaskStatus::Canceled).await;
        self.join().await;
    }

    async fn join(self) {
        for thread in &self.threads {
            tokio::time::timeout(DEADLINE, thread.join()).await.expect("threads end").unwrap();
        }
    }

    /// Waits until the sources have given this many records in all and everything has been counted.
    async fn records_in(&self, vertex: u32, wanted: u64) {
        let wait = async {
            let read = || self.counted(vertex).map(|counted| counted.records_in).sum::<u64>();
            while read() < wanted {
                tokio::task::yield_now().await;
            }
            assert_eq!(read(), wanted);
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the records arrive");
    }

    fn counted(&self, vertex: u32) -> impl Iterator<Item = Counted> {
        self.tasks
            .iter()
            .filter(move |(subtask, _)| subtask.vertex == vertex)
            .map(|(_, (_, counters))| counters.read())
    }
}

const NOTHING: Checkpoint = Checkpoint::new();

#[tokio::test]
async fn a_bounded_job_drains_and_commits_its_last_output() {
    let collected = Collected::default();
    let program = Arc::new(sums(CollectionSource::new(pairs(5_000)), 2, &collected));
    let mut running = Running::all(&program, 1, &NOTHING);
    running.all_are(TaskStatus::Drained).await;
    assert!(collected.is_empty(), "nothing is visible before the final checkpoint");
    running.records_in(SUMS, 5_000).await;
    assert_eq!(running.counted(SOURCES).map(|counted| counted.records_out).sum::<u64>(), 5_000);
    assert!(running.counted(SUMS).map(|counted| counted.state_bytes).sum::<u64>() >= 10 * 16);
    running.finish(1).await;
    let records = collected.take();
    assert_eq!((records.len(), final_sums(&records)), (5_000, expected_sums(5_000)));
}

#[tokio::test]
async fn every_record_counts_once_over_a_restart() {
    for restart_at in [0, 1, 700, 2_500] {
        let collected = Collected::default();
        let source = Gated::new(5_000, restart_at);
        let allowed = Arc::clone(&source.allowed);
        let program = Arc::new(sums(source, 2, &collected));

        let mut running = Running::all(&program, 1, &NOTHING);
        running.all_are(TaskStatus::Running).await;
        running.records_in(SOURCES, 2 * restart_at).await;
        let checkpoint = running.checkpoint(1, false).await;
        running.tell(Mail::Completed { checkpoint: 1, is_final: false });
        // What follows is lost with the attempt: read, prepared for a checkpoint that is never completed, written.
        allowed.store(restart_at + 800, Ordering::SeqCst);
        running.records_in(SUMS, (2 * restart_at + 1_600).min(5_000)).await;
        running.checkpoint(2, false).await;
        running.tell(Mail::Aborted { checkpoint: 2 });
        running.cancel().await;
        assert_eq!(collected.len() as u64, 2 * restart_at);

        allowed.store(u64::MAX, Ordering::SeqCst);
        let mut running = Running::all(&program, 2, &checkpoint);
        running.all_are(TaskStatus::Drained).await;
        let drained = running.checkpoint(3, false).await;
        running.cancel().await;
        // Restored behind the end of its input it drains at once. Checkpoint 3 counts as completed: it is restored.
        let mut running = Running::all(&program, 3, &drained);
        running.all_are(TaskStatus::Drained).await;
        running.finish(4).await;
        let records = collected.take();
        assert_eq!(
            (records.len(), final_sums(&records)),
            (5_000, expected_sums(5_000)),
            "restart at {restart_at}"
        );
    }
}

#[tokio::test]
async fn a_panic_fails_its_task_alone_until_it_is_cancelled() {
    let collected = Collected::<Pair>::default();
    let bad = operators::reduce(
        |pair: &Pair| pair.0,
        |a: Pair, b: Pair| {
            assert!(b.1 != 1_003, "unlucky number");
            (a.0, a.1 + b.1)
        },
    );
    let source = operators::source(CollectionSource::new(pairs(5_000)));
    let program = Arc::new(program(source, bad, operators::sink(collected.sink()), 2));
    let mut running = Running::all(&program, 1, &NOTHING);
    let failure = loop {
        match running.report().await.news {
            News::Failed(failure) => break failure,
            News::Status(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((failure.fault, failure.retryable), (Fault::User, true));
    assert!(
        failure.message.contains("unlucky number") && failure.message.contains("task_tests.rs"),
        "{failure}"
    );
    assert!(failure.details.contains("task_tests"), "a backtrace that names the user's code: {failure}");
    // Its channels stay open: no other task fails because of it.
    running.request_cancellation();
    let mut canceled = 0;
    while canceled < 3 {
        match running.report().await.news {
            News::Status(TaskStatus::Canceled) => canceled += 1,
            News::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    running.join().await;
}

#[tokio::test]
async fn an_operator_that_does_not_open_is_the_only_failure() {
    let source = operators::source(CollectionSource::new(pairs(1_000_000)));
    let sum = operators::reduce(|pair: &Pair| pair.0, |a: Pair, _| a);
    let program = Arc::new(program(source, sum, operators::sink(CannotOpen), 1));
    let mut running = Running::all(&program, 1, &NOTHING);
    let (failed, failure) = loop {
        if let Report { subtask, news: News::Failed(failure), .. } = running.report().await {
            break (subtask, failure);
        }
    };
    assert_eq!((failed.vertex, failure), (SUMS, Failure::external("sink: no such directory")));
    running.request_cancellation();
    while !matches!(running.report().await.news, News::Status(TaskStatus::Canceled)) {}
    running.join().await;
}

/// A sink without a place to write to.
#[derive(Clone)]
struct CannotOpen;

impl Sink<Pair> for CannotOpen {
    type Committable = ();

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Err(Failure::external("no such directory"))
    }

    fn write(&mut self, _: &mut Batch<Pair>) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test]
async fn a_blocked_task_emits_barriers_and_can_be_cancelled() {
    let program = Arc::new(sums(CollectionSource::new(pairs(1_000_000)), 1, &Collected::default()));
    // Nobody reads what the source sends.
    let mut running = Running::start(&program, 1, &NOTHING, &[SOURCES]);
    running.all_are(TaskStatus::Running).await;
    running.checkpoint(1, false).await;
    running.cancel().await;
}

#[tokio::test]
async fn a_slot_without_a_thread_loses_its_tasks_with_a_word() {
    let program = Arc::new(sums(CollectionSource::new(pairs(1)), 1, &Collected::default()));
    let (slot, mut seats) = slot::slot(1, SystemClock::shared());
    let seat = seats.remove(0);
    let (_mailbox, inbox) = mailbox(seat.waker(), Cancellation::default());
    let (reports, _reports) = mpsc::channel(1);
    let subtask = SubtaskId { vertex: SOURCES, index: 0 };
    let reporter = Reporter { attempt: 1, subtask, reports };
    let parts = parts(1, subtask, seat.waker());
    drop(slot);
    let ended = seat.take(Task::new(inbox, reporter, program, parts, Vec::new()));
    ended.await.expect_err("nobody has run the task");
}

#[path = "turn_tests.rs"]
mod turns;
#[path = "unaligned_tests.rs"]
mod unaligned;
