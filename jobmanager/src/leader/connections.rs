//! The task managers that are registered in this term, and which of their slots are free.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::Timestamp;
use thalweg_common::id::TaskManagerId;
use thalweg_proto::model::ProcessMetrics;
use thalweg_proto::v1;

use super::views::TaskManagerView;
use super::{ConnectionId, Outbound};
use crate::cluster::Slot;
use crate::scheduler::place::Offer;

/// A registered task manager.
pub(super) struct TaskManager {
    pub(super) connection: ConnectionId,
    pub(super) host: String,
    pub(super) slots: u32,
    pub(super) labels: Vec<String>,
    pub(super) draining: bool,
    pub(super) connected_since_ms: Timestamp,
    pub(super) last_heartbeat_ms: Timestamp,
    pub(super) process: Option<ProcessMetrics>,
    /// Monotonic.
    pub(super) last_heard_ms: u64,
    pub(super) outbound: Outbound,
}

/// All of them. Invariant: one connection per task manager.
#[derive(Default)]
pub(super) struct Connections {
    task_managers: BTreeMap<TaskManagerId, TaskManager>,
    names: BTreeMap<ConnectionId, TaskManagerId>,
}

impl Connections {
    pub(super) fn insert(&mut self, name: TaskManagerId, task_manager: TaskManager) {
        self.names.insert(task_manager.connection, name.clone());
        self.task_managers.insert(name, task_manager);
    }

    pub(super) fn remove(&mut self, name: &TaskManagerId) -> Option<TaskManager> {
        let removed = self.task_managers.remove(name)?;
        self.names.remove(&removed.connection);
        Some(removed)
    }

    /// Whose connection this is, if it is one of this term.
    pub(super) fn name(&self, connection: ConnectionId) -> Option<TaskManagerId> {
        self.names.get(&connection).cloned()
    }

    pub(super) fn get_mut(&mut self, name: &TaskManagerId) -> Option<&mut TaskManager> {
        self.task_managers.get_mut(name)
    }

    pub(super) fn contains(&self, name: &TaskManagerId) -> bool {
        self.task_managers.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.task_managers.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &TaskManagerId> {
        self.task_managers.keys()
    }

    pub(super) fn outbounds(&self) -> impl Iterator<Item = &Outbound> {
        self.task_managers.values().map(|task_manager| &task_manager.outbound)
    }

    /// Queues a message. Fails when the task manager does not read, or is gone.
    pub(super) fn send(
        &self,
        name: &TaskManagerId,
        message: v1::JobManagerMessage,
    ) -> Result<(), &'static str> {
        let Some(task_manager) = self.task_managers.get(name) else { return Ok(()) };
        use tokio::sync::mpsc::error::TrySendError;
        task_manager.outbound.try_send(Ok(message)).map_err(|error| match error {
            TrySendError::Full(_) => "it does not read its messages",
            TrySendError::Closed(_) => "its connection was closed",
        })
    }

    /// What can be had by a job, when `held` are the slots of all jobs.
    pub(super) fn offers(&self, held: &BTreeSet<&Slot>) -> Vec<Offer> {
        let offer = |(name, task_manager): (&TaskManagerId, &TaskManager)| {
            let is_free =
                |number: &u32| !held.contains(&Slot { task_manager: name.clone(), number: *number });
            Offer {
                task_manager: name.clone(),
                slots_total: task_manager.slots,
                free: (0..task_manager.slots).filter(is_free).collect(),
                draining: task_manager.draining,
            }
        };
        self.task_managers.iter().map(offer).collect()
    }

    /// Task managers with free slots that are not to stop, those first of which a job would get slots first.
    pub(super) fn with_room(&self, held: &BTreeSet<&Slot>) -> Vec<TaskManagerId> {
        let mut offers = self.offers(held);
        offers.retain(|offer| !offer.draining && !offer.free.is_empty());
        // Sorted by name already: sorting is stable.
        offers.sort_by_key(|offer| {
            (offer.slots_total as usize - offer.free.len()) * 1_000 / offer.slots_total as usize
        });
        offers.into_iter().map(|offer| offer.task_manager).collect()
    }

    /// Those from which nothing was heard since `since_ms`.
    pub(super) fn silent_since(&self, since_ms: u64) -> Vec<TaskManagerId> {
        let silent =
            |(_, task_manager): &(&TaskManagerId, &TaskManager)| task_manager.last_heard_ms <= since_ms;
        self.task_managers.iter().filter(silent).map(|(name, _)| name.clone()).collect()
    }

    /// When the one that was silent for longest was last heard, in monotonic milliseconds.
    pub(super) fn longest_silent_ms(&self) -> Option<u64> {
        self.task_managers.values().map(|task_manager| task_manager.last_heard_ms).min()
    }

    pub(super) fn views(&self, held: &BTreeSet<&Slot>) -> Vec<TaskManagerView> {
        let free =
            self.offers(held).into_iter().map(|offer| if offer.draining { 0 } else { offer.free.len() });
        self.task_managers
            .iter()
            .zip(free)
            .map(|((name, task_manager), free)| TaskManagerView {
                id: name.clone(),
                host: task_manager.host.clone(),
                slots_total: task_manager.slots,
                slots_free: free as u32,
                labels: task_manager.labels.clone(),
                connected_since_ms: task_manager.connected_since_ms,
                last_heartbeat_ms: task_manager.last_heartbeat_ms,
                process: task_manager.process,
            })
            .collect()
    }
}
