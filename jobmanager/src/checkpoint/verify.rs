//! Whether a checkpoint can be relied on: before it counts, and before it is restored.
//!
//! On a command's way this stands in front of the metadata file: what the acknowledgements promise is compared with what the
//! storage lists, one listing for each directory. At a restore the same is done again, because files are lost and cut off
//! while nobody looks; a checkpoint whose restore has failed before is read as a whole, against its checksums.
//!
//! Invariant: "this checkpoint is unreadable" is said only when that will not change by itself (a file is gone, or has other
//! contents), so that an outage of the storage never makes a job go back to an older checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::storage::{Storage, StorageError};
use thalweg_proto::convert::{SharedFile, SnapshotHandle, SnapshotLocation};
use xxhash_rust::xxh3::xxh3_64;

use super::metadata::{CheckpointMetadata, MetadataError};

/// A checkpoint that does not hold what its parts promise.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The storage failed: nothing is known about the checkpoint.
    #[error(transparent)]
    Storage(StorageError),
    /// It is incomplete or damaged.
    #[error("{0}")]
    Broken(String),
}

impl From<StorageError> for VerifyError {
    fn from(error: StorageError) -> Self {
        if error.is_not_found() { Self::Broken(error.to_string()) } else { Self::Storage(error) }
    }
}

/// Why a checkpoint was not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// It is gone or damaged for good: an older one may do. Says why.
    Unreadable(String),
    /// Nothing is known about it, or it can never be restored: the attempt fails with this.
    Failed(Failure),
}

impl From<VerifyError> for RestoreError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Storage(error) => Self::Failed(Failure::external(error.to_string())),
            VerifyError::Broken(reason) => Self::Unreadable(reason),
        }
    }
}

impl From<MetadataError> for RestoreError {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::Storage(error) => VerifyError::from(error).into(),
            MetadataError::Damaged { .. } => Self::Unreadable(error.to_string()),
            MetadataError::Taken { .. } | MetadataError::Mismatch { .. } | MetadataError::TooLarge { .. } => {
                Self::Failed(error.into())
            }
        }
    }
}

/// A file as a checkpoint needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    size_bytes: u64,
    checksum: u64,
}

/// Checks what was acknowledged before it counts: the files are there and have their sizes. `known` are shared files that an
/// earlier checkpoint was verified with.
///
/// # Errors
/// When something is missing or contradicts itself, or the storage fails.
pub async fn acknowledged(
    storage: &dyn Storage,
    metadata: &CheckpointMetadata,
    known: &BTreeSet<String>,
) -> Result<(), VerifyError> {
    let mut expected = expected(metadata).map_err(VerifyError::Broken)?;
    expected.retain(|path, _| !known.contains(path));
    check_sizes(storage, &expected).await
}

/// Reads a checkpoint's metadata and checks that it can be restored; `as_a_whole` with the contents of all its files.
///
/// # Errors
/// When it is damaged or does not fit the job, or the storage fails.
pub async fn restorable(
    storage: &dyn Storage,
    job_id: JobId,
    checkpoint_id: CheckpointId,
    graph: &JobGraph,
    as_a_whole: bool,
) -> Result<CheckpointMetadata, RestoreError> {
    let metadata = CheckpointMetadata::read(storage, job_id, checkpoint_id, graph).await?;
    complete(storage, &metadata, as_a_whole).await?;
    Ok(metadata)
}

/// Checks that the files of a checkpoint are there; `as_a_whole` with their contents.
pub(super) async fn complete(
    storage: &dyn Storage,
    metadata: &CheckpointMetadata,
    as_a_whole: bool,
) -> Result<(), RestoreError> {
    let expected = expected(metadata).map_err(RestoreError::Unreadable)?;
    check_sizes(storage, &expected).await?;
    if as_a_whole {
        for (path, file) in &expected {
            let bytes = storage.get(path).await.map_err(VerifyError::from)?;
            let checksum = xxh3_64(&bytes);
            if bytes.len() as u64 != file.size_bytes || checksum != file.checksum {
                return Err(RestoreError::Unreadable(format!(
                    "`{path}` is damaged: it has {} bytes with checksum {checksum:x} instead of {} bytes with {:x}",
                    bytes.len(),
                    file.size_bytes,
                    file.checksum
                )));
            }
        }
    }
    Ok(())
}

/// The files that a checkpoint consists of, beside its metadata.
fn expected(metadata: &CheckpointMetadata) -> Result<BTreeMap<String, Expected>, String> {
    let mut files = BTreeMap::new();
    let mut add = |path: &str, file: Expected| match files.insert(path.to_string(), file) {
        Some(other) if other != file => Err(format!("two subtasks name `{path}` with different contents")),
        _ => Ok(()),
    };
    for (subtask, handle) in &metadata.snapshots {
        let SnapshotHandle { location, size_bytes, checksum, shared } = handle;
        match location {
            SnapshotLocation::Inline(bytes) if bytes.len() as u64 != *size_bytes => {
                return Err(format!(
                    "the snapshot of subtask {subtask} has {} bytes, announced were {size_bytes}",
                    bytes.len()
                ));
            }
            SnapshotLocation::Inline(_) => {}
            SnapshotLocation::DataFiles(_) => {
                return Err(format!(
                    "subtask {subtask} wrote its part of a savepoint in place of a snapshot"
                ));
            }
            SnapshotLocation::File(path) => {
                add(path, Expected { size_bytes: *size_bytes, checksum: *checksum })?;
            }
        }
        for SharedFile { path, size_bytes, checksum } in shared {
            add(path, Expected { size_bytes: *size_bytes, checksum: *checksum })?;
        }
    }
    Ok(files)
}

/// Lists each directory that files are expected in once, and compares.
async fn check_sizes(
    storage: &dyn Storage,
    expected: &BTreeMap<String, Expected>,
) -> Result<(), VerifyError> {
    let directory = |path: &str| path.split_once('/').map_or(path, |(directory, _)| directory).to_string();
    let directories: BTreeSet<_> = expected.keys().map(|path| directory(path)).collect();
    let mut found = BTreeMap::new();
    for directory in directories {
        let listed = storage.list(&directory).await?;
        found.extend(listed.into_iter().map(|object| (object.path, object.size)));
    }
    for (path, file) in expected {
        match found.get(path) {
            Some(size) if *size == file.size_bytes => {}
            Some(size) => {
                return Err(VerifyError::Broken(format!(
                    "`{path}` in {} has {size} bytes instead of {}, so it was cut off or overwritten",
                    storage.uri(),
                    file.size_bytes
                )));
            }
            None => {
                return Err(VerifyError::Broken(format!(
                    "`{path}` is not in {}; it was deleted, or written to another storage",
                    storage.uri()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
