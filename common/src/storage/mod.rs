//! Blob storage: named objects that are written once. Checkpoints and job binaries live here, in a directory or on S3.
//!
//! Stands behind checkpoint snapshots (task side), checkpoint metadata and binaries (job manager side). Kept to what both
//! a file system and S3 can promise; `test-support/tests/storage` holds both to it. Invariants of every implementation:
//! - an object is visible whole or not at all, whatever fails in between, and after a successful [`Storage::put`] it
//!   survives a crash of the machine;
//! - [`Storage::put_if_absent`] has exactly one winner;
//! - paths are relative, `/`-separated, and cannot leave the root of the storage;
//! - a prefix stands for whole path segments: `job/chk-1` covers `job/chk-1/a`, but not `job/chk-10/a`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), thalweg_common::storage::StorageError> {
//! # let directory = std::env::temp_dir().join(format!("thalweg-storage-example-{}", std::process::id()));
//! # let directory = directory.display();
//! let storage = thalweg_common::storage::open(&format!("file://{directory}"))?;
//! storage.put("job/chk-1/metadata", "state".into()).await?;
//! assert_eq!(storage.get("job/chk-1/metadata").await?, "state");
//! storage.delete_prefix("job").await?;
//! assert!(storage.get("job/chk-1/metadata").await.unwrap_err().is_not_found());
//! # storage.delete_prefix("").await
//! # }
//! ```

mod address;
mod error;
mod file;
mod growing;
mod local;
mod path;
#[cfg(feature = "s3")]
mod s3;
mod settings;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use address::{StorageFactory, open, open_with};
pub use error::{NotDeleted, RemoteCause, StorageError};
pub use file::FileStorage;
pub use growing::{GrowingObjects, Piece};
pub use settings::{Encryption, S3Settings, StorageSettings};

/// A store of named objects.
#[async_trait]
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Writes an object, or replaces it as a whole. Durable when it returns. If the caller goes away meanwhile, the object
    /// is written or not, but never in part.
    ///
    /// # Errors
    /// If the path is not allowed or the object cannot be written.
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StorageError>;

    /// Writes an object unless there is one already, and tells whether it did. Of several that try at the same time,
    /// exactly one wins. When it returns, the winner's object is durable.
    ///
    /// # Errors
    /// If the path is not allowed or the object cannot be written.
    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, StorageError>;

    /// Reads a whole object.
    ///
    /// # Errors
    /// If there is none ([`StorageError::is_not_found`]), the path is not allowed or the object cannot be read.
    async fn get(&self, path: &str) -> Result<Bytes, StorageError>;

    /// Reads the bytes of an object from the first of `range`, counted from 0, up to the last one before its end.
    ///
    /// # Errors
    /// As [`Storage::get`], and if the object is shorter ([`StorageError::OutOfRange`]).
    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StorageError>;

    /// Makes an object of a local file, or replaces it as a whole, and tells its size and checksum, which is computed on
    /// the way. Durable when it returns. Never holds more than a few pieces of the file in memory.
    ///
    /// The file must not change any more, not even afterwards: where it can be, the object becomes another link to it. If who has read the
    /// file says what is in it (`known`), it is not read again then.
    ///
    /// # Errors
    /// If the file cannot be read, the path is not allowed or the object cannot be written. Then nothing is left of it.
    async fn upload_file(
        &self,
        local: &Path,
        path: &str,
        known: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError>;

    /// Copies an object to a local file, whose directory must exist, and tells its size and checksum. The file appears
    /// whole, or not at all; it replaces what is there, and is not forced to the disk: after a crash of the machine the object is
    /// copied again. If `expected` is given, an object that differs from it is refused.
    ///
    /// # Errors
    /// As [`Storage::get`], if the object is not what was expected ([`StorageError::Damaged`]), or if the file cannot be
    /// written.
    async fn download_file(
        &self,
        path: &str,
        local: &Path,
        expected: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError>;

    /// Whether there is such an object.
    ///
    /// # Errors
    /// If the path is not allowed or the storage cannot tell.
    async fn exists(&self, path: &str) -> Result<bool, StorageError>;

    /// The objects at and below a prefix, ordered by path; an empty prefix stands for all. Objects that come or go
    /// meanwhile may or may not be listed.
    ///
    /// # Errors
    /// If the prefix is not allowed or the storage cannot be read.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError>;

    /// Deletes an object; it is no error if there is none. A crash of the machine right afterwards may bring it back.
    ///
    /// # Errors
    /// If the path is not allowed or the object cannot be deleted.
    async fn delete(&self, path: &str) -> Result<(), StorageError>;

    /// Deletes objects; it is no error if there is one not.
    ///
    /// # Errors
    /// If a path is not allowed, before anything is deleted. If some cannot be deleted, all others are
    /// ([`StorageError::NotDeleted`] names each that was not).
    async fn delete_many(&self, paths: &[String]) -> Result<(), StorageError>;

    /// Deletes the objects at and below a prefix; an empty prefix stands for all. Not atomic: if it fails, some are gone.
    ///
    /// # Errors
    /// If the prefix is not allowed or an object cannot be deleted.
    async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError>;

    /// Objects that grow piece by piece, over checkpoints and attempts, if this storage has them; a directory has files instead.
    fn growing(&self) -> Option<Arc<dyn GrowingObjects>> {
        None
    }

    /// The directory that this storage is, if it is one.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Where the objects are, for messages and metadata: a URI that [`open`] understands.
    fn uri(&self) -> &str;
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    /// Its path in the storage.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What was copied between a local file and an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadedFile {
    /// Size in bytes.
    pub size: u64,
    /// XXH3 with 64 bits over the content.
    pub checksum: u64,
}

/// Compares what was read with what was once written.
fn check_content(
    found: UploadedFile,
    expected: Option<UploadedFile>,
    path: &str,
    storage: &str,
) -> Result<(), StorageError> {
    match expected {
        Some(expected) if found != expected => Err(StorageError::Damaged {
            path: path.to_owned(),
            storage: storage.to_owned(),
            reason: format!(
                "it has {} bytes with checksum {:016x} instead of {} bytes with {:016x}",
                found.size, found.checksum, expected.size, expected.checksum
            ),
        }),
        _ => Ok(()),
    }
}
