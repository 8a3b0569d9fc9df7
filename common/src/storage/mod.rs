//! Blob storage: named objects that are written once and read whole. Checkpoints and job binaries live here.
//!
//! Stands behind checkpoint snapshots (task side), checkpoint metadata and binaries (job manager side). Kept to what both
//! a file system and S3 can promise. Invariants of every implementation:
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

mod file;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::limits::MAX_STORAGE_PATH_BYTES;
use crate::task_scope::BlockingError;

pub use file::FileStorage;

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

    /// Deletes the objects at and below a prefix; an empty prefix stands for all. Not atomic: if it fails, some are gone.
    ///
    /// # Errors
    /// If the prefix is not allowed or an object cannot be deleted.
    async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError>;

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

/// What went wrong with the storage, and what to do about it.
#[derive(Debug, Error)]
pub enum StorageError {
    /// There is no such object.
    #[error("there is no object `{path}` in {storage}; it was deleted, or written to another storage")]
    NotFound {
        /// Path of the object.
        path: String,
        /// URI of the storage.
        storage: String,
    },
    /// A path that could leave the storage, or that not every storage can hold.
    #[error(
        "`{path}` is no path of an object: {reason}; write segments with `/` between them, as in `job-1/chk-7/metadata`"
    )]
    InvalidPath {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An address of a storage that cannot be understood.
    #[error(
        "`{uri}` is no address of a storage: {reason}; write an absolute path or `file:///absolute/path`"
    )]
    InvalidUri {
        /// The address as it was given.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address of a storage of another kind than this build has.
    #[error(
        "`{uri}` cannot be used: this build does not support storage of the kind `{scheme}://` yet; use \
         `file:///directory` with a directory that all machines share, for example an NFS or EFS mount"
    )]
    Unsupported {
        /// The address as it was given.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
    /// The system refused.
    #[error("could not {operation} `{path}` in {storage}: {reason}; {}", cure(.reason.kind()))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Path of the object or prefix.
        path: String,
        /// URI of the storage.
        storage: String,
        /// What the system says.
        reason: io::Error,
    },
    /// The operation itself broke off.
    #[error("could not {operation} `{path}` in {storage}: {reason}")]
    BrokenOff {
        /// What was tried.
        operation: &'static str,
        /// Path of the object or prefix.
        path: String,
        /// URI of the storage.
        storage: String,
        /// Why it broke off.
        reason: BlockingError,
    },
}

impl StorageError {
    /// Whether the object does not exist, as opposed to everything else that can go wrong.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the same call may succeed later without anybody changing the request: full, slow or busy storage.
    #[must_use]
    pub fn retryable(&self) -> bool {
        use io::ErrorKind::{
            AlreadyExists, InvalidInput, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem,
            Unsupported,
        };
        match self {
            Self::Io { reason, .. } => !matches!(
                reason.kind(),
                AlreadyExists
                    | InvalidInput
                    | IsADirectory
                    | NotADirectory
                    | PermissionDenied
                    | ReadOnlyFilesystem
                    | Unsupported
            ),
            Self::NotFound { .. }
            | Self::InvalidPath { .. }
            | Self::InvalidUri { .. }
            | Self::Unsupported { .. }
            | Self::BrokenOff { .. } => false,
        }
    }
}

/// What helps against an error of the system.
fn cure(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => "give the user of this program the right to read and write there",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or use a larger storage"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing or use another directory",
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            "something else has this name: remove it or use another directory"
        }
        io::ErrorKind::InvalidFilename => "use shorter names",
        io::ErrorKind::Unsupported => "use a file system with hard links",
        _ => "check that the directory's disk or mount works",
    }
}

/// Opens the storage at `uri`: an absolute or relative path, or `file:///absolute/path`. Touches nothing yet; directories
/// are made when the first object is written.
///
/// # Errors
/// If the address cannot be understood, or is of a kind which this build does not support.
///
/// ```
/// let error = thalweg_common::storage::open("s3://bucket/checkpoints").unwrap_err();
/// assert!(error.to_string().contains("does not support storage of the kind `s3://` yet"));
/// ```
pub fn open(uri: &str) -> Result<Arc<dyn Storage>, StorageError> {
    let invalid = |reason: String| StorageError::InvalidUri { uri: uri.to_owned(), reason };
    let path = match uri.split_once("://") {
        None => uri.strip_prefix("file:").unwrap_or(uri),
        Some(("file", path)) if path.starts_with('/') => path,
        Some(("file", _)) => {
            return Err(invalid(
                "after `file://` an absolute path must follow, and no name of a machine".to_owned(),
            ));
        }
        Some((scheme, _)) => {
            return Err(StorageError::Unsupported { uri: uri.to_owned(), scheme: scheme.to_owned() });
        }
    };
    if path.contains('\0') {
        return Err(invalid("it contains a zero byte".to_owned()));
    }
    let root = std::path::absolute(path).map_err(|error| invalid(error.to_string()))?;
    Ok(Arc::new(FileStorage::new(root)))
}

/// Checks that a path names an object in every kind of storage, and nothing outside of it.
fn check_path(path: &str) -> Result<(), StorageError> {
    let reason = if path.is_empty() { Some("it is empty") } else { fault_of(path) };
    match reason {
        None => Ok(()),
        Some(reason) => Err(StorageError::InvalidPath { path: path.to_owned(), reason }),
    }
}

/// As [`check_path`], but nothing at all, meaning everything, is allowed too; and so is a slash at the end.
fn check_prefix(prefix: &str) -> Result<&str, StorageError> {
    let trimmed = prefix.strip_suffix('/').unwrap_or(prefix);
    match fault_of(trimmed) {
        Some(reason) if !prefix.is_empty() => {
            Err(StorageError::InvalidPath { path: prefix.to_owned(), reason })
        }
        _ => Ok(trimmed),
    }
}

fn fault_of(path: &str) -> Option<&'static str> {
    if path.len() > MAX_STORAGE_PATH_BYTES {
        return Some("it is longer than 1024 bytes");
    }
    if path.chars().any(|character| character.is_control() || character == '\\') {
        return Some("it contains a control character or a backslash");
    }
    path.split('/').find_map(|segment| match segment {
        "" => Some("a segment is empty"),
        "." | ".." => Some("a segment is `.` or `..`"),
        _ if segment.len() > 255 => Some("a segment is longer than 255 bytes"),
        _ if segment.starts_with(file::TEMPORARY) => Some("a segment begins like a temporary file"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_storage_are_refused() {
        for path in ["a", "a/b", "job-1/chk-7/metadata", "...", "a/.hidden", "ü/µ", "a b"] {
            check_path(path).expect("this path is right");
        }
        for (path, reason) in [
            ("", "it is empty"),
            ("/", "a segment is empty"),
            ("/etc/passwd", "a segment is empty"),
            ("a//b", "a segment is empty"),
            ("a/", "a segment is empty"),
            ("..", "a segment is `.` or `..`"),
            ("a/../../b", "a segment is `.` or `..`"),
            ("./a", "a segment is `.` or `..`"),
            ("a\0b", "it contains a control character or a backslash"),
            ("a\\..\\b", "it contains a control character or a backslash"),
            ("a/.thalweg-tmp-1", "a segment begins like a temporary file"),
        ] {
            let error = check_path(path).expect_err("this path is wrong");
            assert!(
                matches!(&error, StorageError::InvalidPath { reason: found, .. } if *found == reason),
                "{error}"
            );
            assert!(!error.retryable() && !error.is_not_found());
        }
        assert!(check_path(&"a/".repeat(600)).is_err());
        assert!(check_path(&"a".repeat(256)).is_err());
    }

    #[test]
    fn prefixes_may_be_empty_or_end_in_a_slash() {
        assert_eq!(check_prefix("").expect("all"), "");
        assert_eq!(check_prefix("a/b/").expect("a directory"), "a/b");
        for wrong in ["/", "..", "a/..", "a//", "/a"] {
            assert!(check_prefix(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn addresses() {
        for (uri, wanted) in [
            ("/data/checkpoints", "file:///data/checkpoints"),
            ("file:///data/checkpoints", "file:///data/checkpoints"),
            ("file:/data/checkpoints", "file:///data/checkpoints"),
        ] {
            assert_eq!(open(uri).expect("this address is right").uri(), wanted);
        }
        assert!(open("relative/dir").expect("made absolute").uri().ends_with("/relative/dir"));
        for uri in ["", "file://machine/data", "file://", "a\0b"] {
            assert!(matches!(open(uri), Err(StorageError::InvalidUri { .. })), "{uri:?} was accepted");
        }
        for uri in ["s3://bucket/x", "s3a://bucket/x", "hdfs://namenode/x"] {
            let error = open(uri).expect_err("this kind is not supported").to_string();
            assert!(error.contains(uri) && error.contains("use `file:///directory`"), "{error}");
        }
    }

    #[test]
    fn errors_of_the_system_name_a_cure_and_whether_to_retry() {
        let error = |kind: io::ErrorKind| StorageError::Io {
            operation: "write",
            path: "job/a".to_owned(),
            storage: "file:///c".to_owned(),
            reason: kind.into(),
        };
        for (kind, cure, retryable) in [
            (io::ErrorKind::StorageFull, "free some space", true),
            (io::ErrorKind::PermissionDenied, "give the user", false),
            (io::ErrorKind::ReadOnlyFilesystem, "mount the file system", false),
            (io::ErrorKind::NotADirectory, "something else has this name", false),
            (io::ErrorKind::TimedOut, "check that the directory's disk", true),
        ] {
            let error = error(kind);
            assert!(error.to_string().starts_with("could not write `job/a` in file:///c: "), "{error}");
            assert!(error.to_string().contains(cure), "{error}");
            assert_eq!(error.retryable(), retryable, "{error}");
        }
    }
}
