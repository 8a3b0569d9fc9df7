//! What the leader asks of the replicated log, and what the log answers.
//!
//! Ids and times come in the command: applying it reads no clock and draws no random number. Every command about a job
//! carries its execution attempt, so that what a leader decided about an older one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_common::Timestamp;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, CheckpointId, JobId, RegionId, SubmissionId};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::status::JobStatus;

use super::job::{Base, Binary, CompletedCheckpoint, FailureRecord, Placement, RestartRecord};
use super::layout::Rescale;
use super::refusal::Refusal;

/// A change of the cluster state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Changes nothing.
    Noop,
    /// Accepts a job, in state CREATED. Its binary is checked and stored.
    SubmitJob(SubmitJob),
    /// Starts the next execution attempt of a job that is CREATED or RESTARTING, or of some of its regions.
    StartAttempt {
        /// The job.
        job_id: JobId,
        /// The present attempt plus one.
        attempt: Attempt,
        /// Where each subtask runs that it starts. All others go on where they are, in the attempts in which they are.
        placement: Placement,
        /// The checkpoint that it is restored from.
        restored: Option<CheckpointId>,
        /// Milliseconds since the epoch.
        time_ms: Timestamp,
    },
    /// Moves a job to another state.
    ChangeJobStatus(StatusChanged),
    /// Draws the id of a job's next checkpoint. Answered by [`Outcome::CheckpointBegun`].
    BeginCheckpoint {
        /// The job.
        job_id: JobId,
        /// The present attempt.
        attempt: Attempt,
        /// Milliseconds since the epoch.
        time_ms: Timestamp,
    },
    /// A checkpoint in progress is durable: from now on restarts restore it, and sinks may commit.
    CompleteCheckpoint {
        /// The job.
        job_id: JobId,
        /// The present attempt.
        attempt: Attempt,
        /// What is known of it.
        checkpoint: CompletedCheckpoint,
    },
    /// A checkpoint in progress will never complete.
    AbortCheckpoint {
        /// The job.
        job_id: JobId,
        /// The present attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint_id: CheckpointId,
    },
    /// The present attempt restores an older checkpoint than it was to, because newer ones cannot be read.
    SkipCheckpoints {
        /// The job.
        job_id: JobId,
        /// The present attempt.
        attempt: Attempt,
        /// The one that it restores.
        restored: CheckpointId,
        /// Those that cannot be read, each with the reason.
        skipped: Vec<(CheckpointId, String)>,
    },
    /// A savepoint in progress is durable. It replaces no checkpoint; if the job ends with it, sinks may commit.
    CompleteSavepoint {
        /// The job.
        job_id: JobId,
        /// The present attempt.
        attempt: Attempt,
        /// What is known of it; its path is that of its directory.
        savepoint: CompletedCheckpoint,
    },
    /// A job gets another parallelism.
    Rescale(Rescale),
    /// The savepoint in this directory is being deleted.
    ForgetSavepoint {
        /// Its URI.
        path: String,
    },
}

/// A job as it is accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmitJob {
    /// Drawn by the leader.
    pub job_id: JobId,
    /// Drawn by the client: the same one never makes a second job.
    pub submission_id: SubmissionId,
    /// The job's name for people.
    pub name: String,
    /// What runs it; absent in local mode, where the workers are in this process.
    pub binary: Option<Binary>,
    /// Given to the binary in worker mode.
    pub arguments: Vec<String>,
    /// Flink-named settings that win over those in the program.
    pub configuration: BTreeMap<String, String>,
    /// What the program reads as its runtime properties.
    pub properties: RuntimeProperties,
    /// The plan.
    pub graph: Arc<JobGraph>,
    /// URI under which checkpoints of this job are, without the job's id; absent when it takes none. Decided once, so
    /// that every later leader finds them.
    pub checkpoint_directory: Option<String>,
    /// What it begins with.
    pub base: Option<Base>,
    /// For the author: the plan's and the cluster's.
    pub warnings: Vec<String>,
    /// Milliseconds since the epoch.
    pub time_ms: Timestamp,
}

/// A job goes to another state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// The job.
    pub job_id: JobId,
    /// The present attempt; 0 when none was started.
    pub attempt: Attempt,
    /// The new state.
    pub to: JobStatus,
    /// Why, for people. May be empty.
    pub reason: String,
    /// The failure that caused it.
    pub failure: Option<FailureRecord>,
    /// With RESTARTING, the regions that go on meanwhile, by their numbers in the job's graph.
    pub going_on: BTreeSet<RegionId>,
    /// What the restart strategy remembers from now on; absent when it is unchanged.
    pub restarts: Option<RestartRecord>,
    /// Milliseconds since the epoch.
    pub time_ms: Timestamp,
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, or done before.
    Ok,
    /// The job that the submission made.
    Submitted {
        /// Its id, which is not the command's if the submission is repeated.
        job_id: JobId,
        /// Whether this submission had been accepted before.
        repeated: bool,
    },
    /// The id of the checkpoint that has begun.
    CheckpointBegun {
        /// Never used before in this job.
        checkpoint_id: CheckpointId,
    },
    /// Nothing was changed.
    Refused {
        /// Why.
        reason: Refusal,
    },
}
