//! What the cluster tells of savepoints.

use serde::Serialize;
use thalweg_common::Timestamp;
use thalweg_common::id::CheckpointId;

use crate::v1;

/// What becomes of a job of which a savepoint is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavepointMode {
    /// It goes on.
    Continue,
    /// It ends; sources stop where they are.
    Stop,
    /// It ends as if its input had ended: operators emit all they have.
    Drain,
}

impl From<SavepointMode> for v1::SavepointMode {
    fn from(mode: SavepointMode) -> Self {
        match mode {
            SavepointMode::Continue => Self::Continue,
            SavepointMode::Stop => Self::Stop,
            SavepointMode::Drain => Self::Drain,
        }
    }
}

/// A completed savepoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavepointSummary {
    /// Its number, from the same row as the job's checkpoints.
    pub id: CheckpointId,
    /// The URI of its directory.
    pub path: String,
    /// When it was triggered.
    pub triggered_ms: Timestamp,
    /// When it was complete.
    pub completed_ms: Timestamp,
    /// Of its data files, in bytes.
    pub size_bytes: u64,
    /// Whether the job ended with it.
    pub is_final: bool,
}

impl From<v1::SavepointSummary> for SavepointSummary {
    fn from(savepoint: v1::SavepointSummary) -> Self {
        Self {
            id: savepoint.savepoint_id,
            path: savepoint.path,
            triggered_ms: savepoint.triggered_ms,
            completed_ms: savepoint.completed_ms,
            size_bytes: savepoint.size_bytes,
            is_final: savepoint.r#final,
        }
    }
}

/// How far a savepoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavepointProgress {
    /// Its number; absent while it has not begun.
    pub id: Option<CheckpointId>,
    /// Subtasks whose part is written.
    pub acknowledged: u32,
    /// All subtasks.
    pub subtasks: u32,
}

impl From<v1::SavepointProgress> for SavepointProgress {
    fn from(progress: v1::SavepointProgress) -> Self {
        let id = Some(progress.savepoint_id).filter(|id| *id > 0);
        Self { id, acknowledged: progress.acknowledged, subtasks: progress.subtasks }
    }
}
