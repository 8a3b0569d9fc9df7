//! The `_metadata` file: what a completed checkpoint consists of, so that it can be restored.
//!
//! Stands between the last acknowledgement and `CompleteCheckpoint`: the file is durable, and was read back, before the Raft
//! log says that the checkpoint exists. It is written once: a leader that was replaced without noticing cannot overwrite what
//! its successor wrote. Small snapshots are inside it; the log holds only its path. Form: the magic `THWGCHKP`, a version
//! (u32), the encoded [`CheckpointMetadata`], and the xxh3 of all of that (u64), integers little-endian. The state manifest in it
//! lets tools read a checkpoint without its job.

mod foreign;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, CheckpointId, JobId, SubtaskId};
use thalweg_common::limits::MAX_CHECKPOINT_METADATA_BYTES;
use thalweg_common::manifest::StateManifest;
use thalweg_common::storage::{Storage, StorageError};
use thalweg_common::{Timestamp, codec};

pub use self::shape::{Shape, VertexShape};
use crate::convert::SnapshotHandle;

const MAGIC: &[u8; 8] = b"THWGCHKP";
const VERSION: u32 = 5;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();
const CHECKSUM_BYTES: usize = size_of::<u64>();

/// A checkpoint with the snapshots of all its subtasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMetadata {
    /// Whose.
    pub job_id: JobId,
    /// Which.
    pub checkpoint_id: CheckpointId,
    /// The attempt that took it.
    pub attempt: Attempt,
    /// Whether all tasks were drained when it was triggered.
    pub is_final: bool,
    /// Of the graph that took it; the same job restores it at any parallelism.
    pub shape: Shape,
    /// Bytes of records that its barriers have overtaken: 0 if it is aligned.
    pub in_flight_bytes: u64,
    /// When it was triggered, in milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// One for every subtask.
    pub snapshots: BTreeMap<SubtaskId, SnapshotHandle>,
    /// The states of the job that took it.
    pub manifest: StateManifest,
}

/// A metadata file that cannot be written or restored.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is no metadata file, or a damaged one.
    #[error("the checkpoint metadata {path} cannot be read: {reason}; restore another checkpoint")]
    Damaged {
        /// Where it is.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Another leader wrote another file in its place.
    #[error(
        "the checkpoint metadata {path} is there already, with other contents: another job manager wrote it, or two jobs \
         share a checkpoint directory; the next checkpoint gets a file of its own"
    )]
    Taken {
        /// Where it is.
        path: String,
    },
    /// It is of another job or another version of it.
    #[error("the checkpoint metadata {path} does not fit the job: {reason}")]
    Mismatch {
        /// Where it is.
        path: String,
        /// What differs.
        reason: String,
    },
    /// Too many bytes of inline snapshots.
    #[error(
        "the checkpoint's metadata would be {bytes} bytes, the limit is {MAX_CHECKPOINT_METADATA_BYTES}; lower the \
         parallelism"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        let failure = Failure::external(error.to_string());
        match error {
            MetadataError::Mismatch { .. } => failure.permanent(),
            _ => failure,
        }
    }
}

/// The directory of one job's checkpoints below the configured one.
#[must_use]
pub fn job_directory(directory: &str, job_id: JobId) -> String {
    format!("{}/{job_id}", directory.trim_end_matches('/'))
}

/// The directory of one checkpoint in the job's.
#[must_use]
pub fn checkpoint_path(checkpoint_id: CheckpointId) -> String {
    format!("chk-{checkpoint_id}")
}

/// The checkpoint whose directory a path in the job's directory is in; absent when it is in none.
#[must_use]
pub fn checkpoint_of_path(path: &str) -> Option<CheckpointId> {
    let (directory, _) = path.split_once('/')?;
    directory.strip_prefix("chk-")?.parse().ok()
}

/// The metadata file in the job's directory.
#[must_use]
pub fn metadata_path(checkpoint_id: CheckpointId) -> String {
    format!("{}/_metadata", checkpoint_path(checkpoint_id))
}

/// The job's directory and the checkpoint in it that an address means: that of a directory `chk-N`, or of the file in it.
#[must_use]
pub fn place(address: &str) -> Option<(&str, CheckpointId)> {
    let address = address.trim_end_matches('/');
    let address = address.strip_suffix("/_metadata").unwrap_or(address);
    let (job, directory) = address.rsplit_once('/').unwrap_or((".", address));
    let checkpoint_id = directory.strip_prefix("chk-")?.parse().ok()?;
    Some((if job.is_empty() { "/" } else { job }, checkpoint_id))
}

impl CheckpointMetadata {
    /// Reads the metadata of the checkpoint at an address such as `file:///checkpoints/JOB/chk-12`, and opens the directory of its
    /// job, in which its files are, with `open`. Nothing if there is something else, such as a savepoint.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub async fn find(
        address: &str,
        open: impl FnOnce(&str) -> Result<Arc<dyn Storage>, StorageError>,
    ) -> Result<Option<(Arc<dyn Storage>, Self)>, MetadataError> {
        let Some((job, checkpoint_id)) = place(address) else { return Ok(None) };
        let storage = open(job)?;
        let path = metadata_path(checkpoint_id);
        let bytes = match storage.get(&path).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        if !bytes.starts_with(MAGIC) {
            return Ok(None);
        }
        let path = format!("{}/{path}", storage.uri().trim_end_matches('/'));
        let metadata = Self::decode(&bytes).map_err(|reason| MetadataError::Damaged { path, reason })?;
        Ok(Some((storage, metadata)))
    }

    /// Writes the metadata file into the job's directory, reads it back, and returns its URI. It is durable then. The same
    /// contents may be there already.
    ///
    /// # Errors
    /// When the storage refuses it, it is too large, does not come back as it was written, or another one is there.
    pub async fn write(&self, storage: &dyn Storage) -> Result<String, MetadataError> {
        let path = metadata_path(self.checkpoint_id);
        let uri = format!("{}/{path}", storage.uri().trim_end_matches('/'));
        let bytes = self
            .encode()
            .map_err(|error| MetadataError::Damaged { path: uri.clone(), reason: error.to_string() })?;
        if bytes.len() > MAX_CHECKPOINT_METADATA_BYTES {
            return Err(MetadataError::TooLarge { bytes: bytes.len() });
        }
        let is_ours = storage.put_if_absent(&path, bytes.clone().into()).await?;
        match storage.get(&path).await? == bytes {
            true => Ok(uri),
            false if is_ours => Err(MetadataError::Damaged {
                path: uri,
                reason: "it was read back with other contents than were written".to_string(),
            }),
            false => Err(MetadataError::Taken { path: uri }),
        }
    }

    /// The paths of all shared files that it names.
    #[must_use]
    pub fn shared_files(&self) -> BTreeSet<String> {
        self.snapshots.values().flat_map(|handle| &handle.shared).map(|file| file.path.clone()).collect()
    }

    /// The size of all snapshots, and of the shared files, each of which counts once.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let shared: BTreeMap<_, _> = self
            .snapshots
            .values()
            .flat_map(|handle| &handle.shared)
            .map(|file| (&file.path, file.size_bytes))
            .collect();
        let snapshots = self.snapshots.values().map(|handle| handle.size_bytes);
        snapshots.chain(shared.into_values()).fold(0, u64::saturating_add)
    }

    /// The snapshots that a subtask of this graph, which has this fingerprint, continues, perhaps at another parallelism.
    #[must_use]
    pub fn snapshots_for(
        &self,
        graph: &JobGraph,
        fingerprint: u64,
        subtask: SubtaskId,
    ) -> Vec<SnapshotHandle> {
        let needed = self.shape.needed_by(graph, fingerprint, subtask, self.in_flight_bytes > 0);
        needed.iter().filter_map(|subtask| self.snapshots.get(subtask).cloned()).collect()
    }

    /// Reads a metadata file back and checks that it restores `graph` in `job_id`.
    ///
    /// # Errors
    /// Each names the file.
    pub async fn read(
        storage: &dyn Storage,
        job_id: JobId,
        checkpoint_id: CheckpointId,
        graph: &JobGraph,
    ) -> Result<Self, MetadataError> {
        Self::read_checked(storage, checkpoint_id, |found| found.check(job_id, checkpoint_id, graph)).await
    }

    /// Reads a metadata file back that another job wrote, and checks that it can be restored in one with this graph.
    ///
    /// # Errors
    /// Each names the file.
    pub async fn read_foreign(
        storage: &dyn Storage,
        checkpoint_id: CheckpointId,
        graph: &JobGraph,
        allow_non_restored_state: bool,
    ) -> Result<Self, MetadataError> {
        let check = |found: &Self| found.check_foreign(graph, allow_non_restored_state);
        Self::read_checked(storage, checkpoint_id, check).await
    }

    async fn read_checked(
        storage: &dyn Storage,
        checkpoint_id: CheckpointId,
        check: impl FnOnce(&Self) -> Result<(), String>,
    ) -> Result<Self, MetadataError> {
        let path = metadata_path(checkpoint_id);
        let bytes = storage.get(&path).await?;
        let full_path = format!("{}/{path}", storage.uri().trim_end_matches('/'));
        let metadata = Self::decode(&bytes)
            .map_err(|reason| MetadataError::Damaged { path: full_path.clone(), reason })?;
        check(&metadata).map_err(|reason| MetadataError::Mismatch { path: full_path, reason })?;
        Ok(metadata)
    }

    /// The contents of the file.
    ///
    /// # Errors
    /// When it has no binary form.
    pub fn encode(&self) -> Result<Vec<u8>, codec::CodecError> {
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        codec::append(self, &mut bytes)?;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// What [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|split| *split >= HEADER_BYTES);
        let Some(split) = split else { return Err(format!("it has only {} bytes", bytes.len())) };
        let (content, checksum) = bytes.split_at(split);
        let (header, body) = content.split_at(HEADER_BYTES);
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err("it is no checkpoint metadata".to_string());
        }
        if version != VERSION.to_le_bytes() {
            return Err("it was written by another version".to_string());
        }
        if checksum != xxhash_rust::xxh3::xxh3_64(content).to_le_bytes() {
            return Err("its checksum is wrong, so it is damaged".to_string());
        }
        codec::from_bytes(body).map_err(|error| error.to_string())
    }

    /// Whether it is this checkpoint and restores this graph.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, job_id: JobId, checkpoint_id: CheckpointId, graph: &JobGraph) -> Result<(), String> {
        if (self.job_id, self.checkpoint_id) != (job_id, checkpoint_id) {
            return Err(format!("it is checkpoint {} of job {}", self.checkpoint_id, self.job_id));
        }
        let declared = Shape::of(graph);
        if self.shape.fingerprint != declared.fingerprint && self.shape.states != declared.states {
            return Err(
                "it was taken by another version of the job, or with other max parallelisms".to_string()
            );
        }
        self.check_snapshots()
    }

    /// Whether a job with this graph, which is not the one that took it, can begin with it.
    ///
    /// # Errors
    /// What does not fit, and what helps.
    pub fn check_foreign(&self, graph: &JobGraph, allow_non_restored_state: bool) -> Result<(), String> {
        foreign::check(self, graph, allow_non_restored_state)?;
        self.check_snapshots()
    }

    /// The same as far as it depends on the states that the job declares, which is all if no records were on their way.
    ///
    /// # Errors
    /// What does not fit, and what helps.
    pub fn check_states(
        &self,
        declared: &StateManifest,
        allow_non_restored_state: bool,
    ) -> Result<(), String> {
        foreign::check_states(self, declared, allow_non_restored_state)
    }

    fn check_snapshots(&self) -> Result<(), String> {
        match self.shape.subtasks().find(|subtask| !self.snapshots.contains_key(subtask)) {
            Some(missing) => Err(format!("it has no snapshot of subtask {missing}")),
            None => Ok(()),
        }
    }
}
