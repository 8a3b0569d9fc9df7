//! What the cluster remembers of one job: everything that a new leader needs to carry it on, and its history for people.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, CheckpointId, JobId, SubmissionId, SubtaskId, TaskManagerId};
use thalweg_common::limits::{
    MAX_FAILURE_TEXT_BYTES, MAX_JOB_FAILURES, MAX_JOB_HISTORY, MAX_RESTART_TIMES, RETAINED_CHECKPOINTS,
};
use thalweg_common::status::JobStatus;
use thalweg_proto::blob::BlobHash;

/// Where each subtask of an attempt runs.
pub type Placement = BTreeMap<SubtaskId, Slot>;

/// One slot of one task manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Whose.
    pub task_manager: TaskManagerId,
    /// From 0 to the task manager's number of slots.
    pub number: u32,
}

/// A job binary, by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// The SHA-256 of its bytes.
    pub sha256: BlobHash,
    /// How many they are.
    pub size_bytes: u64,
}

/// A failure that a job had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Milliseconds since the epoch.
    pub time_ms: Timestamp,
    /// The attempt that it ended.
    pub attempt: Attempt,
    /// The task that failed, as `map (2/4)#1`. Empty when no single one did.
    pub task: String,
    /// Where. Empty when nowhere in particular.
    pub task_manager: String,
    /// What happened.
    pub failure: Failure,
}

/// A job went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// From 1 in every job, without gaps, so that a watcher sees what it has missed.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub time_ms: Timestamp,
    /// The state before.
    pub from: JobStatus,
    /// The state after.
    pub to: JobStatus,
    /// The attempt at that time.
    pub attempt: Attempt,
    /// Why. May be empty.
    pub reason: String,
    /// The failure that caused it.
    pub failure: Option<Failure>,
}

/// A checkpoint that can be restored, or the final one that let the tasks finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The attempt that took it.
    pub attempt: Attempt,
    /// Whether all tasks were drained when it was triggered.
    pub is_final: bool,
    /// When it was triggered, in milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// When its last acknowledgement arrived.
    pub completed_ms: Timestamp,
    /// Of all snapshots together.
    pub size_bytes: u64,
    /// URI of the metadata file. Absent when checkpointing is off: then nothing can be restored from it.
    pub path: Option<String>,
}

/// What the restart strategy remembers of a job, so that a new leader decides as the old one would have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRecord {
    /// Restarts so far; with exponential delay those since the job last ran well for long enough.
    pub restarts: u32,
    /// The last delay in milliseconds, before jitter; 0 before the first failure. Grows with exponential delay.
    pub backoff_ms: u64,
    /// When the last failures happened, the newest last; as many as the strategy needs, at most [`MAX_RESTART_TIMES`].
    pub failure_times_ms: VecDeque<Timestamp>,
    /// When the next attempt may start.
    pub resume_at_ms: Timestamp,
}

impl RestartRecord {
    /// Remembers a failure and forgets the oldest beyond `keep`.
    pub(crate) fn remember(&mut self, time_ms: Timestamp, keep: usize) {
        self.failure_times_ms.push_back(time_ms);
        while self.failure_times_ms.len() > keep.min(MAX_RESTART_TIMES) {
            self.failure_times_ms.pop_front();
        }
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// The submission that made it.
    pub submission_id: SubmissionId,
    /// Its name for people.
    pub name: String,
    /// What runs it; absent in local mode.
    pub binary: Option<Binary>,
    /// Given to the binary.
    pub arguments: Vec<String>,
    /// Settings of the submission.
    pub configuration: BTreeMap<String, String>,
    /// Its plan.
    pub graph: Arc<JobGraph>,
    /// URI under which its checkpoints are, without its id; absent when it takes none.
    pub checkpoint_directory: Option<String>,
    /// For the author.
    pub warnings: Vec<String>,
    /// When it was accepted, in milliseconds since the epoch.
    pub submitted_ms: Timestamp,
    /// When it ended.
    pub ended_ms: Option<Timestamp>,
    /// Its state.
    pub status: JobStatus,
    /// Why it is in its state.
    pub reason: String,
    /// The present execution attempt; 0 before the first.
    pub attempt: Attempt,
    /// Where the present attempt runs, or the last one ran.
    pub placement: Placement,
    /// The checkpoint that the present attempt was restored from.
    pub restored: Option<CheckpointId>,
    /// What the restart strategy remembers.
    pub restarts: RestartRecord,
    /// The last id that was drawn; 0 before the first.
    pub last_checkpoint_id: CheckpointId,
    /// The checkpoint that has begun and is neither completed nor aborted.
    pub checkpoint_in_progress: Option<CheckpointId>,
    /// The completed checkpoints that are kept, the newest last; at most [`RETAINED_CHECKPOINTS`].
    pub checkpoints: VecDeque<CompletedCheckpoint>,
    /// How many completed.
    pub checkpoints_completed: u64,
    /// How many began and did not complete.
    pub checkpoints_failed: u64,
    /// The newest last; at most [`MAX_JOB_FAILURES`].
    pub failures: VecDeque<FailureRecord>,
    /// The newest last; at most [`MAX_JOB_HISTORY`].
    pub history: VecDeque<StatusChange>,
    /// How many there were.
    pub status_changes: u64,
}

impl JobRecord {
    /// The newest completed checkpoint.
    #[must_use]
    pub fn latest_checkpoint(&self) -> Option<&CompletedCheckpoint> {
        self.checkpoints.back()
    }

    /// The state changes after number `seen`, as far as they are remembered.
    pub fn changes_after(&self, seen: u64) -> impl Iterator<Item = &StatusChange> {
        self.history.iter().filter(move |change| change.number > seen)
    }

    pub(super) fn add_change(&mut self, mut change: StatusChange) {
        self.status_changes += 1;
        change.number = self.status_changes;
        change.failure = change.failure.map(bounded);
        self.history.push_back(change);
        while self.history.len() > MAX_JOB_HISTORY {
            self.history.pop_front();
        }
    }

    pub(super) fn add_failure(&mut self, mut record: FailureRecord) {
        record.failure = bounded(record.failure);
        self.failures.push_back(record);
        while self.failures.len() > MAX_JOB_FAILURES {
            self.failures.pop_front();
        }
    }

    pub(super) fn add_checkpoint(&mut self, checkpoint: CompletedCheckpoint) {
        self.checkpoints_completed += 1;
        self.checkpoint_in_progress = None;
        self.checkpoints.push_back(checkpoint);
        while self.checkpoints.len() > RETAINED_CHECKPOINTS {
            self.checkpoints.pop_front();
        }
    }

    /// Forgets the checkpoint in progress, which failed.
    pub(super) fn drop_checkpoint_in_progress(&mut self) {
        if self.checkpoint_in_progress.take().is_some() {
            self.checkpoints_failed += 1;
        }
    }
}

/// The failure with texts of a length that can be kept.
fn bounded(mut failure: Failure) -> Failure {
    for text in [&mut failure.message, &mut failure.details] {
        if text.len() > MAX_FAILURE_TEXT_BYTES {
            text.truncate(text.floor_char_boundary(MAX_FAILURE_TEXT_BYTES));
        }
    }
    failure
}
