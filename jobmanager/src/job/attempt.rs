//! One execution attempt: which task managers take part, and the states of its tasks.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::{Attempt, CheckpointId, SubtaskId, TaskManagerId};
use thalweg_common::status::TaskStatus;

use super::message::Worker;
use crate::cluster::{Placement, Slot};

/// A task manager that takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// Whether this leader has a connection to it.
    pub(crate) connected: bool,
    /// Its worker, once it is ready.
    pub(crate) worker: Option<Worker>,
}

/// A task of the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// Where it runs.
    pub(crate) slot: Slot,
    /// As last reported.
    pub(crate) status: TaskStatus,
}

/// The present attempt, or the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Execution {
    /// Its number; 0 before the first.
    pub(crate) attempt: Attempt,
    /// The checkpoint that it is restored from.
    pub(crate) restored: Option<CheckpointId>,
    /// Who takes part.
    pub(crate) members: BTreeMap<TaskManagerId, Member>,
    /// What runs.
    pub(crate) tasks: BTreeMap<SubtaskId, Task>,
}

impl Execution {
    /// An attempt that has slots and nothing more; `connected` to all its task managers or, after a change of the
    /// leader, to none yet.
    pub(crate) fn new(
        attempt: Attempt,
        restored: Option<CheckpointId>,
        placement: &Placement,
        connected: bool,
    ) -> Self {
        let task = |slot: &Slot| Task { slot: slot.clone(), status: TaskStatus::Scheduled };
        let names: BTreeSet<_> = placement.values().map(|slot| slot.task_manager.clone()).collect();
        Self {
            attempt,
            restored,
            members: names.into_iter().map(|name| (name, Member { connected, worker: None })).collect(),
            tasks: placement.iter().map(|(subtask, slot)| (*subtask, task(slot))).collect(),
        }
    }

    /// Nothing of it runs any more and its slots are given back: only its number remains.
    pub(crate) fn release(&mut self) {
        self.members.clear();
        self.tasks.clear();
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

    /// Where all tasks run, when all workers are ready.
    pub(crate) fn locations(&self) -> Option<Vec<(SubtaskId, Worker)>> {
        let worker =
            |task: &Task| self.members.get(&task.slot.task_manager).and_then(|member| member.worker.clone());
        self.tasks.iter().map(|(subtask, task)| Some((*subtask, worker(task)?))).collect()
    }
}
