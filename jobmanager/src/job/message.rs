//! What a job's core is told and what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, RegionId, SubtaskId, TaskManagerId, WorkerId};
use thalweg_common::status::{JobStatus, TaskStatus};
use thalweg_proto::convert::{CheckpointPhases, SnapshotHandle};
use thalweg_proto::model::SavepointMode;
use thalweg_savepoint::Metadata;

use super::requested::CheckpointNews;
use super::rescale::RescaleNews;
use super::savepoints::SavepointNews;
use crate::checkpoint::CheckpointMetadata;
use crate::checkpoint::verify::RestoreError;
use crate::cluster::{Base, Command, Layout, Outcome};
use crate::scheduler::place::Offer;

/// What the outside world shows at the moment of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Monotonic, in milliseconds: for deadlines.
    pub elapsed_ms: u64,
    /// Milliseconds since the epoch: for people and for what outlives this leader.
    pub wall_ms: Timestamp,
    /// A random number from -1 to 1.
    pub jitter: f64,
}

/// A worker process that takes tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// `host:port` of its exchange service.
    pub data_address: String,
}

/// What a task manager runs of a job, as it says when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where its tasks run.
    pub worker: Worker,
    /// The attempt that started each of them, and its state.
    pub tasks: BTreeMap<SubtaskId, (Attempt, TaskStatus)>,
}

impl Report {
    /// Whether any task has not ended.
    pub(crate) fn is_live(&self) -> bool {
        self.tasks.values().any(|(_, status)| !status.is_terminal())
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// These slots are to be had, those that the job has itself among them. Only asked for while the job wants slots.
    Slots(Vec<Offer>),
    /// A task manager has registered, and runs this much of the job.
    Registered {
        /// Who.
        task_manager: TaskManagerId,
        /// Absent when it has no worker of the job.
        report: Option<Report>,
    },
    /// A task manager was told to stop.
    Draining {
        /// Who.
        task_manager: TaskManagerId,
    },
    /// A task manager's connection is gone.
    TaskManagerLost {
        /// Who.
        task_manager: TaskManagerId,
        /// As the end of a sentence.
        reason: String,
    },
    /// Something that a task manager reports about an attempt.
    Reported {
        /// Who.
        task_manager: TaskManagerId,
        /// The attempt.
        attempt: Attempt,
        /// What.
        news: News,
    },
    /// Time has passed; also sent whenever the core's deadline is over.
    Tick,
    /// A user wants the job to end.
    Cancel,
    /// A user wants a savepoint; answered by [`Action::Savepoint`].
    Savepoint {
        /// By which the answer finds them.
        request: u64,
        /// The URI below which the savepoint's own directory is made.
        directory: String,
        /// What becomes of the job.
        mode: SavepointMode,
    },
    /// A user wants a checkpoint now; answered by [`Action::Requested`].
    Checkpoint {
        /// By which the answer finds them.
        request: u64,
    },
    /// A user wants the job to run in this layout; answered by [`Action::Rescaled`].
    Rescale {
        /// By which the answer finds them.
        request: u64,
        /// Made by the job's program.
        layout: Layout,
        /// The slots that are to be had, with those of the job itself.
        offers: Vec<Offer>,
    },
    /// What the job's program plans at this parallelism.
    Planned {
        /// As asked for.
        parallelism: u32,
        /// The layout, or why it is not known.
        result: Result<Layout, String>,
    },
    /// A proposal of this core was applied.
    Proposed {
        /// Which.
        proposal: Proposal,
        /// What the log answered.
        outcome: Outcome,
    },
    /// A metadata file is durable at this URI, or could not be written.
    MetadataWritten {
        /// The checkpoint's attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// URI or reason.
        result: Result<String, String>,
    },
    /// The metadata of a checkpoint that an attempt wants to restore.
    MetadataRead {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// What was read and checked.
        result: Result<Arc<CheckpointMetadata>, RestoreError>,
    },
    /// The shared files that a retained checkpoint names.
    SharedRead {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Their paths, or why they are not known.
        result: Result<BTreeSet<String>, String>,
    },
    /// Shared files were deleted.
    SharedDeleted {
        /// Which.
        paths: Vec<String>,
        /// Whether they are gone; otherwise it is tried again.
        are_gone: bool,
    },
    /// All files in the job's checkpoint directory.
    Listed(Vec<String>),
}

/// What a task manager reports about an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The worker takes tasks.
    WorkerReady(Worker),
    /// The worker is gone or could not be started.
    WorkerLost {
        /// Which.
        id: WorkerId,
        /// Why.
        failure: Failure,
    },
    /// A task has another state.
    Task {
        /// Which.
        subtask: SubtaskId,
        /// Its state.
        status: TaskStatus,
        /// Why it failed, with FAILED.
        failure: Option<Failure>,
    },
    /// A task's snapshot is durable.
    Acknowledged {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Whose.
        subtask: SubtaskId,
        /// Where it is.
        snapshot: SnapshotHandle,
        /// What it took.
        phases: CheckpointPhases,
    },
    /// A task cannot take part in a checkpoint.
    Declined {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Which task.
        subtask: SubtaskId,
        /// Why.
        failure: Failure,
    },
    /// All tasks of the attempt and of older ones have ended there: in these regions, or in all if there are none.
    TasksStopped(BTreeSet<RegionId>),
}

/// Which proposal was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposal {
    /// `StartAttempt`.
    StartAttempt(Attempt),
    /// `ChangeJobStatus`.
    Status(JobStatus),
    /// `BeginCheckpoint`.
    BeginCheckpoint(Attempt),
    /// `CompleteCheckpoint` or `CompleteSavepoint`.
    CompleteCheckpoint(Attempt, CheckpointId),
    /// `SkipCheckpoints`.
    SkipCheckpoints,
    /// `Rescale`.
    Rescale,
    /// Anything whose answer does not matter.
    Other,
}

impl Proposal {
    /// What a command's answer will be called.
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::StartAttempt { attempt, .. } => Self::StartAttempt(*attempt),
            Command::ChangeJobStatus(change) => Self::Status(change.to),
            Command::BeginCheckpoint { attempt, .. } => Self::BeginCheckpoint(*attempt),
            Command::CompleteCheckpoint { attempt, checkpoint, .. } => {
                Self::CompleteCheckpoint(*attempt, checkpoint.id)
            }
            Command::SkipCheckpoints { .. } => Self::SkipCheckpoints,
            Command::Rescale(_) => Self::Rescale,
            Command::CompleteSavepoint { attempt, savepoint, .. } => {
                Self::CompleteCheckpoint(*attempt, savepoint.id)
            }
            Command::ForgetSavepoint { .. }
            | Command::Noop
            | Command::SubmitJob(_)
            | Command::AbortCheckpoint { .. } => Self::Other,
        }
    }
}

/// What is to be done. Proposals are made one after the other in this order; everything else at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put into the log; answered by [`Input::Proposed`].
    Propose(Command),
    /// Tell a task manager.
    Send {
        /// Whom.
        task_manager: TaskManagerId,
        /// What.
        message: Message,
    },
    /// Slots were freed or are wanted: offer them.
    AllocateSlots,
    /// Verify this checkpoint and write its metadata file; answered by [`Input::MetadataWritten`].
    WriteMetadata {
        /// What it consists of.
        metadata: Arc<CheckpointMetadata>,
        /// Shared files that were verified before and are not deleted meanwhile.
        known: BTreeSet<String>,
    },
    /// Read the metadata of this checkpoint for this attempt and check its files; answered by [`Input::MetadataRead`].
    ReadMetadata {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Where it is, if it is another job's.
        base: Option<Base>,
        /// Whether the files' contents are checked too, because something was wrong before.
        as_a_whole: bool,
    },
    /// Read which shared files this retained checkpoint names; answered by [`Input::SharedRead`].
    ReadShared(CheckpointId),
    /// Delete these shared files; answered by [`Input::SharedDeleted`].
    DeleteShared(Vec<String>),
    /// List all files in the job's checkpoint directory; answered by [`Input::Listed`].
    ListFiles,
    /// Delete a checkpoint's own files.
    DeleteCheckpoint(CheckpointId),
    /// Delete all files of the job's checkpoints.
    DeleteAllCheckpoints,
    /// Write the metadata of a savepoint into its directory; answered by [`Input::MetadataWritten`].
    WriteSavepoint {
        /// The attempt that took it.
        attempt: Attempt,
        /// The URI of its directory.
        directory: String,
        /// What it consists of.
        metadata: Arc<Metadata>,
    },
    /// Delete all files of the savepoint in this directory.
    DeleteSavepoint(String),
    /// Delete this checkpoint of another job, with those of its files that no other checkpoint there needs.
    DeleteForeign(Base),
    /// Tell whoever asked for a savepoint.
    Savepoint {
        /// By which they are found.
        request: u64,
        /// What.
        news: SavepointNews,
    },
    /// Tell whoever asked for a checkpoint.
    Requested {
        /// By which they are found.
        request: u64,
        /// What.
        news: CheckpointNews,
    },
    /// Tell whoever asked for another parallelism.
    Rescaled {
        /// By which they are found.
        request: u64,
        /// What.
        news: RescaleNews,
    },
    /// Let the job's program plan at this parallelism; answered by [`Input::Planned`].
    Plan {
        /// Of operators that set none.
        parallelism: u32,
    },
    /// A task manager does not do what it is told: close its connection.
    Disconnect {
        /// Whom.
        task_manager: TaskManagerId,
        /// Why.
        reason: String,
    },
    /// A report of another attempt was refused.
    RefuseStale {
        /// Whose.
        task_manager: TaskManagerId,
        /// Of which attempt.
        attempt: Attempt,
    },
    /// For the log of people.
    Log(String),
    /// For the log of people, and worth a look.
    Warn(String),
}

/// What a task manager is told about the job.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Start a worker or reuse a healthy one.
    StartWorker {
        /// The attempt it is for.
        attempt: Attempt,
    },
    /// Start tasks.
    DeployTasks(Deployment),
    /// Stop the tasks of this and older attempts.
    CancelTasks {
        /// The attempt.
        attempt: Attempt,
        /// In these regions; in all if there are none.
        regions: BTreeSet<RegionId>,
    },
    /// Let sources emit barriers.
    TriggerCheckpoint {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Milliseconds since the epoch.
        timestamp_ms: Timestamp,
        /// Whether tasks finish when it completes.
        is_final: bool,
    },
    /// Let sources emit the barriers of a savepoint, and workers know where it goes.
    TriggerSavepoint {
        /// The attempt.
        attempt: Attempt,
        /// Its number.
        checkpoint_id: CheckpointId,
        /// Milliseconds since the epoch.
        timestamp_ms: Timestamp,
        /// Whether tasks finish when it completes.
        is_final: bool,
        /// The URI of its directory.
        directory: String,
    },
    /// Sources read no more, as if their input had ended.
    EndInput {
        /// The attempt.
        attempt: Attempt,
    },
    /// A checkpoint is durable: sinks commit.
    CheckpointCompleted {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Whether tasks finish now.
        is_final: bool,
    },
    /// A checkpoint will never complete.
    CheckpointAborted {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
    },
    /// The job has ended.
    StopWorker,
}

/// The tasks of one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The attempt.
    pub attempt: Attempt,
    /// What it runs, each with the snapshots to restore.
    pub tasks: Vec<(SubtaskId, Vec<SnapshotHandle>)>,
    /// Where all tasks run that the attempt starts.
    pub locations: Arc<Vec<(SubtaskId, Worker)>>,
    /// The checkpoint that snapshots come from.
    pub restored: Option<CheckpointId>,
    /// What is restored in place of the job's own snapshots: a savepoint, which tasks read themselves, or another job's checkpoint, in whose
    /// directory the files of the snapshots are.
    pub base: Option<Base>,
}
