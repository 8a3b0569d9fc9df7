//! The memory store against a plain map: every operation, snapshots, restores, changes of parallelism.
#![allow(clippy::unwrap_used, clippy::panic)]

mod function;

use std::collections::BTreeMap;

use function::{Expected, Function, MAX_PARALLELISM, Operation, Subject as _, operation, owner};
use proptest::prelude::*;
use thalweg_common::codec;
use thalweg_common::key_group::groups_of;
use thalweg_state::{KeyedStore, StateSnapshot};

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
        let owned = groups_of(index, parallelism, MAX_PARALLELISM);
        let store = KeyedStore::new("function", function.declared(), MAX_PARALLELISM, owned).unwrap();
        Self { function, store }
    }

    fn apply(&mut self, key: u16, operation: &Operation) {
        self.function.apply(&mut self.store.select(key).unwrap(), operation);
    }

    fn read(&mut self, key: u16) -> Expected {
        self.function.read(&self.store.select(key).unwrap())
    }
}

fn subtasks(parallelism: u32) -> Vec<Subtask> {
    (0..parallelism).map(|index| Subtask::new(index, parallelism)).collect()
}

/// Every snapshot goes through its bytes, as it does in a checkpoint.
fn restart(before: &mut [Subtask], parallelism: u32) -> Vec<Subtask> {
    let snapshots: Vec<Vec<u8>> = before
        .iter_mut()
        .map(|subtask| codec::to_bytes(&subtask.store.snapshot().unwrap()).unwrap())
        .collect();
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
            let keys: usize = all.iter().map(|subtask| subtask.store.keys().unwrap().len()).sum();
            prop_assert_eq!(keys, expected.values().filter(|expected| !expected.is_empty()).count());
            for (key, expected) in &expected {
                let owner = owner(*key, all.len());
                prop_assert_eq!(&all[owner].read(*key), expected);
            }
        }
    }
}
