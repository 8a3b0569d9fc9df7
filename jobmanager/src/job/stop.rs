//! Failure, cancellation and the end: how an attempt stops and what follows.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::failure::Failure;
use thalweg_common::id::{RegionId, SubtaskId, TaskManagerId};
use thalweg_common::status::JobStatus;

use super::message::{Action, Message, Now};
use super::{JobCore, Next, Phase, Suspect};
use crate::cluster::{FailureRecord, Outcome};
use crate::scheduler::restart::{self, Decision, Moment};

/// How much longer than the cancellation timeout, which its task manager enforces, a leader waits for a task to stop.
const STOP_MARGIN_MS: u64 = 30_000;

impl Next {
    /// What follows when this is decided while tasks are being stopped for something else: no restart comes before its time.
    fn after(self, last: Self) -> Self {
        match (self, last) {
            (Self::Restart { until_ms }, Self::Restart { until_ms: last_ms }) => {
                Self::Restart { until_ms: until_ms.max(last_ms) }
            }
            (next, _) => next,
        }
    }
}

impl JobCore {
    /// These regions failed: the restart strategy decides what follows.
    pub(super) fn fail(
        &mut self,
        failure: Failure,
        subtask: Option<SubtaskId>,
        task_manager: &str,
        failed: BTreeSet<RegionId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if matches!(self.phase, Phase::Adopting { .. }) {
            let task_manager = task_manager.to_string();
            let suspect = Suspect { failure, is_cause: true, subtask, task_manager, lost: failed };
            return self.suspect(suspect, now, out);
        }
        self.suspect_checkpoint(&failure, subtask);
        let attempt = subtask.map_or(self.execution.attempt, |subtask| self.execution.attempt_of(subtask));
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
                let regions = self.to_restart(&failed);
                self.restarts = restarts;
                let going_on = &self.spec.regions.all() - &regions;
                self.switch_beside(JobStatus::Restarting, going_on, reason.clone(), Some(record), now, out);
                self.roll_back(&reason, now, out);
                let until_ms = now.elapsed_ms.saturating_add(delay_ms);
                self.stop_tasks(Next::Restart { until_ms }, regions, now, out);
            }
            Decision::GiveUp { reason: why } => {
                self.switch(
                    JobStatus::Failing,
                    format!("{reason} (not restarted: {why})"),
                    Some(record),
                    now,
                    out,
                );
                self.stop_tasks(Next::Fail, self.spec.regions.all(), now, out);
            }
        }
    }

    /// Restarts these regions at once somewhere else, without a failure.
    pub(super) fn move_away(
        &mut self,
        reason: &str,
        regions: &BTreeSet<RegionId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let regions = self.to_restart(regions);
        self.restarts.resume_at_ms = now.wall_ms;
        self.running_since_ms = None;
        let going_on = &self.spec.regions.all() - &regions;
        self.switch_beside(JobStatus::Restarting, going_on, reason, None, now, out);
        self.stop_tasks(Next::Restart { until_ms: now.elapsed_ms }, regions, now, out);
    }

    pub(super) fn cancel(&mut self, now: Now, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Ending | Phase::Ended | Phase::Stopping { next: Next::Cancel, .. } => {}
            Phase::Stopping { .. }
            | Phase::Waiting { .. }
            | Phase::Delayed { .. }
            | Phase::Starting
            | Phase::Deploying { .. }
            | Phase::Running
            | Phase::Adopting { .. } => {
                self.switch(JobStatus::Cancelling, "cancelled by a user", None, now, out);
                self.stop_tasks(Next::Cancel, self.spec.regions.all(), now, out);
            }
        }
    }

    /// Cancels all tasks of these regions that may run, and waits until they have stopped. What is being stopped already stops too.
    pub(super) fn stop_tasks(
        &mut self,
        next: Next,
        regions: BTreeSet<RegionId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        // Of the regions that are being restarted nothing runs yet, or nothing any more, or it was told to stop.
        let idle = match self.phase {
            Phase::Deploying { .. } | Phase::Running | Phase::Adopting { .. } => BTreeSet::new(),
            _ => self.restarting.clone(),
        };
        self.restarting = regions;
        self.stop_coordinator(now, out);
        let (mut waiting, mut deadline_ms, next) = match (&mut self.phase, next) {
            (Phase::Stopping { next: last, waiting, deadline_ms }, next) => {
                (std::mem::take(waiting), *deadline_ms, next.after(*last))
            }
            (Phase::Delayed { until_ms }, next) => {
                (BTreeMap::new(), 0, next.after(Next::Restart { until_ms: *until_ms }))
            }
            (_, next) => (BTreeMap::new(), 0, next),
        };
        let attempt = self.logged;
        for task_manager in self.execution.connected() {
            let there = self.regions_on(task_manager);
            let mut there: BTreeSet<_> = there.intersection(&self.restarting).copied().collect();
            there.retain(|region| !idle.contains(region));
            if there.is_empty() {
                continue;
            }
            waiting.entry(task_manager.clone()).or_default().extend(&there);
            deadline_ms = self.stop_deadline(now);
            let regions = if self.is_partial() { there } else { BTreeSet::new() };
            let message = Message::CancelTasks { attempt, regions };
            out.push(Action::Send { task_manager: task_manager.clone(), message });
        }
        self.phase = Phase::Stopping { next, waiting, deadline_ms };
        self.stopped_when_all_stopped(now, out);
    }

    pub(super) fn stop_deadline(&self, now: Now) -> u64 {
        now.elapsed_ms.saturating_add(self.spec.patience.cancellation_ms).saturating_add(STOP_MARGIN_MS)
    }

    /// The tasks of these regions have stopped there; of all if there are none.
    pub(super) fn tasks_stopped(
        &mut self,
        task_manager: &TaskManagerId,
        regions: &BTreeSet<RegionId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Phase::Stopping { waiting, .. } = &mut self.phase else { return };
        if let Some(left) = waiting.get_mut(task_manager) {
            left.retain(|region| !regions.is_empty() && !regions.contains(region));
            if left.is_empty() {
                waiting.remove(task_manager);
            }
        }
        self.stopped_when_all_stopped(now, out);
    }

    /// Task managers that do not stop their tasks are cut off; those that never came back are not waited for any longer.
    pub(super) fn stop_timed_out(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Stopping { waiting, .. } = &mut self.phase else { return };
        let (mut lost, mut names) = (BTreeSet::new(), Vec::new());
        for task_manager in std::mem::take(waiting).into_keys() {
            if let Some(member) = self.execution.members.get_mut(&task_manager)
                && std::mem::take(&mut member.connected)
            {
                lost.extend(self.regions_on(&task_manager));
                names.push(task_manager.0.clone());
                let reason = format!("it did not stop the tasks of job {} in time", self.spec.job_id);
                out.push(Action::Disconnect { task_manager, reason });
            }
        }
        if self.is_news(&lost) {
            let names = names.join(", ");
            let failure = Failure::external(format!(
                "lost task manager {names}, which did not stop its tasks in time, and with it tasks that were to go on"
            ));
            self.fail(failure, None, &names, lost, now, out);
        } else {
            self.stopped_when_all_stopped(now, out);
        }
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
