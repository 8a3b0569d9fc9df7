//! What task managers report of a running attempt: task states, lost workers, lost task managers.

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;
use thalweg_common::id::{SubtaskId, TaskManagerId};
use thalweg_common::status::{JobStatus, TaskStatus};

use super::message::{Action, Now};
use super::{JobCore, Phase};
use crate::checkpoint::{Coordinator, Event};

impl JobCore {
    pub(super) fn task_status(
        &mut self,
        task_manager: &TaskManagerId,
        subtask: SubtaskId,
        status: TaskStatus,
        failure: Option<Failure>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let attempt = self.execution.attempt_of(subtask);
        let Some(task) = self.execution.tasks.get_mut(&subtask) else { return };
        if task.slot.task_manager != *task_manager {
            out.push(Action::RefuseStale { task_manager: task_manager.clone(), attempt });
            return;
        }
        let before = std::mem::replace(&mut task.status, status);
        if !self.counts(subtask) {
            return;
        }
        if status == TaskStatus::Failed {
            let task = self.spec.task_name(subtask, attempt);
            let cause = failure.as_ref().map_or("no reason was given", |failure| failure.message.as_str());
            out.push(Action::Log(format!(
                "{task} switched from {before} to {status} on flink-taskmanager-{task_manager}: {cause}"
            )));
        }
        let region = BTreeSet::from([self.region(subtask)]);
        match status {
            TaskStatus::Failed => {
                let failure =
                    failure.unwrap_or_else(|| Failure::internal("the task failed without a reason"));
                self.fail(failure, Some(subtask), &task_manager.0, region, now, out);
            }
            TaskStatus::Canceling | TaskStatus::Canceled => {
                let failure = Failure::external("the task was cancelled, though its job was not");
                self.fail(failure, Some(subtask), &task_manager.0, region, now, out);
            }
            TaskStatus::Finished if !self.may_finish() => {
                let failure =
                    Failure::internal("the task finished before the job's final checkpoint completed");
                self.fail(failure, Some(subtask), &task_manager.0, region, now, out);
            }
            TaskStatus::Created
            | TaskStatus::Scheduled
            | TaskStatus::Deploying
            | TaskStatus::Initializing
            | TaskStatus::Running
            | TaskStatus::Drained
            | TaskStatus::Finished => {
                self.run_when_all_run(now, out);
                self.end_when_all_end(now, out);
            }
        }
    }

    /// Whether tasks may end: the final checkpoint of this attempt is in the log, or the savepoint with which the job stops.
    pub(super) fn may_finish(&self) -> bool {
        let of_this_attempt = |latest: &crate::cluster::CompletedCheckpoint| {
            latest.is_final && latest.attempt == self.execution.attempt
        };
        self.retained.back().is_some_and(of_this_attempt) || self.stopped_with_savepoint().is_some()
    }

    /// All drained: the final checkpoint is due. All finished: so is the job.
    pub(super) fn end_when_all_end(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.execution.all_tasks(|status| status == TaskStatus::Finished) {
            self.request_interrupted(out);
            self.coordinator = None;
            self.phase = Phase::Ending;
            self.switch(JobStatus::Finished, "all tasks finished", None, now, out);
        } else if self.execution.all_tasks(|status| status == TaskStatus::Drained) {
            self.coordinate(Event::AllDrained, now, out);
        }
    }

    pub(super) fn start_coordinator(&mut self, now: Now) {
        self.may_have_orphans = true;
        let (config, subtasks) = (self.spec.graph.checkpointing.clone(), self.spec.subtasks.clone());
        self.coordinator = Some(if self.may_finish() {
            Coordinator::finished(config, subtasks)
        } else {
            Coordinator::new(config, subtasks, now.elapsed_ms)
        });
    }

    pub(super) fn worker_lost(
        &mut self,
        task_manager: &TaskManagerId,
        failure: Failure,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Some(member) = self.execution.members.get_mut(task_manager) {
            member.worker = None;
        }
        let regions = self.regions_on(task_manager);
        if self.is_news(&regions) {
            self.fail(failure, None, &task_manager.0, regions, now, out);
        }
    }

    pub(super) fn task_manager_lost(
        &mut self,
        task_manager: &TaskManagerId,
        reason: &str,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.workers.remove(task_manager);
        let Some(member) = self.execution.members.get_mut(task_manager) else { return };
        if !std::mem::take(&mut member.connected) {
            return;
        }
        member.worker = None;
        if let Phase::Stopping { waiting, .. } = &mut self.phase {
            waiting.remove(task_manager);
        }
        let regions = self.regions_on(task_manager);
        if self.is_news(&regions) {
            let slots: BTreeSet<u32> = self
                .slots()
                .filter(|slot| slot.task_manager == *task_manager)
                .map(|slot| slot.number)
                .collect();
            let removed =
                |number| Action::Log(format!("The assigned slot {task_manager}_{number} was removed."));
            out.extend(slots.into_iter().map(removed));
            let failure = Failure::external(format!("lost task manager {task_manager}: {reason}"));
            self.fail(failure, None, &task_manager.0, regions, now, out);
        } else {
            self.stopped_when_all_stopped(now, out);
        }
    }

    /// The task manager stops soon: its tasks move away by a restart, which is not counted as a failure. A job that must not
    /// be restarted fails when the task manager goes.
    pub(super) fn draining(&mut self, task_manager: &TaskManagerId, now: Now, out: &mut Vec<Action>) {
        let regions = self.regions_on(task_manager);
        let restarts = self.spec.graph.restart_strategy != thalweg_common::config::RestartStrategy::None;
        if !regions.is_empty() && restarts && self.is_news(&regions) {
            let regions = self.adopt_beside(&regions, out);
            self.move_away(&format!("task manager {task_manager} is stopping"), &regions, now, out);
        }
    }
}
