//! What takes time: proposals, files. Each is a future beside the actor's mailbox, dropped with its term.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, JobId};
use thalweg_common::storage::{Storage, StorageFactory};
use thalweg_savepoint::Metadata;
use tracing::warn;

use super::Context;
use crate::checkpoint::verify::{self, RestoreError};
use crate::checkpoint::{CheckpointMetadata, foreign, metadata};
use crate::cluster::{Base, Binary, Command, Outcome, Refusal};
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

/// The files of a job's checkpoints.
pub(super) struct JobFiles {
    pub(super) spec: Arc<JobSpec>,
    pub(super) storages: StorageFactory,
}

impl JobFiles {
    fn open(&self) -> Result<Arc<dyn Storage>, Failure> {
        let Some(directory) = &self.spec.checkpoint_directory else {
            return Err(Failure::user(
                "the job has no checkpoint directory; set `execution.checkpointing.dir`",
            ));
        };
        self.storages.open(directory).map_err(|error| Failure::from(&error))
    }
}

/// Verifies what was acknowledged, then writes the metadata file.
pub(super) fn write_metadata(
    files: JobFiles,
    metadata: Arc<CheckpointMetadata>,
    known: BTreeSet<String>,
) -> Work {
    async move {
        let (attempt, checkpoint_id) = (metadata.attempt, metadata.checkpoint_id);
        let written = async {
            let storage = files.open().map_err(|failure| failure.message)?;
            let verified = verify::acknowledged(&*storage, &metadata, &known).await;
            verified.map_err(|error| format!("it is incomplete: {error}"))?;
            let written = metadata.write(&*storage).await;
            written.map_err(|error| format!("its metadata could not be written: {error}"))
        };
        let result = written.await;
        Done {
            job_id: files.spec.job_id,
            input: Some(Input::MetadataWritten { attempt, checkpoint_id, result }),
        }
    }
    .boxed()
}

/// Checks that the files of a savepoint are there, and writes its metadata.
pub(super) fn write_savepoint(
    files: JobFiles,
    attempt: Attempt,
    directory: String,
    metadata: Arc<Metadata>,
) -> Work {
    async move {
        let checkpoint_id = metadata.savepoint_id;
        let written = async {
            let storage = files.storages.open(&directory).map_err(|error| error.to_string())?;
            let listed = storage.list("").await.map_err(|error| error.to_string())?;
            let sizes: BTreeMap<_, _> = listed.into_iter().map(|object| (object.path, object.size)).collect();
            for file in &metadata.files {
                let found = sizes.get(&file.path);
                if found != Some(&file.size_bytes) {
                    let found = found.map_or("is not there".to_string(), |size| format!("has {size} bytes"));
                    return Err(format!(
                        "`{}` in {directory} {found} instead of {} bytes; all machines must reach the same directory",
                        file.path, file.size_bytes
                    ));
                }
            }
            metadata.write(&*storage).await.map_err(|error| error.to_string())?;
            Ok(directory)
        };
        let result = written.await;
        let input = Input::MetadataWritten { attempt, checkpoint_id, result };
        Done { job_id: files.spec.job_id, input: Some(input) }
    }
    .boxed()
}

/// Deletes a savepoint that failed or is not needed any more. What cannot be deleted is left to people.
pub(super) fn delete_savepoint(files: JobFiles, directory: String) -> Work {
    async move {
        let deleted = match files.storages.open(&directory) {
            Ok(storage) => storage.delete_prefix("").await,
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            warn!("Files of a savepoint that nobody needs remain in {directory}: {error}.");
        }
        Done { job_id: files.spec.job_id, input: None }
    }
    .boxed()
}

/// Deletes a checkpoint of another job that this one has claimed. What cannot be deleted is left to people.
pub(super) fn delete_foreign(files: JobFiles, base: Base) -> Work {
    async move {
        if let Err(error) = foreign::delete(&files.storages, &base.path).await {
            warn!("Files of a checkpoint that nobody needs remain in {}: {error}.", base.path);
        }
        Done { job_id: files.spec.job_id, input: None }
    }
    .boxed()
}

/// Reads a checkpoint that is to be restored, perhaps another job's, and checks its files.
pub(super) fn read_metadata(
    files: JobFiles,
    attempt: Attempt,
    (checkpoint_id, base): (CheckpointId, Option<Base>),
    as_a_whole: bool,
) -> Work {
    async move {
        let JobSpec { job_id, graph, .. } = &*files.spec;
        let result = match (base, files.open()) {
            (Some(base), _) => foreign::restorable(&files.storages, &base, graph, as_a_whole).await,
            (None, Ok(storage)) => {
                verify::restorable(&*storage, *job_id, checkpoint_id, graph, as_a_whole).await
            }
            (None, Err(failure)) => Err(RestoreError::Failed(failure)),
        };
        let result = result.map(Arc::new);
        Done {
            job_id: files.spec.job_id,
            input: Some(Input::MetadataRead { attempt, checkpoint_id, result }),
        }
    }
    .boxed()
}

/// Reads which shared files a retained checkpoint names.
pub(super) fn read_shared(files: JobFiles, checkpoint_id: CheckpointId) -> Work {
    async move {
        let result = match files.open() {
            Ok(storage) => {
                let read =
                    CheckpointMetadata::read(&*storage, files.spec.job_id, checkpoint_id, &files.spec.graph)
                        .await;
                read.map(|metadata| metadata.shared_files()).map_err(|error| error.to_string())
            }
            Err(failure) => Err(failure.message),
        };
        Done { job_id: files.spec.job_id, input: Some(Input::SharedRead { checkpoint_id, result }) }
    }
    .boxed()
}

/// Deletes shared files. What cannot be deleted is tried again behind a later checkpoint.
pub(super) fn delete_shared(files: JobFiles, paths: Vec<String>) -> Work {
    async move {
        let deleted = match files.open() {
            Ok(storage) => storage.delete_many(&paths).await.map_err(|error| error.to_string()),
            Err(failure) => Err(failure.message),
        };
        if let Err(error) = &deleted {
            warn!("Shared files of job {} are not deleted yet: {error}.", files.spec.job_id);
        }
        let input = Input::SharedDeleted { paths, are_gone: deleted.is_ok() };
        Done { job_id: files.spec.job_id, input: Some(input) }
    }
    .boxed()
}

/// Lists all files of the job's checkpoints.
pub(super) fn list_files(files: JobFiles) -> Work {
    async move {
        let listed = match files.open() {
            Ok(storage) => storage.list("").await.map_err(|error| error.to_string()),
            Err(failure) => Err(failure.message),
        };
        let input = match listed {
            Ok(objects) => Some(Input::Listed(objects.into_iter().map(|object| object.path).collect())),
            Err(error) => {
                warn!(
                    "Files that nobody needs may remain from checkpoints of job {}: {error}.",
                    files.spec.job_id
                );
                None
            }
        };
        Done { job_id: files.spec.job_id, input }
    }
    .boxed()
}

/// Deletes one checkpoint, or all of the job. What cannot be deleted is left to people.
pub(super) fn delete_checkpoints(files: JobFiles, checkpoint_id: Option<CheckpointId>) -> Work {
    async move {
        let prefix = checkpoint_id.map(metadata::checkpoint_path).unwrap_or_default();
        let deleted = match files.open() {
            Ok(storage) => storage.delete_prefix(&prefix).await.map_err(|error| error.to_string()),
            Err(failure) => Err(failure.message),
        };
        if let Err(error) = deleted {
            let directory = files.spec.checkpoint_directory.as_deref().unwrap_or_default();
            warn!("Old checkpoints of job {} remain in {directory}/{prefix}: {error}.", files.spec.job_id);
        }
        Done { job_id: files.spec.job_id, input: None }
    }
    .boxed()
}

/// Finds out what a job looks like at another parallelism.
pub(super) fn plan(context: Arc<Context>, spec: Arc<JobSpec>, parallelism: u32) -> Work {
    async move {
        let result = match context.planner.as_ref().zip(spec.binary) {
            Some((planner, binary)) => {
                let (present, consensus) = (spec.layout(), &*context.consensus);
                let given = (spec.arguments.as_slice(), &spec.properties);
                planner.layout(consensus, binary, given, &present, parallelism).await
            }
            None => Err(Failure::internal("a job without a program cannot be planned again")),
        };
        let result = result.map_err(|failure| failure.message);
        Done { job_id: spec.job_id, input: Some(Input::Planned { parallelism, result }) }
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
