//! The files of stores on disk, on their way to the job's shared files and back.
//!
//! What was frozen at a barrier is written and linked by a thread that may block, while the task encodes it. Then only the files
//! that are new go to the storage, several at a time. Invariants: a frozen epoch is always written, also when its checkpoint is
//! given up, because its store counts on that; nothing stays linked once it is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::limits::SHARED_FILES_UNDER_WAY;
use thalweg_common::storage::{Storage, StorageError, UploadedFile};
use thalweg_common::task_scope::{BlockingError, blocking};
use thalweg_proto::convert::SharedFile;
use thalweg_state::{StoreFile, StoreFiles};
use tracing::{debug, warn};

use super::copies::{self, Origins};
use super::upload::{Directory, Owner, storage_failure};
use crate::snapshot::{FilePlace, ManifestFile, StoreManifest, TaskSnapshot};
use crate::stores::{FileId, Files, FrozenStore, TaskStores};

/// What RocksDB writes for people: it opens a store without them.
const NOT_NEEDED: &str = "OPTIONS-";

/// A store whose files are stored.
pub(super) struct Stored {
    pub(super) manifest: StoreManifest,
    /// What had to be uploaded.
    pub(super) uploaded_bytes: u64,
}

/// Writes what was frozen, and nothing else: its checkpoint or savepoint is given up.
pub(crate) async fn give_up(frozen: Vec<FrozenStore>) -> Result<(), Failure> {
    let writing = frozen.into_iter().map(|frozen| blocking("write an epoch", move || frozen.epoch.give_up()));
    join_all(writing).await.into_iter().try_for_each(|given_up| Ok(given_up.map_err(ended)??))
}

/// Writes what was frozen and uploads the files that are new.
pub(super) async fn store(
    frozen: FrozenStore,
    checkpoint: CheckpointId,
    owner: Owner,
    storage: Arc<dyn Storage>,
    stores: &TaskStores,
) -> Result<Stored, Failure> {
    if stores.uploads().is_dead(checkpoint) {
        give_up(vec![frozen]).await?;
        return Err(dead(checkpoint));
    }
    let FrozenStore { operator, epoch, directory } = frozen;
    let linked = directory.clone();
    let written = blocking("write an epoch", move || epoch.finish(&directory)).await;
    let result = match written {
        Ok(Ok(files)) => {
            let name = |file: &StoreFile| -> FileId {
                (operator, file.name.clone(), file.size_bytes, file.checksum)
            };
            upload(files, name, checkpoint, owner, storage, stores).await
        }
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ended(error)),
    };
    remove(linked).await;
    result
}

async fn upload(
    files: StoreFiles,
    id: impl Fn(&StoreFile) -> FileId,
    checkpoint: CheckpointId,
    owner: Owner,
    storage: Arc<dyn Storage>,
    stores: &TaskStores,
) -> Result<Stored, Failure> {
    if stores.uploads().is_dead(checkpoint) {
        return Err(dead(checkpoint));
    }
    let StoreFiles { description, files } = files;
    let (mut manifest, mut named, mut new, mut copied) = (Vec::new(), Files::new(), Vec::new(), Vec::new());
    for file in files.into_iter().filter(|file| !file.name.starts_with(NOT_NEEDED)) {
        if !file.is_shared {
            let bytes = tokio::fs::read(&file.path).await;
            let bytes = bytes.map_err(|reason| local_failure("read", &file.path, reason))?;
            manifest.push(part(&file, FilePlace::Here(bytes)));
            continue;
        }
        let id = id(&file);
        let known = stores.uploads().known(&id).filter(|_| stores.is_incremental()).cloned();
        let shared = known.unwrap_or_else(|| {
            let name = format!("{}-{}-{:016x}", id.0, file.name, file.checksum);
            let path = SharedFile::path(owner.attempt, checkpoint, owner.subtask, &name);
            let shared = SharedFile { path, size_bytes: file.size_bytes, checksum: file.checksum };
            new.push((file.path.clone(), shared.clone()));
            shared
        });
        manifest.push(part(&file, FilePlace::Shared(shared.path.clone())));
        copied.push((file.path, shared.path.clone()));
        named.insert(id, shared);
    }
    let uploaded_bytes = new.iter().map(|(_, shared)| shared.size_bytes).sum();
    upload_all(&storage, new).await?;
    stores.uploads().stored(checkpoint, named);
    copies::keep_files(stores, copied).await;
    Ok(Stored { manifest: StoreManifest { description, files: manifest }, uploaded_bytes })
}

/// Uploads all files or leaves none: a checkpoint that fails must not take the room of the next one.
async fn upload_all(storage: &Arc<dyn Storage>, files: Vec<(PathBuf, SharedFile)>) -> Result<(), Failure> {
    let paths: Vec<_> = files.iter().map(|(_, shared)| shared.path.clone()).collect();
    let has_failed = AtomicBool::new(false);
    let uploads = files.into_iter().map(|(path, shared)| async {
        // What is under way ends: it could not be deleted before.
        if has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let uploaded = upload_file(Arc::clone(storage), path, shared).await;
        uploaded.inspect_err(|_| has_failed.store(true, Ordering::Relaxed))
    });
    let done: Vec<_> = stream::iter(uploads).buffer_unordered(SHARED_FILES_UNDER_WAY).collect().await;
    let Some(failure) = done.into_iter().find_map(Result::err) else { return Ok(()) };
    discard(&**storage, &paths).await;
    Err(failure)
}

/// Deletes files that were uploaded for a checkpoint that fails. What is left is found when a later one completes.
pub(super) async fn discard(storage: &dyn Storage, paths: &[String]) {
    if let Err(error) = storage.delete_many(paths).await {
        debug!("files of a failed checkpoint remain for now: {error}");
    }
}

async fn upload_file(storage: Arc<dyn Storage>, local: PathBuf, shared: SharedFile) -> Result<(), Failure> {
    let expected = UploadedFile { size: shared.size_bytes, checksum: shared.checksum };
    let uploaded = storage.upload_file(&local, &shared.path, Some(expected)).await;
    let uploaded = uploaded.map_err(|error| storage_failure(&error))?;
    if uploaded == expected {
        return Ok(());
    }
    Err(Failure::external(format!(
        "{} has changed between its writing and its upload: it has {} bytes with checksum {:x} instead of {} bytes with {:x}; \
         check the disk",
        local.display(),
        uploaded.size,
        uploaded.checksum,
        expected.size,
        expected.checksum
    )))
}

/// Brings the shared files of a snapshot to where the task restores them, as far as they have what the subtask owns: those of
/// which there is a copy from there.
///
/// # Errors
/// When one is not there, or damaged.
pub(crate) async fn fetch(
    snapshots: &[TaskSnapshot],
    owned: KeyGroupRange,
    directory: &Directory,
    stores: &TaskStores,
) -> Result<Origins, Failure> {
    let operators = snapshots.iter().flat_map(|snapshot| snapshot.operators.values());
    let manifests = operators.filter_map(|operator| operator.store.as_ref());
    let files = manifests.filter(|manifest| manifest.overlaps(owned)).flat_map(StoreManifest::shared);
    // Stores that came from one another name the same files.
    let files: BTreeMap<String, SharedFile> = files.map(|file| (file.path.clone(), file)).collect();
    // Without stores on disk the operator says what is wrong.
    if files.is_empty() || !stores.is_on_disk() {
        return Ok(Origins::default());
    }
    let Some(storage) = directory else {
        return Err(Failure::internal("shared files are to be restored without a checkpoint directory"));
    };
    let brought = files.into_values().map(|file| bring(Arc::clone(storage), file, stores));
    stream::iter(brought)
        .buffer_unordered(SHARED_FILES_UNDER_WAY)
        .try_fold(Origins::default(), async |sum, one| Ok(sum + one))
        .await
}

async fn bring(storage: Arc<dyn Storage>, file: SharedFile, stores: &TaskStores) -> Result<Origins, Failure> {
    let local = stores.fetched(&file.path);
    if let Some(directory) = local.parent() {
        let made = tokio::fs::create_dir_all(directory).await;
        made.map_err(|reason| local_failure("create", directory, reason))?;
    }
    let origins = if copies::place(stores, &file, &local).await {
        Origins { copied_bytes: file.size_bytes, ..Origins::default() }
    } else {
        let expected = UploadedFile { size: file.size_bytes, checksum: file.checksum };
        let downloaded = storage.download_file(&file.path, &local, Some(expected)).await;
        downloaded.map_err(|error| storage_failure(&error))?;
        Origins { fetched_bytes: file.size_bytes, ..Origins::default() }
    };
    copies::keep_files(stores, vec![(local, file.path)]).await;
    Ok(origins)
}

/// Removes a directory with all that is in it. What is left goes with the worker's directory.
pub(crate) async fn remove(directory: PathBuf) {
    let path = directory.clone();
    let removed = blocking("remove files of state", move || match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    if let Ok(Err(error)) = removed.await {
        warn!("cannot remove {}: {error}", directory.display());
    }
}

fn part(file: &StoreFile, place: FilePlace) -> ManifestFile {
    ManifestFile { name: file.name.clone(), size_bytes: file.size_bytes, checksum: file.checksum, place }
}

pub(super) fn dead(checkpoint: CheckpointId) -> Failure {
    Failure::external(format!("checkpoint {checkpoint} was given up before its state was stored"))
}

/// What the system says of a file or directory of this machine, with what helps.
pub(crate) fn local_failure(operation: &'static str, path: &Path, reason: std::io::Error) -> Failure {
    storage_failure(&StorageError::LocalFile { operation, file: path.to_owned(), reason })
}

fn ended(error: BlockingError) -> Failure {
    Failure::internal(error.to_string())
}

#[cfg(all(test, feature = "rocksdb"))]
#[path = "files_tests.rs"]
mod tests;
