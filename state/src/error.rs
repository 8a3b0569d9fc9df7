//! What can go wrong with state, by operation.

use thalweg_common::failure::Failure;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange};

/// Two states of one operator have the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two states are called `{name}`; a state's name must be unique in its operator")]
pub struct DuplicateState {
    /// The name.
    pub name: String,
}

impl From<DuplicateState> for Failure {
    fn from(error: DuplicateState) -> Self {
        Self::user(error.to_string()).permanent()
    }
}

/// A record reached a subtask that does not own its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a record of `{operator}` has a key of group {group}, but this subtask owns the groups {} to {} only; \
     the function given to key_by must always give the same key for the same record",
    .owned.start, .owned.end.saturating_sub(1)
)]
pub struct ForeignKey {
    /// The operator's name.
    pub operator: String,
    /// The group of the record's key.
    pub group: KeyGroup,
    /// What the subtask owns.
    pub owned: KeyGroupRange,
}

impl From<ForeignKey> for Failure {
    fn from(error: ForeignKey) -> Self {
        Self::user(error.to_string())
    }
}

/// A store that keeps its state on disk cannot go on. Its task fails and starts again from the last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the database on it, refuses.
    #[error("cannot {action} {subject} in {}: {reason}; {cure}", .directory.display())]
    Disk {
        /// What was to be done: read, write, open, ...
        action: &'static str,
        /// With what: one state, or all of an operator.
        subject: String,
        /// The directory of the store.
        directory: std::path::PathBuf,
        /// What the system says.
        reason: String,
        /// What to do.
        cure: &'static str,
    },
    /// What was read is not what a store writes.
    #[error("state `{state}` of `{operator}` cannot be read: {reason}; restore from another checkpoint")]
    Damaged {
        /// The operator's name.
        operator: String,
        /// The state's name.
        state: String,
        /// What is wrong.
        reason: String,
    },
    /// The changes before a barrier do not get to the disk.
    #[error(
        "the state of `{operator}` waited {waited_ms} ms for a checkpoint to be written and its cache has no room left;          use a faster disk, a longer `execution.checkpointing.interval`, or more managed memory"
    )]
    Behind {
        /// The operator's name.
        operator: String,
        /// How long it waited.
        waited_ms: u64,
    },
    /// An earlier error has left changes neither in the cache nor on the disk.
    #[error("the state of `{operator}` is not complete any more: {cause}")]
    Incomplete {
        /// The operator's name.
        operator: String,
        /// What happened.
        cause: String,
    },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Disk { .. } | StoreError::Behind { .. } | StoreError::Incomplete { .. } => {
                Self::external(message)
            }
            StoreError::Damaged { .. } => Self::internal(message),
        }
    }
}

/// A key cannot be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// It belongs to another subtask.
    #[error(transparent)]
    Foreign(#[from] ForeignKey),
    /// Its state cannot be read.
    #[error(transparent)]
    Store(Box<StoreError>),
}

impl From<StoreError> for SelectError {
    #[cold]
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Foreign(error) => error.into(),
            SelectError::Store(error) => (*error).into(),
        }
    }
}

/// A snapshot does not fit the operator that is to restore it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The type of the state has changed.
    #[error(
        "state `{state}` of `{operator}` was written as {found} and is now declared as {declared}; \
         declare it as before, or under a new name to start it empty"
    )]
    Changed {
        /// The operator's name.
        operator: String,
        /// The state's name.
        state: String,
        /// What the snapshot holds.
        found: String,
        /// What the program declares.
        declared: String,
    },
    /// The type of the key has changed.
    #[error(
        "state `{state}` of `{operator}` was written under keys of type {found}, now they are {declared}; \
         key the stream as before, or give the operator a new uid to start it empty"
    )]
    KeyChanged {
        /// The operator's name.
        operator: String,
        /// The state's name.
        state: String,
        /// The type of the keys in the snapshot.
        found: String,
        /// The type of the keys of the program.
        declared: String,
    },
    /// The program has no such state any more.
    #[error(
        "the checkpoint holds state `{state}` of `{operator}`, which the program does not declare; \
         declare it again, or give the operator a new uid to start it empty"
    )]
    Undeclared {
        /// The operator's name.
        operator: String,
        /// The state's name.
        state: String,
    },
    /// The keys fall into other groups than they did.
    #[error(
        "a key of state `{state}` of `{operator}` was in group {found} and is now in group {now}; \
         the max parallelism of an operator with state cannot change"
    )]
    OtherGroup {
        /// The operator's name.
        operator: String,
        /// The state's name.
        state: String,
        /// The group in the snapshot.
        found: KeyGroup,
        /// The group that the key belongs to.
        now: KeyGroup,
    },
    /// There were another number of key groups.
    #[error(
        "the state of `{operator}` was written with a max parallelism of {found} and now it is {now};          the max parallelism of an operator with state cannot change"
    )]
    MaxParallelism {
        /// The operator's name.
        operator: String,
        /// Key groups in the snapshot.
        found: u32,
        /// Key groups of the program.
        now: u32,
    },
    /// What lies behind the cache does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes are not what they are said to be.
    #[error("state `{state}` of `{operator}` cannot be read: {reason}; restore from another checkpoint")]
    Damaged {
        /// The operator's name.
        operator: String,
        /// The state's name.
        state: String,
        /// What the decoder says.
        reason: String,
    },
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Damaged { .. } => Self::internal(message),
            RestoreError::Store(error) => error.into(),
            _ => Self::user(message).permanent(),
        }
    }
}
