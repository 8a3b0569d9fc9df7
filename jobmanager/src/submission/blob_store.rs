//! Job binaries on this job manager's disk: `<data directory>/blobs/<SHA-256>`, executable, never partial.
//!
//! What no job needs is kept for the next submission, the last used [`RETAINED_BLOBS`] of it.
//!
//! A blob is written to a hidden temporary file, hashed on its way, synced and renamed. So whatever has a blob's name is
//! that blob, also after a crash.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thalweg_common::Timestamp;
use thalweg_common::limits::{MAX_BINARY_BYTES, RETAINED_BLOBS};
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

    /// Where blobs are.
    #[cfg(feature = "rest")]
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How large a blob is.
    ///
    /// # Errors
    /// When it is not here.
    #[cfg(feature = "rest")]
    pub(crate) async fn size_bytes(&self, hash: BlobHash) -> Result<u64, BlobError> {
        let path = self.path(hash);
        Ok(tokio::fs::metadata(&path).await.map_err(BlobError::disk("read", &path))?.len())
    }

    /// Where the blob is, or would be.
    pub(crate) fn path(&self, hash: BlobHash) -> PathBuf {
        self.directory.join(hash.to_string())
    }

    /// Whether the blob is here.
    pub(crate) async fn contains(&self, hash: BlobHash) -> bool {
        tokio::fs::metadata(self.path(hash)).await.is_ok_and(|data| data.is_file())
    }

    /// Notes that a blob was used at `now_ms`, which decides how long it is kept when no job needs it.
    pub(crate) async fn touch(&self, hash: BlobHash, now_ms: Timestamp) -> std::io::Result<()> {
        // Opened for reading: a file that is open for writing cannot be executed.
        let file = File::open(self.path(hash)).await?.into_std().await;
        let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
        file.set_modified(SystemTime::UNIX_EPOCH + now)
    }

    /// Removes the blobs that are not in `needed`, but for uploads and the last used ones, and returns how many. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read or a blob not be removed.
    pub(crate) fn remove_unneeded(&self, needed: &BTreeSet<BlobHash>) -> std::io::Result<usize> {
        #[cfg(feature = "rest")]
        let needed = needed | &self.uploaded()?;
        let mut spare = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let hash: Option<BlobHash> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if hash.is_some_and(|hash| !needed.contains(&hash)) {
                spare.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        spare.sort();
        let surplus = spare.len().saturating_sub(RETAINED_BLOBS);
        spare.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))?;
        Ok(surplus)
    }

    /// Starts to receive a blob.
    ///
    /// # Errors
    /// When it is announced too large or no file can be made.
    pub(crate) async fn receive(&self, hash: BlobHash, size_bytes: u64) -> Result<BlobWriter, BlobError> {
        if size_bytes > MAX_BINARY_BYTES {
            return Err(BlobError::TooLarge { size_bytes });
        }
        self.writer(Some((hash, size_bytes))).await
    }

    /// Starts to receive a blob that nobody has announced: it is what comes.
    ///
    /// # Errors
    /// When no file can be made.
    #[cfg(feature = "rest")]
    pub(crate) async fn receive_any(&self) -> Result<BlobWriter, BlobError> {
        self.writer(None).await
    }

    async fn writer(&self, announced: Option<(BlobHash, u64)>) -> Result<BlobWriter, BlobError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{TEMPORARY_PREFIX}{number}"));
        let file = File::create_new(&temporary).await.map_err(BlobError::disk("create", &temporary))?;
        let guard = Temporary { path: temporary };
        let (store, hasher) = (self.clone(), BlobHasher::default());
        Ok(BlobWriter { store, announced, received: 0, hasher, file, guard })
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
    /// Hash and size, if they were.
    announced: Option<(BlobHash, u64)>,
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
        match self.announced {
            Some((_, size_bytes)) if self.received > size_bytes => {
                let reason = format!("more than the {size_bytes} bytes that were announced");
                return Err(BlobError::Mismatch { reason });
            }
            None if self.received > MAX_BINARY_BYTES => {
                return Err(BlobError::TooLarge { size_bytes: self.received });
            }
            _ => {}
        }
        self.hasher.update(&bytes);
        self.file.write_all(&bytes).await.map_err(BlobError::disk("write", &self.guard.path))
    }

    /// Verifies the blob and gives it its name, durably. Returns its hash.
    ///
    /// # Errors
    /// When size or hash differ from the announcement, or the disk fails.
    pub(crate) async fn finish(mut self) -> Result<BlobHash, BlobError> {
        let found = self.hasher.finish();
        if let Some((hash, size_bytes)) = self.announced {
            if self.received != size_bytes {
                let reason = format!("{} of {size_bytes} bytes came", self.received);
                return Err(BlobError::Mismatch { reason });
            }
            if found != hash {
                return Err(BlobError::Mismatch {
                    reason: format!("its SHA-256 is {found} instead of {hash}"),
                });
            }
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
        let path = self.store.path(found);
        tokio::fs::rename(temporary, &path).await.map_err(BlobError::disk("rename", temporary))?;
        let directory = File::open(&self.store.directory)
            .await
            .map_err(BlobError::disk("open", &self.store.directory))?;
        directory.sync_all().await.map_err(BlobError::disk("sync", &self.store.directory))?;
        Ok(found)
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
        Ok(store.path(writer.finish().await?))
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

    #[tokio::test]
    async fn needed_and_last_used_blobs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let mut hashes = Vec::new();
        for number in 0..RETAINED_BLOBS as i64 + 3 {
            let bytes = Bytes::from(format!("blob {number}"));
            let mut writer = blobs.receive(BlobHash::of(&bytes), bytes.len() as u64).await.unwrap();
            hashes.push(BlobHash::of(&bytes));
            writer.write(bytes).await.unwrap();
            writer.finish().await.unwrap();
            blobs.touch(hashes[hashes.len() - 1], 1_000 * number).await.unwrap();
        }
        blobs.touch(hashes[1], 1_000_000).await.unwrap();
        // The oldest is needed and the second was used again, so the third and the fourth go.
        assert_eq!(blobs.remove_unneeded(&BTreeSet::from([hashes[0]])).unwrap(), 2);
        let mut left = Vec::new();
        for hash in &hashes[..5] {
            left.push(blobs.contains(*hash).await);
        }
        assert_eq!(left, [true, true, false, false, true]);
    }
}
