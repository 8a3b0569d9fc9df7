//! What can go wrong with a savepoint, by operation.

use thalweg_common::entries::UnreadableState;
use thalweg_common::failure::Failure;
use thalweg_common::limits::{MAX_CHECKPOINT_METADATA_BYTES, MAX_SAVEPOINT_BLOCK_BYTES};
use thalweg_common::manifest::ManifestError;
use thalweg_common::schema::MigrateError;
use thalweg_common::schema::json::JsonError;
use thalweg_common::storage::StorageError;

/// A savepoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no metadata: the directory is none of a savepoint, or the savepoint was never completed.
    #[error(
        "there is no savepoint in {directory}: it has no `_metadata`; name the directory that holds it, or take the savepoint again \
         if it was broken off"
    )]
    Missing {
        /// The URI of the directory.
        directory: String,
    },
    /// A newer version has written it.
    #[error(
        "{file} was written in version {version} of the savepoint format, this program reads up to {supported}; use a program of \
         the version that wrote it, or a newer one"
    )]
    Newer {
        /// Which file.
        file: String,
        /// Its version.
        version: u32,
        /// The newest that is known here.
        supported: u32,
    },
    /// The bytes are not what was written.
    #[error("{file} is damaged: {reason}; restore it from a copy, or use another savepoint")]
    Damaged {
        /// Which file, or which state of which operator.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The manifest contradicts itself.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// One piece of state is too large.
    #[error(
        "state `{state}` of operator {operator} has {bytes} bytes in one piece, the limit is {MAX_SAVEPOINT_BLOCK_BYTES}; \
         spread it over several keys, or use a map state"
    )]
    TooLarge {
        /// The operator's id.
        operator: String,
        /// The state.
        state: String,
        /// Its size.
        bytes: usize,
    },
    /// More metadata than anybody would read back.
    #[error(
        "the savepoint's metadata would be {bytes} bytes, the limit is {MAX_CHECKPOINT_METADATA_BYTES}; lower the parallelism of the \
         job that takes it"
    )]
    MetadataTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Somebody else has written a savepoint there.
    #[error(
        "there is a savepoint in {directory} already; choose another directory, or dispose of that one first"
    )]
    Exists {
        /// The URI of the directory.
        directory: String,
    },
    /// Only the program's own code can tell the entries apart.
    #[error("{operator}: {unreadable}")]
    Unreadable {
        /// How the manifest calls the operator.
        operator: String,
        /// The state, and what stands in the way.
        unreadable: UnreadableState,
    },
    /// An entry that cannot be shown.
    #[error("state `{state}` of {operator} cannot be shown: {reason}")]
    NotShown {
        /// How the manifest calls the operator.
        operator: String,
        /// The state's name.
        state: String,
        /// What stands in the way.
        reason: JsonError,
    },
    /// An operator that is not there.
    #[error("there is no operator `{reference}` in the savepoint; it has {known}")]
    UnknownOperator {
        /// As it was asked for.
        reference: String,
        /// What there is.
        known: String,
    },
}

impl SavepointError {
    pub(crate) fn damaged(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), reason: reason.into() }
    }

    pub(crate) fn damaged_state(operator: &str, state: &str, error: &MigrateError) -> Self {
        Self::damaged(format!("state `{state}` of {operator}"), error.to_string())
    }
}

impl From<SavepointError> for Failure {
    fn from(error: SavepointError) -> Self {
        let message = error.to_string();
        match error {
            SavepointError::Storage(_) => Self::external(message),
            SavepointError::Damaged { .. } => Self::external(message).permanent(),
            _ => Self::user(message).permanent(),
        }
    }
}

/// Lines that cannot become a savepoint.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The savepoint below, or the one that is written.
    #[error(transparent)]
    Savepoint(#[from] SavepointError),
    /// A line that makes no sense.
    #[error("line {number}: {reason}")]
    Line {
        /// From 1.
        number: u64,
        /// What is wrong with it, and what should stand there.
        reason: String,
    },
    /// The manifest does not fit the savepoint below.
    #[error("the manifest does not fit the savepoint that is to be changed: {reason}")]
    Base {
        /// What differs.
        reason: String,
    },
}

impl ImportError {
    pub(crate) fn line(number: u64, reason: impl ToString) -> Self {
        Self::Line { number, reason: reason.to_string() }
    }
}
