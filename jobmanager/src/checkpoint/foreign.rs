//! Checkpoints of other jobs: what a job begins with, and what becomes of it.
//!
//! On a command's way this stands behind `submit --from-savepoint CHECKPOINT`. Such a checkpoint is restored from where it is, and the first
//! checkpoint of the job that began with it has files of its own. Invariant: nothing is deleted but what that job has claimed, and of that no
//! file that another checkpoint in the same directory names, or may name because it cannot be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_common::graph::JobGraph;
use thalweg_common::storage::{Storage, StorageError, StorageFactory};

use super::metadata::{self, CheckpointMetadata, MetadataError};
use super::verify::{self, RestoreError};
use crate::cluster::Base;

/// Reads the metadata of a checkpoint that another job took, and checks that it can be restored; `as_a_whole` with the contents of all
/// its files.
///
/// # Errors
/// When it is damaged or does not fit the job, or the storage fails.
pub(crate) async fn restorable(
    storages: &StorageFactory,
    base: &Base,
    graph: &JobGraph,
    as_a_whole: bool,
) -> Result<CheckpointMetadata, RestoreError> {
    let Some((directory, checkpoint_id)) = metadata::place(&base.path) else {
        return Err(RestoreError::Unreadable(format!("{} is no address of a checkpoint", base.path)));
    };
    let storage = storages.open(directory).map_err(MetadataError::Storage)?;
    let allow = base.allow_non_restored_state;
    let found = CheckpointMetadata::read_foreign(&*storage, checkpoint_id, graph, allow).await?;
    verify::complete(&*storage, &found, as_a_whole).await?;
    Ok(found)
}

/// Checks that all files of a checkpoint are there.
///
/// # Errors
/// What is missing, or why that is not known.
pub(crate) async fn complete(storage: &dyn Storage, metadata: &CheckpointMetadata) -> Result<(), String> {
    verify::complete(storage, metadata, false).await.map_err(|error| match error {
        RestoreError::Unreadable(reason) => reason,
        RestoreError::Failed(failure) => failure.message,
    })
}

/// Deletes a checkpoint with the shared files that no other one there names.
///
/// # Errors
/// When the storage fails. What is left then stays.
pub(crate) async fn delete(storages: &StorageFactory, address: &str) -> Result<(), MetadataError> {
    let Some((directory, checkpoint_id)) = metadata::place(address) else { return Ok(()) };
    let storage = storages.open(directory)?;
    let own = match read(&*storage, &metadata::metadata_path(checkpoint_id)).await {
        // It was deleted before.
        Err(MetadataError::Storage(error)) if error.is_not_found() => return Ok(()),
        other => other?.shared_files(),
    };
    let others = shared_by_others(&storage, checkpoint_id).await?;
    storage.delete_prefix(&metadata::checkpoint_path(checkpoint_id)).await?;
    let unneeded: Vec<_> = own.difference(&others).cloned().collect();
    storage.delete_many(&unneeded).await?;
    Ok(())
}

/// The shared files of all other checkpoints in this directory.
async fn shared_by_others(
    storage: &Arc<dyn Storage>,
    checkpoint_id: u64,
) -> Result<BTreeSet<String>, MetadataError> {
    let listed = storage.list("").await?;
    let is_other = |path: &String| {
        path.ends_with("/_metadata")
            && metadata::checkpoint_of_path(path).is_some_and(|found| found != checkpoint_id)
    };
    let mut shared = BTreeSet::new();
    for path in listed.into_iter().map(|object| object.path).filter(is_other) {
        match read(&**storage, &path).await {
            Err(MetadataError::Storage(error)) if error.is_not_found() => {}
            other => shared.extend(other?.shared_files()),
        }
    }
    Ok(shared)
}

async fn read(storage: &dyn Storage, path: &str) -> Result<CheckpointMetadata, MetadataError> {
    let bytes = storage.get(path).await.map_err(|error: StorageError| MetadataError::Storage(error))?;
    CheckpointMetadata::decode(&bytes)
        .map_err(|reason| MetadataError::Damaged { path: format!("{}/{path}", storage.uri()), reason })
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
