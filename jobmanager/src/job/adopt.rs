//! A new leader takes over a job: what runs goes on, what was being stopped is stopped, what waited is started.

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;
use thalweg_common::id::{SubtaskId, TaskManagerId};
use thalweg_common::status::{JobStatus, TaskStatus};

use super::message::{Action, Message, Now, Report};
use super::{JobCore, Next, Phase, Suspect};
use crate::cluster::{Command, CompletedCheckpoint};
use crate::scheduler::restart;

/// How long a new leader waits for task managers to register before it places jobs that have no tasks, so that the first
/// one to come back does not get them all.
const SETTLE_MS: u64 = 1_000;

/// How long a task manager that has registered may take to tell why something does not run any more.
const CAUSE_MS: u64 = 200;

impl JobCore {
    pub(super) fn adopt(&mut self, now: Now, out: &mut Vec<Action>) {
        let patience = self.spec.patience.adoption_ms;
        let deadline_ms = now.elapsed_ms.saturating_add(patience);
        match self.status {
            JobStatus::Created => {
                self.phase = Phase::Delayed { until_ms: now.elapsed_ms.saturating_add(SETTLE_MS) };
            }
            JobStatus::Restarting => {
                let longest_ms = restart::longest_delay_ms(&self.spec.graph.restart_strategy);
                let left = self.restarts.resume_at_ms.saturating_sub(now.wall_ms);
                // The clocks of two leaders may differ, so no more than the strategy can ever ask for.
                let left_ms = u64::try_from(left).unwrap_or(0).min(longest_ms).max(SETTLE_MS);
                self.phase = Phase::Delayed { until_ms: now.elapsed_ms.saturating_add(left_ms) };
            }
            JobStatus::Running => self.phase = Phase::Adopting { deadline_ms, suspect: None },
            JobStatus::Failing => self.carry_on(Next::Fail, deadline_ms),
            JobStatus::Cancelling => self.carry_on(Next::Cancel, deadline_ms),
            JobStatus::Failed | JobStatus::Canceled | JobStatus::Finished => self.phase = Phase::Ended,
        }
        // Without any task manager there is nobody to wait for.
        self.stopped_when_all_stopped(now, out);
    }

    /// Carries on what an earlier leader began: tasks are stopped as their task managers register.
    fn carry_on(&mut self, next: Next, deadline_ms: u64) {
        let regions = self.spec.regions.all();
        let waiting = self.execution.members.keys().map(|name| (name.clone(), regions.clone())).collect();
        self.phase = Phase::Stopping { next, waiting, deadline_ms };
    }

    /// A task manager has registered with this leader.
    pub(super) fn registered(
        &mut self,
        task_manager: TaskManagerId,
        report: Option<Report>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if report.is_some() {
            self.workers.insert(task_manager.clone());
        }
        let live = report.as_ref().is_some_and(Report::is_live);
        let is_member = self.execution.members.contains_key(&task_manager);
        match &mut self.phase {
            Phase::Adopting { .. } if is_member => self.adopt_tasks(task_manager, report, now, out),
            Phase::Stopping { waiting, .. } if live => {
                waiting.insert(task_manager.clone(), self.spec.regions.all());
                self.execution.members.entry(task_manager.clone()).or_default().connected = true;
                let deadline = self.stop_deadline(now);
                if let Phase::Stopping { deadline_ms, .. } = &mut self.phase {
                    *deadline_ms = deadline.max(*deadline_ms);
                }
                out.push(self.cancel_all_on(task_manager));
            }
            Phase::Stopping { waiting, .. } => {
                waiting.remove(&task_manager);
                if let Some(member) = self.execution.members.get_mut(&task_manager) {
                    member.connected = true;
                }
                self.stopped_when_all_stopped(now, out);
            }
            Phase::Ended => {
                if report.is_some() {
                    out.push(Action::Send { task_manager, message: Message::StopWorker });
                }
            }
            // Tasks that no present attempt knows.
            _ => {
                if live {
                    out.push(self.cancel_all_on(task_manager));
                }
            }
        }
    }

    /// Ends tasks of which some may not be known: of whatever attempt, in all regions.
    fn cancel_all_on(&self, task_manager: TaskManagerId) -> Action {
        let message = Message::CancelTasks { attempt: self.logged, regions: BTreeSet::new() };
        Action::Send { task_manager, message }
    }

    /// Takes over the tasks of one task manager, all of which must still run.
    fn adopt_tasks(
        &mut self,
        task_manager: TaskManagerId,
        mut report: Option<Report>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Some(member) = self.execution.members.get_mut(&task_manager) {
            member.connected = true;
        }
        if let Some(report) = &mut report {
            // Of older attempts nothing counts.
            report.tasks.retain(|subtask, (attempt, _)| *attempt == self.execution.attempt_of(*subtask));
        }
        let Some(report) = report.filter(|report| !report.tasks.is_empty()) else {
            let failure =
                Failure::external(format!("task manager {task_manager} does not run its tasks any more"));
            return self.suspect(failure, None, task_manager, now);
        };
        let may_finish = self.may_finish();
        let runs = |(_, status): &(_, TaskStatus)| match status {
            TaskStatus::Running | TaskStatus::Drained => true,
            TaskStatus::Finished => may_finish,
            _ => false,
        };
        let expected: Vec<_> = self.execution.tasks_on(&task_manager).collect();
        for subtask in expected {
            match report.tasks.get(&subtask).filter(|status| runs(status)) {
                Some((_, status)) => {
                    if let Some(task) = self.execution.tasks.get_mut(&subtask) {
                        task.status = *status;
                    }
                }
                None => {
                    let state = report.tasks.get(&subtask).map_or("gone", |(_, status)| status.name());
                    let failure =
                        Failure::external(format!("the task was {state} when the new leader took over"));
                    return self.suspect(failure, Some(subtask), task_manager, now);
                }
            }
        }
        if let Some(member) = self.execution.members.get_mut(&task_manager) {
            member.worker = Some(report.worker);
        }
        let complete = matches!(self.phase, Phase::Adopting { suspect: None, .. });
        if complete && self.execution.members.values().all(|member| member.connected) {
            self.adopted(now, out);
        }
    }

    /// Something does not run any more. Its task manager is about to say why, if it knows.
    fn suspect(
        &mut self,
        failure: Failure,
        subtask: Option<SubtaskId>,
        task_manager: TaskManagerId,
        now: Now,
    ) {
        if let Phase::Adopting { deadline_ms, suspect } = &mut self.phase {
            *deadline_ms = now.elapsed_ms.saturating_add(CAUSE_MS).min(*deadline_ms);
            suspect.get_or_insert(Suspect { failure, subtask, task_manager });
        }
    }

    /// All tasks go on under this leader.
    fn adopted(&mut self, now: Now, out: &mut Vec<Action>) {
        let (job_id, attempt) = (self.spec.job_id, self.execution.attempt);
        out.push(Action::Log(format!("Job {} ({job_id}) goes on in attempt {attempt}.", self.spec.name)));
        self.phase = Phase::Running;
        self.running_since_ms = Some(now.elapsed_ms);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.began(now.elapsed_ms);
            out.push(Action::AllocateSlots);
        }
        self.start_coordinator(now);
        // The earlier leader may have gone before it told anybody.
        if let Some(latest) = self.retained.back() {
            // Regions that were restarted since have restored it, or an older one.
            let CompletedCheckpoint { id: checkpoint_id, is_final, attempt: taken_in, .. } = *latest;
            for task_manager in self.execution.connected() {
                if self.execution.tasks_on(task_manager).any(|it| self.execution.attempt_of(it) <= taken_in) {
                    let message = Message::CheckpointCompleted { attempt: taken_in, checkpoint_id, is_final };
                    out.push(Action::Send { task_manager: task_manager.clone(), message });
                }
            }
        }
        if let Some(checkpoint_id) = self.stopped_with_savepoint() {
            let message = Message::CheckpointCompleted { attempt, checkpoint_id, is_final: true };
            self.send_to_all(&message, out);
        }
        for checkpoint_id in std::mem::take(&mut self.orphaned) {
            self.add_garbage(checkpoint_id);
            out.push(Action::Propose(Command::AbortCheckpoint { job_id, attempt, checkpoint_id }));
            self.send_to_all(&Message::CheckpointAborted { attempt, checkpoint_id }, out);
        }
        self.end_when_all_end(now, out);
    }

    pub(super) fn adoption_timed_out(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Phase::Adopting { suspect, .. } = &mut self.phase
            && let Some(Suspect { failure, subtask, task_manager }) = suspect.take()
        {
            let all = self.spec.regions.all();
            return self.fail(failure, subtask, &task_manager.0, all, now, out);
        }
        let missing: Vec<_> = self
            .execution
            .members
            .iter()
            .filter(|(_, member)| !member.connected)
            .map(|(task_manager, _)| task_manager.to_string())
            .collect();
        let failure = Failure::external(format!(
            "lost task manager {}: it did not register with the new leader within {} ms",
            missing.join(", "),
            self.spec.patience.adoption_ms
        ));
        let first = missing.first().cloned().unwrap_or_default();
        self.fail(failure, None, &first, self.spec.regions.all(), now, out);
    }
}
