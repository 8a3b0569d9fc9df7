//! Job binaries on this job manager's disk: `<data directory>/blobs/<SHA-256>`, executable, never partial.
//!
//! A blob is written to a hidden temporary file, hashed on its way, synced and renamed. So whatever has a blob's name is
//! that blob, also after a crash.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use thalweg_common::limits::MAX_BINARY_BYTES;
use thalweg_proto::blob::{BlobHash, BlobHasher};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Starts the name of a blob that is being received.
const TEMPORARY_PREFIX: &str = ".receiving-";

/// A blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// Larger than any binary may be.
    #[error(
        "the binary has {size_bytes} bytes, at most {MAX_BINARY_BYTES} are allowed; build it in release mode and strip it"
    )]
    TooLarge {
        /// As announced.
        size_bytes: u64,
    },
    /// Not the bytes that were announced.
    #[error("the upload does not match its announcement ({reason}); it was damaged on its way, submit again")]
    Mismatch {
        /// What differs.
        reason: String,
    },
    /// The disk.
    #[error("cannot {operation} {}: {cause}; check the disk's free space and permissions", path.display())]
    Disk {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
}

impl BlobError {
    fn disk(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Disk { operation, path, cause }
    }
}

/// The blobs of one job manager. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct BlobStore {
    directory: Arc<Path>,
    next: Arc<AtomicU64>,
}

impl BlobStore {
    /// Opens the store below `data_directory`, makes it if needed, and removes what a crash left half written.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn open(data_directory: &Path) -> Result<Self, BlobError> {
        let directory = data_directory.join("blobs");
        std::fs::create_dir_all(&directory).map_err(BlobError::disk("create", &directory))?;
        let entries = std::fs::read_dir(&directory).map_err(BlobError::disk("read", &directory))?;
        for entry in entries {
            let entry = entry.map_err(BlobError::disk("read", &directory))?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                std::fs::remove_file(entry.path()).map_err(BlobError::disk("remove", &entry.path()))?;
            }
        }
        Ok(Self { directory: directory.into(), next: Arc::default() })
    }

    /// Where the blob is, or would be.
    pub(crate) fn path(&self, hash: BlobHash) -> PathBuf {
        self.directory.join(hash.to_string())
    }

    /// Whether the blob is here.
    pub(crate) async fn contains(&self, hash: BlobHash) -> bool {
        tokio::fs::metadata(self.path(hash)).await.is_ok_and(|data| data.is_file())
    }

    /// Starts to receive a blob.
    ///
    /// # Errors
    /// When it is announced too large or no file can be made.
    pub(crate) async fn receive(&self, hash: BlobHash, size_bytes: u64) -> Result<BlobWriter, BlobError> {
        if size_bytes > MAX_BINARY_BYTES {
            return Err(BlobError::TooLarge { size_bytes });
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{TEMPORARY_PREFIX}{hash}-{number}"));
        let file = File::create_new(&temporary).await.map_err(BlobError::disk("create", &temporary))?;
        let guard = Temporary { path: temporary };
        Ok(BlobWriter {
            store: self.clone(),
            hash,
            size_bytes,
            received: 0,
            hasher: BlobHasher::default(),
            file,
            guard,
        })
    }

    /// Opens a blob for reading; `None` when it is not here.
    ///
    /// # Errors
    /// When it is here and cannot be opened.
    pub(crate) async fn read(&self, hash: BlobHash) -> Result<Option<File>, BlobError> {
        let path = self.path(hash);
        match File::open(&path).await {
            Ok(file) => Ok(Some(file)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(BlobError::Disk { operation: "open", path, cause }),
        }
    }
}

/// Removes the temporary file unless it was renamed.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed, the normal case, or left for the next opening of the store.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A blob that is being received. Dropping it forgets what came.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    store: BlobStore,
    hash: BlobHash,
    size_bytes: u64,
    received: u64,
    hasher: BlobHasher,
    file: File,
    guard: Temporary,
}

impl BlobWriter {
    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When more come than were announced, or the disk fails.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.received += bytes.len() as u64;
        if self.received > self.size_bytes {
            let reason = format!("more than the {} bytes that were announced", self.size_bytes);
            return Err(BlobError::Mismatch { reason });
        }
        self.hasher.update(&bytes);
        self.file.write_all(&bytes).await.map_err(BlobError::disk("write", &self.guard.path))
    }

    /// Verifies the blob and gives it its name, durably. Returns its path.
    ///
    /// # Errors
    /// When size or hash differ from the announcement, or the disk fails.
    pub(crate) async fn finish(mut self) -> Result<PathBuf, BlobError> {
        if self.received != self.size_bytes {
            let reason = format!("{} of {} bytes came", self.received, self.size_bytes);
            return Err(BlobError::Mismatch { reason });
        }
        let found = self.hasher.finish();
        if found != self.hash {
            return Err(BlobError::Mismatch {
                reason: format!("its SHA-256 is {found} instead of {}", self.hash),
            });
        }
        let temporary = &self.guard.path;
        self.file.flush().await.map_err(BlobError::disk("write", temporary))?;
        self.file
            .set_permissions(Permissions::from_mode(0o755))
            .await
            .map_err(BlobError::disk("write", temporary))?;
        self.file.sync_all().await.map_err(BlobError::disk("sync", temporary))?;
        // Closed before anyone executes it: a file open for writing cannot be ("text file busy").
        drop(self.file.into_std().await);
        let path = self.store.path(self.hash);
        tokio::fs::rename(temporary, &path).await.map_err(BlobError::disk("rename", temporary))?;
        let directory = File::open(&self.store.directory)
            .await
            .map_err(BlobError::disk("open", &self.store.directory))?;
        directory.sync_all().await.map_err(BlobError::disk("sync", &self.store.directory))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(
        store: &BlobStore,
        announced: BlobHash,
        size: u64,
        bytes: &'static [u8],
    ) -> Result<PathBuf, BlobError> {
        let mut writer = store.receive(announced, size).await?;
        for piece in bytes.chunks(3) {
            writer.write(Bytes::from_static(piece)).await?;
        }
        writer.finish().await
    }

    #[tokio::test]
    async fn what_is_announced_is_stored_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let hash = BlobHash::of(b"a binary");
        let path = store(&blobs, hash, 8, b"a binary").await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a binary");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(blobs.contains(hash).await);

        let other = BlobHash::of(b"another");
        for (size, bytes) in [(8, b"another!".as_slice()), (9, b"another"), (3, b"another")] {
            let error = store(&blobs, other, size, bytes).await.unwrap_err();
            assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
        }
        assert!(!blobs.contains(other).await);
        assert_eq!(
            std::fs::read_dir(folder.path().join("blobs")).unwrap().count(),
            1,
            "nothing half written is left"
        );
        assert!(matches!(blobs.receive(other, MAX_BINARY_BYTES + 1).await, Err(BlobError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn what_a_crash_left_is_removed_on_opening() {
        let folder = tempfile::tempdir().unwrap();
        BlobStore::open(folder.path()).unwrap();
        let left = folder.path().join("blobs").join(format!("{TEMPORARY_PREFIX}x"));
        std::fs::write(&left, b"half").unwrap();
        BlobStore::open(folder.path()).unwrap();
        assert!(!left.exists());
    }
}
