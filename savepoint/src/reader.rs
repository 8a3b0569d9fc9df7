//! Reads a savepoint: its metadata, and the entries of some key groups of an operator.
//!
//! Stands in a task that restores, in the job manager before anything is stopped, and in the state tool. Invariant: what is handed over has
//! passed the checksums of its file and its block. Holds one file in memory at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::id::OperatorId;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange};
use thalweg_common::limits::STATE_TOOL_MEMORY_BYTES;
use thalweg_common::manifest::OperatorManifest;
use thalweg_common::storage::{self, Storage};
use xxhash_rust::xxh3::xxh3_64;

use crate::data_file::{FileContents, Piece};
use crate::error::SavepointError;
use crate::metadata::{DataFile, Metadata};

/// A savepoint that can be read.
#[derive(Debug, Clone)]
pub struct Savepoint {
    directory: Arc<dyn Storage>,
    metadata: Arc<Metadata>,
}

impl Savepoint {
    /// Reads the metadata of the savepoint in this directory.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub async fn open(directory: Arc<dyn Storage>) -> Result<Self, SavepointError> {
        let metadata = Arc::new(Metadata::read(&*directory).await?);
        Ok(Self { directory, metadata })
    }

    /// The same at an address, such as `file:///savepoints/savepoint-00c0ff-12`.
    ///
    /// # Errors
    /// As [`open`](Self::open), or when the address cannot be understood.
    pub async fn open_uri(uri: &str) -> Result<Self, SavepointError> {
        Self::open(storage::open(uri)?).await
    }

    /// What it consists of.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where it is.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.directory.uri()
    }

    /// Hands over the entries of an operator in these key groups: state by name, key group, entries in their record encoding.
    /// The same state and group may come in several pieces; where the same key comes twice, the later one counts.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the visitor refuses.
    pub async fn visit<E: From<SavepointError>>(
        &self,
        operator: OperatorId,
        groups: KeyGroupRange,
        mut visitor: impl FnMut(&str, KeyGroup, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for file in self.metadata.files_of(operator) {
            let overlaps = |held: KeyGroupRange| held.start < groups.end && groups.start < held.end;
            if file.groups.is_some_and(overlaps) {
                self.visit_file(file, groups, &mut visitor).await?;
            }
        }
        Ok(())
    }

    /// The same of one file.
    pub(crate) async fn visit_file<E: From<SavepointError>>(
        &self,
        file: &DataFile,
        groups: KeyGroupRange,
        mut visitor: impl FnMut(&str, KeyGroup, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.contents(file).await?.visit(groups, false, |piece| match piece {
            Piece::Entries(state, group, entries) => visitor(state, group, entries),
            Piece::Item(_) => Ok(()),
        })
    }

    /// The items of a source or sink, in the order of the files.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub async fn items(&self, operator: OperatorId) -> Result<Vec<Vec<u8>>, SavepointError> {
        let mut items = Vec::new();
        for file in self.metadata.files_of(operator).filter(|file| file.items > 0) {
            self.contents(file).await?.visit(NO_GROUPS, true, |piece| {
                if let Piece::Item(item) = piece {
                    items.push(item.to_vec());
                }
                Ok::<_, SavepointError>(())
            })?;
        }
        Ok(items)
    }

    /// The items of a source or sink by the subtask that wrote each. Those that no subtask wrote go one to each, in their order.
    ///
    /// # Errors
    /// As [`items`](Self::items).
    pub async fn items_by_subtask(
        &self,
        operator: OperatorId,
    ) -> Result<BTreeMap<u32, Vec<Vec<u8>>>, SavepointError> {
        let mut items: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut next = 0;
        for file in self.metadata.files_of(operator).filter(|file| file.items > 0) {
            self.contents(file).await?.visit(NO_GROUPS, true, |piece| {
                if let Piece::Item(item) = piece {
                    let subtask = file.subtask.unwrap_or_else(|| {
                        next += 1;
                        next - 1
                    });
                    items.entry(subtask).or_default().push(item.to_vec());
                }
                Ok::<_, SavepointError>(())
            })?;
        }
        Ok(items)
    }

    /// Reads every file and checks size, checksums and that it has what the metadata says.
    ///
    /// # Errors
    /// The first file that is missing or damaged.
    pub async fn verify(&self) -> Result<(), SavepointError> {
        for file in &self.metadata.files {
            let max_parallelism =
                self.metadata.manifest.operator(file.operator).map_or(0, |operator| operator.max_parallelism);
            let all = KeyGroupRange { start: 0, end: max_parallelism };
            let (mut keyed_bytes, mut items) = (0, 0);
            self.contents(file).await?.visit(all, true, |piece| {
                match piece {
                    Piece::Entries(_, _, entries) => keyed_bytes += entries.len() as u64,
                    Piece::Item(_) => items += 1,
                }
                Ok::<_, SavepointError>(())
            })?;
            if keyed_bytes != file.states.values().sum::<u64>() || items != file.items {
                let reason = "it does not have what the metadata says";
                return Err(SavepointError::damaged(self.name(file), reason));
            }
        }
        Ok(())
    }

    /// An operator of its manifest, as a person calls it.
    ///
    /// # Errors
    /// When there is none.
    pub fn operator(&self, reference: &str) -> Result<&OperatorManifest, SavepointError> {
        self.metadata.manifest.find(reference).ok_or_else(|| {
            let known: Vec<String> =
                self.metadata.manifest.operators.iter().map(OperatorManifest::label).collect();
            SavepointError::UnknownOperator { reference: reference.to_string(), known: known.join(", ") }
        })
    }

    /// Ranges of an operator's key groups whose entries fit into the state tool's memory, as far as they are spread evenly.
    pub(crate) fn passes(&self, operator: &OperatorManifest) -> Vec<KeyGroupRange> {
        let bytes: u64 = self.metadata.files_of(operator.id).flat_map(|file| file.states.values()).sum();
        let max_parallelism = operator.max_parallelism;
        let wanted = bytes.div_ceil(STATE_TOOL_MEMORY_BYTES).clamp(1, u64::from(max_parallelism));
        let passes = u32::try_from(wanted).unwrap_or(max_parallelism);
        (0..passes).map(|pass| thalweg_common::key_group::groups_of(pass, passes, max_parallelism)).collect()
    }

    async fn contents(&self, file: &DataFile) -> Result<FileContents, SavepointError> {
        let bytes = match self.directory.get(&file.path).await {
            Err(error) if error.is_not_found() => {
                let reason = "it is missing; a savepoint is copied and moved with all its files";
                return Err(SavepointError::damaged(self.name(file), reason));
            }
            other => other?,
        };
        if bytes.len() as u64 != file.size_bytes {
            let reason = format!("it has {} bytes instead of {}", bytes.len(), file.size_bytes);
            return Err(SavepointError::damaged(self.name(file), reason));
        }
        if xxh3_64(&bytes) != file.checksum {
            return Err(SavepointError::damaged(self.name(file), "its checksum is wrong"));
        }
        FileContents::parse(&self.name(file), file.operator, bytes)
    }

    fn name(&self, file: &DataFile) -> String {
        format!("{} in {}", file.path, self.directory.uri())
    }
}

const NO_GROUPS: KeyGroupRange = KeyGroupRange { start: 0, end: 0 };
