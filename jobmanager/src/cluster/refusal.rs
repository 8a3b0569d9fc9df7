//! Why a command changed nothing.
//!
//! Refusals are values: every node answers the same one, and the leader decides by its type what to do about it.

use serde::{Deserialize, Serialize};
use thalweg_common::id::{Attempt, CheckpointId, JobId};
use thalweg_common::status::JobStatus;

/// A command that does not fit the state. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No job has this id, or it ended so long ago that it is forgotten.
    #[error(
        "there is no job {job_id}; it may have ended so long ago that it is forgotten: `thalweg list` shows all that are known"
    )]
    UnknownJob {
        /// As asked for.
        job_id: JobId,
    },
    /// Another submission has this job id already.
    #[error("job id {job_id} is taken by another submission; submit again, a new id is drawn")]
    JobIdTaken {
        /// As asked for.
        job_id: JobId,
    },
    /// The command belongs to another execution attempt than the present one.
    #[error("attempt {given} of job {job_id} is stale, the present attempt is {present}")]
    StaleAttempt {
        /// The job.
        job_id: JobId,
        /// The command's.
        given: Attempt,
        /// The state's.
        present: Attempt,
    },
    /// The job's state does not allow it.
    #[error("job {job_id} is {status} and cannot become {wanted}")]
    Transition {
        /// The job.
        job_id: JobId,
        /// The present state.
        status: JobStatus,
        /// The wanted one.
        wanted: JobStatus,
    },
    /// The job's state does not allow to start an attempt or to deal with checkpoints.
    #[error("job {job_id} is {status}: {operation} is not possible in this state")]
    NotNow {
        /// The job.
        job_id: JobId,
        /// The present state.
        status: JobStatus,
        /// What was asked for.
        operation: Operation,
    },
    /// The checkpoint is not in progress: it is over, or a newer one completed.
    #[error("checkpoint {given} of job {job_id} is not in progress{}", match in_progress { Some(id) => format!(", the newest is {id}"), None => String::new() })]
    StaleCheckpoint {
        /// The job.
        job_id: JobId,
        /// The command's.
        given: CheckpointId,
        /// The state's newest.
        in_progress: Option<CheckpointId>,
    },
    /// The log cannot take the command, for example because it is too large.
    #[error("{reason}")]
    ByLog {
        /// Cause and cure.
        reason: String,
    },
    /// As many jobs as a cluster may have are alive.
    #[error(
        "the cluster has {jobs} jobs that have not ended, which is its limit; cancel some and submit again"
    )]
    TooManyJobs {
        /// How many.
        jobs: u64,
    },
}

/// What was asked for in [`Refusal::NotNow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// `StartAttempt`.
    StartAttempt,
    /// `BeginCheckpoint`.
    BeginCheckpoint,
    /// `CompleteCheckpoint`.
    CompleteCheckpoint,
    /// `SkipCheckpoints`.
    SkipCheckpoints,
    /// `CompleteSavepoint`.
    CompleteSavepoint,
    /// `Rescale`.
    Rescale,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StartAttempt => "starting an attempt",
            Self::BeginCheckpoint => "beginning a checkpoint",
            Self::CompleteCheckpoint => "completing a checkpoint",
            Self::SkipCheckpoints => "skipping a checkpoint",
            Self::CompleteSavepoint => "completing a savepoint",
            Self::Rescale => "rescaling",
        })
    }
}
