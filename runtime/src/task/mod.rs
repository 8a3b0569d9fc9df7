//! Tasks: one subtask of a vertex, on a thread of its own.
//!
//! On a record's way this is what moves it: the loop reads a batch from the head and runs it through the chain, again and again.
//! `core` decides what comes next, `mailbox` brings the control mail, `panics` turns a panic of user code into a failure,
//! `upload` writes snapshots while the task goes on, `counters` tells how far it is, `times` how it spends its time.
//!
//! Invariants: everything the worker learns comes as a [`Report`], in order; a task that has failed closes its channels
//! only when it is cancelled, so that the failure which is reported first is the cause of all others.

pub(crate) mod core;
pub(crate) mod counters;
pub(crate) mod mailbox;
pub(crate) mod panics;
pub(crate) mod times;
pub(crate) mod upload;

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
use self::mailbox::Inbox;
use self::times::{Activity, Timesheet};
use crate::chain::{self, ChainParts};
use crate::event::Barrier;
use crate::exchange::TaskParker;
use crate::link::Flushed;
use crate::program::{Head, NodeCode, Program};
use crate::snapshot::{SnapshotBuilder, TaskSnapshot};

/// A task sleeps no longer than this without a look around. Nothing depends on it: whatever concerns a task wakes it.
const LONGEST_PARK: Duration = Duration::from_secs(60);

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
    /// Its thread has ended; nothing of it is left and nothing more is reported.
    Gone,
}

/// A snapshot that is taken and not yet stored.
#[derive(Debug, PartialEq)]
pub(crate) struct TakenSnapshot {
    pub(crate) barrier: Barrier,
    pub(crate) snapshot: TaskSnapshot,
    /// From the barrier's first arrival to its last.
    pub(crate) alignment: Duration,
    /// While the task stood still.
    pub(crate) sync: Duration,
}

/// Everything a task thread owns beside its chain.
pub(crate) struct Task {
    pub(crate) inbox: Inbox,
    pub(crate) parker: TaskParker,
    pub(crate) clock: SharedClock,
    pub(crate) reporter: Reporter,
}

/// Sends a task's reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) attempt: Attempt,
    pub(crate) subtask: SubtaskId,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl Reporter {
    /// Reports from the task's thread. Waits while the worker has many reports to read; it always reads on.
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

/// How a task ended, unless it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Canceled,
}

impl Task {
    /// The whole life of a task: decodes what it restores, builds its chain, drives it, and reports how it ended. Runs on the
    /// task's thread.
    pub(crate) fn run(mut self, program: &Program, mut parts: ChainParts, restored: &[Bytes]) {
        let mut head = None;
        let outcome = panics::guard(|| {
            self.reporter.report(News::Status(TaskStatus::Initializing));
            parts.restored = upload::decode(restored)?;
            let is_source = is_source(program, parts.subtask);
            let head = head.insert(chain::build(program, &mut parts)?);
            self.reporter.report(News::Status(TaskStatus::Running));
            self.drive(is_source, &parts.counters, head.as_mut())
        });
        let status = match outcome {
            // What goes wrong once the attempt is being cancelled is a consequence of that.
            _ if self.inbox.is_cancelled() => TaskStatus::Canceled,
            Ok(End::Finished) => TaskStatus::Finished,
            Ok(End::Canceled) => TaskStatus::Canceled,
            Err(failure) if failure.is_consequence && self.await_cancellation(Some(CONSEQUENCE_GRACE)) => {
                TaskStatus::Canceled
            }
            Err(failure) => {
                self.reporter.report(News::Failed(failure));
                self.await_cancellation(None);
                TaskStatus::Failed
            }
        };
        // The destructors of user code may panic as well, when there is nothing left that could suffer from it.
        let _ = panics::guard(move || {
            drop((head, parts));
            Ok(())
        });
        if status != TaskStatus::Failed {
            self.reporter.report(News::Status(status));
        }
    }

    fn drive(&mut self, is_source: bool, counters: &Counters, head: &mut dyn Head) -> Result<End, Failure> {
        let mut core = TaskCore::new(is_source);
        let mut timesheet = Timesheet::start(counters, &self.clock);
        let mut waits = Activity::Idle;
        loop {
            if self.inbox.is_cancelled() {
                return Ok(End::Canceled);
            }
            match core.next(self.inbox.next()) {
                Step::Poll => core.polled(head.poll()?),
                Step::Flush { partial } => {
                    let flushed = head.flush(partial)?;
                    // It parks only behind a flush, and for what that flush has met.
                    waits =
                        if flushed == Flushed::Blocked { Activity::BackPressured } else { Activity::Idle };
                    core.flushed(flushed);
                }
                Step::Park(timeout) => {
                    timesheet.enter(waits);
                    self.parker.park(timeout.map_or(LONGEST_PARK, |timeout| timeout.min(LONGEST_PARK)));
                    timesheet.enter(Activity::Busy);
                }
                Step::Snapshot { barrier, alignment } => self.snapshot(head, barrier, alignment)?,
                Step::Finish => head.finish()?,
                Step::ReportDrained => self.reporter.report(News::Status(TaskStatus::Drained)),
                Step::Complete { checkpoint, ends } => {
                    head.completed(checkpoint)?;
                    if ends {
                        return Ok(End::Finished);
                    }
                }
                Step::Abort { checkpoint } => head.aborted(checkpoint)?,
                Step::Fail(failure) => return Err(failure),
            }
        }
    }

    fn snapshot(&self, head: &mut dyn Head, barrier: Barrier, alignment: Duration) -> Result<(), Failure> {
        let stopwatch = Stopwatch::start(&self.clock);
        let mut builder = SnapshotBuilder::default();
        head.snapshot(barrier, &mut builder)?;
        let taken =
            TakenSnapshot { barrier, snapshot: builder.build(), alignment, sync: stopwatch.elapsed() };
        self.reporter.report(News::Snapshot(taken));
        Ok(())
    }

    /// Waits to be cancelled, as long as is given; says whether that came.
    fn await_cancellation(&mut self, within: Option<Duration>) -> bool {
        let deadline = within.map(|within| deadline_in(&self.clock, within));
        while !self.inbox.is_cancelled() {
            let left = deadline.as_ref().map_or(LONGEST_PARK, Deadline::remaining);
            if left.is_zero() {
                return false;
            }
            while self.inbox.next().is_some() {}
            self.parker.park(left.min(LONGEST_PARK));
        }
        true
    }
}

/// Whether checkpoints are triggered at the subtask.
pub(crate) fn is_source(program: &Program, subtask: SubtaskId) -> bool {
    let vertex = program.graph.vertices.get(subtask.vertex as usize);
    let head = vertex.and_then(|vertex| vertex.operators.first());
    let node = head.and_then(|head| program.nodes.get(head.node as usize));
    matches!(node.map(|node| &node.code), Some(NodeCode::Source(_)))
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
