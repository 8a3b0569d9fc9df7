//! What went wrong with a file, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thalweg_common::failure::Failure;

/// The failure of `action` (`read`, `create`, ...) on the file at `path`.
pub(crate) fn failed(action: &str, path: &Path, error: &io::Error) -> Failure {
    failed_at(action, &absolute(path).display().to_string(), error)
}

/// The same for a place inside a file.
pub(crate) fn failed_at(action: &str, place: &str, error: &io::Error) -> Failure {
    Failure::external(format!("cannot {action} {place}: {error}; {}", cure(error.kind())))
}

/// A relative path as the task manager resolves it, so that the message shows where was looked.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn cure(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        NotFound => "check the path, which must exist on every machine that runs a task manager",
        PermissionDenied => "give the user that runs the task manager access to it",
        StorageFull | QuotaExceeded => "free space there or use another disk",
        ReadOnlyFilesystem => "use a directory on a file system that can be written",
        _ => "check the disk or the mount",
    }
}
