//! What the cluster remembers of one job: everything that a new leader needs to carry it on, and its history for people.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, Regions};
use thalweg_common::id::{Attempt, CheckpointId, JobId, RegionId, SubmissionId, SubtaskId, TaskManagerId};
use thalweg_common::limits::{
    MAX_CONCURRENT_CHECKPOINTS, MAX_FAILURE_TEXT_BYTES, MAX_JOB_FAILURES, MAX_JOB_HISTORY,
    MAX_JOB_SAVEPOINTS, MAX_RESTART_TIMES,
};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::status::JobStatus;
use thalweg_proto::blob::BlobHash;

use super::layout::OtherLayouts;

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
    /// Why it could not be restored when that was tried; absent for a sound one.
    pub unreadable: Option<String>,
}

impl CompletedCheckpoint {
    /// What the job is restored from behind a savepoint with which it was to end.
    pub(crate) fn as_base(&self) -> Option<Base> {
        let path = self.path.clone().filter(|_| self.is_final)?;
        let kind = BaseKind::Savepoint;
        Some(Base { id: self.id, path, kind, allow_non_restored_state: false, is_claimed: false })
    }
}

/// Adds a checkpoint to those that are kept and gives the ones that are not kept any more: those that cannot be read
/// first, then the oldest.
pub(crate) fn retain(
    checkpoints: &mut VecDeque<CompletedCheckpoint>,
    checkpoint: CompletedCheckpoint,
    keep: usize,
) -> Vec<CompletedCheckpoint> {
    // Without a file nothing can be restored, so that only the newest says anything.
    let keep = if checkpoint.path.is_some() { keep.max(1) } else { 1 };
    let surplus = (checkpoints.len() + 1).saturating_sub(keep);
    let dropped = (0..surplus).filter_map(|_| {
        let unreadable = checkpoints.iter().position(|checkpoint| checkpoint.unreadable.is_some());
        checkpoints.remove(unreadable.unwrap_or(0))
    });
    let dropped = dropped.collect();
    checkpoints.push_back(checkpoint);
    dropped
}

/// Remembers which checkpoints could not be restored, and that another one could.
pub(crate) fn skip(
    checkpoints: &mut VecDeque<CompletedCheckpoint>,
    restored: CheckpointId,
    skipped: Vec<(CheckpointId, String)>,
) {
    let mut mark = |wanted: CheckpointId, unreadable: Option<String>| {
        if let Some(checkpoint) = checkpoints.iter_mut().find(|checkpoint| checkpoint.id == wanted) {
            checkpoint.unreadable = unreadable;
        }
    };
    for (checkpoint_id, mut reason) in skipped {
        cut(&mut reason);
        mark(checkpoint_id, Some(reason));
    }
    mark(restored, None);
}

/// What can be restored, in the order in which it is tried: the newest first, also if it could not be read the last time, because no
/// older one loses and doubles as little; what could not be read and has been replaced by newer ones last.
pub(crate) fn candidates(checkpoints: &VecDeque<CompletedCheckpoint>) -> Vec<CheckpointId> {
    let with_file = checkpoints.iter().rev().filter(|checkpoint| checkpoint.path.is_some());
    let (mut sound, mut unreadable): (Vec<_>, Vec<_>) =
        with_file.partition(|checkpoint| checkpoint.unreadable.is_none());
    let newest_sound = sound.first().map_or(0, |checkpoint| checkpoint.id);
    let replaced = unreadable.split_off(unreadable.partition_point(|one| one.id > newest_sound));
    let mut candidates = unreadable;
    candidates.append(&mut sound);
    candidates.extend(replaced);
    candidates.into_iter().map(|checkpoint| checkpoint.id).collect()
}

/// What a [`Base`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseKind {
    /// A savepoint: each task reads what it needs of it.
    Savepoint,
    /// A checkpoint of another job: its snapshots are restored as this job's own are, and its files are never named in checkpoints of
    /// this one.
    Checkpoint,
}

/// What a job is restored from as long as no newer checkpoint can be: the savepoint or other job's checkpoint that it began with, or the
/// savepoint with which it was to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its number. The job's own checkpoints have higher ones, or lower ones if it was to end with this.
    pub id: CheckpointId,
    /// The URI of its directory.
    pub path: String,
    /// What it is.
    pub kind: BaseKind,
    /// Whether state that the job does not declare is dropped.
    pub allow_non_restored_state: bool,
    /// Whether it is deleted when checkpoints have replaced it.
    pub is_claimed: bool,
}

/// Lets go of what the job began with, when as many newer checkpoints are kept as shall be. Gives it if it is to be deleted.
pub(crate) fn release(
    base: &mut Option<Base>,
    checkpoints: &VecDeque<CompletedCheckpoint>,
    keep: usize,
) -> Option<Base> {
    let replaced = base.take_if(|base| {
        let newer = |checkpoint: &&CompletedCheckpoint| checkpoint.id > base.id && checkpoint.path.is_some();
        checkpoints.iter().filter(newer).count() >= keep.max(1)
    });
    replaced.filter(|base| base.is_claimed)
}

/// Remembers a savepoint; the oldest are forgotten.
pub(crate) fn remember(savepoints: &mut VecDeque<CompletedCheckpoint>, savepoint: CompletedCheckpoint) {
    savepoints.push_back(savepoint);
    while savepoints.len() > MAX_JOB_SAVEPOINTS {
        savepoints.pop_front();
    }
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
    /// What its program reads as runtime properties.
    pub properties: RuntimeProperties,
    /// Its plan.
    pub graph: Arc<JobGraph>,
    /// Its plans at other parallelisms that it may go to.
    pub layouts: OtherLayouts,
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
    /// The newest execution attempt; 0 before the first.
    pub attempt: Attempt,
    /// Where each subtask runs, or ran last.
    pub placement: Placement,
    /// The attempt that started each of them: the newest one, unless only other regions were restarted since.
    pub attempts: BTreeMap<SubtaskId, Attempt>,
    /// The regions that go on while the job is RESTARTING: their tasks run in the attempts that started them. Empty when none does, and in
    /// every other state.
    pub going_on: BTreeSet<RegionId>,
    /// The checkpoint that the newest attempt was restored from.
    pub restored: Option<CheckpointId>,
    /// What the restart strategy remembers.
    pub restarts: RestartRecord,
    /// The last id that was drawn; 0 before the first.
    pub last_checkpoint_id: CheckpointId,
    /// The checkpoints that have begun and are neither completed nor aborted; at most [`MAX_CONCURRENT_CHECKPOINTS`].
    pub checkpoints_in_progress: BTreeSet<CheckpointId>,
    /// The completed checkpoints that are kept, the newest last; as many as the job's configuration says.
    pub checkpoints: VecDeque<CompletedCheckpoint>,
    /// What it is restored from while no newer checkpoint can be.
    pub base: Option<Base>,
    /// The completed savepoints, the newest last; at most [`MAX_JOB_SAVEPOINTS`].
    pub savepoints: VecDeque<CompletedCheckpoint>,
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
    /// How often all of its tasks were started again.
    pub full_restarts: u64,
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

    /// Whether exactly these subtasks were started by this attempt, in these places.
    pub(super) fn was_started(&self, attempt: Attempt, placement: &Placement) -> bool {
        let of_attempt = self.attempts.iter().filter(|(_, started_by)| **started_by == attempt);
        let places = of_attempt.map(|(subtask, _)| (subtask, self.placement.get(subtask)));
        places.eq(placement.iter().map(|(subtask, slot)| (subtask, Some(slot))))
    }

    /// Starts an attempt of these subtasks.
    pub(super) fn start(&mut self, attempt: Attempt, placement: Placement, restored: Option<CheckpointId>) {
        if !self.going_on.is_empty() {
            let started = Regions::of(&self.graph).regions(placement.keys().copied());
            self.going_on.retain(|region| !started.contains(region));
        }
        // The graph may be another one since the last attempt.
        let subtasks: BTreeSet<_> = self.graph.subtasks().collect();
        let is_restart = self.attempt > 0 && placement.len() == subtasks.len();
        self.full_restarts += u64::from(is_restart);
        self.attempt = attempt;
        self.restored = restored;
        self.placement.retain(|subtask, _| subtasks.contains(subtask));
        self.attempts.retain(|subtask, _| subtasks.contains(subtask));
        self.attempts.extend(placement.keys().map(|subtask| (*subtask, attempt)));
        self.placement.extend(placement);
    }

    /// Keeps a checkpoint that has completed. All older ones that are in progress are over with it.
    /// Gives what the job began with, if that is not needed any more and is to be deleted.
    pub(super) fn add_checkpoint(&mut self, checkpoint: CompletedCheckpoint) -> Option<Base> {
        self.checkpoints_completed += 1;
        self.checkpoints_in_progress.remove(&checkpoint.id);
        let newer = self.checkpoints_in_progress.split_off(&checkpoint.id);
        self.drop_checkpoints_in_progress();
        self.checkpoints_in_progress = newer;
        let keep = self.graph.checkpointing.keeps();
        retain(&mut self.checkpoints, checkpoint, keep);
        release(&mut self.base, &self.checkpoints, keep)
    }

    /// Keeps a savepoint that has completed. If the job was to end with it and fails to, it goes on from there.
    pub(super) fn add_savepoint(&mut self, savepoint: CompletedCheckpoint) {
        self.checkpoints_in_progress.remove(&savepoint.id);
        self.base = savepoint.as_base().or(self.base.take());
        remember(&mut self.savepoints, savepoint);
    }

    /// Draws the id of the next checkpoint. A leader that begins more than may be has forgotten the oldest.
    pub(super) fn begin_checkpoint(&mut self) -> CheckpointId {
        self.last_checkpoint_id += 1;
        self.checkpoints_in_progress.insert(self.last_checkpoint_id);
        while self.checkpoints_in_progress.len() > MAX_CONCURRENT_CHECKPOINTS {
            self.checkpoints_in_progress.pop_first();
            self.checkpoints_failed += 1;
        }
        self.last_checkpoint_id
    }

    /// Forgets a checkpoint in progress, which failed.
    pub(super) fn abort_checkpoint(&mut self, checkpoint_id: CheckpointId) {
        self.checkpoints_failed += u64::from(self.checkpoints_in_progress.remove(&checkpoint_id));
    }

    /// Forgets the checkpoints in progress, which failed.
    pub(super) fn drop_checkpoints_in_progress(&mut self) {
        self.checkpoints_failed += std::mem::take(&mut self.checkpoints_in_progress).len() as u64;
    }

    /// The present attempt restores `restored`, after it was tried in vain with others.
    pub(super) fn skip_checkpoints(&mut self, restored: CheckpointId, skipped: Vec<(CheckpointId, String)>) {
        self.restored = Some(restored);
        skip(&mut self.checkpoints, restored, skipped);
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_FAILURE_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_FAILURE_TEXT_BYTES));
    }
}

/// The failure with texts of a length that can be kept.
fn bounded(mut failure: Failure) -> Failure {
    [&mut failure.message, &mut failure.details].into_iter().for_each(cut);
    failure
}
