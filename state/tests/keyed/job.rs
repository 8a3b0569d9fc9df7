//! A job whose only operator has the state of a subject, over either store: its epochs, checkpoints, failures and savepoints, and what it
//! should hold beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::function::{MAX_PARALLELISM, Subject};
use crate::subtask::{Subtask, options, wanted};
use proptest::prelude::*;
use thalweg_common::clock::{ManualClock, SharedClock};
use thalweg_common::key_group::groups_of;
use thalweg_state::{RocksDb, StateSnapshot, StoreFiles};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Memory,
    RocksDb,
}

/// What happens to any job.
#[derive(Debug, Clone)]
pub enum Turn {
    Freeze,
    Drain(usize),
    /// The oldest frozen epoch becomes a checkpoint, or is given up.
    Finish {
        is_aborted: bool,
    },
    /// A failure, and a restart from the last checkpoint.
    Fail(u32),
    /// A savepoint, and a restart from it.
    Savepoint(u32, Kind),
}

/// Turns, of which up to so many bytes are encoded at once.
pub fn turn(most_bytes: usize) -> impl Strategy<Value = Turn> {
    let kind = prop_oneof![1 => Just(Kind::Memory), 3 => Just(Kind::RocksDb)];
    prop_oneof![
        4 => Just(Turn::Freeze),
        4 => (0..most_bytes).prop_map(Turn::Drain),
        4 => prop::bool::weighted(0.2).prop_map(|is_aborted| Turn::Finish { is_aborted }),
        1 => (1u32..=4).prop_map(Turn::Fail),
        1 => (1u32..=4, kind).prop_map(|(parallelism, kind)| Turn::Savepoint(parallelism, kind)),
    ]
}

type States = BTreeMap<String, StateSnapshot>;

/// The job of a subject `F`, which should hold what `M` says.
pub struct Job<F, M> {
    directory: tempfile::TempDir,
    directories: usize,
    budget_bytes: u64,
    /// What savepoints go through on their way into the next stores.
    through: fn(States) -> States,
    pub subtasks: Vec<Subtask<F>>,
    pub model: M,
    /// What the frozen epochs, oldest first, must hold.
    frozen: Vec<M>,
    /// The last checkpoint.
    completed: Option<(Vec<StoreFiles>, M)>,
    pub clock: Arc<ManualClock>,
}

impl<F: Subject, M: Clone + Default> Job<F, M> {
    /// Without state, and without subtasks.
    fn empty(budget_bytes: u64, through: fn(States) -> States) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            directories: 0,
            budget_bytes,
            through,
            subtasks: Vec::new(),
            model: M::default(),
            frozen: Vec::new(),
            completed: None,
            clock: Arc::new(ManualClock::new(1_000_000)),
        }
    }

    pub fn on_disk(parallelism: u32, budget_bytes: u64, through: fn(States) -> States) -> Self {
        let mut job = Self::empty(budget_bytes, through);
        job.start(parallelism, Kind::RocksDb, &[]);
        job
    }

    pub fn in_memory(parallelism: u32, through: fn(States) -> States) -> Self {
        let mut job = Self::empty(0, through);
        job.start(parallelism, Kind::Memory, &[]);
        job
    }

    pub fn has_checkpoint(&self) -> bool {
        self.completed.is_some()
    }

    fn new_directory(&mut self) -> PathBuf {
        self.directories += 1;
        self.directory.path().join(self.directories.to_string())
    }

    /// Begins with these files.
    fn start(&mut self, parallelism: u32, kind: Kind, sources: &[StoreFiles]) {
        self.subtasks.clear();
        self.frozen.clear();
        let clock: SharedClock = self.clock.clone();
        for index in 0..parallelism {
            let groups = groups_of(index, parallelism, MAX_PARALLELISM);
            let subtask = match kind {
                Kind::Memory => Subtask::memory(groups),
                Kind::RocksDb => {
                    let options = options::<F>(self.new_directory(), &clock);
                    let backend = RocksDb::restore(&options, &wanted::<F>(groups), sources).unwrap();
                    Subtask::rocksdb(groups, backend, self.budget_bytes)
                }
            };
            self.subtasks.push(subtask.with_clock(&clock));
        }
    }

    pub fn turn(&mut self, turn: &Turn) {
        match turn {
            Turn::Freeze => self.freeze(),
            Turn::Drain(bytes) => {
                for subtask in &mut self.subtasks {
                    subtask.store.drain(*bytes).unwrap();
                }
            }
            Turn::Finish { is_aborted } => self.finish(*is_aborted),
            Turn::Fail(parallelism) => {
                let (files, model) = self.completed.clone().unwrap_or_default();
                self.start(*parallelism, Kind::RocksDb, &files);
                self.model = model;
            }
            Turn::Savepoint(parallelism, kind) => self.savepoint(*parallelism, *kind),
        }
    }

    fn freeze(&mut self) {
        let frozen = self.frozen.len();
        if frozen == 2 || self.subtasks.iter().any(|subtask| subtask.epochs.len() != frozen) {
            return;
        }
        for subtask in &mut self.subtasks {
            subtask.epochs.extend(subtask.store.freeze(7).unwrap());
        }
        if self.subtasks.iter().all(|subtask| subtask.epochs.len() > frozen) {
            self.frozen.push(self.model.clone());
        }
    }

    fn finish(&mut self, is_aborted: bool) {
        // Subtasks that had to make room have given up earlier epochs.
        let is_complete = self.subtasks.iter().all(|subtask| subtask.epochs.len() == self.frozen.len());
        let mut files = Vec::new();
        for index in 0..self.subtasks.len() {
            let directory = self.new_directory();
            files.extend(self.subtasks[index].finish(move |epoch| {
                if is_aborted {
                    epoch.give_up().unwrap();
                    return None;
                }
                Some(epoch.finish(&directory).unwrap())
            }));
        }
        if !is_complete {
            // They take part again when none has any left.
            if self.subtasks.iter().all(|subtask| subtask.epochs.is_empty()) {
                self.frozen.clear();
            }
        } else if !self.frozen.is_empty() {
            let model = self.frozen.remove(0);
            if !is_aborted {
                self.completed = Some((files, model));
            }
        }
    }

    fn savepoint(&mut self, parallelism: u32, kind: Kind) {
        let savepoints: Vec<States> =
            self.subtasks.iter_mut().map(|subtask| (self.through)(subtask.canonical())).collect();
        self.start(parallelism, kind, &[]);
        for subtask in &mut self.subtasks {
            savepoints.iter().for_each(|savepoint| subtask.store.restore(savepoint).unwrap());
        }
    }
}
