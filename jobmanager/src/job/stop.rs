//! Failure, cancellation and the end: how an attempt stops and what follows.

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;
use thalweg_common::id::{SubtaskId, TaskManagerId};
use thalweg_common::status::JobStatus;

use super::message::{Action, Message, Now};
use super::{JobCore, Next, Phase};
use crate::cluster::{FailureRecord, Outcome};
use crate::scheduler::restart::{self, Decision, Moment};

/// How much longer than the cancellation timeout, which its task manager enforces, a leader waits for a task to stop.
const STOP_MARGIN_MS: u64 = 30_000;

impl JobCore {
    /// The attempt failed: the restart strategy decides what follows.
    pub(super) fn fail(
        &mut self,
        failure: Failure,
        subtask: Option<SubtaskId>,
        task_manager: &str,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.suspect_checkpoint(&failure, subtask);
        let attempt = self.execution.attempt;
        let task = subtask.map_or_else(String::new, |subtask| self.spec.task_name(subtask, attempt));
        let place = if task.is_empty() { String::new() } else { format!("{task} on {task_manager}: ") };
        out.push(Action::Warn(format!("Job {} ({}): {place}{failure}", self.spec.name, self.spec.job_id)));
        let strategy = &self.spec.graph.restart_strategy;
        let ran_ms = self.running_since_ms.take().map(|since_ms| now.elapsed_ms.saturating_sub(since_ms));
        let had_run_well = ran_ms.is_some_and(|ran_ms| ran_ms >= self.spec.patience.immediate_restart_ms);
        let moment = Moment { now_ms: now.wall_ms, jitter: now.jitter, had_run_well };
        // A layout that a user asked for must not cost the job its life: it goes back, whatever the strategy says.
        let goes_back = self.layouts.previous.is_some();
        let decision = match goes_back {
            true => Decision::Restart { delay_ms: 0, record: self.restarts.clone() },
            false => restart::decide(strategy, &self.restarts, &failure, moment),
        };
        let reason = failure.message.clone();
        let record = FailureRecord {
            time_ms: now.wall_ms,
            attempt,
            task,
            task_manager: task_manager.to_string(),
            failure,
        };
        match decision {
            Decision::Restart { delay_ms, record: restarts } => {
                self.restarts = restarts;
                self.switch(JobStatus::Restarting, reason.clone(), Some(record), now, out);
                self.roll_back(&reason, now, out);
                self.stop_tasks(
                    Next::Restart { until_ms: now.elapsed_ms.saturating_add(delay_ms) },
                    now,
                    out,
                );
            }
            Decision::GiveUp { reason: why } => {
                self.switch(
                    JobStatus::Failing,
                    format!("{reason} (not restarted: {why})"),
                    Some(record),
                    now,
                    out,
                );
                self.stop_tasks(Next::Fail, now, out);
            }
        }
    }

    /// Restarts the job at once somewhere else, without a failure.
    pub(super) fn move_away(&mut self, reason: &str, now: Now, out: &mut Vec<Action>) {
        self.restarts.resume_at_ms = now.wall_ms;
        self.running_since_ms = None;
        self.switch(JobStatus::Restarting, reason, None, now, out);
        self.stop_tasks(Next::Restart { until_ms: now.elapsed_ms }, now, out);
    }

    pub(super) fn cancel(&mut self, now: Now, out: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Ending | Phase::Ended | Phase::Stopping { next: Next::Cancel, .. } => {}
            Phase::Stopping { next, .. } => {
                *next = Next::Cancel;
                self.switch(JobStatus::Cancelling, "cancelled by a user", None, now, out);
            }
            Phase::Waiting { .. }
            | Phase::Delayed { .. }
            | Phase::Starting
            | Phase::Deploying { .. }
            | Phase::Running
            | Phase::Adopting { .. } => {
                self.switch(JobStatus::Cancelling, "cancelled by a user", None, now, out);
                self.stop_tasks(Next::Cancel, now, out);
            }
        }
    }

    /// Cancels all tasks that may run, and waits until they have stopped.
    pub(super) fn stop_tasks(&mut self, next: Next, now: Now, out: &mut Vec<Action>) {
        self.stop_coordinator(now, out);
        let waiting: BTreeSet<TaskManagerId> = match self.phase {
            Phase::Deploying { .. } | Phase::Running | Phase::Adopting { .. } => {
                self.execution.connected().cloned().collect()
            }
            // No worker was asked for yet, or nothing runs any more.
            _ => BTreeSet::new(),
        };
        let message = Message::CancelTasks { attempt: self.execution.attempt };
        for task_manager in &waiting {
            out.push(Action::Send { task_manager: task_manager.clone(), message: message.clone() });
        }
        self.phase = Phase::Stopping { next, waiting, deadline_ms: self.stop_deadline(now) };
        self.stopped_when_all_stopped(now, out);
    }

    pub(super) fn stop_deadline(&self, now: Now) -> u64 {
        now.elapsed_ms.saturating_add(self.spec.patience.cancellation_ms).saturating_add(STOP_MARGIN_MS)
    }

    pub(super) fn tasks_stopped(&mut self, task_manager: &TaskManagerId, now: Now, out: &mut Vec<Action>) {
        if let Phase::Stopping { waiting, .. } = &mut self.phase {
            waiting.remove(task_manager);
            self.stopped_when_all_stopped(now, out);
        }
    }

    /// Task managers that do not stop their tasks are cut off; those that never came back are not waited for any longer.
    pub(super) fn stop_timed_out(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Stopping { waiting, .. } = &mut self.phase else { return };
        for task_manager in std::mem::take(waiting) {
            if let Some(member) = self.execution.members.get_mut(&task_manager)
                && std::mem::take(&mut member.connected)
            {
                let reason = format!("it did not stop the tasks of job {} in time", self.spec.job_id);
                out.push(Action::Disconnect { task_manager, reason });
            }
        }
        self.stopped_when_all_stopped(now, out);
    }

    pub(super) fn stopped_when_all_stopped(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Stopping { next, waiting, .. } = &self.phase else { return };
        if !waiting.is_empty() {
            return;
        }
        match *next {
            Next::Restart { until_ms } if until_ms > now.elapsed_ms => {
                self.phase = Phase::Delayed { until_ms }
            }
            Next::Restart { .. } => self.wait_for_slots(now, out),
            Next::Fail => self.end(JobStatus::Failed, now, out),
            Next::Cancel => self.end(JobStatus::Canceled, now, out),
        }
    }

    fn end(&mut self, status: JobStatus, now: Now, out: &mut Vec<Action>) {
        self.phase = Phase::Ending;
        self.rescale_ended(out);
        self.switch(status, "", None, now, out);
    }

    /// A state change is in the log. After the last one nothing of the job is needed any more.
    pub(super) fn status_committed(&mut self, to: JobStatus, outcome: Outcome, out: &mut Vec<Action>) {
        if let Outcome::Refused { reason } = outcome {
            out.push(Action::Warn(format!(
                "The change of job {} to {to} was refused: {reason}.",
                self.spec.job_id
            )));
            return;
        }
        if to == JobStatus::Running {
            self.rescale_succeeded(out);
        }
        if !to.is_terminal() || self.phase != Phase::Ending {
            return;
        }
        self.phase = Phase::Ended;
        for task_manager in std::mem::take(&mut self.workers) {
            out.push(Action::Send { task_manager, message: Message::StopWorker });
        }
        self.clear_files(to, out);
        out.push(Action::AllocateSlots);
    }
}
