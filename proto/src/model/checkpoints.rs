//! What a cluster tells about the checkpoints of a job.

use std::fmt;

use serde::Serialize;
use thalweg_common::Timestamp;
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId};

use super::{CheckpointSummary, all};
use crate::convert::{CheckpointPhases, Malformed, subtask};
use crate::v1;

/// The checkpoints of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoints {
    /// How many there were, and the latest.
    pub summary: CheckpointSummary,
    /// What can be restored, the newest last.
    pub retained: Vec<RetainedCheckpoint>,
    /// Those in progress and the last that have ended, as far as the present leader knows, the newest last.
    pub history: Vec<CheckpointStatistics>,
}

impl TryFrom<v1::ListCheckpointsResponse> for Checkpoints {
    type Error = Malformed;

    fn try_from(response: v1::ListCheckpointsResponse) -> Result<Self, Malformed> {
        Ok(Self {
            summary: response.summary.unwrap_or_default().into(),
            retained: response.retained.into_iter().map(Into::into).collect(),
            history: all(response.history)?,
        })
    }
}

/// A completed checkpoint that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetainedCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The attempt that took it.
    pub attempt: Attempt,
    /// When it was triggered.
    pub triggered_ms: Timestamp,
    /// When it completed.
    pub completed_ms: Timestamp,
    /// The size of all its state.
    pub size_bytes: u64,
    /// Where its metadata is; empty when it was kept in the cluster's memory.
    pub path: String,
    /// Whether all tasks were drained when it was triggered.
    pub is_final: bool,
    /// Why it could not be restored when that was tried; empty for a sound one.
    pub unreadable: String,
}

impl From<v1::RetainedCheckpoint> for RetainedCheckpoint {
    fn from(retained: v1::RetainedCheckpoint) -> Self {
        Self {
            id: retained.checkpoint_id,
            attempt: retained.attempt,
            triggered_ms: retained.triggered_ms,
            completed_ms: retained.completed_ms,
            size_bytes: retained.size_bytes,
            path: retained.path,
            is_final: retained.r#final,
            unreadable: retained.unreadable,
        }
    }
}

/// How far a checkpoint is. Its names are Flink's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointStatus {
    /// Not all have acknowledged it, or it is not durable yet.
    InProgress,
    /// It can be restored.
    Completed,
    /// It never completes.
    Failed,
}

impl fmt::Display for CheckpointStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        })
    }
}

/// What a checkpoint took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointStatistics {
    /// Its id.
    pub id: CheckpointId,
    /// The attempt that took it.
    pub attempt: Attempt,
    /// How far it is.
    pub status: CheckpointStatus,
    /// Whether all tasks were drained when it was triggered.
    pub is_final: bool,
    /// When it was triggered.
    pub triggered_ms: Timestamp,
    /// From the trigger to the end, or to the last acknowledgement while it is in progress.
    pub duration_ms: u64,
    /// Why it failed; empty when it did not.
    pub failure: String,
    /// How many subtasks take part.
    pub subtasks_total: u32,
    /// Those that have acknowledged.
    pub subtasks: Vec<SubtaskCheckpoint>,
}

impl CheckpointStatistics {
    /// The size of the state of all subtasks that have acknowledged, in bytes.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.subtasks.iter().map(|subtask| subtask.state_bytes).sum()
    }

    /// What was uploaded for it, in bytes.
    #[must_use]
    pub fn incremental_bytes(&self) -> u64 {
        self.subtasks.iter().map(|subtask| subtask.phases.incremental_bytes).sum()
    }
}

impl TryFrom<v1::CheckpointStatistics> for CheckpointStatistics {
    type Error = Malformed;

    fn try_from(statistics: v1::CheckpointStatistics) -> Result<Self, Malformed> {
        let status = match statistics.status() {
            v1::CheckpointStatus::Unspecified => return Err(Malformed::missing("history.status")),
            v1::CheckpointStatus::InProgress => CheckpointStatus::InProgress,
            v1::CheckpointStatus::Completed => CheckpointStatus::Completed,
            v1::CheckpointStatus::Failed => CheckpointStatus::Failed,
        };
        Ok(Self {
            id: statistics.checkpoint_id,
            attempt: statistics.attempt,
            status,
            is_final: statistics.r#final,
            triggered_ms: statistics.triggered_ms,
            duration_ms: statistics.duration_ms,
            failure: statistics.failure,
            subtasks_total: statistics.subtasks_total,
            subtasks: all(statistics.subtasks)?,
        })
    }
}

/// One subtask's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubtaskCheckpoint {
    /// The subtask.
    pub subtask: SubtaskId,
    /// From the trigger to its acknowledgement.
    pub end_to_end_ms: u64,
    /// The size of its state.
    pub state_bytes: u64,
    /// What it took.
    #[serde(flatten)]
    pub phases: CheckpointPhases,
}

impl TryFrom<v1::SubtaskCheckpoint> for SubtaskCheckpoint {
    type Error = Malformed;

    fn try_from(part: v1::SubtaskCheckpoint) -> Result<Self, Malformed> {
        Ok(Self {
            subtask: subtask("history.subtasks.subtask", part.subtask)?,
            end_to_end_ms: part.end_to_end_ms,
            state_bytes: part.state_bytes,
            phases: part.phases.unwrap_or_default().into(),
        })
    }
}
