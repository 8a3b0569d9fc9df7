//! The keyed store against a plain map: every operation, snapshots, restores, changes of parallelism.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg_common::codec;
use thalweg_common::key_group::{groups_of, key_group, key_hash, subtask_of};
use thalweg_state::{Declarations, KeyedStore, MapState, State, StateSnapshot, ValueState};

/// Stands for the `thalweg` crate of a job.
mod krate {
    pub mod state {
        pub use thalweg_state::*;
    }
}

const MAX_PARALLELISM: u32 = 32;

#[derive(State, Clone, Default)]
#[state(crate = krate)]
struct Function {
    count: ValueState<u64>,
    #[state(name = "last-word")]
    word: ValueState<String>,
    seen: MapState<u8, i32>,
    #[state(skip)]
    _factor: u64,
}

/// What the store should hold of one key.
#[derive(Debug, Clone, Default, PartialEq)]
struct Expected {
    count: Option<u64>,
    word: Option<String>,
    seen: BTreeMap<u8, i32>,
}

#[derive(Debug, Clone)]
enum Operation {
    SetCount(u64),
    AddToCount(u64),
    DoubleInPlace,
    CountOrInsert(u64),
    TakeCount,
    SetWord(String),
    ClearWord,
    Insert(u8, i32),
    AddToEntry(u8, i32),
    Remove(u8),
    ClearSeen,
    Read,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        any::<u64>().prop_map(Operation::SetCount),
        (0u64..9).prop_map(Operation::AddToCount),
        Just(Operation::DoubleInPlace),
        (0u64..9).prop_map(Operation::CountOrInsert),
        Just(Operation::TakeCount),
        "[a-z]{0,4}".prop_map(Operation::SetWord),
        Just(Operation::ClearWord),
        (0u8..4, any::<i32>()).prop_map(|(key, value)| Operation::Insert(key, value)),
        (0u8..4, -2i32..3).prop_map(|(key, value)| Operation::AddToEntry(key, value)),
        (0u8..4).prop_map(Operation::Remove),
        Just(Operation::ClearSeen),
        Just(Operation::Read),
    ]
}

/// What happens to a job with this state.
#[derive(Debug, Clone)]
enum Step {
    Record(u16, Operation),
    /// A checkpoint, a failure, and a restart with this many subtasks.
    Restart(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0u16..40, operation()).prop_map(|(key, operation)| Step::Record(key, operation));
    let restart = (1u32..=MAX_PARALLELISM).prop_map(Step::Restart);
    prop::collection::vec(prop_oneof![30 => record, 1 => restart], 0..300)
}

/// One subtask of the function.
struct Subtask {
    function: Function,
    store: KeyedStore<u16>,
}

impl Subtask {
    fn new(index: u32, parallelism: u32) -> Self {
        let mut function = Function::default();
        let mut declarations = Declarations::default();
        function.declare(&mut declarations);
        let owned = groups_of(index, parallelism, MAX_PARALLELISM);
        let store = KeyedStore::new("function", declarations, MAX_PARALLELISM, owned).unwrap();
        Self { function, store }
    }

    fn apply(&mut self, key: u16, operation: &Operation) {
        let Function { count, word, seen, .. } = &self.function;
        let mut at = self.store.select(key).unwrap();
        match operation.clone() {
            Operation::SetCount(value) => count.set(&mut at, value),
            // Zero stands for nothing, so that updates also clear.
            Operation::AddToCount(value) => {
                count.update(&mut at, |count| {
                    Some(count.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum > 0)
                });
            }
            Operation::DoubleInPlace => {
                if let Some(value) = count.get_mut(&mut at) {
                    *value = value.wrapping_mul(2);
                }
            }
            Operation::CountOrInsert(value) => *count.get_or_insert_with(&mut at, || value) |= 1,
            Operation::TakeCount => drop(count.take(&mut at)),
            Operation::SetWord(value) => word.set(&mut at, value),
            Operation::ClearWord => word.clear(&mut at),
            Operation::Insert(key, value) => drop(seen.insert(&mut at, key, value)),
            Operation::AddToEntry(key, value) => seen.update(&mut at, key, |entry| {
                Some(entry.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum != 0)
            }),
            Operation::Remove(key) => drop(seen.remove(&mut at, &key)),
            Operation::ClearSeen => seen.clear(&mut at),
            Operation::Read => {}
        }
    }

    fn read(&mut self, key: u16) -> Expected {
        let Function { count, word, seen, .. } = &self.function;
        let at = self.store.select(key).unwrap();
        let pairs: BTreeMap<u8, i32> = seen.iter(&at).map(|(key, value)| (*key, *value)).collect();
        assert_eq!((seen.len(&at), seen.is_empty(&at)), (pairs.len(), pairs.is_empty()));
        assert!(
            pairs.iter().all(|(key, value)| seen.get(&at, key) == Some(value) && seen.contains(&at, key))
        );
        Expected { count: count.get(&at).copied(), word: word.get(&at).cloned(), seen: pairs }
    }
}

impl Expected {
    fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::SetCount(value) => self.count = Some(value),
            Operation::AddToCount(value) => {
                self.count = Some(self.count.unwrap_or(0).wrapping_add(value)).filter(|sum| *sum > 0);
            }
            Operation::DoubleInPlace => self.count = self.count.map(|count| count.wrapping_mul(2)),
            Operation::CountOrInsert(value) => self.count = Some(self.count.unwrap_or(value) | 1),
            Operation::TakeCount => self.count = None,
            Operation::SetWord(value) => self.word = Some(value),
            Operation::ClearWord => self.word = None,
            Operation::Insert(key, value) => drop(self.seen.insert(key, value)),
            Operation::AddToEntry(key, value) => {
                let sum = self.seen.remove(&key).unwrap_or(0).wrapping_add(value);
                if sum != 0 {
                    self.seen.insert(key, sum);
                }
            }
            Operation::Remove(key) => drop(self.seen.remove(&key)),
            Operation::ClearSeen => self.seen.clear(),
            Operation::Read => {}
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn subtasks(parallelism: u32) -> Vec<Subtask> {
    (0..parallelism).map(|index| Subtask::new(index, parallelism)).collect()
}

fn owner(key: u16, parallelism: usize) -> usize {
    let group = key_group(key_hash(&key, &mut Vec::new()), MAX_PARALLELISM);
    subtask_of(group, parallelism as u32, MAX_PARALLELISM) as usize
}

/// Every snapshot goes through its bytes, as it does in a checkpoint.
fn restart(before: &mut [Subtask], parallelism: u32) -> Vec<Subtask> {
    let snapshots: Vec<Vec<u8>> =
        before.iter_mut().map(|subtask| codec::to_bytes(&subtask.store.snapshot()).unwrap()).collect();
    let mut after = subtasks(parallelism);
    for subtask in &mut after {
        for bytes in &snapshots {
            let states: BTreeMap<String, StateSnapshot> = codec::from_bytes(bytes).unwrap();
            subtask.store.restore(&states).unwrap();
        }
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_store_is_a_map(parallelism in 1u32..=4, steps in steps()) {
        let mut running = subtasks(parallelism);
        let mut expected: BTreeMap<u16, Expected> = BTreeMap::new();
        for step in &steps {
            match step {
                Step::Record(key, operation) => {
                    let owner = owner(*key, running.len());
                    running[owner].apply(*key, operation);
                    expected.entry(*key).or_default().apply(operation);
                    prop_assert_eq!(&running[owner].read(*key), &expected[key]);
                }
                Step::Restart(parallelism) => running = restart(&mut running, *parallelism),
            }
        }
        let last = restart(&mut running, 3);
        for mut all in [running, last] {
            let keys: usize = all.iter().map(|subtask| subtask.store.key_count()).sum();
            prop_assert_eq!(keys, expected.values().filter(|expected| !expected.is_empty()).count());
            for (key, expected) in &expected {
                let owner = owner(*key, all.len());
                prop_assert_eq!(&all[owner].read(*key), expected);
            }
        }
    }
}
