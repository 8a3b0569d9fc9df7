//! Copies of a task's checkpoints on its machine: made when a file is stored, used when it is restored, removed when a newer
//! checkpoint is complete.
//!
//! Beside the way of a snapshot to the storage and back. Invariant: what goes wrong here is logged and nothing else: a copy that
//! cannot be made is missing later, and a file that has no copy is fetched.

use std::io;
use std::ops::Add;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thalweg_common::id::CheckpointId;
use thalweg_common::task_scope::{BlockingError, blocking};
use thalweg_proto::convert::{SharedFile, SnapshotHandle};
use tracing::warn;

use crate::stores::{TaskStores, Unusable, Wanted};

/// Where what a task has restored came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    /// Bytes of copies on this machine.
    pub(crate) copied_bytes: u64,
    /// Bytes from the storage.
    pub(crate) fetched_bytes: u64,
}

impl Add for Origins {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            copied_bytes: self.copied_bytes + other.copied_bytes,
            fetched_bytes: self.fetched_bytes + other.fetched_bytes,
        }
    }
}

/// Keeps files that were uploaded, or fetched: where they are, and their paths in the storage.
pub(super) async fn keep_files(stores: &TaskStores, files: Vec<(PathBuf, String)>) {
    let Some((copies, (_, first))) = stores.local().cloned().zip(files.first().cloned()) else { return };
    let keep = move || files.iter().try_for_each(|(local, path)| copies.keep_file(local, path));
    report("keep", &first, blocking("keep local copies", keep).await);
}

/// Keeps a snapshot that is being stored under this path for a checkpoint.
pub(super) async fn keep_bytes(stores: &TaskStores, checkpoint: CheckpointId, bytes: Bytes, path: &str) {
    let Some(copies) = stores.local().cloned() else { return };
    stores.uploads().stored_own(checkpoint, path);
    let object = path.to_string();
    let kept = blocking("keep a local copy", move || copies.keep_bytes(&bytes, &object)).await;
    report("keep", path, kept);
}

/// Puts the copy of a shared file to `target`, whose directory exists. Whether there was one.
pub(super) async fn place(stores: &TaskStores, file: &SharedFile, target: &Path) -> bool {
    let Some(copies) = stores.local().cloned() else { return false };
    let (wanted, target) = (file.clone(), target.to_path_buf());
    let placed = use_copy(file.path.clone(), move || {
        let SharedFile { path, size_bytes, checksum } = &wanted;
        copies.place(Wanted { path, size_bytes: *size_bytes, checksum: *checksum }, &target)
    });
    placed.await.is_some()
}

/// The copy of a snapshot that was stored under this path, if there is one.
pub(super) async fn read(stores: &TaskStores, handle: &SnapshotHandle, path: &str) -> Option<Bytes> {
    let copies = stores.local()?.clone();
    stores.uploads().restored_own(path);
    let (object, size_bytes, checksum) = (path.to_string(), handle.size_bytes, handle.checksum);
    let read =
        use_copy(path.to_string(), move || copies.read(Wanted { path: &object, size_bytes, checksum })).await;
    read.map(Bytes::from)
}

/// Removes the copies that are not needed any more.
pub(crate) async fn prune(stores: TaskStores) {
    let Some(copies) = stores.local().cloned() else { return };
    let needed = move || stores.uploads().needed().into_iter().map(str::to_string).collect();
    let pruned = blocking("remove local copies", move || copies.prune(needed)).await;
    report("remove", "an older checkpoint", pruned);
}

async fn use_copy<T: Send + 'static>(
    path: String,
    work: impl FnOnce() -> Result<T, Unusable> + Send + 'static,
) -> Option<T> {
    let reason = match blocking("read a local copy", work).await {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(Unusable::Missing)) => return None,
        Ok(Err(Unusable::Damaged(reason))) => reason,
        Err(error) => error.to_string(),
    };
    warn!("the local copy of `{path}` is of no use: {reason}; it is fetched from the checkpoint's storage");
    None
}

fn report(action: &str, path: &str, outcome: Result<io::Result<()>, BlockingError>) {
    let reason = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    warn!("cannot {action} a local copy of `{path}`: {reason}; a restore takes longer without it");
}
