//! What takes time: proposals, files. Each is a future beside the actor's mailbox, dropped with its term.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::storage;
use tracing::warn;

use super::Context;
use crate::checkpoint::{CheckpointMetadata, metadata};
use crate::cluster::{Binary, Command, Outcome, Refusal};
use crate::consensus::{Consensus, ProposeError};
use crate::job::{Input, JobSpec, Proposal};

/// Pause before a proposal that the log could not take is made again.
const PROPOSE_PAUSE: Duration = Duration::from_millis(50);

/// What was done, for which job.
pub(super) struct Done {
    pub(super) job_id: JobId,
    /// What the job's core is told; absent when it need not know.
    pub(super) input: Option<Input>,
}

pub(super) type Work = BoxFuture<'static, Done>;

/// Puts a command into the log. While the log is unavailable it is proposed again: every command of a core is accepted
/// or refused the same way the second time. That ends at the latest with the term.
pub(super) fn propose(consensus: Arc<dyn Consensus>, job_id: JobId, command: Command) -> Work {
    async move {
        let proposal = Proposal::of(&command);
        let mut is_first = true;
        let outcome = loop {
            match consensus.propose(command.clone()).await {
                Ok(outcome) => break outcome,
                Err(ProposeError::Refused { reason }) => {
                    break Outcome::Refused { reason: Refusal::ByLog { reason } };
                }
                Err(error @ (ProposeError::NotLeader { .. } | ProposeError::Unavailable { .. })) => {
                    if std::mem::take(&mut is_first) {
                        warn!("A change of job {job_id} has to wait: {error}.");
                    }
                    tokio::time::sleep(PROPOSE_PAUSE).await;
                }
            }
        };
        Done { job_id, input: Some(Input::Proposed { proposal, outcome }) }
    }
    .boxed()
}

pub(super) fn write_metadata(spec: Arc<JobSpec>, metadata: Arc<CheckpointMetadata>) -> Work {
    async move {
        let result = match &spec.checkpoint_directory {
            Some(directory) => metadata.write(directory).await.map_err(|error| error.to_string()),
            None => Err("the job has no checkpoint directory; set `execution.checkpointing.dir`".to_string()),
        };
        let (attempt, checkpoint_id) = (metadata.attempt, metadata.checkpoint_id);
        Done { job_id: spec.job_id, input: Some(Input::MetadataWritten { attempt, checkpoint_id, result }) }
    }
    .boxed()
}

pub(super) fn read_metadata(spec: Arc<JobSpec>, attempt: u32, checkpoint_id: CheckpointId) -> Work {
    async move {
        let directory = spec.checkpoint_directory.clone().unwrap_or_default();
        let read = CheckpointMetadata::read(&directory, spec.job_id, checkpoint_id, &spec.graph).await;
        let result = read.map(Arc::new).map_err(Failure::from);
        Done { job_id: spec.job_id, input: Some(Input::MetadataRead { attempt, result }) }
    }
    .boxed()
}

/// Deletes one checkpoint, or all of the job. What cannot be deleted is left to people.
pub(super) fn delete_checkpoints(spec: Arc<JobSpec>, checkpoint_id: Option<CheckpointId>) -> Work {
    async move {
        if let Some(directory) = &spec.checkpoint_directory {
            let prefix = checkpoint_id.map(metadata::checkpoint_path).unwrap_or_default();
            let deleted = match storage::open(directory) {
                Ok(storage) => storage.delete_prefix(&prefix).await,
                Err(error) => Err(error),
            };
            if let Err(error) = deleted {
                warn!("Old checkpoints of job {} remain in {directory}/{prefix}: {error}.", spec.job_id);
            }
        }
        Done { job_id: spec.job_id, input: None }
    }
    .boxed()
}

/// Fetches a job's binary to this node if it is not here: the leader is asked for it first.
pub(super) fn hold_binary(context: Arc<Context>, job_id: JobId, binary: Binary) -> Work {
    async move {
        let members = context.consensus.members();
        if let Err(failure) = context.replicator.hold(binary.sha256, binary.size_bytes, &members).await {
            warn!("The binary of job {job_id} is not here: {failure}.");
        }
        Done { job_id, input: None }
    }
    .boxed()
}
