//! The job binaries on this machine: `<data-dir>/blobs/<sha256>`, fetched once from whichever job manager has them.
//!
//! Stands before a worker's launch. Invariants: a file under a blob's name has that blob's bytes, because it was hashed in
//! this process before its first use; a fetch in progress is under another name; workers that need the same blob at the
//! same time share one fetch.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::WorkerId;
use thalweg_common::limits::MAX_BINARY_BYTES;
use thalweg_common::task_scope::{blocking, with_causes};
use thalweg_proto::blob::{BlobHash, BlobHasher};
use thalweg_proto::transport::{Dialer, blob_service, endpoint};
use thalweg_proto::v1;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OnceCell, watch};

/// How often all job managers are asked for a blob before the worker counts as lost.
const ROUNDS: u32 = 4;

/// Pause after the first round in vain; doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a job manager may stay silent while it sends a blob.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// The job binaries on this machine.
#[derive(Debug)]
pub(crate) struct BlobCache {
    directory: PathBuf,
    job_managers: watch::Receiver<Vec<String>>,
    dialer: Dialer,
    entries: Mutex<BTreeMap<BlobHash, Arc<OnceCell<PathBuf>>>>,
}

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Transport(String),
    #[error("it sent {received} of {expected} bytes or a damaged copy (SHA-256 {hash})")]
    Damaged { received: u64, expected: u64, hash: BlobHash },
    #[error("it stopped sending for {} s", SILENCE_TIMEOUT.as_secs())]
    Silence,
    #[error("cannot write {}: {cause}; free disk space or check the permissions of the data directory", path.display())]
    Disk { path: PathBuf, cause: io::Error },
}

impl BlobCache {
    /// The cache in `directory`, which is created; remains of interrupted fetches are removed. Nobody else may use it.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn open(
        directory: PathBuf,
        job_managers: watch::Receiver<Vec<String>>,
        dialer: Dialer,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(Self { directory, job_managers, dialer, entries: Mutex::default() })
    }

    /// The path of a blob's file, fetched first if needed.
    ///
    /// # Errors
    /// When no job manager gives it, or the disk does not take it.
    pub(crate) async fn get(&self, hash: BlobHash, size_bytes: u64) -> Result<PathBuf, Failure> {
        let entry = self.entry(hash);
        let known = entry.initialized();
        let path = entry.get_or_try_init(|| self.obtain(hash, size_bytes)).await?.clone();
        if !known || tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(path);
        }
        // Somebody has emptied the directory since.
        let entry = self.replace(hash, &entry);
        Ok(entry.get_or_try_init(|| self.obtain(hash, size_bytes)).await?.clone())
    }

    fn entry(&self, hash: BlobHash) -> Arc<OnceCell<PathBuf>> {
        Arc::clone(self.entries.lock().unwrap_or_else(PoisonError::into_inner).entry(hash).or_default())
    }

    /// A new entry instead of `old`, unless another worker has replaced it already.
    fn replace(&self, hash: BlobHash, old: &Arc<OnceCell<PathBuf>>) -> Arc<OnceCell<PathBuf>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(hash).or_default();
        if Arc::ptr_eq(entry, old) {
            *entry = Arc::default();
        }
        Arc::clone(entry)
    }

    async fn obtain(&self, hash: BlobHash, size_bytes: u64) -> Result<PathBuf, Failure> {
        if size_bytes > MAX_BINARY_BYTES {
            return Err(Failure::internal(format!(
                "binary {hash} is announced with {size_bytes} bytes, which is too large"
            )));
        }
        let path = self.directory.join(hash.to_string());
        if is_intact(&path, hash, size_bytes).await {
            return Ok(path);
        }
        let mut last = "no job manager is known".to_string();
        let mut pause = PAUSE;
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            let addresses = self.job_managers.borrow().clone();
            for address in addresses {
                match self.fetch(&address, hash, size_bytes, &path).await {
                    Ok(()) => {
                        tracing::info!(
                            "fetched binary {hash} ({size_bytes} bytes) from job manager {address}"
                        );
                        return Ok(path);
                    }
                    Err(error) => {
                        tracing::debug!("binary {hash} from job manager {address}: {error}");
                        last = format!("{address}: {error}");
                    }
                }
            }
        }
        Err(Failure::external(format!(
            "no job manager gave the job's binary {hash} ({last}); check that a majority of the job managers runs"
        )))
    }

    async fn fetch(
        &self,
        address: &str,
        hash: BlobHash,
        size_bytes: u64,
        path: &Path,
    ) -> Result<(), FetchError> {
        let transport = |error: &(dyn std::error::Error + 'static)| FetchError::Transport(with_causes(error));
        let endpoint = endpoint(address).map_err(|error| transport(&error))?;
        let channel = self.dialer.connect(&endpoint).await.map_err(|error| transport(&error))?;
        let request = v1::GetBlobRequest { sha256: hash.to_wire() };
        let chunks = blob_service(channel).get_blob(request).await.map_err(|status| transport(&status))?;
        let mut chunks = chunks.into_inner();

        let part = Part::new(&self.directory, hash)?;
        let disk = |cause| FetchError::Disk { path: part.path.clone(), cause };
        let mut file = tokio::fs::File::create(&part.path).await.map_err(disk)?;
        let mut hasher = BlobHasher::default();
        let mut received = 0;
        loop {
            let chunk = tokio::time::timeout(SILENCE_TIMEOUT, chunks.message()).await;
            let Some(chunk) = chunk.map_err(|_| FetchError::Silence)?.map_err(|status| transport(&status))?
            else {
                break;
            };
            received += chunk.data.len() as u64;
            if received > size_bytes {
                break;
            }
            hasher.update(&chunk.data);
            file.write_all(&chunk.data).await.map_err(disk)?;
        }
        file.flush().await.map_err(disk)?;
        let found = hasher.finish();
        if received != size_bytes || found != hash {
            return Err(FetchError::Damaged { received, expected: size_bytes, hash: found });
        }
        file.set_permissions(Permissions::from_mode(0o755)).await.map_err(disk)?;
        // Closed before it gets its name: a file that is open for writing cannot be executed.
        drop(file.into_std().await);
        tokio::fs::rename(&part.path, path).await.map_err(disk)
    }
}

/// A file that is being written; removed unless it was renamed.
struct Part {
    path: PathBuf,
}

impl Part {
    fn new(directory: &Path, hash: BlobHash) -> Result<Self, FetchError> {
        let path = directory.join(format!("{hash}.part"));
        let unique = WorkerId::random().map_err(|cause| FetchError::Disk { path: path.clone(), cause })?;
        Ok(Self { path: directory.join(format!("{hash}.{unique}.part")) })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

/// Whether the file is the whole blob.
async fn is_intact(path: &Path, hash: BlobHash, size_bytes: u64) -> bool {
    let path = path.to_path_buf();
    let found = blocking("hash a binary", move || BlobHash::of_file(&path)).await;
    matches!(found, Ok(Ok(found)) if found == (hash, size_bytes))
}

#[cfg(test)]
#[path = "blobs_tests.rs"]
mod tests;
