//! Both stores against a plain map, with caches far too small: batches, frozen epochs with changes on top, checkpoints, failures,
//! restores into other key groups and into the other store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::function::{
    Expected, Function, MAX_PARALLELISM, Mortal, Operation, Single, Subject, cases, operation, owner,
};
use crate::job::{Job, Turn, turn};
use crate::subtask::{Subtask, options, wanted};
use proptest::prelude::*;
use thalweg_common::clock::{Clock as _, ManualClock, SharedClock};
use thalweg_common::key_group::{KeyGroupRange, groups_of};
use thalweg_state::{Backend as _, Entries, KeyedStore, RocksDb, StateSnapshot, StoreFiles, migrate_states};

type Model = BTreeMap<u16, Expected>;

#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<(u16, Operation)>),
    /// Without a look-up ahead.
    Record(u16, Operation),
    Turn(Turn),
    /// RocksDB merges its files.
    Compact,
    /// Time passes.
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => prop::collection::vec((0u16..60, operation()), 1..8).prop_map(Step::Batch),
        5 => (0u16..60, operation()).prop_map(|(key, operation)| Step::Record(key, operation)),
        14 => turn(200).prop_map(Step::Turn),
        1 => Just(Step::Compact),
        4 => (0u16..3_000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..150)
}

impl<F: Subject> Job<F, Model> {
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
                F::expect(self.model.entry(*key).or_default(), operation, self.clock.now_ms());
            }
            Step::Turn(turn) => self.turn(turn),
            Step::Compact => {
                for backend in self.subtasks.iter().filter_map(|subtask| subtask.backend.as_ref()) {
                    backend.compact().unwrap();
                }
            }
            Step::Wait(milliseconds) => self.clock.advance(Duration::from_millis(u64::from(*milliseconds))),
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
                F::expect(expected, operation, self.clock.now_ms());
                assert_eq!(read, F::part_at(expected, self.clock.now_ms()));
            }
        }
    }

    fn check(&mut self) {
        let now_ms = self.clock.now_ms();
        let model: Model =
            self.model.iter().map(|(key, expected)| (*key, F::part_at(expected, now_ms))).collect();
        let mut keys: Vec<u16> =
            self.subtasks.iter().flat_map(|subtask| subtask.store.keys().unwrap()).collect();
        keys.sort_unstable();
        let alive: Vec<u16> =
            model.iter().filter(|(_, expected)| !expected.is_empty()).map(|(key, _)| *key).collect();
        if F::IS_MORTAL {
            // Those whose state has expired may be there.
            assert!(alive.iter().all(|key| keys.contains(key)), "{keys:?} {alive:?}");
        } else {
            assert_eq!(keys, alive);
        }
        for key in 0..60 {
            let owner = owner(key, self.subtasks.len());
            let expected = model.get(&key).cloned().unwrap_or_default();
            assert_eq!(self.subtasks[owner].read(key), expected, "{key}");
        }
    }
}

/// As a savepoint has it: in pieces, and through a migration that changes nothing.
fn canonical<F: Subject>(states: BTreeMap<String, StateSnapshot>) -> BTreeMap<String, StateSnapshot> {
    let descriptors = F::default().declared().descriptors().unwrap();
    let pieces = states.into_iter().map(|(name, state)| {
        let mut groups = BTreeMap::new();
        for (group, piece) in state.pieces().unwrap() {
            let Entries(entries) = groups.entry(group).or_insert_with(Entries::default);
            entries.extend_from_slice(piece);
        }
        (name, StateSnapshot { groups, ..state.clone() })
    });
    let key_schema = wanted::<F>(groups_of(0, 1, MAX_PARALLELISM)).key_schema;
    migrate_states("function", pieces.collect(), &descriptors, &key_schema, 0, false).unwrap()
}

fn run<F: Subject>(parallelism: u32, budget_bytes: u64, steps: &[Step]) {
    let mut job = Job::<F, Model>::on_disk(parallelism, budget_bytes, canonical::<F>);
    steps.iter().for_each(|step| job.step(step));
    job.check();
    // What the last checkpoint holds, in other key groups, too.
    if job.has_checkpoint() {
        job.turn(&Turn::Fail(3));
        job.check();
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn several_states_are_a_map(parallelism in 1u32..=3, budget in 0u64..6_000, steps in steps()) {
        run::<Function>(parallelism, budget, &steps);
    }

    #[test]
    fn what_expires_is_a_map_that_forgets(parallelism in 1u32..=3, budget in 0u64..6_000, steps in steps()) {
        run::<Mortal>(parallelism, budget, &steps);
    }

    #[test]
    fn a_single_value_is_a_map(parallelism in 1u32..=3, budget in 0u64..3_000, steps in steps()) {
        run::<Single>(parallelism, budget, &steps);
    }
}

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: MAX_PARALLELISM };

/// A store of 1,000 keys whose values are over, all of them on the disk; and how many entries a state has there.
fn expired(has_filter: bool) -> (tempfile::TempDir, Subtask<Mortal>, StoreFiles) {
    let directory = tempfile::tempdir().unwrap();
    let manual = Arc::new(ManualClock::new(1_000_000));
    let clock: SharedClock = manual.clone();
    let mut options = options::<Mortal>(directory.path().join("store"), &clock);
    options.settings.ttl_compaction_filter = has_filter;
    let backend = RocksDb::create(&options).unwrap();
    let mut subtask = Subtask::<Mortal>::rocksdb(ALL, backend, 1 << 20).with_clock(&clock);
    for key in 0..1_000 {
        let mut at = subtask.store.select(key).unwrap();
        subtask.function.count.set(&mut at, 1);
        subtask.function.word.set(&mut at, "stays".into());
        subtask.function.seen.insert(&mut at, 1, 1);
        subtask.function.list.extend(&mut at, [1, 2]);
        subtask.function.most.add(&mut at, 1);
    }
    subtask.epochs.extend(subtask.store.freeze(1).unwrap());
    let target = directory.path().join("chk-1");
    let files = subtask.finish(move |epoch| Some(epoch.finish(&target).unwrap())).unwrap();
    manual.advance(Duration::from_millis(crate::function::COUNT_TTL_MS as u64));
    (directory, subtask, files)
}

fn entries(subtask: &Subtask<Mortal>) -> [usize; 5] {
    [0, 1, 2, 3, 4].map(|state| {
        let mut entries = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            entries += 1;
            Ok(())
        };
        subtask.backend.as_ref().unwrap().scan(state, &[], count).unwrap();
        entries
    })
}

#[test]
fn what_has_expired_goes_when_files_are_merged() {
    let (_directory, mut subtask, _) = expired(true);
    assert_eq!(entries(&subtask), [1_000; 5]);
    let snapshot = subtask.store.snapshot().unwrap();
    for (state, StateSnapshot { groups, .. }) in &snapshot {
        assert_eq!(groups.is_empty(), state != "last-word", "{state}");
    }
    subtask.backend.as_ref().unwrap().compact().unwrap();
    assert_eq!(entries(&subtask), [0, 1_000, 0, 0, 0]);
    assert_eq!(subtask.read(7).word.as_deref(), Some("stays"));
    // The setting switches it off.
    let (_directory, subtask, _) = expired(false);
    subtask.backend.as_ref().unwrap().compact().unwrap();
    assert_eq!(entries(&subtask), [1_000; 5]);
}

#[test]
fn files_say_whether_their_values_expire() {
    let (directory, subtask, files) = expired(true);
    drop(subtask);
    let clock: SharedClock = Arc::new(ManualClock::new(0));
    let mut options = options::<Mortal>(directory.path().join("again"), &clock);
    options.descriptors.iter_mut().for_each(|state| state.ttl = None);
    let message = RocksDb::restore(&options, &wanted::<Mortal>(ALL), &[files]).err().unwrap().to_string();
    assert!(message.contains("state `count` of `function`") && message.contains("savepoint"), "{message}");
}
