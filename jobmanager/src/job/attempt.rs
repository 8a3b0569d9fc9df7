//! What runs of a job: which task managers take part, and the states of its tasks, each with the attempt that started it.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::{Attempt, CheckpointId, SubtaskId, TaskManagerId};
use thalweg_common::status::TaskStatus;

use super::message::Worker;
use crate::cluster::{JobRecord, Placement, Slot};

/// A task manager that takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// Whether this leader has a connection to it.
    pub(crate) connected: bool,
    /// Its worker, as last heard of.
    pub(crate) worker: Option<Worker>,
    /// Whether it was asked for a worker and has not said that it is ready.
    pub(crate) is_awaited: bool,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// The attempt that started it.
    pub(crate) attempt: Attempt,
    /// Where it runs.
    pub(crate) slot: Slot,
    /// As last reported.
    pub(crate) status: TaskStatus,
}

/// What runs, or ran last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Execution {
    /// The newest attempt; 0 before the first.
    pub(crate) attempt: Attempt,
    /// The checkpoint that it is restored from.
    pub(crate) restored: Option<CheckpointId>,
    /// Who takes part.
    pub(crate) members: BTreeMap<TaskManagerId, Member>,
    /// What runs.
    pub(crate) tasks: BTreeMap<SubtaskId, Task>,
}

impl Execution {
    /// As the log knows it, without a connection to anybody yet.
    pub(crate) fn of(record: &JobRecord) -> Self {
        let started_by =
            |subtask: &SubtaskId| record.attempts.get(subtask).copied().unwrap_or(record.attempt);
        let task = |(subtask, slot): (&SubtaskId, &Slot)| {
            let (attempt, slot) = (started_by(subtask), slot.clone());
            (*subtask, Task { attempt, slot, status: TaskStatus::Scheduled })
        };
        let names: BTreeSet<_> = record.placement.values().map(|slot| slot.task_manager.clone()).collect();
        Self {
            attempt: record.attempt,
            restored: record.restored,
            members: names.into_iter().map(|name| (name, Member::default())).collect(),
            tasks: record.placement.iter().map(task).collect(),
        }
    }

    /// An attempt has slots for these tasks and nothing more.
    pub(crate) fn start(&mut self, attempt: Attempt, restored: Option<CheckpointId>, placement: &Placement) {
        self.attempt = attempt;
        self.restored = restored;
        for (subtask, slot) in placement {
            let task = Task { attempt, slot: slot.clone(), status: TaskStatus::Scheduled };
            self.tasks.insert(*subtask, task);
            // Workers that live on say so when they are asked for.
            let member = self.members.entry(slot.task_manager.clone()).or_default();
            (member.connected, member.is_awaited) = (true, true);
        }
    }

    /// Nothing of these tasks runs any more, and their slots are given back.
    pub(crate) fn release(&mut self, is_released: impl Fn(SubtaskId) -> bool) {
        self.tasks.retain(|subtask, _| !is_released(*subtask));
        let names: BTreeSet<_> = self.tasks.values().map(|task| &task.slot.task_manager).collect();
        self.members.retain(|name, _| names.contains(name));
    }

    /// Where the tasks run.
    pub(crate) fn placement(&self) -> Placement {
        self.tasks.iter().map(|(subtask, task)| (*subtask, task.slot.clone())).collect()
    }

    /// The attempt of a task; the newest one for a task that has no slot.
    pub(crate) fn attempt_of(&self, subtask: SubtaskId) -> Attempt {
        self.tasks.get(&subtask).map_or(self.attempt, |task| task.attempt)
    }

    /// The newest attempt for which a task manager has tasks; 0 if it has none.
    pub(crate) fn newest_on(&self, task_manager: &TaskManagerId) -> Attempt {
        self.tasks_on(task_manager).map(|subtask| self.attempt_of(subtask)).max().unwrap_or(0)
    }

    /// Connected task managers.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &TaskManagerId> {
        self.members.iter().filter(|(_, member)| member.connected).map(|(name, _)| name)
    }

    /// Whether all tasks are in one of these states.
    pub(crate) fn all_tasks(&self, is: impl Fn(TaskStatus) -> bool) -> bool {
        self.tasks.values().all(|task| is(task.status))
    }

    /// The tasks on one task manager.
    pub(crate) fn tasks_on<'a>(
        &'a self,
        task_manager: &'a TaskManagerId,
    ) -> impl Iterator<Item = SubtaskId> + 'a {
        self.tasks
            .iter()
            .filter(move |(_, task)| task.slot.task_manager == *task_manager)
            .map(|(subtask, _)| *subtask)
    }

    /// Where these tasks run, when all their workers are ready.
    pub(crate) fn locations(
        &self,
        is_wanted: impl Fn(SubtaskId) -> bool,
    ) -> Option<Vec<(SubtaskId, Worker)>> {
        let worker = |task: &Task| {
            let member = self.members.get(&task.slot.task_manager)?;
            member.worker.clone().filter(|_| !member.is_awaited)
        };
        let wanted = self.tasks.iter().filter(|(subtask, _)| is_wanted(**subtask));
        wanted.map(|(subtask, task)| Some((*subtask, worker(task)?))).collect()
    }
}
