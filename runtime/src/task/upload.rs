//! The asynchronous part of a snapshot: encoding and storing it while the task goes on.

use std::sync::Arc;

use bytes::Bytes;
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId};
use thalweg_common::limits::INLINE_STATE_BYTES;
use thalweg_common::storage::{Storage, StorageError};
use thalweg_common::task_scope::{BlockingError, blocking};
use thalweg_proto::convert::{SnapshotHandle, SnapshotLocation};
use xxhash_rust::xxh3::xxh3_64;

use crate::event::Barrier;
use crate::snapshot::TaskSnapshot;

/// Where the snapshots of a job are stored, if anywhere.
pub(crate) type Directory = Option<Arc<dyn Storage>>;

/// Whose snapshot it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) subtask: SubtaskId,
    pub(crate) attempt: Attempt,
}

impl Owner {
    /// The snapshot's file, relative to the job's checkpoint directory.
    fn path(self, checkpoint: CheckpointId) -> String {
        let SubtaskId { vertex, index } = self.subtask;
        format!("chk-{checkpoint}/{vertex}-{index}-a{}", self.attempt)
    }
}

/// Encodes and stores a snapshot.
///
/// # Errors
/// When it cannot be encoded or stored; the checkpoint is then declined.
pub(crate) async fn store(
    barrier: Barrier,
    mut snapshot: TaskSnapshot,
    owner: Owner,
    directory: Directory,
) -> Result<SnapshotHandle, Failure> {
    if barrier.is_final && directory.is_none() {
        // Kept only until the job has ended: recovery needs the sinks' transactions and the sources' ends, no more.
        snapshot.operators.values_mut().for_each(|operator| operator.keyed_state.clear());
    }
    let encode = move || {
        let bytes = codec::to_bytes(&snapshot)?;
        let checksum = xxh3_64(&bytes);
        Ok::<_, Failure>((bytes, checksum))
    };
    let encoded = blocking("encode snapshot", encode).await;
    let (bytes, checksum) =
        encoded.map_err(|error: BlockingError| Failure::internal(error.to_string()))??;
    let size_bytes = bytes.len() as u64;
    let location = match directory {
        _ if bytes.len() <= INLINE_STATE_BYTES => SnapshotLocation::Inline(bytes),
        Some(storage) => {
            let path = owner.path(barrier.id);
            storage.put(&path, Bytes::from(bytes)).await.map_err(|error| {
                storage_failure(&error)
                    .context(format_args!("checkpoint {} of task {}", barrier.id, owner.subtask))
            })?;
            SnapshotLocation::File(path)
        }
        None => {
            return Err(Failure::user(format!(
                "the snapshot of task {} has {size_bytes} bytes, more than the {INLINE_STATE_BYTES} that need no \
                 checkpoint directory; set `execution.checkpointing.dir`",
                owner.subtask
            )));
        }
    };
    Ok(SnapshotHandle { location, size_bytes, checksum, shared: Vec::new() })
}

/// Reads a snapshot back and checks that it is the one that was written.
///
/// # Errors
/// When it is not there, or damaged.
pub(crate) async fn fetch(handle: SnapshotHandle, directory: Directory) -> Result<Bytes, Failure> {
    let (bytes, place) = match handle.location {
        SnapshotLocation::Inline(bytes) => (Bytes::from(bytes), "the checkpoint's metadata".to_string()),
        SnapshotLocation::File(path) => {
            let Some(storage) = directory else {
                let message =
                    format!("the snapshot `{path}` is to be restored without a checkpoint directory");
                return Err(Failure::internal(message));
            };
            let place = format!("`{path}` in {}", storage.uri());
            (storage.get(&path).await.map_err(|error| storage_failure(&error))?, place)
        }
    };
    let (size, checksum) = (bytes.len() as u64, xxh3_64(&bytes));
    if size != handle.size_bytes || checksum != handle.checksum {
        return Err(Failure::external(format!(
            "the snapshot in {place} is damaged: it has {size} bytes with checksum {checksum:x} instead of {} bytes with {:x}; \
             check the storage, or start the job from another checkpoint",
            handle.size_bytes, handle.checksum
        )));
    }
    Ok(bytes)
}

/// Decodes the snapshots that one subtask restores.
///
/// # Errors
/// When one was written by another version.
pub(crate) fn decode(snapshots: &[Bytes]) -> Result<Vec<TaskSnapshot>, Failure> {
    snapshots.iter().map(|bytes| codec::from_bytes(bytes).map_err(Failure::from)).collect()
}

fn storage_failure(error: &StorageError) -> Failure {
    Failure::from(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::snapshot::SnapshotBuilder;
    use crate::testing::{OperatorHarness, Setup};

    const OWNER: Owner = Owner { subtask: SubtaskId { vertex: 3, index: 1 }, attempt: 2 };

    fn barrier(is_final: bool) -> Barrier {
        Barrier { id: 7, timestamp_ms: 0, is_final }
    }

    /// The snapshot of a keyed operator with this many keys, and a transaction of a sink.
    fn snapshot(keys: u64) -> TaskSnapshot {
        let sum = crate::operators::reduce(|n: &u64| *n, |a, _| a);
        let mut harness = OperatorHarness::<u64, u64>::open(sum.as_ref(), Setup::default()).unwrap();
        harness.push((0..keys).collect()).unwrap();
        let mut builder = SnapshotBuilder::default();
        *builder.operator(thalweg_common::id::OperatorId(1)) = harness.barrier(7).unwrap();
        builder.operator(thalweg_common::id::OperatorId(2)).operator_state.push(vec![1, 2, 3]);
        builder.build()
    }

    #[tokio::test]
    async fn snapshots_come_back_from_where_they_were_stored() {
        let temporary = tempfile::tempdir().unwrap();
        let directory: Directory =
            Some(thalweg_common::storage::open(&temporary.path().display().to_string()).unwrap());
        for keys in [10, 100_000] {
            let handle = store(barrier(false), snapshot(keys), OWNER, directory.clone()).await.unwrap();
            let is_inline = matches!(handle.location, SnapshotLocation::Inline(_));
            assert_eq!(is_inline, handle.size_bytes <= INLINE_STATE_BYTES as u64);
            if !is_inline {
                assert_eq!(handle.location, SnapshotLocation::File("chk-7/3-1-a2".into()));
            }
            let bytes = fetch(handle.clone(), directory.clone()).await.unwrap();
            let restored = decode(&[bytes]).unwrap().remove(0);
            assert_eq!(restored.operators.keys().map(|id| id.0).collect::<Vec<_>>(), [1, 2]);
            let wrong = SnapshotHandle { checksum: handle.checksum ^ 1, ..handle };
            assert!(fetch(wrong, directory.clone()).await.unwrap_err().message.contains("is damaged"));
        }
    }

    #[tokio::test]
    async fn without_a_directory_only_what_a_finished_job_needs_is_kept() {
        let declined = store(barrier(false), snapshot(100_000), OWNER, None).await.unwrap_err();
        assert!(declined.message.contains("set `execution.checkpointing.dir`"), "{declined}");

        let handle = store(barrier(true), snapshot(100_000), OWNER, None).await.unwrap();
        let restored = decode(&[fetch(handle, None).await.unwrap()]).unwrap().remove(0);
        assert!(restored.operators.values().all(|operator| operator.keyed_state.is_empty()));
        assert_eq!(restored.operators[&thalweg_common::id::OperatorId(2)].operator_state, [vec![1, 2, 3]]);
    }
}
