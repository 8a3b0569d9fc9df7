//! The asynchronous part of a snapshot: encoding and storing it while the task goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, OperatorId, SubtaskId};
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::limits::INLINE_STATE_BYTES;
use thalweg_common::storage::{Storage, StorageError};
use thalweg_common::task_scope::{BlockingError, blocking};
use thalweg_proto::convert::{SharedFile, SnapshotHandle, SnapshotLocation};
use xxhash_rust::xxh3::xxh3_64;

use super::copies::{self, Origins};
use super::files;
use crate::event::Barrier;
use crate::in_flight::Recorded;
use crate::snapshot::TaskSnapshot;
use crate::stores::{FrozenStore, TaskStores};

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

/// What was stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) handle: SnapshotHandle,
    /// What had to be written or uploaded for it.
    pub(crate) incremental_bytes: u64,
    /// Records on their way that are part of it.
    pub(crate) persisted_bytes: u64,
}

impl Stored {
    /// A snapshot of which nothing had been stored before.
    pub(crate) fn whole(handle: SnapshotHandle) -> Self {
        Self { incremental_bytes: handle.size_bytes, persisted_bytes: 0, handle }
    }
}

/// Stores a snapshot with what was frozen of stores on disk.
///
/// # Errors
/// When it cannot be written or stored; the checkpoint is then declined.
pub(crate) async fn store(
    barrier: Barrier,
    mut snapshot: TaskSnapshot,
    frozen: Vec<FrozenStore>,
    in_flight: Option<Recorded>,
    owner: Owner,
    directory: Directory,
    stores: &TaskStores,
) -> Result<Stored, Failure> {
    let mut files = Vec::new();
    let Some(storage) = directory.clone() else {
        let needs_directory = !frozen.is_empty() && !barrier.is_final;
        // What has changed is written all the same: the stores count on it.
        files::give_up(frozen).await?;
        if needs_directory {
            return Err(Failure::user(
                "checkpoints of state in RocksDB need a directory; set `execution.checkpointing.dir`",
            ));
        }
        let persisted_bytes = add_overtaken(&mut snapshot, in_flight).await?;
        let handle = store_snapshot(barrier, snapshot, files, owner, directory, stores).await?;
        return Ok(Stored { incremental_bytes: handle.size_bytes, persisted_bytes, handle });
    };
    let storing = frozen.into_iter().map(|frozen| {
        let storage = Arc::clone(&storage);
        async move { (frozen.operator, files::store(frozen, barrier.id, owner, storage, stores).await) }
    });
    let (mut uploaded_bytes, mut failed) = (0, None);
    // All of them, also when one fails: see the invariants of `files`.
    for (operator, stored) in join_all(storing).await {
        match stored {
            Ok(stored) => {
                uploaded_bytes += stored.uploaded_bytes;
                files.extend(stored.manifest.shared());
                snapshot.operators.entry(operator).or_default().store = Some(stored.manifest);
            }
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    let new = files.iter().map(|file| &file.path);
    let new = new.filter(|path| SharedFile::uploaded_by(path) == Some((owner.attempt, barrier.id)));
    let new: Vec<_> = new.cloned().collect();
    let stored = async {
        if let Some(failure) = failed {
            return Err(failure);
        }
        let persisted_bytes = add_overtaken(&mut snapshot, in_flight).await?;
        let handle = store_snapshot(barrier, snapshot, files, owner, directory, stores).await?;
        Ok(Stored { incremental_bytes: handle.size_bytes + uploaded_bytes, persisted_bytes, handle })
    };
    let stored = stored.await;
    if stored.is_err() {
        files::discard(&*storage, &new).await;
    }
    stored
}

/// Waits until all is recorded that the barrier has overtaken, and adds it. Behind the files, which are written meanwhile.
async fn add_overtaken(snapshot: &mut TaskSnapshot, in_flight: Option<Recorded>) -> Result<u64, Failure> {
    if let Some(in_flight) = in_flight {
        let recorded = in_flight.wait().await;
        snapshot.in_flight = recorded.map_err(|error| Failure::external(error.to_string()))?;
    }
    Ok(snapshot.in_flight.bytes())
}

/// Encodes a snapshot and stores it.
async fn store_snapshot(
    barrier: Barrier,
    mut snapshot: TaskSnapshot,
    shared: Vec<SharedFile>,
    owner: Owner,
    directory: Directory,
    stores: &TaskStores,
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
            let (path, bytes) = (owner.path(barrier.id), Bytes::from(bytes));
            let put = storage.put(&path, bytes.clone());
            let kept = async {
                // Nobody returns to a job that has ended.
                if !barrier.is_final {
                    copies::keep_bytes(stores, barrier.id, bytes, &path).await;
                }
            };
            let (stored, ()) = join(put, kept).await;
            stored.map_err(|error| storage_failure(&error))?;
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
    Ok(SnapshotHandle { location, size_bytes, checksum, shared })
}

/// Reads a snapshot back, from its copy on this machine if there is one, and checks that it is the one that was written.
///
/// # Errors
/// When it is not there, or damaged.
pub(crate) async fn fetch(
    handle: &SnapshotHandle,
    directory: &Directory,
    stores: &TaskStores,
) -> Result<(Bytes, Origins), Failure> {
    let mut origins = Origins::default();
    let (bytes, place) = match &handle.location {
        SnapshotLocation::Inline(bytes) => {
            (Bytes::from(bytes.clone()), "the checkpoint's metadata".to_string())
        }
        SnapshotLocation::DataFiles(_) => {
            return Err(Failure::internal(
                "a part of a savepoint is to be restored like a checkpoint's snapshot",
            ));
        }
        SnapshotLocation::File(path) => {
            let Some(storage) = directory else {
                let message =
                    format!("the snapshot `{path}` is to be restored without a checkpoint directory");
                return Err(Failure::internal(message));
            };
            if let Some(bytes) = copies::read(stores, handle, path).await {
                origins.copied_bytes = handle.size_bytes;
                return Ok((bytes, origins));
            }
            origins.fetched_bytes = handle.size_bytes;
            let place = format!("`{path}` in {}", storage.uri());
            (storage.get(path).await.map_err(|error| storage_failure(&error))?, place)
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
    Ok((bytes, origins))
}

/// Of a snapshot what a subtask with these operators and key groups continues.
///
/// # Errors
/// When it was written by another version.
pub(crate) async fn part_of(
    snapshot: Bytes,
    operators: Arc<BTreeSet<OperatorId>>,
    owned: KeyGroupRange,
) -> Result<Bytes, Failure> {
    let divide = move || {
        let mut snapshot: TaskSnapshot = codec::from_bytes(&snapshot)?;
        snapshot.keep(&operators, owned);
        Ok::<_, Failure>(Bytes::from(codec::to_bytes(&snapshot)?))
    };
    blocking("divide snapshot", divide).await.map_err(|error| Failure::internal(error.to_string()))?
}

/// Decodes the snapshots that one subtask restores.
///
/// # Errors
/// When one was written by another version.
pub(crate) fn decode(snapshots: &[Bytes]) -> Result<Vec<TaskSnapshot>, Failure> {
    snapshots.iter().map(|bytes| codec::from_bytes(bytes).map_err(Failure::from)).collect()
}

pub(super) fn storage_failure(error: &StorageError) -> Failure {
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
        Barrier { id: 7, timestamp_ms: 0, is_final, is_savepoint: false }
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

    /// Stores a snapshot that has no files.
    async fn stored(
        barrier: Barrier,
        snapshot: TaskSnapshot,
        directory: Directory,
    ) -> Result<SnapshotHandle, Failure> {
        let stores = TaskStores::default();
        let stored = store(barrier, snapshot, Vec::new(), None, OWNER, directory, &stores).await?;
        assert_eq!(stored.incremental_bytes, stored.handle.size_bytes);
        Ok(stored.handle)
    }

    #[tokio::test]
    async fn snapshots_come_back_from_where_they_were_stored() {
        let temporary = tempfile::tempdir().unwrap();
        let directory: Directory =
            Some(thalweg_common::storage::open(&temporary.path().display().to_string()).unwrap());
        for keys in [10, 100_000] {
            let handle = stored(barrier(false), snapshot(keys), directory.clone()).await.unwrap();
            let is_inline = matches!(handle.location, SnapshotLocation::Inline(_));
            assert_eq!(is_inline, handle.size_bytes <= INLINE_STATE_BYTES as u64);
            if !is_inline {
                assert_eq!(handle.location, SnapshotLocation::File("chk-7/3-1-a2".into()));
            }
            let stores = TaskStores::default();
            let (bytes, origins) = fetch(&handle, &directory, &stores).await.unwrap();
            assert_eq!(origins.fetched_bytes, if is_inline { 0 } else { handle.size_bytes });
            let restored = decode(&[bytes]).unwrap().remove(0);
            assert_eq!(restored.operators.keys().map(|id| id.0).collect::<Vec<_>>(), [1, 2]);
            let wrong = SnapshotHandle { checksum: handle.checksum ^ 1, ..handle };
            let refused = fetch(&wrong, &directory, &stores).await.unwrap_err();
            assert!(refused.message.contains("is damaged"), "{refused}");
        }
    }

    #[tokio::test]
    async fn at_another_parallelism_a_task_keeps_its_part_of_a_snapshot() {
        let whole = snapshot(1_000);
        let operators = [1, 2].map(thalweg_common::id::OperatorId);
        let part = async |operators: &[OperatorId], groups: std::ops::Range<u32>| {
            let owned = KeyGroupRange { start: groups.start, end: groups.end };
            let operators = Arc::new(operators.iter().copied().collect());
            let part = part_of(codec::to_bytes(&whole).unwrap().into(), operators, owned).await.unwrap();
            decode(&[part]).unwrap().remove(0)
        };
        let groups = |snapshot: &TaskSnapshot| -> Vec<_> {
            let states = snapshot.operators[&operators[0]].keyed_state.values();
            states.flat_map(|state| state.groups.clone()).collect()
        };
        assert_eq!(part(&operators, 0..128).await, whole);
        let (low, high) = (part(&operators, 0..40).await, part(&operators, 40..128).await);
        assert_eq!([groups(&low), groups(&high)].concat(), groups(&whole));
        assert!(!groups(&low).is_empty() && !groups(&high).is_empty());
        let none = part(&operators, 0..0).await;
        assert!(groups(&none).is_empty());
        assert_eq!(none.operators[&operators[1]], whole.operators[&operators[1]], "it has no keys");
        assert_eq!(part(&operators[1..], 0..128).await.operators.len(), 1);
    }

    #[tokio::test]
    async fn a_snapshot_is_read_from_its_copy_until_a_newer_checkpoint_is_complete() {
        let temporary = tempfile::tempdir().unwrap();
        let storage = temporary.path().join("storage");
        let directory: Directory =
            Some(thalweg_common::storage::open(&storage.display().to_string()).unwrap());
        let stores = TaskStores::default().with_copies(&temporary.path().join("job"));
        let stored =
            store(barrier(false), snapshot(100_000), Vec::new(), None, OWNER, directory.clone(), &stores);
        let handle = stored.await.unwrap().handle;
        stores.uploads().completed(7);
        copies::prune(stores.clone()).await;

        // The storage has something else there: nobody reads it.
        let object = storage.join("chk-7/3-1-a2");
        let bytes = std::fs::read(&object).unwrap();
        std::fs::write(&object, b"something else").unwrap();
        let again = TaskStores::default().with_copies(&temporary.path().join("job"));
        let (read, origins) = fetch(&handle, &directory, &again).await.unwrap();
        assert_eq!((&read[..], origins.copied_bytes), (&bytes[..], handle.size_bytes));

        let copy = temporary.path().join("job/1-0/chk-7-3-1-a2");
        std::fs::write(&copy, &bytes[1..]).unwrap();
        std::fs::write(&object, &bytes).unwrap();
        let (read, origins) = fetch(&handle, &directory, &again).await.unwrap();
        assert_eq!((&read[..], origins.fetched_bytes), (&bytes[..], handle.size_bytes));
        assert!(!copy.exists(), "a copy that was damaged is removed");

        std::fs::write(&copy, &bytes).unwrap();
        copies::prune(again.clone()).await;
        assert!(copy.exists(), "it is of the checkpoint that was restored");
        again.uploads().completed(8);
        copies::prune(again).await;
        assert!(!copy.exists());
    }

    #[tokio::test]
    async fn without_a_directory_only_what_a_finished_job_needs_is_kept() {
        let declined = stored(barrier(false), snapshot(100_000), None).await.unwrap_err();
        assert!(declined.message.contains("set `execution.checkpointing.dir`"), "{declined}");

        let handle = stored(barrier(true), snapshot(100_000), None).await.unwrap();
        let (bytes, _) = fetch(&handle, &None, &TaskStores::default()).await.unwrap();
        let restored = decode(&[bytes]).unwrap().remove(0);
        assert!(restored.operators.values().all(|operator| operator.keyed_state.is_empty()));
        assert_eq!(restored.operators[&thalweg_common::id::OperatorId(2)].operator_state, [vec![1, 2, 3]]);
    }
}
