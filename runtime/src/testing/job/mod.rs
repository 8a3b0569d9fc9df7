//! A whole job in the calling thread, turn by turn, on a clock that is moved by hand.
//!
//! Everything is what a worker runs (chains, edges, gates, tasks in their slots, control mail, snapshots and their encoding); only what is
//! around them is missing: threads, network and job manager. Its tasks keep their state in memory. Invariants: between two calls
//! all tasks rest, because nothing is left to do before time passes or records come; the same calls always give the same order.

mod deploy;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_common::Timestamp;
use thalweg_common::clock::{Clock, ManualClock};
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::graph::Operator;
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId};
use thalweg_common::limits::MANUAL_JOB_TURNS;
use thalweg_common::status::TaskStatus;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use self::snapshot::JobSnapshot;
use crate::event::Barrier;
use crate::program::Program;
use crate::slot::{Slot, Step};
use crate::snapshot::TaskSnapshot;
use crate::task::counters::Counters;
use crate::task::mailbox::{Mail, Mailbox};
use crate::task::{News, Report, Role};

/// A job whose tasks have their turns in the calling thread.
pub struct ManualJob {
    program: Arc<Program>,
    clock: Arc<ManualClock>,
    slots: Vec<Slot>,
    tasks: BTreeMap<SubtaskId, Held>,
    reports: mpsc::Receiver<Report>,
    /// Of the checkpoint that is under way.
    taken: BTreeMap<SubtaskId, TaskSnapshot>,
    next_checkpoint: CheckpointId,
    attempt: Attempt,
    /// The final checkpoint was taken.
    is_over: bool,
    failure: Option<Failure>,
}

/// What is outside of a task.
struct Held {
    mailbox: Mailbox,
    counters: Counters,
    role: Role,
    status: TaskStatus,
}

impl ManualJob {
    /// Deploys a job at `now_ms`, in milliseconds since the epoch, perhaps from a snapshot, and lets it run until it rests. Its barriers
    /// are aligned and its state is in memory, whatever the program says.
    ///
    /// # Errors
    /// A snapshot that this job cannot go on with, an operator that cannot be opened, or whatever a task fails with. Also inside an async
    /// runtime, which the job would block.
    pub fn start(
        mut program: Program,
        now_ms: Timestamp,
        restored: Option<&JobSnapshot>,
    ) -> Result<Self, Failure> {
        if Handle::try_current().is_ok() {
            return Err(Failure::user(
                "a job cannot be driven by hand inside an async runtime, which it would block; call it from a plain `#[test]`",
            ));
        }
        program.time.is_by_hand = true;
        program.graph.checkpointing.unaligned = false;
        if let Some(snapshot) = restored {
            snapshot.check(&mut program.graph)?;
        }
        let mut job = deploy::deploy(Arc::new(program), now_ms, restored)?;
        job.settle()?;
        Ok(job)
    }

    /// Lets the tasks run until they rest. When all of them have read their input to its end, the final checkpoint is taken and the job is
    /// over.
    ///
    /// # Errors
    /// What a task fails with, now or before; or that the job never rests, because a source without end has no rate.
    pub fn settle(&mut self) -> Result<(), Failure> {
        self.guarded(|job| {
            job.come_to_rest()?;
            let is_drained = job.tasks.values().all(|task| task.status == TaskStatus::Drained);
            if is_drained && !job.is_over {
                job.is_over = true;
                job.checkpoint(true)?;
            }
            Ok(())
        })
    }

    /// Wakes the sources, because there may be something to read, and lets everything run.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn wake_sources(&mut self) -> Result<(), Failure> {
        let sources = self.tasks.values().filter(|task| task.role.reads_outside());
        sources.for_each(|task| task.mailbox.wake());
        self.settle()
    }

    /// Moves the clock forward to `now_ms`, in milliseconds since the epoch, with a stop at each time at which something is due.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn advance_to(&mut self, now_ms: Timestamp) -> Result<(), Failure> {
        self.settle()?;
        let left_ms = u64::try_from(now_ms.saturating_sub(self.now_ms())).unwrap_or(0);
        let target = self.clock.monotonic() + Duration::from_millis(left_ms);
        while let Some(due) = self.next_due().filter(|due| *due <= target) {
            self.clock.advance(due.saturating_sub(self.clock.monotonic()));
            self.settle()?;
        }
        self.clock.advance(target.saturating_sub(self.clock.monotonic()));
        // Generators of watermarks may go by the clock.
        self.tasks.values().for_each(|task| task.mailbox.wake());
        self.settle()
    }

    /// Ends the input of all sources, as `stop --drain` does: everything that waits for time is told the last watermark, and the job ends.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn end_input(&mut self) -> Result<(), Failure> {
        self.guarded(|job| job.tell(Role::reads_outside, Mail::EndInput))?;
        self.settle()
    }

    /// Takes a checkpoint and completes it.
    ///
    /// # Errors
    /// As [`settle`](Self::settle); and if the job is over.
    pub fn snapshot(&mut self) -> Result<JobSnapshot, Failure> {
        self.settle()?;
        if self.is_over {
            return Err(Failure::user("the job is over, so that there is nothing to take a snapshot of"));
        }
        self.guarded(|job| {
            let tasks = job.checkpoint(false)?;
            Ok(JobSnapshot::new(&job.program.graph, tasks, job.next_checkpoint, job.attempt, job.now_ms()))
        })
    }

    /// The time, in milliseconds since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> Timestamp {
        self.clock.now_ms()
    }

    /// Whether all input has ended and all tasks have finished.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.tasks.values().all(|task| task.status == TaskStatus::Finished)
    }

    /// How many late records its operators have dropped: Flink's `numLateRecordsDropped` over all of them.
    #[must_use]
    pub fn late_records_dropped(&self) -> u64 {
        self.tasks.values().map(|task| task.counters.read().late_records_dropped).sum()
    }

    /// How many records each subtask has read of the task with this operator, which is named by its uid or name: from other tasks, or from
    /// outside. Nothing if there is none.
    #[must_use]
    pub fn records_read(&self, operator: &str) -> Vec<u64> {
        let is_it = |found: &Operator| found.name == operator || found.uid.as_deref() == Some(operator);
        let vertices = &self.program.graph.vertices;
        let vertex = vertices.iter().position(|vertex| vertex.operators.iter().any(is_it));
        let tasks = self.tasks.iter().filter(|(subtask, _)| Some(subtask.vertex as usize) == vertex);
        tasks.map(|(_, task)| task.counters.read().records_in).collect()
    }

    /// Does something, unless the job has failed before; its failure is that of all calls behind it.
    fn guarded<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, Failure>) -> Result<R, Failure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = work(self);
        self.failure = result.as_ref().err().cloned();
        result
    }

    /// Gives slot after slot a turn, as if they were threads, until none has anything to do.
    fn come_to_rest(&mut self) -> Result<(), Failure> {
        let mut turns = 0;
        loop {
            let before = turns;
            for slot in 0..self.slots.len() {
                if let Step::Turn(seat) = self.slots[slot].simulated_next() {
                    self.slots[slot].simulate_turn(seat);
                    self.read_reports()?;
                    turns += 1;
                    if turns > MANUAL_JOB_TURNS {
                        return Err(Failure::user(format!(
                            "the job has not come to rest after {MANUAL_JOB_TURNS} turns of its tasks: a source without end needs a rate, \
                             or must be replaced by the test"
                        )));
                    }
                }
            }
            if turns == before {
                return Ok(());
            }
        }
    }

    fn read_reports(&mut self) -> Result<(), Failure> {
        while let Ok(Report { subtask, news, .. }) = self.reports.try_recv() {
            match news {
                News::Status(status) => {
                    if let Some(task) = self.tasks.get_mut(&subtask) {
                        task.status = status;
                    }
                }
                News::Failed(failure) => return Err(failure),
                News::Snapshot(taken) => {
                    self.taken.insert(subtask, taken.snapshot);
                }
                News::Time(_) | News::Gone => {}
            }
        }
        Ok(())
    }

    /// When something is due, by the monotonic clock.
    fn next_due(&mut self) -> Option<Duration> {
        let due = |slot: &mut Slot| match slot.simulated_next() {
            Step::Rest(until) => until,
            Step::Turn(_) | Step::End => None,
        };
        self.slots.iter_mut().filter_map(due).min()
    }

    fn tell(&self, whom: impl Fn(Role) -> bool, mail: Mail) -> Result<(), Failure> {
        for task in self.tasks.values().filter(|task| whom(task.role)) {
            task.mailbox.send(mail).map_err(|full| Failure::internal(full.to_string()))?;
        }
        Ok(())
    }

    /// Takes a checkpoint and tells all tasks that it is complete. All tasks rest before and behind it.
    fn checkpoint(&mut self, is_final: bool) -> Result<BTreeMap<SubtaskId, Bytes>, Failure> {
        let checkpoint = self.next_checkpoint;
        self.next_checkpoint += 1;
        let timestamp_ms = self.now_ms();
        let barrier = Barrier { id: checkpoint, timestamp_ms, is_final, is_savepoint: false };
        self.tell(|role| role == Role::Source, Mail::Trigger(barrier))?;
        self.come_to_rest()?;
        let taken = std::mem::take(&mut self.taken);
        if taken.len() < self.tasks.len() {
            return Err(Failure::internal(format!(
                "only {} of {} tasks have taken their snapshot",
                taken.len(),
                self.tasks.len()
            )));
        }
        let encoded =
            taken.iter().map(|(subtask, snapshot)| Ok((*subtask, codec::to_bytes(snapshot)?.into())));
        let encoded = encoded.collect::<Result<_, Failure>>()?;
        self.tell(|_| true, Mail::Completed { checkpoint, is_final })?;
        self.come_to_rest()?;
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests;
