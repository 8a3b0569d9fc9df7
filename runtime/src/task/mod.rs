//! Tasks: one subtask of a vertex, turn by turn on the thread of its slot.
//!
//! On a record's way this is what moves it: a turn reads a batch from the head and runs it through the chain, again and again.
//! `core` decides what comes next, `mailbox` brings the control mail, `panics` turns a panic of user code into a failure,
//! `upload` writes snapshots while the task goes on, `files` those files of them that are shared, `copies` keeps copies of both on this
//! machine, `savepoint` writes parts of savepoints, `counters` tells how far it is, `times` how it spends its time.
//!
//! Invariants: everything the worker learns comes as a [`Report`], in order; a task that has failed closes its channels
//! only when it is cancelled, so that the failure which is reported first is the cause of all others; only user code and
//! a worker that is slow to read reports keep a turn from its end: what a task waits for, it waits for between its turns.

pub(crate) mod copies;
pub(crate) mod core;
pub(crate) mod counters;
pub(crate) mod files;
pub(crate) mod mailbox;
pub(crate) mod panics;
pub(crate) mod savepoint;
pub(crate) mod times;
pub(crate) mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_common::clock::{Deadline, SharedClock, Stopwatch, deadline_in};
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, SubtaskId};
use thalweg_common::limits::CONSEQUENCE_GRACE_MS;
use thalweg_common::status::TaskStatus;
use tokio::sync::mpsc;

use self::core::{Step, TaskCore};
use self::counters::Counters;
use self::mailbox::{Inbox, Mail};
use crate::chain::{self, ChainParts};
use crate::event::{Aligned, Barrier};
use crate::in_flight::Recorded;
use crate::program::{Head, NodeCode, Program};
use crate::snapshot::{SnapshotBuilder, TaskSnapshot};
use crate::stores::{Draining, FrozenStore};
use crate::time::inquiry::{Inquiry, TaskTime};

/// How long a task whose neighbour is gone waits for the cause to be reported by others.
pub(crate) const CONSEQUENCE_GRACE: Duration = Duration::from_millis(CONSEQUENCE_GRACE_MS);

/// What a task tells its worker.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) attempt: Attempt,
    pub(crate) subtask: SubtaskId,
    pub(crate) news: News,
}

/// What is new about a task.
#[derive(Debug, PartialEq)]
pub(crate) enum News {
    /// It is in another state.
    Status(TaskStatus),
    /// It has failed, and waits with open channels to be cancelled.
    Failed(Failure),
    /// It has taken its snapshot.
    Snapshot(TakenSnapshot),
    /// How it keeps time, as it was asked.
    Time(TaskTime),
    /// It has ended; nothing of it is left and nothing more is reported.
    Gone,
}

/// A snapshot that is taken and not yet stored.
#[derive(Debug, PartialEq)]
pub(crate) struct TakenSnapshot {
    pub(crate) barrier: Barrier,
    pub(crate) snapshot: TaskSnapshot,
    /// What is yet to be written, of operators whose state is on disk.
    pub(crate) frozen: Vec<FrozenStore>,
    /// What will have been recorded of records on their way, if the barrier overtakes any.
    pub(crate) in_flight: Option<Recorded>,
    /// From the trigger at the job manager to the barrier's first arrival: by two clocks, so never exact.
    pub(crate) start_delay: Duration,
    /// What waiting for the barrier's last arrival took.
    pub(crate) alignment: Aligned,
    /// While the task stood still.
    pub(crate) sync: Duration,
}

/// A task, from its deployment to its end.
pub(crate) struct Task {
    inbox: Inbox,
    reporter: Reporter,
    program: Arc<Program>,
    parts: ChainParts,
    stage: Stage,
}

/// How far a task is.
enum Stage {
    /// Its chain is not built yet; what it restores.
    Deployed(Vec<Bytes>),
    Running(Running),
    /// Its neighbour is gone: it waits until then to be cancelled, as the cause is reported by others.
    Bereft {
        failure: Failure,
        deadline: Deadline,
        chain: Option<Running>,
    },
    /// It has failed, and waits to be cancelled.
    Failed {
        /// Kept for its channels, which stay open.
        _chain: Option<Running>,
    },
}

/// A chain that runs.
struct Running {
    core: TaskCore,
    head: Box<dyn Head>,
    /// How far frozen epochs are, and when an operator wants to be flushed.
    draining: Draining,
    /// What somebody wants to know of its time.
    inquiry: Inquiry,
    /// Whether the final checkpoint has completed: what is left is to commit.
    is_complete: bool,
    /// How many subtasks the vertex has.
    parallelism: u32,
    /// When a barrier overtakes that an output holds.
    held: Option<Deadline>,
}

/// How a turn has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The task can go on at once.
    Ready,
    /// It can go on when it is woken or this time has passed.
    Parked {
        /// For what it waits.
        wait: Wait,
        /// The longest time to wait.
        timeout: Option<Duration>,
    },
    /// It has nothing more to do: [`Task::end`] is called next.
    Done(TaskStatus),
}

/// What a parked task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Something to read.
    Input,
    /// Room in an output.
    Room,
}

/// Sends a task's reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) attempt: Attempt,
    pub(crate) subtask: SubtaskId,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl Reporter {
    /// Reports from the slot's thread. Waits while the worker has many reports to read; it always reads on.
    fn report(&self, news: News) {
        let report = Report { attempt: self.attempt, subtask: self.subtask, news };
        // A worker that reads no more is gone, and its tasks were cancelled.
        let _ = self.reports.blocking_send(report);
    }

    /// Reports in the task's name from where it is deployed and awaited.
    pub(crate) async fn report_async(&self, news: News) {
        let report = Report { attempt: self.attempt, subtask: self.subtask, news };
        let _ = self.reports.send(report).await;
    }
}

impl Task {
    /// A task that has not begun yet.
    pub(crate) fn new(
        inbox: Inbox,
        reporter: Reporter,
        program: Arc<Program>,
        parts: ChainParts,
        restored: Vec<Bytes>,
    ) -> Self {
        Self { inbox, reporter, program, parts, stage: Stage::Deployed(restored) }
    }

    /// Counts what the task does.
    pub(crate) fn counters(&self) -> &Counters {
        &self.parts.counters
    }

    /// Does what there is to do for about one batch.
    pub(crate) fn turn(&mut self) -> Turn {
        if self.inbox.is_cancelled() {
            // A failure was reported; one that was not is a consequence of this.
            let has_failed = matches!(self.stage, Stage::Failed { .. });
            return Turn::Done(if has_failed { TaskStatus::Failed } else { TaskStatus::Canceled });
        }
        let Self { inbox, reporter, program, parts, stage } = self;
        let outcome = match stage {
            Stage::Deployed(restored) => {
                let started = panics::guard(|| Running::start(reporter, program, parts, restored));
                started.map(|running| {
                    *stage = Stage::Running(running);
                    Turn::Ready
                })
            }
            Stage::Running(running) => panics::guard(|| running.turn(inbox, reporter, &parts.clock)),
            Stage::Bereft { failure, deadline, chain } => {
                inbox.discard();
                let left = deadline.remaining();
                if left.is_zero() {
                    let (failure, chain) = (failure.clone(), chain.take());
                    return self.fail(failure, chain);
                }
                Ok(Turn::Parked { wait: Wait::Input, timeout: Some(left) })
            }
            Stage::Failed { .. } => {
                inbox.discard();
                Ok(Turn::Parked { wait: Wait::Input, timeout: None })
            }
        };
        match outcome {
            Ok(turn) => turn,
            // What goes wrong once the attempt is being cancelled is a consequence of that.
            Err(_) if self.inbox.is_cancelled() => Turn::Done(TaskStatus::Canceled),
            Err(failure) => self.go_wrong(failure),
        }
    }

    /// Drops everything, and reports how the task has ended.
    pub(crate) fn end(self, status: TaskStatus) {
        let Self { reporter, parts, stage, .. } = self;
        // The destructors of user code may panic, when there is nothing left that could suffer from it.
        let _ = panics::guard(move || {
            drop((stage, parts));
            Ok(())
        });
        // That it has failed was reported when it happened.
        if status != TaskStatus::Failed {
            reporter.report(News::Status(status));
        }
    }

    fn go_wrong(&mut self, failure: Failure) -> Turn {
        let chain = match std::mem::replace(&mut self.stage, Stage::Failed { _chain: None }) {
            Stage::Running(running) => Some(running),
            _ => None,
        };
        if !failure.is_consequence {
            return self.fail(failure, chain);
        }
        let deadline = deadline_in(&self.parts.clock, CONSEQUENCE_GRACE);
        self.stage = Stage::Bereft { failure, deadline, chain };
        Turn::Parked { wait: Wait::Input, timeout: Some(CONSEQUENCE_GRACE) }
    }

    fn fail(&mut self, failure: Failure, chain: Option<Running>) -> Turn {
        self.stage = Stage::Failed { _chain: chain };
        self.reporter.report(News::Failed(failure));
        Turn::Parked { wait: Wait::Input, timeout: None }
    }
}

impl Running {
    /// Decodes what the task restores and builds its chain.
    fn start(
        reporter: &Reporter,
        program: &Program,
        parts: &mut ChainParts,
        restored: &[Bytes],
    ) -> Result<Self, Failure> {
        reporter.report(News::Status(TaskStatus::Initializing));
        parts.restored.extend(upload::decode(restored)?);
        let overtakes = program.graph.checkpointing.overtakes_after().is_some();
        let core = TaskCore::new(role(program, parts.subtask), overtakes);
        let head = chain::build(program, parts)?;
        let vertex = program.graph.vertices.get(parts.subtask.vertex as usize);
        let parallelism = vertex.map_or(1, |vertex| vertex.parallelism);
        reporter.report(News::Status(TaskStatus::Running));
        Ok(Self {
            core,
            head,
            draining: parts.stores.draining(),
            inquiry: parts.counters.inquiry(),
            is_complete: false,
            parallelism,
            held: None,
        })
    }

    /// Follows the core until it has read a batch and wants to read another one, or until there is nothing to do.
    fn turn(&mut self, inbox: &mut Inbox, reporter: &Reporter, clock: &SharedClock) -> Result<Turn, Failure> {
        let is_due = self.draining.alarm().is_some_and(|time| time <= clock.monotonic());
        if self.is_complete {
            if is_due {
                self.draining.begin();
                self.head.flush(false)?;
            }
            return Ok(self.end_unless_held(clock));
        }
        if is_due {
            // An operator has waited for a time: it goes on when it is flushed.
            self.core.called();
        }
        let Self { core, head, draining, inquiry, parallelism, held, .. } = self;
        let mut has_polled = false;
        loop {
            if inbox.is_cancelled() {
                return Ok(Turn::Ready);
            }
            let mail = inbox.next();
            if let Some(Mail::TellTime { request_id }) = mail {
                inquiry.ask(request_id);
            }
            match core.next(mail) {
                // The core wants the same again when its turn comes.
                Step::Poll if has_polled => return Ok(Turn::Ready),
                Step::Poll => {
                    has_polled = true;
                    core.polled(head.poll()?);
                }
                Step::Flush { partial } => {
                    draining.begin();
                    let flushed = head.flush(partial)?;
                    core.flushed(flushed, draining.left());
                    if let Some(told) = inquiry.answer() {
                        reporter.report(News::Time(told));
                    }
                }
                Step::Park(timeout) => return Ok(parked(Wait::Input, timeout, draining, clock)),
                Step::Look => core.looked(head.look()?),
                Step::AwaitRoom(longest) => {
                    let timeout = until(held, longest);
                    return Ok(parked(Wait::Room, timeout, draining, clock));
                }
                Step::Snapshot { barrier, alignment } => {
                    let builder = SnapshotBuilder::of(*parallelism);
                    let (taken, held_for) = taken(head.as_mut(), barrier, alignment, builder, clock)?;
                    *held = held_for.map(|time| deadline_in(clock, time));
                    reporter.report(News::Snapshot(taken));
                }
                Step::Finish => head.finish()?,
                Step::ReportDrained => reporter.report(News::Status(TaskStatus::Drained)),
                Step::Complete { checkpoint, ends } => {
                    head.completed(checkpoint)?;
                    if ends {
                        self.is_complete = true;
                        return Ok(self.end_unless_held(clock));
                    }
                }
                Step::Abort { checkpoint } => head.aborted(checkpoint)?,
                Step::Fail(failure) => return Err(failure),
            }
        }
    }
}

impl Running {
    /// The task ends when no commit is left that is to be repeated, and nothing that a sink writes is on its way. Whatever else waits for a time (timers, watermarks) is over: a job
    /// that goes on from the savepoint has it.
    fn end_unless_held(&self, clock: &SharedClock) -> Turn {
        match self.draining.is_held() {
            true => parked(Wait::Input, None, &self.draining, clock),
            false => Turn::Done(TaskStatus::Finished),
        }
    }
}

/// Takes the snapshot of a chain; and for how long its barrier is held before it overtakes, if it is.
fn taken(
    head: &mut dyn Head,
    barrier: Barrier,
    alignment: Aligned,
    mut builder: SnapshotBuilder,
    clock: &SharedClock,
) -> Result<(TakenSnapshot, Option<Duration>), Failure> {
    let stopwatch = Stopwatch::start(clock);
    let since_trigger_ms = clock.now_ms().saturating_sub(barrier.timestamp_ms);
    let since_trigger = Duration::from_millis(u64::try_from(since_trigger_ms).unwrap_or(0));
    let start_delay = since_trigger.saturating_sub(alignment.duration);
    head.snapshot(barrier, &mut builder)?;
    let held_for = builder.held_for();
    let (frozen, in_flight) = (builder.take_frozen(), builder.take_recorded());
    let (snapshot, sync) = (builder.build(), stopwatch.elapsed());
    let taken = TakenSnapshot { barrier, snapshot, frozen, in_flight, start_delay, alignment, sync };
    Ok((taken, held_for))
}

/// Sleeps, but no longer than until an operator wants to be flushed.
fn parked(wait: Wait, timeout: Option<Duration>, draining: &Draining, clock: &SharedClock) -> Turn {
    let alarm = draining.alarm().map(|time| time.saturating_sub(clock.monotonic()));
    let timeout = match (timeout, alarm) {
        (Some(timeout), Some(alarm)) => Some(timeout.min(alarm)),
        (timeout, alarm) => timeout.or(alarm),
    };
    Turn::Parked { wait, timeout }
}

/// How long to wait for room at the most: a barrier that is held overtakes in time.
fn until(held: &mut Option<Deadline>, longest: Option<Duration>) -> Option<Duration> {
    let left = held.as_ref().map(Deadline::remaining);
    // Once its time has come, the next flush lets it go.
    held.take_if(|held| held.is_over());
    [left, longest].into_iter().flatten().min()
}

/// What a task has to do with the input of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has a source and no input of its own: checkpoints are triggered there.
    Source,
    /// It reads splits that an enumerator assigns: barriers come from there.
    Reader,
    /// It reads what other tasks send.
    Inner,
}

impl Role {
    /// Whether the task can be told to read no more of what is outside.
    pub(crate) fn reads_outside(self) -> bool {
        self != Self::Inner
    }
}

/// The role of a subtask.
pub(crate) fn role(program: &Program, subtask: SubtaskId) -> Role {
    let vertex = program.graph.vertices.get(subtask.vertex as usize);
    let head = vertex.and_then(|vertex| vertex.operators.first());
    let node = head.and_then(|head| program.nodes.get(head.node as usize));
    match node.map(|node| &node.code) {
        Some(NodeCode::Source(_)) if program.graph.is_source(subtask.vertex) => Role::Source,
        Some(NodeCode::Source(_)) => Role::Reader,
        _ => Role::Inner,
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
