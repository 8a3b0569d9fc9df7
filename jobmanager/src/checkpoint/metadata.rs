//! The `_metadata` file: what a completed checkpoint consists of, so that it can be restored.
//!
//! Stands between the last acknowledgement and `CompleteCheckpoint`: the file is durable, and was read back, before the Raft
//! log says that the checkpoint exists. It is written once: a leader that was replaced without noticing cannot overwrite what
//! its successor wrote. Small snapshots are inside it; the log holds only its path. Form: the magic `THWGCHKP`, a version
//! (u32), the encoded [`CheckpointMetadata`], and the xxh3 of all of that (u64), integers little-endian.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, CheckpointId, JobId, SubtaskId};
use thalweg_common::limits::MAX_CHECKPOINT_METADATA_BYTES;
use thalweg_common::storage::{Storage, StorageError};
use thalweg_common::{Timestamp, codec};
use thalweg_proto::convert::SnapshotHandle;

use super::shape::Shape;

const MAGIC: &[u8; 8] = b"THWGCHKP";
const VERSION: u32 = 3;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();
const CHECKSUM_BYTES: usize = size_of::<u64>();

/// A checkpoint with the snapshots of all its subtasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it was triggered, in milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// One for every subtask.
    pub snapshots: BTreeMap<SubtaskId, SnapshotHandle>,
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

impl CheckpointMetadata {
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

    /// The snapshots that a subtask of this graph, which has this fingerprint, continues, perhaps at another parallelism.
    #[must_use]
    pub fn snapshots_for(
        &self,
        graph: &JobGraph,
        fingerprint: u64,
        subtask: SubtaskId,
    ) -> Vec<SnapshotHandle> {
        let needed = self.shape.needed_by(graph, fingerprint, subtask);
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
        let path = metadata_path(checkpoint_id);
        let bytes = storage.get(&path).await?;
        let full_path = format!("{}/{path}", storage.uri().trim_end_matches('/'));
        let metadata = Self::decode(&bytes)
            .map_err(|reason| MetadataError::Damaged { path: full_path.clone(), reason })?;
        metadata
            .check(job_id, checkpoint_id, graph)
            .map_err(|reason| MetadataError::Mismatch { path: full_path, reason })?;
        Ok(metadata)
    }

    fn encode(&self) -> Result<Vec<u8>, codec::CodecError> {
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        codec::append(self, &mut bytes)?;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
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

    fn check(&self, job_id: JobId, checkpoint_id: CheckpointId, graph: &JobGraph) -> Result<(), String> {
        if (self.job_id, self.checkpoint_id) != (job_id, checkpoint_id) {
            return Err(format!("it is checkpoint {} of job {}", self.checkpoint_id, self.job_id));
        }
        let declared = Shape::of(graph);
        if self.shape.fingerprint != declared.fingerprint && self.shape.states != declared.states {
            return Err(
                "it was taken by another version of the job, or with other max parallelisms".to_string()
            );
        }
        match self.shape.subtasks().find(|subtask| !self.snapshots.contains_key(subtask)) {
            Some(missing) => Err(format!("it has no snapshot of subtask {missing}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::testing::checkpointed_graph;
    use thalweg_proto::convert::SnapshotLocation;

    fn metadata(graph: &JobGraph) -> CheckpointMetadata {
        let snapshots = graph
            .subtasks()
            .map(|subtask| {
                let location = match subtask.index {
                    0 => SnapshotLocation::Inline(vec![7; 3]),
                    _ => SnapshotLocation::File(format!("chk-4/{}-{}-a2", subtask.vertex, subtask.index)),
                };
                (subtask, SnapshotHandle { location, size_bytes: 3, checksum: 9, shared: vec![] })
            })
            .collect();
        CheckpointMetadata {
            job_id: JobId(1),
            checkpoint_id: 4,
            attempt: 2,
            is_final: false,
            shape: Shape::of(graph),
            triggered_ms: 5,
            snapshots,
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let graph = checkpointed_graph();
        let metadata = metadata(&graph);
        let jobs = job_directory(directory.path().to_str().unwrap(), JobId(1));
        let storage = thalweg_common::storage::open(&jobs).unwrap();
        let uri = metadata.write(&*storage).await.unwrap();
        assert!(uri.ends_with(&format!("/{}/chk-4/_metadata", JobId(1))), "{uri}");
        assert_eq!(CheckpointMetadata::read(&*storage, JobId(1), 4, &graph).await.unwrap(), metadata);
        assert_eq!(metadata.write(&*storage).await.unwrap(), uri, "the same once more");

        let stale = CheckpointMetadata { attempt: 1, ..metadata.clone() };
        let refused = stale.write(&*storage).await.unwrap_err();
        assert!(matches!(&refused, MetadataError::Taken { path } if *path == uri), "{refused}");
        assert_eq!(CheckpointMetadata::read(&*storage, JobId(1), 4, &graph).await.unwrap(), metadata);

        let missing = CheckpointMetadata::read(&*storage, JobId(1), 5, &graph).await.unwrap_err();
        assert!(missing.to_string().contains("chk-5/_metadata"), "{missing}");
    }

    #[test]
    fn a_path_tells_its_checkpoint() {
        for (path, expected) in [
            (metadata_path(17), Some(17)),
            ("chk-3/0-1-a2".into(), Some(3)),
            ("chk-3".into(), None),
            ("chk-x/y".into(), None),
            ("shared/a1-c3-0-0-x".into(), None),
        ] {
            assert_eq!(checkpoint_of_path(&path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_damaged_says_so() {
        let bytes = metadata(&checkpointed_graph()).encode().unwrap();
        assert!(CheckpointMetadata::decode(&bytes).is_ok());
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            bytes
        };
        let table = [
            (vec![], "only 0 bytes"),
            (bytes[..19].to_vec(), "only 19 bytes"),
            (flipped(0), "no checkpoint metadata"),
            (flipped(8), "another version"),
            (flipped(30), "checksum"),
            (flipped(bytes.len() - 1), "checksum"),
            (bytes[..bytes.len() - 1].to_vec(), "checksum"),
        ];
        for (bytes, expected) in table {
            let reason = CheckpointMetadata::decode(&bytes).unwrap_err();
            assert!(reason.contains(expected), "{reason} should contain {expected}");
        }
    }

    #[test]
    fn what_does_not_fit_the_job_is_no_reason_to_try_again() {
        let graph = checkpointed_graph();
        let metadata = metadata(&graph);
        let mut rescaled = graph.clone();
        rescaled.vertices[1].parallelism = 3;
        let mut changed = graph.clone();
        changed.vertices[1].operators[0].states[0].name = "other".to_string();
        assert!(metadata.check(JobId(1), 4, &graph).is_ok());
        assert!(metadata.check(JobId(2), 4, &graph).unwrap_err().contains("checkpoint 4 of job"));
        assert!(metadata.check(JobId(1), 5, &graph).is_err());
        assert_eq!(metadata.check(JobId(1), 4, &rescaled), Ok(()));
        assert!(metadata.check(JobId(1), 4, &changed).unwrap_err().contains("another version"));
        let mut partial = metadata;
        partial.snapshots.pop_last();
        assert!(partial.check(JobId(1), 4, &graph).unwrap_err().contains("no snapshot of subtask 1/1"));
        let mismatch = MetadataError::Mismatch { path: "p".into(), reason: "r".into() };
        assert!(!Failure::from(mismatch).retryable);
    }
}
