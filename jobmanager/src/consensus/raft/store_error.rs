//! What can go wrong on the disk of the log, with the cause and the cure.

use std::path::{Path, PathBuf};

use rocksdb::ErrorKind;
use thalweg_common::task_scope::BlockingError;

use crate::consensus::NodeId;

/// An error of the log's files. None of them is passed over: the node stops taking part rather than go on with less than
/// it has promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// RocksDB failed.
    #[error("cannot {doing} in {}: {reason}; {cure}", path.display())]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The directory of the log.
        path: PathBuf,
        /// What RocksDB says.
        reason: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// The directory cannot be created.
    #[error("cannot create the log's directory {}: {reason}; make its parent writable or choose another data directory", path.display())]
    Directory {
        /// The directory of the log.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The files hold something that is not what was written.
    #[error("the log in {} is damaged: {reason}; {REPLACE}", path.display())]
    Damaged {
        /// The directory of the log.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The files are of another job manager.
    #[error(
        "the log in {} belongs to job manager {owner}, but this is job manager {id}; start it with the id {owner} or give \
         it a data directory of its own",
        path.display()
    )]
    Foreign {
        /// The directory of the log.
        path: PathBuf,
        /// Whose it is.
        owner: NodeId,
        /// Who opened it.
        id: NodeId,
    },
    /// The files are of another version of this program.
    #[error(
        "the log in {} has format {found}, but this version reads format {supported}; use the version that wrote it",
        path.display()
    )]
    Version {
        /// The directory of the log.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The format that this version reads and writes.
        supported: u32,
    },
    /// A value has no binary form.
    #[error("cannot store {what}: {reason}; this is a fault of the job manager, please report it")]
    Encode {
        /// What was to be written.
        what: &'static str,
        /// Why it could not be.
        reason: String,
    },
    /// The thread that did the work is gone.
    #[error("work on the log's files was interrupted: {reason}; restart the job manager")]
    Interrupted {
        /// How it ended.
        reason: String,
    },
}

/// The cure for a log that cannot be read any more. The number must change: a node that forgot its votes may vote twice.
const REPLACE: &str = "if other job managers run, remove this one from the cluster and add it again with a new id and an \
                       empty data directory; they hold the same data";

impl StoreError {
    pub(crate) fn database(doing: &'static str, path: &Path, error: &rocksdb::Error) -> Self {
        let reason = error.as_ref().trim().to_string();
        Self::Database { doing, path: path.to_owned(), cure: cure(&error.kind(), &reason), reason }
    }

    pub(crate) fn directory(path: &Path, error: &std::io::Error) -> Self {
        Self::Directory { path: path.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn interrupted(error: &BlockingError) -> Self {
        Self::Interrupted { reason: error.to_string() }
    }
}

/// What to do about an error of RocksDB. It tells causes apart by its messages only.
fn cure(kind: &ErrorKind, reason: &str) -> &'static str {
    let says = |text: &str| reason.contains(text);
    if says("No space left") || says("Disk quota exceeded") || says("SpaceLimit") {
        "free space on this disk and restart the job manager"
    } else if says("lock hold by current process") || says("While lock file") || says("lock file") {
        "another job manager uses this directory; stop it or choose another data directory"
    } else if says("Permission denied") || says("Read-only file system") {
        "make the directory writable for the user that runs the job manager and restart it"
    } else if says("Too many open files") {
        "raise the limit of open files (ulimit -n) and restart the job manager"
    } else if matches!(kind, ErrorKind::Corruption) {
        REPLACE
    } else {
        "check the disk and restart the job manager"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_cure() {
        let cases = [
            (ErrorKind::IOError, "IO error: No space left on device: While appending to file", "free space"),
            (ErrorKind::IOError, "IO error: lock hold by current process, acquire time 1", "stop it"),
            (
                ErrorKind::IOError,
                "IO error: While lock file: /d/LOCK: Resource temporarily unavailable",
                "stop it",
            ),
            (ErrorKind::IOError, "IO error: While open a file: /d/MANIFEST: Permission denied", "writable"),
            (ErrorKind::IOError, "IO error: While open a file: /d/1.sst: Too many open files", "ulimit"),
            (ErrorKind::Corruption, "Corruption: block checksum mismatch", "new id"),
            (ErrorKind::IOError, "IO error: Input/output error", "check the disk"),
        ];
        for (kind, reason, wanted) in cases {
            let cure = cure(&kind, reason);
            assert!(cure.contains(wanted), "{reason} -> {cure}");
        }
    }
}
