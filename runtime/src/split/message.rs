//! What an enumerator and its readers tell each other.
//!
//! An [`Assignment`] is a record of the edge from the enumerator to the readers: barriers have their place among assignments, so that each is
//! in a checkpoint exactly once, with the enumerator, with the reader, or on its way. A [`Word`] goes the other way, as a note of the
//! channel: it is in no checkpoint, may be late, and the newest one counts.

use bytes::Bytes;
use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record as _;

/// A record for the reader that it names.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) struct Assignment {
    /// The subtask.
    pub(crate) reader: u32,
    pub(crate) order: Order,
}

/// What a reader is told.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) enum Order {
    /// Read this split.
    Read {
        /// The place of this assignment among those to this reader in this attempt, from 1.
        number: u64,
        split: EncodedSplit,
    },
    /// The enumerator knows that these splits are at their end; the reader need not remember them any more.
    Noted(Vec<String>),
    /// No split will come any more.
    NoMoreSplits,
    /// There is no split that nobody has: who has none is idle until one is found.
    NothingAtPresent,
}

/// A split that nobody has, and its [pin](super::SourceSplit::pin).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) split: EncodedSplit,
    pub(crate) pin: Option<u32>,
}

/// A split, as it travels.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) struct EncodedSplit {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a reader says of itself. Each word says all of it anew.
#[derive(Record, Debug, Clone, PartialEq, Eq, Default)]
#[record(crate = thalweg_common)]
pub(crate) struct Word {
    /// The number of the newest assignment that it has.
    pub(crate) received: u64,
    /// How many of its splits are not at their end.
    pub(crate) open: u64,
    /// Splits at their end of which it does not know that the enumerator knows it.
    pub(crate) finished: Vec<String>,
}

impl Word {
    pub(crate) fn to_note(&self) -> Bytes {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes.into()
    }

    pub(crate) fn from_note(note: &Bytes) -> Result<Self, Failure> {
        let mut bytes = note.as_ref();
        match Self::decode(&mut bytes) {
            Ok(word) if bytes.is_empty() => Ok(word),
            _ => Err(Failure::internal("what a reader says of its splits cannot be decoded")),
        }
    }
}
