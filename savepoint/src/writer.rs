//! Writes the state of one operator's subtask as data files of a savepoint.
//!
//! Stands in a task that takes a savepoint, beside its processing, and in the state tool. Holds at most one file in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::id::OperatorId;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange};
use thalweg_common::storage::Storage;
use xxhash_rust::xxh3::xxh3_64;

use crate::data_file::FileBuilder;
use crate::error::SavepointError;
use crate::metadata::DataFile;
use crate::part;

/// The state of one operator's subtask on its way into a savepoint.
#[derive(Debug)]
pub struct OperatorWriter {
    directory: Arc<dyn Storage>,
    operator: OperatorId,
    part: String,
    subtask: Option<u32>,
    builder: FileBuilder,
    /// What the metadata will say about the file that is being filled.
    filled: DataFile,
    files: Vec<DataFile>,
}

impl OperatorWriter {
    /// Writes into the savepoint's directory. `part` must differ between all that write state of this operator there, the
    /// attempts of one subtask included: it becomes a part of the file's names.
    #[must_use]
    pub fn new(directory: Arc<dyn Storage>, operator: OperatorId, part: &str) -> Self {
        let builder = FileBuilder::new(operator);
        let filled = nothing(operator);
        let part = part.to_string();
        Self { directory, operator, part, subtask: None, builder, filled, files: Vec::new() }
    }

    /// The same for a subtask, which gets its items back at a restore with the same parallelism.
    #[must_use]
    pub fn of_subtask(self, index: u32) -> Self {
        Self { subtask: Some(index), ..self }
    }

    /// Adds whole entries of a keyed state and key group: key and value in turn, for a map state key, map key and value, each in
    /// its record encoding. Files and blocks are cut between calls, so that there should be many with few entries, rather than
    /// few with many; best one state after the other, and in it group after group.
    ///
    /// # Errors
    /// When they are too large for one piece, or the storage refuses a file.
    pub async fn entries(
        &mut self,
        state: &str,
        group: KeyGroup,
        entries: &[u8],
    ) -> Result<(), SavepointError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.builder.entries(state, group, entries)?;
        let groups = self.filled.groups.get_or_insert(KeyGroupRange { start: group, end: group + 1 });
        groups.start = groups.start.min(group);
        groups.end = groups.end.max(group + 1);
        match self.filled.states.get_mut(state) {
            Some(bytes) => *bytes += entries.len() as u64,
            None => {
                self.filled.states.insert(state.to_string(), entries.len() as u64);
            }
        }
        self.flush_if_full().await
    }

    /// Adds an item of a source's or sink's state: a [part](crate::part), or all that a subtask remembers.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub async fn item(&mut self, item: &[u8]) -> Result<(), SavepointError> {
        self.builder.item(item)?;
        self.filled.items += 1;
        self.filled.parts += u64::from(part::is_part(item));
        self.filled.item_bytes += item.len() as u64;
        self.flush_if_full().await
    }

    /// Writes what is left. The files are durable then; they become a savepoint with its metadata.
    ///
    /// # Errors
    /// When the storage refuses a file.
    pub async fn finish(mut self) -> Result<Vec<DataFile>, SavepointError> {
        self.flush().await?;
        Ok(self.files)
    }

    async fn flush_if_full(&mut self) -> Result<(), SavepointError> {
        if self.builder.is_full() { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), SavepointError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::replace(&mut self.builder, FileBuilder::new(self.operator));
        let filled = std::mem::replace(&mut self.filled, nothing(self.operator));
        let bytes = builder.finish()?;
        let file = DataFile {
            path: format!("{}/{}-{}", self.operator, self.part, self.files.len()),
            subtask: self.subtask,
            size_bytes: bytes.len() as u64,
            checksum: xxh3_64(&bytes),
            ..filled
        };
        self.directory.put(&file.path, bytes.into()).await?;
        self.files.push(file);
        Ok(())
    }
}

fn nothing(operator: OperatorId) -> DataFile {
    DataFile {
        operator,
        path: String::new(),
        subtask: None,
        size_bytes: 0,
        checksum: 0,
        groups: None,
        states: BTreeMap::new(),
        items: 0,
        item_bytes: 0,
        parts: 0,
    }
}
