//! A task's snapshot: the state of all operators of its chain at one barrier.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thalweg_common::id::OperatorId;
use thalweg_common::key_group::KeyGroupRange;
use thalweg_proto::convert::SharedFile;
use thalweg_state::{StateSnapshot, StoreDescription};

use crate::in_flight::{self, InFlight, Part, Recorded};
use crate::parts::Parts;
use crate::stores::FrozenStore;

/// What one task adds to a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// By operator, so that a changed chain still finds its state.
    pub operators: BTreeMap<OperatorId, OperatorSnapshot>,
    /// What the barrier has overtaken; nothing in an aligned checkpoint.
    pub in_flight: InFlight,
}

impl TaskSnapshot {
    /// Leaves what these operators have of these key groups, and what has no keys.
    pub(crate) fn keep(&mut self, operators: &BTreeSet<OperatorId>, owned: KeyGroupRange) {
        self.operators.retain(|id, _| operators.contains(id));
        for operator in self.operators.values_mut() {
            operator.store.take_if(|store| !store.overlaps(owned));
            for state in operator.keyed_state.values_mut() {
                state.groups.retain(|group, _| owned.contains(*group));
            }
        }
    }
}

/// The state of one operator in one subtask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// What the subtask remembers as a whole: the position of a source that has no splits, or that the input of a keyed operator has
    /// ended.
    pub operator_state: Vec<Vec<u8>>,
    /// What a source or sink remembers in parts.
    pub parts: Option<Parts>,
    /// Keyed state, by state name.
    pub keyed_state: BTreeMap<String, StateSnapshot>,
    /// More of it, which was fetched to be restored into a store on disk: files on this machine, in the order in which they are read.
    #[serde(skip)]
    pub(crate) spooled: Vec<PathBuf>,
    /// Keyed state in a store on disk, as the files of that store.
    pub store: Option<StoreManifest>,
}

/// The files of a store on disk at a barrier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreManifest {
    /// What is in it.
    pub description: StoreDescription,
    /// All files.
    pub files: Vec<ManifestFile>,
}

/// A file of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name in the store's directory.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// The xxh3 of its bytes.
    pub checksum: u64,
    /// Where it is.
    pub place: FilePlace,
}

/// Where a file of a store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilePlace {
    /// A shared file of the job, at this path.
    Shared(String),
    /// Here: one of the small ones that belong to a single checkpoint.
    Here(Vec<u8>),
}

impl StoreManifest {
    /// Whether it has entries of these key groups.
    #[must_use]
    pub fn overlaps(&self, groups: KeyGroupRange) -> bool {
        let there = self.description.groups;
        there.start.max(groups.start) < there.end.min(groups.end)
    }

    /// Its shared files.
    pub fn shared(&self) -> impl Iterator<Item = SharedFile> {
        self.files.iter().filter_map(|file| match &file.place {
            FilePlace::Shared(path) => {
                let (size_bytes, checksum) = (file.size_bytes, file.checksum);
                Some(SharedFile { path: path.clone(), size_bytes, checksum })
            }
            FilePlace::Here(_) => None,
        })
    }
}

/// Collects a task's snapshot while the barrier passes along its chain.
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    snapshot: TaskSnapshot,
    frozen: Vec<FrozenStore>,
    /// How many subtasks the vertex has.
    parallelism: u32,
    /// What is recorded of records on their way, if anything is: the part of this builder, and what all will have recorded.
    recording: Option<(Part, Recorded)>,
    /// When the barrier overtakes in an output that holds it.
    overtakes_in: Option<Duration>,
}

impl SnapshotBuilder {
    /// For a task of a vertex with this many subtasks.
    pub(crate) fn of(parallelism: u32) -> Self {
        Self { parallelism, ..Self::default() }
    }

    /// A part of the snapshot in which records on their way are recorded, now or later.
    pub(crate) fn part(&mut self) -> Part {
        self.recording.get_or_insert_with(|| in_flight::record(self.parallelism)).0.another()
    }

    /// What all parts will have recorded. None is added from here on.
    pub(crate) fn take_recorded(&mut self) -> Option<Recorded> {
        let (part, recorded) = self.recording.take()?;
        part.done();
        Some(recorded)
    }

    /// The barrier waits in an output, and overtakes in this time.
    pub(crate) fn overtakes_in(&mut self, time: Duration) {
        self.overtakes_in = Some(self.overtakes_in.map_or(time, |other| other.min(time)));
    }

    /// When the barrier overtakes in an output that holds it.
    pub(crate) fn held_for(&self) -> Option<Duration> {
        self.overtakes_in
    }

    /// The entry of an operator.
    pub fn operator(&mut self, id: OperatorId) -> &mut OperatorSnapshot {
        self.snapshot.operators.entry(id).or_default()
    }

    /// Adds what is yet to be written of a store on disk.
    pub(crate) fn freeze(&mut self, store: FrozenStore) {
        self.frozen.push(store);
    }

    /// Takes out what is yet to be written.
    pub(crate) fn take_frozen(&mut self) -> Vec<FrozenStore> {
        std::mem::take(&mut self.frozen)
    }

    /// The snapshot, when the barrier has passed the whole chain.
    pub fn build(self) -> TaskSnapshot {
        self.snapshot
    }
}
