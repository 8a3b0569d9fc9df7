//! What lies behind the cache: an ordered store of encoded entries that can be linked into a checkpoint.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::schema::Schema;

use crate::cache::batch::EntryBatch;
use crate::error::StoreError;

/// Takes an entry that was read: its stored key and its value.
pub type OnEntry<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Takes the number of a key that was looked for, and its value.
pub type OnFound<'a> = dyn FnMut(usize, &[u8]) -> Result<(), StoreError> + 'a;

/// Takes an entry of one of all states, by the state's number, and says whether to go on.
pub type OnStateEntry<'a> = dyn FnMut(usize, &[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered store of the entries of all states of one subtask of an operator. States go by their number.
///
/// All methods work from several threads; the cache has at most one of them write.
pub trait Backend: Send + Sync {
    /// Reads many keys of a state, which are sorted, and hands over the number and value of each that is there.
    ///
    /// # Errors
    /// When it cannot be read, and what `found` returns.
    fn get(&self, state: usize, keys: &[&[u8]], found: &mut OnFound<'_>) -> Result<(), StoreError>;

    /// Reads all entries of a state whose stored keys begin with `prefix`, in the order of the keys, as of one moment.
    ///
    /// # Errors
    /// When they cannot be read, and what `entry` returns.
    fn scan(&self, state: usize, prefix: &[u8], entry: &mut OnEntry<'_>) -> Result<(), StoreError>;

    /// Reads at most `limit` entries of a state whose stored keys are from `from` on and before `to`, in the order of the keys.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    fn range(
        &self,
        state: usize,
        from: &[u8],
        to: &[u8],
        limit: usize,
        entry: &mut OnEntry<'_>,
    ) -> Result<(), StoreError>;

    /// Reads all entries as they are now, one state after the other in the order of the keys, however long that takes and whatever is
    /// written meanwhile. `begun` is called once that holds.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read_all(&self, begun: &mut dyn FnMut(), entry: &mut OnStateEntry<'_>) -> Result<(), StoreError>;

    /// Writes some entries that were changed. They may be sorted on the way.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&self, batch: &mut EntryBatch) -> Result<(), StoreError>;

    /// Writes many entries, no key twice. They may be sorted on the way.
    ///
    /// # Errors
    /// When they cannot be written.
    fn ingest(&self, batch: EntryBatch) -> Result<(), StoreError>;

    /// Makes everything that was written durable and links it into `directory`, which must not exist.
    ///
    /// # Errors
    /// When that is not possible; what was written is still there.
    fn checkpoint(&self, directory: &Path) -> Result<Vec<StoreFile>, StoreError>;

    /// Whether nothing was ever written.
    fn is_empty(&self) -> bool;

    /// About how many bytes it takes on disk. Must be cheap.
    fn size_bytes(&self) -> u64;
}

/// A file of a checkpoint of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFile {
    /// Its name in the store's directory.
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// xxh3 of its bytes.
    pub checksum: u64,
    /// Whether it never changes once it is written, so that several checkpoints can share it under a name made of its
    /// checksum and size. The others are small and belong to one checkpoint.
    pub is_shared: bool,
    /// Whether its content was read and found to be right by whoever put it there: a restore need not do that again.
    pub is_verified: bool,
}

/// What a store says of itself beside its entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreDescription {
    /// The states by number, as the program that wrote them declared them.
    pub descriptors: Vec<StateDescriptor>,
    /// The type of the keys.
    pub key_schema: Schema,
    /// The key groups whose entries are in it.
    pub groups: KeyGroupRange,
    /// How many key groups there are in all.
    pub max_parallelism: u32,
}

/// A checkpoint of a store: all that is needed to open it again elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreFiles {
    /// What is in it.
    pub description: StoreDescription,
    /// All files of its directory.
    pub files: Vec<StoreFile>,
}

impl StoreFiles {
    /// What it takes in all, with what it shares with others.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// A backend and how it is shared.
pub(crate) type SharedBackend = Arc<dyn Backend>;
