//! A task's part of a savepoint: its state in canonical form, written beside the processing, and read back at a restore.
//!
//! Unlike a checkpoint's snapshot it is complete in itself and independent of parallelism, store and version. Keyed state goes by key
//! group to whoever owns the group now; what a source or sink remembers is understood by its connector alone: its parts are shared
//! out to the subtasks that there are now, anything else goes to the subtask of the same number. What is in a store on disk is read and
//! written piece by piece, never held as a whole, and so is what is restored into one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::{Operator, Vertex};
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::{KeyGroup, groups_of};
use thalweg_common::limits::EPOCH_CHUNK_BYTES;
use thalweg_common::manifest::OperatorManifest;
use thalweg_common::storage::{Storage, StorageFactory};
use thalweg_common::task_scope::blocking;
use thalweg_proto::convert::{SnapshotHandle, SnapshotLocation};
use thalweg_savepoint::{DataFile, OperatorWriter, Savepoint, SavepointError, part};
use thalweg_state::{Entries, FrozenEpoch, RestoreError, StateSnapshot, migrate_states};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::files;
use super::upload::Owner;
use crate::parts;
use crate::snapshot::{OperatorSnapshot, TaskSnapshot};
use crate::stores::{FrozenStore, TaskStores};

/// A savepoint that tasks restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RestoredSavepoint {
    /// The URI of its directory.
    pub(crate) path: String,
    /// Whether state that the job does not declare is dropped.
    pub(crate) allow_non_restored_state: bool,
}

/// Writes a snapshot, with what was frozen of stores on disk, as data files into the savepoint's directory. Reading a store, cutting,
/// compressing and hashing take time, so all of it happens on threads that nobody waits for, one for each operator: every epoch must
/// be written soon, however long it takes to read the store behind it.
///
/// # Errors
/// When the storage refuses a file, a store cannot be written or read, or an entry is too large; the savepoint is then declined.
pub(crate) async fn write(
    checkpoint: CheckpointId,
    mut snapshot: TaskSnapshot,
    frozen: Vec<FrozenStore>,
    owner: Owner,
    directory: Arc<dyn Storage>,
    stores: &TaskStores,
) -> Result<SnapshotHandle, Failure> {
    let unwanted = CancellationToken::new();
    // If nobody waits any more, what is being read ends, too.
    let _guard = unwanted.clone().drop_guard();
    let mut epochs = BTreeMap::new();
    for FrozenStore { operator, epoch, .. } in frozen {
        snapshot.operators.entry(operator).or_default();
        epochs.insert(operator, epoch);
    }
    let writing = snapshot.operators.into_iter().filter_map(|(id, state)| {
        let epoch = epochs.remove(&id);
        // What has nothing to remember, such as a sink that prints, need not be declared as state either.
        if epoch.is_none() && is_empty(&state) {
            return None;
        }
        let part = format!("{}-a{}", owner.subtask.index, owner.attempt);
        let writer = OperatorWriter::new(Arc::clone(&directory), id, &part).of_subtask(owner.subtask.index);
        let (stores, unwanted) = (stores.clone(), unwanted.clone());
        let writing = Writing { writer, checkpoint, stores, unwanted, runtime: Handle::current() };
        Some(blocking("write savepoint", move || writing.write(state, epoch)))
    });
    let mut files = Vec::new();
    for written in join_all(writing).await {
        files.extend(written.map_err(|error| Failure::internal(error.to_string()))??);
    }
    let size_bytes = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes));
    let list = DataFile::encode_list(&files).map_err(|error| failure(&error))?;
    Ok(SnapshotHandle {
        location: SnapshotLocation::DataFiles(list),
        size_bytes,
        checksum: 0,
        shared: Vec::new(),
    })
}

/// Whether there is nothing to write.
pub(crate) fn is_empty(state: &OperatorSnapshot) -> bool {
    state.operator_state.iter().all(Vec::is_empty)
        && state.parts.iter().all(|parts| parts.list.is_empty())
        && state.keyed_state.values().all(|state| state.groups.is_empty())
}

/// The state of one operator on its way into a savepoint, on a thread that may block.
struct Writing {
    writer: OperatorWriter,
    checkpoint: CheckpointId,
    stores: TaskStores,
    unwanted: CancellationToken,
    runtime: Handle,
}

impl Writing {
    fn write(
        mut self,
        state: OperatorSnapshot,
        epoch: Option<FrozenEpoch>,
    ) -> Result<Vec<DataFile>, Failure> {
        if let Some(epoch) = epoch {
            self.read(epoch)?;
        }
        let Self { mut writer, runtime, .. } = self;
        runtime.block_on(async {
            write_operator(&mut writer, &state).await?;
            writer.finish().await.map_err(|error| failure(&error))
        })
    }

    /// Writes what is in a store on disk, as it was at the barrier.
    fn read(&mut self, epoch: FrozenEpoch) -> Result<(), Failure> {
        if self.is_given_up() {
            // What has changed is written all the same: the store counts on it.
            epoch.give_up()?;
            return Err(files::dead(self.checkpoint));
        }
        epoch.read(|name, group, entries| {
            if self.is_given_up() {
                return Err(files::dead(self.checkpoint));
            }
            self.entries(name, group, entries)
        })
    }

    fn entries(&mut self, state: &str, group: KeyGroup, entries: &[u8]) -> Result<(), Failure> {
        self.runtime.block_on(self.writer.entries(state, group, entries)).map_err(|error| failure(&error))
    }

    fn is_given_up(&self) -> bool {
        self.unwanted.is_cancelled() || self.stores.uploads().is_dead(self.checkpoint)
    }
}

/// Writes the state of an operator, except what is in a store's files.
pub(crate) async fn write_operator(
    writer: &mut OperatorWriter,
    state: &OperatorSnapshot,
) -> Result<(), Failure> {
    for (name, state) in &state.keyed_state {
        let pieces = state.pieces().map_err(|error| Failure::internal(format!("state `{name}`: {error}")))?;
        for (group, entries) in pieces {
            writer.entries(name, group, entries).await.map_err(|error| failure(&error))?;
        }
    }
    for item in &state.operator_state {
        writer.item(item).await.map_err(|error| failure(&error))?;
    }
    for part in state.parts.iter().flat_map(|parts| &parts.list) {
        writer.item(&part.to_item()?).await.map_err(|error| failure(&error))?;
    }
    Ok(())
}

/// Reads what the subtask `index` of a vertex restores of a savepoint at this time. Keyed state for a store on disk is spooled there.
///
/// # Errors
/// When a file is missing or damaged, or the state does not fit what the program declares.
pub(crate) async fn read(
    savepoint: RestoredSavepoint,
    storages: &StorageFactory,
    vertex: &Vertex,
    index: u32,
    stores: &TaskStores,
    now_ms: Timestamp,
) -> Result<TaskSnapshot, Failure> {
    let (runtime, vertex, stores) = (Handle::current(), vertex.clone(), stores.clone());
    let directory = storages.open(&savepoint.path).map_err(|error| Failure::from(&error))?;
    let read = blocking("read savepoint", move || {
        runtime.block_on(async move {
            let from = Savepoint::open(directory).await.map_err(|error| failure(&error))?;
            let mut snapshot = TaskSnapshot::default();
            for operator in &vertex.operators {
                if let Some(found) = from.metadata().manifest.operator(operator.id) {
                    let allow_non_restored_state = savepoint.allow_non_restored_state;
                    let (from, vertex, stores) = (&from, &vertex, &stores);
                    let reading = Reading {
                        from,
                        found,
                        operator,
                        vertex,
                        index,
                        stores,
                        allow_non_restored_state,
                        now_ms,
                    };
                    let state = reading.read().await;
                    let state = state.map_err(|failure| failure.context(&operator.name))?;
                    snapshot.operators.insert(operator.id, state);
                }
            }
            Ok::<_, Failure>(snapshot)
        })
    });
    let read = read.await.map_err(|error| Failure::internal(error.to_string()))?;
    read.map_err(|failure| failure.context(format_args!("cannot restore the savepoint")))
}

/// One operator's share for one subtask.
struct Reading<'a> {
    from: &'a Savepoint,
    found: &'a OperatorManifest,
    operator: &'a Operator,
    vertex: &'a Vertex,
    index: u32,
    stores: &'a TaskStores,
    allow_non_restored_state: bool,
    now_ms: Timestamp,
}

impl Reading<'_> {
    async fn read(&self) -> Result<OperatorSnapshot, Failure> {
        let (keyed_state, spooled) = self.keyed_state().await?;
        let items = self.from.items_by_subtask(self.operator.id).await.map_err(|error| failure(&error))?;
        let (in_parts, whole) = divided(items);
        let parts = parts::of_items(&in_parts, self.found.parallelism, self.index, self.vertex.parallelism)?;
        let is_all = parts.is_some() && whole.is_empty();
        let operator_state = if is_all { Vec::new() } else { self.positions(whole)? };
        Ok(OperatorSnapshot { operator_state, parts, keyed_state, spooled, store: None })
    }

    /// The keyed state, as the program declares it now; what comes first in files, if there is much of it and it goes into a store on
    /// disk.
    async fn keyed_state(&self) -> Result<(States, Vec<PathBuf>), Failure> {
        let (Some(key_schema), true) = (&self.found.key_schema, self.found.is_keyed()) else {
            return Ok(Default::default());
        };
        let Vertex { parallelism, max_parallelism, .. } = *self.vertex;
        if !self.operator.states.iter().any(|state| state.kind.is_keyed()) {
            return Ok(Default::default());
        }
        if max_parallelism != self.found.max_parallelism {
            let message = format!(
                "its state has max parallelism {}, and the job says {max_parallelism}; set it to {}",
                self.found.max_parallelism, self.found.max_parallelism
            );
            return Err(Failure::user(message).permanent());
        }
        let groups = groups_of(self.index, parallelism, max_parallelism);
        let (mut states, mut bytes, mut spooled) = (States::new(), 0, Vec::new());
        let visited = self.from.visit(self.operator.id, groups, |name, group, entries| {
            if !states.contains_key(name) {
                let Some(descriptor) = self.found.state(name).cloned() else { return Ok(()) };
                let (key_schema, groups) = (key_schema.clone(), BTreeMap::new());
                states.insert(name.to_string(), StateSnapshot { descriptor, key_schema, groups });
            }
            if let Some(state) = states.get_mut(name) {
                let Entries(held) = state.groups.entry(group).or_default();
                held.extend_from_slice(entries);
                bytes += entries.len();
            }
            if bytes >= EPOCH_CHUNK_BYTES && self.stores.is_on_disk() {
                bytes = 0;
                let states = self.migrate(std::mem::take(&mut states))?;
                spooled.push(self.stores.spool(self.operator.id, spooled.len(), &states)?);
            }
            Ok::<_, Unreadable>(())
        });
        visited.await.map_err(|Unreadable(failure)| failure)?;
        Ok((self.migrate(states)?, spooled))
    }

    fn migrate(&self, states: States) -> Result<States, Failure> {
        let Operator { name, states: declared, key_schema, .. } = self.operator;
        let Some(keys) = key_schema.as_ref().or(self.found.key_schema.as_ref()) else {
            return Ok(States::new());
        };
        let declared: Vec<_> = declared.iter().filter(|state| state.kind.is_keyed()).cloned().collect();
        let migrated =
            migrate_states(name, states, &declared, keys, self.now_ms, self.allow_non_restored_state);
        migrated.map_err(|error: RestoreError| Failure::user(error.to_string()).permanent())
    }

    /// What the subtask itself remembers.
    fn positions(&self, mut items: BTreeMap<u32, Vec<Vec<u8>>>) -> Result<Vec<Vec<u8>>, Failure> {
        if self.found.parallelism == self.vertex.parallelism {
            return Ok(items.remove(&self.index).unwrap_or_default());
        }
        if !self.found.is_keyed() && items.values().flatten().all(Vec::is_empty) {
            // Nothing is remembered, which is the same for any number of subtasks.
            return Ok(items.into_values().flatten().take(1).collect());
        }
        if !self.found.is_keyed() {
            let (found, declared) = (self.found.parallelism, self.vertex.parallelism);
            return Err(Failure::user(other_parallelism(found, declared)).permanent());
        }
        // What all subtasks of a keyed operator say alike (that their input has ended) holds for any number of them.
        let said_by = items.len();
        let said: BTreeSet<Vec<u8>> = items.into_values().flatten().collect();
        let by_all = said_by == self.found.parallelism as usize && said.len() == 1;
        Ok(if by_all { said.into_iter().collect() } else { Vec::new() })
    }
}

/// Items by the subtask that wrote them.
type Items = BTreeMap<u32, Vec<Vec<u8>>>;

/// Items that are parts, and those that are not: a keyed function with broadcast state may have both.
fn divided(items: Items) -> (Items, Items) {
    let (mut in_parts, mut whole) = (Items::new(), Items::new());
    for (subtask, items) in items {
        let (parts, others): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| part::is_part(item));
        for (list, items) in [(&mut in_parts, parts), (&mut whole, others)] {
            if !items.is_empty() {
                list.insert(subtask, items);
            }
        }
    }
    (in_parts, whole)
}

/// The cause and the cure, for a source or sink.
fn other_parallelism(found: u32, declared: u32) -> String {
    format!(
        "its state has no parts: it was written by {found} subtasks and cannot be divided among {declared}; keep its parallelism \
         with `set_parallelism({found})`, and change that of the other operators"
    )
}

/// Keyed state by name.
type States = BTreeMap<String, StateSnapshot>;

/// Why a savepoint, or the copy of it on this machine, cannot be restored.
struct Unreadable(Failure);

impl From<SavepointError> for Unreadable {
    fn from(error: SavepointError) -> Self {
        Self(failure(&error))
    }
}

impl From<Failure> for Unreadable {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

fn failure(error: &SavepointError) -> Failure {
    Failure::external(error.to_string())
}

#[cfg(test)]
mod items {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_function_remembers_in_parts_and_that_its_input_has_ended_are_told_apart() {
        let part = parts::Part::Broadcast { state: "rules".into(), schema: 1, entries: Vec::new() };
        let (part, ended) = (part.to_item().unwrap(), vec![1]);
        let both = BTreeMap::from([(0, vec![part.clone(), ended.clone()]), (1, vec![part.clone()])]);
        let (in_parts, whole) = divided(both);
        assert_eq!(in_parts, BTreeMap::from([(0, vec![part.clone()]), (1, vec![part])]));
        assert_eq!(whole, BTreeMap::from([(0, vec![ended])]), "it has not ended everywhere");
    }
}

#[cfg(all(test, feature = "rocksdb"))]
#[path = "savepoint_tests.rs"]
mod tests;
