//! What can go wrong with a storage: the cause, the cure, and whether to try again.
//!
//! Stands between the stores and everything that uses them. Invariant: no error holds credentials; what a remote store
//! answers is shown in its own words, which never repeat them.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::failure::{Failure, Fault};
use crate::task_scope::BlockingError;

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
    /// A part of an object was asked for that it does not have.
    #[error(
        "the object `{path}` in {storage} has no bytes {start} to {end}: it is shorter than whoever wrote it said; check \
         the storage, or use another checkpoint"
    )]
    OutOfRange {
        /// Path of the object.
        path: String,
        /// URI of the storage.
        storage: String,
        /// The first byte that was asked for, counted from 0.
        start: u64,
        /// The byte behind the last one that was asked for.
        end: u64,
    },
    /// An object is not what was written.
    #[error(
        "the object `{path}` in {storage} is damaged: {reason}; check the storage, or use another checkpoint"
    )]
    Damaged {
        /// Path of the object.
        path: String,
        /// URI of the storage.
        storage: String,
        /// What differs.
        reason: String,
    },
    /// An address of a storage that cannot be understood.
    #[error(
        "`{uri}` is no address of a storage: {reason}; write an absolute path, `file:///absolute/path` or \
         `s3://bucket/prefix`"
    )]
    InvalidUri {
        /// The address as it was given.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address of a storage of a kind that does not exist.
    #[error(
        "`{uri}` cannot be used: there is no storage of the kind `{scheme}://`; use `s3://bucket/prefix`, or \
         `file:///directory` with a directory that all machines share, for example an NFS or EFS mount"
    )]
    Unsupported {
        /// The address as it was given.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
    /// An address of a storage that was left out of this program.
    #[error(
        "`{uri}` cannot be used: this program was built without `{scheme}://`; enable the feature `{scheme}` of the crate \
         `thalweg` in its Cargo.toml and build it again"
    )]
    NotBuiltIn {
        /// The address as it was given.
        uri: String,
        /// Its scheme, which is also the name of the feature.
        scheme: &'static str,
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
    /// A file or directory of this machine, from where or to where something is copied.
    #[error("could not {operation} {} on this machine: {reason}; {}", .file.display(), cure(.reason.kind()))]
    LocalFile {
        /// What was tried.
        operation: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A store on the network refused, or could not be reached.
    #[error("could not {operation} `{path}` in {storage}: {reason}; {}", .cause.cure())]
    Remote {
        /// What was tried.
        operation: &'static str,
        /// Path of the object or prefix.
        path: String,
        /// URI of the storage.
        storage: String,
        /// What kind of problem it is.
        cause: RemoteCause,
        /// What the store or the network says, and how often it was tried.
        reason: String,
    },
    /// Some of several objects could not be deleted; the others are gone.
    #[error(
        "could not delete {} of {total} objects in {storage}: {}; {}",
        .failed.len(), first_of(.failed), .cause.map_or("check that the directory's disk or mount works", RemoteCause::cure)
    )]
    NotDeleted {
        /// URI of the storage.
        storage: String,
        /// How many were to be deleted.
        total: usize,
        /// Those that were not, with the reason of each.
        failed: Vec<NotDeleted>,
        /// The kind of the first problem, of a store on the network.
        cause: Option<RemoteCause>,
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

/// An object that could not be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDeleted {
    /// Its path in the storage.
    pub path: String,
    /// What the store or the system says.
    pub reason: String,
}

fn first_of(failed: &[NotDeleted]) -> String {
    let first = failed.first().map(|first| format!("`{}`: {}", first.path, first.reason)).unwrap_or_default();
    match failed.len() {
        0 | 1 => first,
        more => format!("{first}, and {} more", more - 1),
    }
}

/// What kind of problem there is with a store on the network. It decides about trying again and about the cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteCause {
    /// The credentials are not allowed to do this.
    Denied,
    /// There is no such bucket.
    NoSuchBucket,
    /// No credentials were found.
    NoCredentials,
    /// The store does not accept the credentials.
    BadCredentials,
    /// The clock of this machine and that of the store differ.
    ClockSkew,
    /// The bucket is in another region, or behind another address.
    WrongRegion,
    /// The key of the encryption cannot be used.
    Encryption,
    /// Too many requests.
    Throttled,
    /// The store has a problem of its own.
    Unavailable,
    /// Nothing was heard in time.
    Timeout,
    /// The connection could not be made, or broke.
    Unreachable,
    /// Others changed the object all the time.
    Changing,
    /// The store does not know this kind of request.
    NotImplemented,
    /// The store does not accept the request, for another reason.
    Refused,
}

impl RemoteCause {
    /// Whether the same request may succeed later without anybody changing something.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable | Self::Timeout | Self::Unreachable | Self::Changing => true,
            Self::Denied
            | Self::NoSuchBucket
            | Self::NoCredentials
            | Self::BadCredentials
            | Self::ClockSkew
            | Self::WrongRegion
            | Self::Encryption
            | Self::NotImplemented
            | Self::Refused => false,
        }
    }

    /// What helps.
    fn cure(self) -> &'static str {
        match self {
            Self::Denied => {
                "allow these credentials s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket and \
                 s3:AbortMultipartUpload there"
            }
            Self::NoSuchBucket => "create the bucket, or correct its name or `s3.endpoint`",
            Self::NoCredentials => {
                "give this process credentials as every AWS program takes them: a role of the machine or pod, \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws"
            }
            Self::BadCredentials => {
                "renew the credentials of this process; the store does not know them or they expired"
            }
            Self::ClockSkew => "set this machine's clock, best by NTP",
            Self::WrongRegion => {
                "set `s3.region` to the region of the bucket, and `s3.endpoint` only if it is not AWS"
            }
            Self::Encryption => {
                "check `s3.sse.kms.key-id`, and allow these credentials kms:GenerateDataKey and kms:Decrypt"
            }
            Self::Throttled => "write less often, or to more prefixes; the store limits requests",
            Self::Unavailable => "wait until the store has recovered",
            Self::Timeout => {
                "check the network to the store; for a slow one raise `s3.attempt.timeout` and `s3.operation.timeout`"
            }
            Self::Unreachable => {
                "check `s3.endpoint`, name resolution, firewall and route from this machine to the store"
            }
            Self::Changing => "make sure that nobody else writes there",
            Self::NotImplemented => {
                "use a store that knows conditional writes (If-None-Match) and multipart uploads, as S3 does"
            }
            Self::Refused => "check the settings `s3.*`, and whether the store is compatible with S3",
        }
    }
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
        match self {
            Self::Io { reason, .. } | Self::LocalFile { reason, .. } => may_pass(reason.kind()),
            Self::Remote { cause, .. } => cause.retryable(),
            Self::NotDeleted { cause, .. } => cause.is_none_or(RemoteCause::retryable),
            Self::NotFound { .. }
            | Self::InvalidPath { .. }
            | Self::OutOfRange { .. }
            | Self::Damaged { .. }
            | Self::InvalidUri { .. }
            | Self::Unsupported { .. }
            | Self::NotBuiltIn { .. }
            | Self::BrokenOff { .. } => false,
        }
    }

    /// Whose fault it is: the user's if settings or rights must be changed, otherwise the world's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::InvalidUri { .. } | Self::Unsupported { .. } | Self::NotBuiltIn { .. } => Fault::User,
            Self::Remote { cause, .. } | Self::NotDeleted { cause: Some(cause), .. }
                if !cause.retryable() =>
            {
                Fault::User
            }
            Self::InvalidPath { .. } => Fault::Internal,
            _ => Fault::External,
        }
    }
}

impl From<&StorageError> for Failure {
    /// The failure of whatever needed the storage. Only an address that can never be used is certain to repeat: rights,
    /// buckets and objects come and go.
    fn from(error: &StorageError) -> Self {
        let failure = match error.fault() {
            Fault::User => Self::user(error.to_string()),
            Fault::External => Self::external(error.to_string()),
            Fault::Internal => Self::internal(error.to_string()),
        };
        match error {
            StorageError::InvalidUri { .. }
            | StorageError::Unsupported { .. }
            | StorageError::NotBuiltIn { .. }
            | StorageError::InvalidPath { .. } => failure.permanent(),
            _ => failure,
        }
    }
}

fn may_pass(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidInput, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem,
        Unsupported,
    };
    !matches!(
        kind,
        AlreadyExists
            | InvalidInput
            | IsADirectory
            | NotADirectory
            | PermissionDenied
            | ReadOnlyFilesystem
            | Unsupported
    )
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

impl fmt::Display for NotDeleted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`: {}", self.path, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn causes_of_a_remote_store_say_who_has_to_act() {
        let error = |cause| StorageError::Remote {
            operation: "write",
            path: "job/a".to_owned(),
            storage: "s3://bucket".to_owned(),
            cause,
            reason: "it says no".to_owned(),
        };
        for (cause, cure, retryable, fault) in [
            (RemoteCause::Denied, "s3:PutObject", false, Fault::User),
            (RemoteCause::NoSuchBucket, "create the bucket", false, Fault::User),
            (RemoteCause::NoCredentials, "AWS_ACCESS_KEY_ID", false, Fault::User),
            (RemoteCause::WrongRegion, "`s3.region`", false, Fault::User),
            (RemoteCause::Throttled, "write less often", true, Fault::External),
            (RemoteCause::Timeout, "`s3.attempt.timeout`", true, Fault::External),
            (RemoteCause::Unreachable, "`s3.endpoint`", true, Fault::External),
        ] {
            let error = error(cause);
            assert!(
                error.to_string().starts_with("could not write `job/a` in s3://bucket: it says no; "),
                "{error}"
            );
            assert!(error.to_string().contains(cure), "{error}");
            assert_eq!((error.retryable(), error.fault()), (retryable, fault), "{error}");
            let failure = Failure::from(&error);
            assert_eq!((failure.fault, failure.retryable), (fault, true), "{failure}");
        }
    }

    #[test]
    fn what_could_not_be_deleted_is_named() {
        let failed = |names: &[&str]| StorageError::NotDeleted {
            storage: "s3://bucket".to_owned(),
            total: 7,
            failed: names
                .iter()
                .map(|name| NotDeleted { path: (*name).to_owned(), reason: "AccessDenied".to_owned() })
                .collect(),
            cause: Some(RemoteCause::Denied),
        };
        let one = failed(&["a"]);
        assert!(
            one.to_string()
                .starts_with("could not delete 1 of 7 objects in s3://bucket: `a`: AccessDenied; allow")
        );
        assert!(failed(&["a", "b", "c"]).to_string().contains("`a`: AccessDenied, and 2 more; "));
        assert!(!one.retryable());
    }
}
