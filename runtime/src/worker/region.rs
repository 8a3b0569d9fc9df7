//! One region of a worker: which attempt of it is here, and what becomes of its tasks. A part of the [core](super::core).
//!
//! Invariants: tasks of one attempt at a time; those of an older one have ended before the first of a newer one
//! starts; an attempt that was cancelled, or is older than the newest, is never deployed again; once an attempt is being
//! cancelled nothing of it is reported as a failure.

use std::collections::BTreeMap;

use thalweg_common::id::{Attempt, CheckpointId, RegionId, SubtaskId};
use thalweg_common::status::TaskStatus;

use super::core::Action;
use super::messages::Deployment;
use crate::event::Barrier;
use crate::task::mailbox::Mail;
use crate::task::{News, Report, Role, TakenSnapshot};

/// The state of a region.
#[derive(Debug)]
pub(super) struct Region {
    number: RegionId,
    /// The attempt whose tasks are here.
    attempt: Attempt,
    tasks: BTreeMap<SubtaskId, TaskState>,
    is_cancelling: bool,
    /// No attempt up to this one is deployed any more.
    cancelled: Attempt,
    /// What waits for the tasks of an older attempt to end.
    waiting: Option<Deployment>,
    /// What the task manager is to be told when they have.
    owed: Option<Attempt>,
    /// The last savepoint that was announced, and where its files go.
    savepoint: Option<(CheckpointId, String)>,
    /// Parts of a savepoint whose barrier came before its announcement.
    unannounced: Vec<(SubtaskId, TakenSnapshot)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TaskState {
    status: TaskStatus,
    is_alive: bool,
    role: Role,
}

impl Region {
    pub(super) fn new(number: RegionId) -> Self {
        Self {
            number,
            attempt: 0,
            tasks: BTreeMap::new(),
            is_cancelling: false,
            cancelled: 0,
            waiting: None,
            owed: None,
            savepoint: None,
            unannounced: Vec::new(),
        }
    }

    /// The attempt whose tasks are here; 0 before the first.
    pub(super) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The tasks of the attempt, those that have ended among them.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (SubtaskId, TaskStatus)> {
        self.tasks.iter().map(|(subtask, task)| (*subtask, task.status))
    }

    /// The tasks of the deployment are being started: they are known from now on. `role` says what each has to do with the input.
    pub(super) fn started(&mut self, deployment: &Deployment, role: impl Fn(SubtaskId) -> Role) {
        self.attempt = deployment.attempt;
        self.is_cancelling = false;
        self.savepoint = None;
        self.unannounced.clear();
        let task = |subtask: &SubtaskId| {
            let role = role(*subtask);
            (*subtask, TaskState { status: TaskStatus::Deploying, is_alive: true, role })
        };
        self.tasks = deployment.tasks.keys().map(task).collect();
    }

    /// Takes note of what a task says.
    pub(super) fn on_report(&mut self, report: Report) -> Vec<Action> {
        let subtask = report.subtask;
        let Some(task) = self.tasks.get_mut(&subtask).filter(|_| report.attempt == self.attempt) else {
            return vec![Action::Ignore(format!(
                "a report of task {subtask} of the old attempt {}",
                report.attempt
            ))];
        };
        match report.news {
            News::Status(status) => {
                task.status = status;
                vec![Action::ReportStatus(subtask, status, None)]
            }
            News::Failed(_) if self.is_cancelling => {
                task.status = TaskStatus::Canceled;
                vec![Action::ReportStatus(subtask, TaskStatus::Canceled, None)]
            }
            News::Failed(failure) => {
                task.status = TaskStatus::Failed;
                vec![Action::ReportStatus(subtask, TaskStatus::Failed, Some(failure))]
            }
            News::Snapshot(_) if self.is_cancelling => Vec::new(),
            News::Snapshot(taken) => self.on_snapshot(subtask, taken),
            News::Time(told) => vec![Action::ReportTime(subtask, told)],
            News::Gone => {
                task.is_alive = false;
                self.settle()
            }
        }
    }

    /// A barrier does not say where the files of its savepoint go; the job manager tells that to all workers.
    fn announce(&mut self, attempt: Attempt, barrier: Barrier, directory: Option<String>) -> Vec<Action> {
        let Some(directory) = directory.filter(|_| self.concerns(attempt)) else {
            return Vec::new();
        };
        self.savepoint = Some((barrier.id, directory.clone()));
        self.take_unannounced(barrier.id)
            .into_iter()
            .map(|(subtask, taken)| Action::WriteSavepoint(subtask, taken, directory.clone()))
            .collect()
    }

    fn take_unannounced(&mut self, savepoint: CheckpointId) -> Vec<(SubtaskId, TakenSnapshot)> {
        let waiting = std::mem::take(&mut self.unannounced);
        let (taken, waiting) = waiting.into_iter().partition(|(_, taken)| taken.barrier.id == savepoint);
        self.unannounced = waiting;
        taken
    }

    fn on_snapshot(&mut self, subtask: SubtaskId, taken: TakenSnapshot) -> Vec<Action> {
        match &self.savepoint {
            _ if !taken.barrier.is_savepoint => vec![Action::Store(subtask, taken)],
            Some((id, directory)) if *id == taken.barrier.id => {
                vec![Action::WriteSavepoint(subtask, taken, directory.clone())]
            }
            _ => {
                self.unannounced.push((subtask, taken));
                Vec::new()
            }
        }
    }

    /// These tasks are to run, as soon as those of older attempts have ended.
    pub(super) fn on_deploy(&mut self, deployment: Deployment) -> Vec<Action> {
        let attempt = deployment.attempt;
        let newest = self.waiting.as_ref().map_or(self.attempt, |waiting| waiting.attempt);
        if attempt <= self.cancelled || attempt <= newest {
            return vec![Action::Ignore(format!(
                "a deployment of attempt {attempt}, which is not the newest"
            ))];
        }
        self.waiting = Some(deployment);
        self.stop_running()
    }

    /// The tasks of this attempt and of older ones are to end.
    pub(super) fn on_cancel(&mut self, attempt: Attempt) -> Vec<Action> {
        self.cancelled = self.cancelled.max(attempt);
        self.owed = self.owed.max(Some(attempt));
        if self.waiting.as_ref().is_some_and(|waiting| waiting.attempt <= attempt) {
            self.waiting = None;
        }
        if self.attempt <= attempt { self.stop_running() } else { self.settle() }
    }

    /// Cancels what runs, and goes on when it has ended.
    fn stop_running(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_alive() && !self.is_cancelling {
            self.is_cancelling = true;
            actions.push(Action::CancelTasks(self.number));
        }
        actions.extend(self.settle());
        actions
    }

    /// Does what had to wait for the last task to end, if it has.
    fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_alive = self.is_alive();
        if !is_alive && !self.tasks.is_empty() && self.is_cancelling {
            self.is_cancelling = false;
            actions.push(Action::EndAttempt(self.number, self.attempt));
        }
        if let Some(attempt) = self.owed.filter(|attempt| !is_alive || self.attempt > *attempt) {
            self.owed = None;
            actions.push(Action::ReportStopped(attempt, vec![self.number]));
        }
        if !is_alive && let Some(deployment) = self.waiting.take() {
            actions.push(Action::Start(deployment));
        }
        actions
    }

    fn is_alive(&self) -> bool {
        self.tasks.values().any(|task| task.is_alive)
    }

    /// Whether what is said in this attempt of the job concerns the tasks that are here: no later one has restarted them.
    fn concerns(&self, attempt: Attempt) -> bool {
        attempt >= self.attempt && !self.is_cancelling
    }

    /// The barriers of a checkpoint or of a savepoint begin.
    pub(super) fn on_trigger(
        &mut self,
        attempt: Attempt,
        barrier: Barrier,
        savepoint_directory: Option<String>,
    ) -> Vec<Action> {
        let mut actions = self.announce(attempt, barrier, savepoint_directory);
        actions.extend(self.tell(attempt, Mail::Trigger(barrier)));
        actions
    }

    /// A checkpoint will never complete.
    pub(super) fn on_aborted(&mut self, attempt: Attempt, checkpoint: CheckpointId) -> Vec<Action> {
        let given_up = self.take_unannounced(checkpoint);
        let mut actions = self.tell(attempt, Mail::Aborted { checkpoint });
        actions.extend(given_up.into_iter().map(|(subtask, taken)| Action::GiveUp(subtask, taken)));
        actions
    }

    /// Mail for all tasks of the attempt that it concerns.
    pub(super) fn tell(&self, attempt: Attempt, mail: Mail) -> Vec<Action> {
        if !self.concerns(attempt) {
            return vec![Action::Ignore(format!("{mail:?} for attempt {attempt}, which does not run here"))];
        }
        let concerns = |task: &TaskState| match mail {
            Mail::Trigger(_) => task.role == Role::Source,
            Mail::EndInput => task.role.reads_outside(),
            Mail::Completed { .. } | Mail::Aborted { .. } | Mail::TellTime { .. } => true,
        };
        let alive = self.tasks.iter().filter(|(_, task)| task.is_alive && concerns(task));
        alive.map(|(subtask, _)| Action::Tell(*subtask, mail)).collect()
    }
}
