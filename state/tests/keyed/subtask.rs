//! A subtask over either store, and the thread that writes its epochs.

#![expect(clippy::disallowed_methods, reason = "the writer of an epoch is a thread beside the task")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::{SharedClock, SystemClock};
use thalweg_common::key_group::{KeyGroupRange, groups_of};
use thalweg_common::record::Record;
use thalweg_state::{
    CacheOptions, Drained, Entries, FrozenEpoch, KeyedStore, RocksDb, RocksDbMemory, RocksDbOptions,
    RocksDbSettings, SelectError, StateSnapshot, StoreDescription, StoreError, StoreFiles,
};

use crate::function::{Expected, MAX_PARALLELISM, Subject};

pub fn options<F: Subject>(directory: PathBuf, clock: &SharedClock) -> RocksDbOptions {
    let settings = RocksDbSettings::default();
    let memory = Arc::new(RocksDbMemory::new(8 << 20, &settings));
    let descriptors = F::default().declared().descriptors().unwrap();
    RocksDbOptions {
        operator: "function".into(),
        directory,
        descriptors,
        settings,
        memory,
        clock: clock.clone(),
    }
}

/// A store on disk that was empty, on the machine's clock.
pub fn create<F: Subject>(directory: PathBuf) -> RocksDb {
    RocksDb::create(&options::<F>(directory, &SystemClock::shared())).unwrap()
}

pub fn wanted<F: Subject>(groups: KeyGroupRange) -> StoreDescription {
    StoreDescription {
        descriptors: F::default().declared().descriptors().unwrap(),
        key_schema: u16::schema(),
        groups,
        max_parallelism: MAX_PARALLELISM,
    }
}

pub struct Subtask<F> {
    pub function: F,
    pub store: KeyedStore<u16>,
    pub epochs: Vec<FrozenEpoch>,
    pub backend: Option<Arc<RocksDb>>,
}

impl<F: Subject> Subtask<F> {
    pub fn memory(owned: KeyGroupRange) -> Self {
        let mut function = F::default();
        let store = KeyedStore::new("function", function.declared(), MAX_PARALLELISM, owned).unwrap();
        Self { function, store, epochs: Vec::new(), backend: None }
    }

    pub fn rocksdb(owned: KeyGroupRange, backend: RocksDb, budget_bytes: u64) -> Self {
        let mut function = F::default();
        let cache = CacheOptions { budget_bytes, epoch_wait: Duration::ZERO };
        let (declared, backend) = (function.declared(), Arc::new(backend));
        let behind = backend.clone();
        let store =
            KeyedStore::with_backend("function", declared, MAX_PARALLELISM, owned, behind, cache).unwrap();
        Self { function, store, epochs: Vec::new(), backend: Some(backend) }
    }

    pub fn with_clock(self, clock: &SharedClock) -> Self {
        Self { store: self.store.with_clock(clock.clone()), ..self }
    }

    /// The oldest frozen epoch, on a thread that blocks while the task encodes.
    pub fn finish(
        &mut self,
        work: impl FnOnce(FrozenEpoch) -> Option<StoreFiles> + Send + 'static,
    ) -> Option<StoreFiles> {
        if self.epochs.is_empty() {
            return None;
        }
        self.try_finish(|epoch| Ok(work(epoch))).unwrap()
    }

    /// The same where both may fail.
    pub fn try_finish<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(FrozenEpoch) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let epoch = self.epochs.remove(0);
        let writer = std::thread::spawn(move || work(epoch));
        let mut drained = Ok(Drained::Some);
        while !writer.is_finished() && drained.is_ok() {
            drained = self.store.drain(usize::MAX);
        }
        // What the writer fails with is the cause.
        let written = writer.join().unwrap()?;
        drained.map(|_| written)
    }

    /// All of its state as a savepoint has it: of a store on disk read beside the processing, behind the epochs before.
    pub fn canonical(&mut self) -> BTreeMap<String, StateSnapshot> {
        while !self.epochs.is_empty() {
            self.try_finish(FrozenEpoch::give_up).unwrap();
        }
        let Some(epoch) = self.store.freeze(8).unwrap() else { return self.store.snapshot().unwrap() };
        self.epochs.push(epoch);
        let StoreDescription { descriptors, key_schema, .. } = wanted::<F>(groups_of(0, 1, MAX_PARALLELISM));
        self.try_finish(move |epoch| {
            let mut states = BTreeMap::new();
            epoch.read(|name, group, entries| {
                assert!(!entries.is_empty());
                let state = states.entry(name.to_string()).or_insert_with(|| StateSnapshot {
                    descriptor: descriptors.iter().find(|state| state.name == name).unwrap().clone(),
                    key_schema: key_schema.clone(),
                    groups: BTreeMap::new(),
                });
                let Entries(held) = state.groups.entry(group).or_default();
                held.extend_from_slice(entries);
                Ok::<_, StoreError>(())
            })?;
            Ok(states)
        })
        .unwrap()
    }

    /// Works with a store that may be full of changes that are frozen.
    pub fn patiently<R>(
        &mut self,
        mut work: impl FnMut(&F, &mut KeyedStore<u16>) -> Result<R, SelectError>,
    ) -> R {
        loop {
            match work(&self.function, &mut self.store) {
                Ok(result) => return result,
                Err(SelectError::Store(error)) if matches!(*error, StoreError::Behind { .. }) => {
                    assert!(!self.epochs.is_empty(), "nobody else can make room");
                    self.finish(|epoch| {
                        epoch.give_up().unwrap();
                        None
                    });
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn read(&mut self, key: u16) -> Expected {
        self.patiently(|function, store| Ok(function.read(&store.select(key)?)))
    }
}
