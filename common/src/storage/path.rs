//! What a path of an object may look like, in every kind of storage.
//!
//! Stands before every operation. Invariant: what passes stays inside of the storage, and means the same object everywhere.

use super::StorageError;
use super::local::TEMPORARY;
use crate::limits::MAX_STORAGE_PATH_BYTES;

/// Checks that a path names an object in every kind of storage, and nothing outside of it.
pub(super) fn check_path(path: &str) -> Result<(), StorageError> {
    let reason = if path.is_empty() { Some("it is empty") } else { fault_of(path) };
    match reason {
        None => Ok(()),
        Some(reason) => Err(StorageError::InvalidPath { path: path.to_owned(), reason }),
    }
}

/// As [`check_path`], but nothing at all, meaning everything, is allowed too; and so is a slash at the end.
pub(super) fn check_prefix(prefix: &str) -> Result<&str, StorageError> {
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
        _ if segment.starts_with(TEMPORARY) => Some("a segment begins like a temporary file"),
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
}
