//! Both stores against a plain map, with caches far too small: batches, frozen epochs with changes on top, checkpoints, failures,
//! restores into other key groups and into the other store.
#![allow(clippy::unwrap_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "the writer of an epoch is a thread beside the task")]

mod function;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use function::{Expected, Function, MAX_PARALLELISM, Operation, Single, Subject, operation, owner};
use proptest::prelude::*;
use thalweg_common::key_group::{KeyGroupRange, groups_of};
use thalweg_common::record::Record;
use thalweg_state::{
    CacheOptions, Drained, FrozenEpoch, KeyedStore, RocksDb, RocksDbMemory, RocksDbOptions, RocksDbSettings,
    SelectError, StateSnapshot, StoreDescription, StoreError, StoreFiles,
};

type Model = BTreeMap<u16, Expected>;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Memory,
    RocksDb,
}

#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<(u16, Operation)>),
    /// Without a look-up ahead.
    Record(u16, Operation),
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

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![1 => Just(Kind::Memory), 4 => Just(Kind::RocksDb)];
    let step = prop_oneof![
        20 => prop::collection::vec((0u16..60, operation()), 1..8).prop_map(Step::Batch),
        5 => (0u16..60, operation()).prop_map(|(key, operation)| Step::Record(key, operation)),
        4 => Just(Step::Freeze),
        4 => (0usize..200).prop_map(Step::Drain),
        4 => prop::bool::weighted(0.2).prop_map(|is_aborted| Step::Finish { is_aborted }),
        1 => (1u32..=4).prop_map(Step::Fail),
        1 => (1u32..=4, kind).prop_map(|(parallelism, kind)| Step::Savepoint(parallelism, kind)),
    ];
    prop::collection::vec(step, 0..150)
}

fn options<F: Subject>(directory: PathBuf) -> RocksDbOptions {
    let settings = RocksDbSettings::default();
    let memory = Arc::new(RocksDbMemory::new(8 << 20, &settings));
    let descriptors = F::default().declared().descriptors().unwrap();
    RocksDbOptions { operator: "function".into(), directory, descriptors, settings, memory }
}

struct Subtask<F> {
    function: F,
    store: KeyedStore<u16>,
    epochs: Vec<FrozenEpoch>,
}

impl<F: Subject> Subtask<F> {
    fn memory(owned: KeyGroupRange) -> Self {
        let mut function = F::default();
        let store = KeyedStore::new("function", function.declared(), MAX_PARALLELISM, owned).unwrap();
        Self { function, store, epochs: Vec::new() }
    }

    fn rocksdb(owned: KeyGroupRange, backend: RocksDb, budget_bytes: u64) -> Self {
        let mut function = F::default();
        let cache = CacheOptions { budget_bytes, epoch_wait: Duration::ZERO };
        let declared = function.declared();
        let store =
            KeyedStore::with_backend("function", declared, MAX_PARALLELISM, owned, Arc::new(backend), cache)
                .unwrap();
        Self { function, store, epochs: Vec::new() }
    }

    /// The oldest frozen epoch, on a thread that blocks while the task encodes.
    fn finish(
        &mut self,
        work: impl FnOnce(FrozenEpoch) -> Option<StoreFiles> + Send + 'static,
    ) -> Option<StoreFiles> {
        if self.epochs.is_empty() {
            return None;
        }
        let epoch = self.epochs.remove(0);
        let writer = std::thread::spawn(move || work(epoch));
        while !writer.is_finished() {
            self.store.drain(usize::MAX).unwrap();
        }
        writer.join().unwrap()
    }

    /// Works with a store that may be full of changes that are frozen.
    fn patiently<R>(
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

    fn read(&mut self, key: u16) -> Expected {
        self.patiently(|function, store| Ok(function.read(&store.select(key)?)))
    }
}

/// A job whose only operator this is.
struct Job<F> {
    directory: tempfile::TempDir,
    directories: usize,
    budget_bytes: u64,
    subtasks: Vec<Subtask<F>>,
    model: Model,
    /// What the frozen epochs, oldest first, must hold.
    frozen: Vec<Model>,
    /// The last checkpoint.
    completed: Option<(Vec<StoreFiles>, Model)>,
}

impl<F: Subject> Job<F> {
    fn new(parallelism: u32, budget_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (model, frozen) = (Model::new(), Vec::new());
        let mut job = Self {
            directory,
            directories: 0,
            budget_bytes,
            subtasks: Vec::new(),
            model,
            frozen,
            completed: None,
        };
        job.start(parallelism, |_| Vec::new());
        job
    }

    fn new_directory(&mut self) -> PathBuf {
        self.directories += 1;
        self.directory.path().join(self.directories.to_string())
    }

    /// Subtasks with the checkpoints that each is given.
    fn start(&mut self, parallelism: u32, sources: impl Fn(KeyGroupRange) -> Vec<StoreFiles>) {
        self.subtasks.clear();
        self.frozen.clear();
        for index in 0..parallelism {
            let options = options::<F>(self.new_directory());
            let groups = groups_of(index, parallelism, MAX_PARALLELISM);
            let descriptors = options.descriptors.clone();
            let wanted = StoreDescription {
                descriptors,
                key_schema: u16::schema(),
                groups,
                max_parallelism: MAX_PARALLELISM,
            };
            let backend = RocksDb::restore(&options, &wanted, &sources(groups)).unwrap();
            self.subtasks.push(Subtask::rocksdb(groups, backend, self.budget_bytes));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Batch(records) => self.batch(records),
            Step::Record(key, operation) => {
                let owner = owner(*key, self.subtasks.len());
                let apply = |function: &F, store: &mut KeyedStore<u16>| {
                    function.apply(&mut store.select(*key)?, operation);
                    Ok(())
                };
                self.subtasks[owner].patiently(apply);
                self.model.entry(*key).or_default().apply(operation);
            }
            Step::Freeze => self.freeze(),
            Step::Drain(bytes) => {
                for subtask in &mut self.subtasks {
                    subtask.store.drain(*bytes).unwrap();
                }
            }
            Step::Finish { is_aborted } => self.finish(*is_aborted),
            Step::Fail(parallelism) => {
                let (files, model) = self.completed.clone().unwrap_or_default();
                self.start(*parallelism, |_| files.clone());
                self.model = model;
            }
            Step::Savepoint(parallelism, kind) => self.savepoint(*parallelism, *kind),
        }
    }

    fn batch(&mut self, records: &[(u16, Operation)]) {
        let parallelism = self.subtasks.len();
        for (index, subtask) in self.subtasks.iter_mut().enumerate() {
            let mine: Vec<_> = records.iter().filter(|(key, _)| owner(*key, parallelism) == index).collect();
            let keys: Vec<u16> = mine.iter().map(|(key, _)| *key).collect();
            subtask.patiently(|_, store| Ok(store.look_up(&keys)?));
            for (place, (key, operation)) in mine.iter().enumerate() {
                let apply = |function: &F, store: &mut KeyedStore<u16>| {
                    let mut at = store.select_next(place, *key)?;
                    function.apply(&mut at, operation);
                    Ok(function.read(&at))
                };
                let read = subtask.patiently(apply);
                let expected = self.model.entry(*key).or_default();
                expected.apply(operation);
                assert_eq!(read, F::part(expected));
            }
        }
    }

    fn freeze(&mut self) {
        if self.frozen.len() == 2
            || self.subtasks.iter().any(|subtask| subtask.epochs.len() != self.frozen.len())
        {
            return;
        }
        for subtask in &mut self.subtasks {
            subtask.epochs.extend(subtask.store.freeze(7).unwrap());
        }
        if self.subtasks.iter().all(|subtask| subtask.epochs.len() > self.frozen.len()) {
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
        let savepoints: Vec<BTreeMap<String, StateSnapshot>> =
            self.subtasks.iter_mut().map(|subtask| subtask.store.snapshot().unwrap()).collect();
        match kind {
            Kind::RocksDb => self.start(parallelism, |_| Vec::new()),
            Kind::Memory => {
                self.frozen.clear();
                let groups = (0..parallelism).map(|index| groups_of(index, parallelism, MAX_PARALLELISM));
                self.subtasks = groups.map(Subtask::memory).collect();
            }
        }
        for subtask in &mut self.subtasks {
            savepoints.iter().for_each(|savepoint| subtask.store.restore(savepoint).unwrap());
        }
    }

    fn check(&mut self) {
        let model: Model = self.model.iter().map(|(key, expected)| (*key, F::part(expected))).collect();
        let empty = Expected::default();
        let mut keys: Vec<u16> =
            self.subtasks.iter().flat_map(|subtask| subtask.store.keys().unwrap()).collect();
        keys.sort_unstable();
        let expected: Vec<u16> =
            model.iter().filter(|(_, expected)| **expected != empty).map(|(key, _)| *key).collect();
        assert_eq!(keys, expected);
        for key in 0..60 {
            let owner = owner(key, self.subtasks.len());
            assert_eq!(&self.subtasks[owner].read(key), model.get(&key).unwrap_or(&empty), "{key}");
        }
    }
}

fn run<F: Subject>(parallelism: u32, budget_bytes: u64, steps: &[Step]) {
    let mut job = Job::<F>::new(parallelism, budget_bytes);
    steps.iter().for_each(|step| job.step(step));
    job.check();
    // What the last checkpoint holds, in other key groups, too.
    if job.completed.is_some() {
        job.step(&Step::Fail(3));
        job.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn several_states_are_a_map(parallelism in 1u32..=3, budget in 0u64..6_000, steps in steps()) {
        run::<Function>(parallelism, budget, &steps);
    }

    #[test]
    fn a_single_value_is_a_map(parallelism in 1u32..=3, budget in 0u64..3_000, steps in steps()) {
        run::<Single>(parallelism, budget, &steps);
    }
}

// ---- Damage ------------------------------------------------------------------------------------------------------

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: MAX_PARALLELISM };

fn wanted() -> StoreDescription {
    let descriptors = Single::default().declared().descriptors().unwrap();
    StoreDescription { descriptors, key_schema: u16::schema(), groups: ALL, max_parallelism: MAX_PARALLELISM }
}

/// The checkpoint of a store with a few thousand keys.
fn checkpoint(directory: &Path) -> StoreFiles {
    let backend = RocksDb::create(&options::<Single>(directory.join("store"))).unwrap();
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    for key in 0..5_000 {
        subtask.function.count.set(&mut subtask.store.select(key).unwrap(), u64::from(key));
    }
    subtask.epochs.extend(subtask.store.freeze(1).unwrap());
    let target = directory.join("checkpoint");
    subtask.finish(move |epoch| Some(epoch.finish(&target).unwrap())).unwrap()
}

#[test]
fn damaged_and_missing_files_are_errors_that_name_cause_and_cure() {
    let directory = tempfile::tempdir().unwrap();
    let files = checkpoint(directory.path());
    let sst = files.files.iter().find(|file| file.is_shared && file.size_bytes > 10_000).unwrap();
    let bytes = std::fs::read(&sst.path).unwrap();
    let restore = |name: &str| {
        let error = RocksDb::restore(
            &options::<Single>(directory.path().join(name)),
            &wanted(),
            std::slice::from_ref(&files),
        );
        error.err().unwrap().to_string()
    };
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for (name, damaged) in [("flipped", flipped), ("truncated", bytes[..bytes.len() - 9].to_vec())] {
        // Another file in its place, so that the store's own one stays as it is.
        std::fs::remove_file(&sst.path).unwrap();
        std::fs::write(&sst.path, damaged).unwrap();
        let message = restore(name);
        assert!(message.contains("the file is damaged") && message.contains(&sst.name), "{message}");
        assert!(message.contains("restore from another checkpoint"), "{message}");
    }
    std::fs::remove_file(&sst.path).unwrap();
    let message = restore("missing");
    assert!(message.contains(&sst.name) && message.contains("a file is missing"), "{message}");
}

#[test]
fn a_file_that_is_damaged_while_it_is_in_use_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let files = checkpoint(directory.path());
    let target = directory.path().join("restored");
    let backend = RocksDb::restore(&options::<Single>(target.clone()), &wanted(), &[files]).unwrap();
    for entry in std::fs::read_dir(&target).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let bytes = std::fs::read(&path).unwrap();
            let flipped =
                bytes.iter().enumerate().map(|(at, byte)| if at < bytes.len() / 2 { !byte } else { *byte });
            std::fs::write(&path, flipped.collect::<Vec<u8>>()).unwrap();
        }
    }
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    let error = (0..5_000).find_map(|key| subtask.store.select(key).err()).unwrap();
    let message = error.to_string();
    assert!(
        message.contains("cannot read the state of `function`") && message.contains("damaged"),
        "{message}"
    );
}

#[test]
fn a_store_in_a_directory_that_cannot_be_made_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = RocksDb::create(&options::<Single>(file.join("store"))).err().unwrap().to_string();
    assert!(
        message.contains("cannot create the state of `function`") && message.contains("file/store"),
        "{message}"
    );
}

#[test]
fn an_epoch_that_is_dropped_makes_its_store_fail() {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksDb::create(&options::<Single>(directory.path().join("store"))).unwrap();
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    subtask.function.count.set(&mut subtask.store.select(1).unwrap(), 1);
    drop(subtask.store.freeze(3).unwrap());
    let message = subtask.store.drain(1).unwrap_err().to_string();
    assert!(message.contains("the changes before checkpoint 3 were dropped unwritten"), "{message}");
    let error = subtask.store.select(2).err().unwrap();
    assert!(matches!(error, SelectError::Store(error) if matches!(*error, StoreError::Incomplete { .. })));
}

#[test]
fn a_cache_stays_within_its_budget() {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksDb::create(&options::<Function>(directory.path().join("store"))).unwrap();
    let budget = 64 << 10;
    let mut subtask = Subtask::<Function>::rocksdb(ALL, backend, budget);
    for key in 0..20_000 {
        let mut at = subtask.store.select(key).unwrap();
        subtask.function.word.set(&mut at, format!("word {key}"));
        subtask.function.seen.insert(&mut at, 1, 1);
        assert!(subtask.store.cache_bytes() < budget + budget / 8, "{}", subtask.store.cache_bytes());
    }
    assert_eq!(subtask.store.keys().unwrap().len(), 20_000);
}

#[test]
fn a_checkpoint_without_changes_has_the_same_shared_files() {
    let directory = tempfile::tempdir().unwrap();
    let backend = RocksDb::create(&options::<Single>(directory.path().join("store"))).unwrap();
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    let mut take = |keys: u16| {
        for key in 0..keys {
            subtask.function.count.set(&mut subtask.store.select(key).unwrap(), 1);
        }
        subtask.epochs.extend(subtask.store.freeze(1).unwrap());
        let target = directory.path().join(format!("checkpoint-{keys}"));
        let files = subtask.finish(move |epoch| Some(epoch.finish(&target).unwrap())).unwrap();
        assert_eq!(subtask.store.drain(1).unwrap(), Drained::All);
        files
            .files
            .into_iter()
            .filter(|file| file.is_shared)
            .map(|file| (file.name, file.checksum))
            .collect::<Vec<_>>()
    };
    let first = take(100);
    assert_eq!(take(0), first);
    assert!(take(1).starts_with(&first));
}
