//! Where the keyed operators of a worker keep their state: in memory, or on its disk.
//!
//! On a change's way this stands between an operator and its [`KeyedStore`]. A worker has one [`WorkerStores`] for each attempt of each
//! region: its directory and the memory that all its stores share; each task has [`TaskStores`] of it, with which its operators open
//! their stores. Invariants: the stores of an attempt are below a directory of their own, which goes when the attempt has ended;
//! together the regions of a worker have no more memory than its slots; job code is the same for all stores.

#[cfg(feature = "rocksdb")]
mod disk;
mod draining;
mod local;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::codec;
use thalweg_common::config::{ConfigKey, Configuration, keys, managed_memory_bytes};
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, Regions};
use thalweg_common::id::{Attempt, CheckpointId, JobId, OperatorId, RegionId, SubtaskId};
use thalweg_state::{Declarations, FrozenEpoch, KeyedStore, StateKey, StateSnapshot};

pub(crate) use self::draining::Draining;
pub(crate) use self::local::{LocalCopies, Unusable, Wanted};
pub(crate) use self::uploads::{FileId, Files, Uploads};
use crate::program::OperatorContext;
use crate::task::files::local_failure;

/// Which store keeps keyed state: `state.backend.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateBackend {
    /// Memory.
    #[default]
    HashMap,
    /// RocksDB on a local disk, with a cache in memory.
    RocksDb,
}

/// How a job keeps its state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateSettings {
    /// In which store.
    pub backend: StateBackend,
    /// Whether files that a checkpoint has already are not uploaded again: `execution.checkpointing.incremental`.
    pub incremental: bool,
    /// Managed memory in bytes of a process that has no task manager to tell it its share.
    pub managed_bytes: u64,
    /// Where copies of the newest checkpoint are kept on the machine: `taskmanager.state.local.root-dirs`. Nowhere if
    /// `execution.state-recovery.from-local` is off.
    pub local_directories: Vec<PathBuf>,
    /// How RocksDB is tuned.
    #[cfg(feature = "rocksdb")]
    pub rocksdb: thalweg_state::RocksDbSettings,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            backend: StateBackend::HashMap,
            incremental: true,
            managed_bytes: managed_memory_bytes(&Configuration::new()),
            local_directories: Vec::new(),
            #[cfg(feature = "rocksdb")]
            rocksdb: thalweg_state::RocksDbSettings::default(),
        }
    }
}

impl StateSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// When they ask for a store that this program was built without.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self, Failure> {
        let backend = match configuration.text(&keys::STATE_BACKEND) {
            Some("rocksdb") => StateBackend::RocksDb,
            _ => StateBackend::HashMap,
        };
        if backend == StateBackend::RocksDb && !cfg!(feature = "rocksdb") {
            let ConfigKey { name, .. } = keys::STATE_BACKEND;
            return Err(Failure::user(format!(
                "`{name}` is `rocksdb`, and this job was built without it: switch on the feature `rocksdb` of the crate \
                 `thalweg` in its Cargo.toml, or set `{name}` to `hashmap`"
            ))
            .permanent());
        }
        let is_local = configuration.boolean(&keys::LOCAL_RECOVERY).unwrap_or(true);
        let directories = configuration.text(&keys::LOCAL_STATE_DIRECTORIES).filter(|_| is_local);
        Ok(Self {
            backend,
            incremental: configuration.boolean(&keys::CHECKPOINTING_INCREMENTAL).unwrap_or(true),
            managed_bytes: managed_memory_bytes(configuration),
            local_directories: directories.map(local_directories).unwrap_or_default(),
            #[cfg(feature = "rocksdb")]
            rocksdb: thalweg_state::RocksDbSettings::from_configuration(configuration),
        })
    }
}

/// The directories in a list with commas between them.
#[must_use]
pub fn local_directories(list: &str) -> Vec<PathBuf> {
    list.split(',').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

/// What has changed in a store on disk before a barrier, and where its checkpoint is to be linked.
#[derive(Debug)]
pub struct FrozenStore {
    pub(crate) operator: OperatorId,
    pub(crate) epoch: FrozenEpoch,
    pub(crate) directory: PathBuf,
}

impl PartialEq for FrozenStore {
    fn eq(&self, other: &Self) -> bool {
        (self.operator, &self.directory) == (other.operator, &other.directory)
    }
}

/// The stores of one attempt of a region on a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerStores {
    /// Absent if state is in memory.
    disk: Option<Arc<Disk>>,
    /// Where copies of the job's checkpoints are kept, if they are.
    local: Vec<PathBuf>,
}

/// Where stores on disk are.
struct Disk {
    directory: PathBuf,
    incremental: bool,
    #[cfg(feature = "rocksdb")]
    rocksdb: disk::Shared,
}

impl WorkerStores {
    /// The stores of the tasks that a region has on this worker, below `directory`. Of the memory that each slot has they get their part;
    /// without it theirs of all that is managed.
    pub(crate) fn new(
        settings: &StateSettings,
        graph: &JobGraph,
        tasks: &[SubtaskId],
        managed_bytes_per_slot: Option<u64>,
        directory: PathBuf,
    ) -> Self {
        if settings.backend == StateBackend::HashMap {
            return Self::default();
        }
        let managed_bytes = match managed_bytes_per_slot {
            Some(bytes) => share_of_slots(graph, tasks, bytes),
            None => share_of_all(graph, tasks, settings.managed_bytes),
        };
        let stores = tasks.iter().map(|task| stores_of(graph, *task)).sum();
        let disk = Disk::new(settings, managed_bytes, stores, directory);
        Self { disk: Some(Arc::new(disk)), local: Vec::new() }
    }

    /// The same with copies of the job's checkpoints in these directories, which the machine's task managers share.
    #[must_use]
    pub(crate) fn with_copies(self, directories: &[PathBuf], job: JobId) -> Self {
        let local = directories.iter().map(|directory| directory.join(job.to_string())).collect();
        Self { local, ..self }
    }

    /// Those of one task.
    pub(crate) fn task(&self, subtask: SubtaskId) -> TaskStores {
        let directory = self.disk.as_ref().map(|disk| disk.directory.join(subtask.to_string()));
        // Always the same of several directories, so that the copies are found again.
        let number = (subtask.vertex + subtask.index) as usize % self.local.len().max(1);
        let local = self.local.get(number).map(|job| LocalCopies::new(job.clone(), subtask));
        let (disk, directory) = (self.disk.clone(), directory.unwrap_or_default());
        TaskStores { disk, directory, local, ..Default::default() }
    }

    /// The directory of the stores, if they are on disk.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.disk.as_ref().map(|disk| disk.directory.as_path())
    }
}

impl Disk {
    fn new(settings: &StateSettings, managed_bytes: u64, stores: u64, directory: PathBuf) -> Self {
        #[cfg(not(feature = "rocksdb"))]
        let _ = (managed_bytes, stores);
        Self {
            directory,
            incremental: settings.incremental,
            #[cfg(feature = "rocksdb")]
            rocksdb: disk::Shared::new(&settings.rocksdb, managed_bytes, stores),
        }
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stores in {}", self.directory.display())
    }
}

/// What the tasks of a region have of the memory of their slots: all, unless tasks of other regions with keyed state share one. That is the
/// same whether those run here at the moment or not, so that a region which comes back finds its part.
fn share_of_slots(graph: &JobGraph, tasks: &[SubtaskId], bytes_per_slot: u64) -> u64 {
    let group = |task: &SubtaskId| {
        let vertex = graph.vertices.get(task.vertex as usize)?;
        Some((vertex.slot_sharing_group.as_str(), task.index))
    };
    let slots: BTreeSet<_> = tasks.iter().filter_map(group).collect();
    let share = |slot: (&str, u32)| {
        let here: Vec<_> = tasks.iter().copied().filter(|task| group(task) == Some(slot)).collect();
        let all: Vec<_> = (0..)
            .zip(&graph.vertices)
            .filter(|(_, vertex)| vertex.slot_sharing_group == slot.0 && slot.1 < vertex.parallelism)
            .map(|(vertex, _)| SubtaskId { vertex, index: slot.1 })
            .collect();
        part(graph, bytes_per_slot, &here, &all)
    };
    slots.into_iter().map(share).fold(0, u64::saturating_add)
}

/// What the tasks of a region have of the memory of a process that runs all of the job.
fn share_of_all(graph: &JobGraph, tasks: &[SubtaskId], bytes: u64) -> u64 {
    let Some(first) = tasks.first() else { return 0 };
    let regions = Regions::of(graph);
    let all: Vec<_> = graph.subtasks().collect();
    let number = regions.region(*first);
    let region: Vec<_> = all.iter().copied().filter(|task| regions.region(*task) == number).collect();
    part(graph, bytes, &region, &all)
}

/// The part of some tasks among all that share memory: by their stores, or by themselves if nobody has any.
fn part(graph: &JobGraph, bytes: u64, some: &[SubtaskId], all: &[SubtaskId]) -> u64 {
    let stores = |tasks: &[SubtaskId]| tasks.iter().map(|task| stores_of(graph, *task)).sum();
    let (some, all) = match stores(all) {
        0 => (some.len() as u64, all.len() as u64),
        stores_of_all => (stores(some), stores_of_all),
    };
    u64::try_from(u128::from(bytes) * u128::from(some) / u128::from(all.max(1))).unwrap_or(bytes)
}

/// How many operators of a task have keyed state.
fn stores_of(graph: &JobGraph, task: SubtaskId) -> u64 {
    let operators = graph.vertices.get(task.vertex as usize).map_or(&[][..], |vertex| &vertex.operators);
    let keyed = operators.iter().filter(|operator| operator.states.iter().any(|state| state.kind.is_keyed()));
    keyed.count() as u64
}

/// What a task needs to open its stores, and to know of their files.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskStores {
    disk: Option<Arc<Disk>>,
    /// The task's own.
    directory: PathBuf,
    draining: Draining,
    uploads: Arc<Mutex<Uploads>>,
    /// Copies of its checkpoints, if any are kept.
    local: Option<LocalCopies>,
}

impl TaskStores {
    /// How far the frozen epochs of the task are encoded.
    pub(crate) fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// What the task has uploaded.
    pub(crate) fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same with copies of its checkpoints in the directory of a job.
    #[cfg(test)]
    pub(crate) fn with_copies(self, job: &Path) -> Self {
        let subtask = SubtaskId { vertex: 1, index: 0 };
        Self { local: Some(LocalCopies::new(job.to_path_buf(), subtask)), ..self }
    }

    /// The same without copies of its checkpoints.
    pub(crate) fn without_copies(&self) -> Self {
        Self { local: None, ..self.clone() }
    }

    /// Copies of its checkpoints on this machine, if any are kept.
    pub(crate) fn local(&self) -> Option<&LocalCopies> {
        self.local.as_ref()
    }

    /// Whether files are uploaded once only.
    pub(crate) fn is_incremental(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.incremental)
    }

    /// Whether state is on disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Where a shared file is put that is to be restored.
    pub(crate) fn fetched(&self, path: &str) -> PathBuf {
        self.directory.join("restored").join(path)
    }

    /// Where the checkpoint of an operator's store is linked.
    pub(crate) fn linked(&self, operator: OperatorId, checkpoint: CheckpointId) -> PathBuf {
        self.directory.join(operator.to_string()).join(format!("chk-{checkpoint}"))
    }

    /// Opens the store of an operator with what is to be restored. `declare` may be called several times.
    pub(crate) fn open<K: StateKey>(
        &self,
        context: &OperatorContext,
        mut declare: impl FnMut(&mut Declarations<K>),
    ) -> Result<KeyedStore<K>, Failure> {
        let name = &context.open.operator_name;
        let mut declarations = Declarations::default();
        declare(&mut declarations);
        let mut store = match &self.disk {
            #[cfg(feature = "rocksdb")]
            Some(disk) => self.open_on_disk(disk, context, declarations)?,
            _ if context.restored.iter().any(|snapshot| snapshot.store.is_some()) => {
                return Err(Failure::user(format!(
                    "the checkpoint holds the state of `{name}` as files of RocksDB: set `{}` to `rocksdb` as before, or take the \
                     state along in a savepoint",
                    keys::STATE_BACKEND.name
                ))
                .permanent());
            }
            _ => KeyedStore::new(name, declarations, context.open.max_parallelism, context.owned)?,
        }
        .with_clock(Arc::clone(&context.open.clock));
        for snapshot in &context.restored {
            for path in &snapshot.spooled {
                store.restore(&read_spooled(path)?)?;
            }
            store.restore(&snapshot.keyed_state)?;
        }
        Ok(store)
    }

    /// Puts keyed state of an operator that is to be restored into a file of the task's own, so that it need not be held in memory.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn spool(
        &self,
        operator: OperatorId,
        number: usize,
        states: &BTreeMap<String, StateSnapshot>,
    ) -> Result<PathBuf, Failure> {
        let path = self.fetched(&format!("{operator}-savepoint-{number}"));
        let bytes = codec::to_bytes(states).map_err(|error| Failure::internal(error.to_string()))?;
        let written = fs::create_dir_all(self.fetched("")).and_then(|()| fs::write(&path, bytes));
        written.map_err(|error| local_failure("write", &path, error))?;
        Ok(path)
    }
}

/// Takes back what was spooled.
fn read_spooled(path: &Path) -> Result<BTreeMap<String, StateSnapshot>, Failure> {
    let bytes = fs::read(path).and_then(|bytes| fs::remove_file(path).map(|()| bytes));
    let bytes = bytes.map_err(|error| local_failure("read", path, error))?;
    codec::from_bytes(&bytes)
        .map_err(|error| Failure::external(format!("{} is damaged: {error}", path.display())))
}

/// The directory of a region's attempt below that of its worker.
pub(crate) fn attempt_directory(worker: &Path, region: RegionId, attempt: Attempt) -> PathBuf {
    worker.join(format!("region-{region}-attempt-{attempt}"))
}

#[cfg(test)]
#[path = "stores_tests.rs"]
mod tests;
