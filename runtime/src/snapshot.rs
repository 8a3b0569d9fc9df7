//! A task's snapshot: the state of all operators of its chain at one barrier.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thalweg_common::id::OperatorId;
use thalweg_state::StateSnapshot;

/// What one task adds to a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// By operator, so that a changed chain still finds its state.
    pub operators: BTreeMap<OperatorId, OperatorSnapshot>,
}

/// The state of one operator in one subtask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// A source's positions or a sink's transactions: one entry per subtask that wrote it.
    pub operator_state: Vec<Vec<u8>>,
    /// Keyed state, by state name.
    pub keyed_state: BTreeMap<String, StateSnapshot>,
}

/// Collects a task's snapshot while the barrier passes along its chain.
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    snapshot: TaskSnapshot,
}

impl SnapshotBuilder {
    /// The entry of an operator.
    pub fn operator(&mut self, id: OperatorId) -> &mut OperatorSnapshot {
        self.snapshot.operators.entry(id).or_default()
    }

    /// The snapshot, when the barrier has passed the whole chain.
    pub fn build(self) -> TaskSnapshot {
        self.snapshot
    }
}
