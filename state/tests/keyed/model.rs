//! The memory store against a plain map: every operation, snapshots, restores, changes of parallelism.

use std::collections::BTreeMap;

use std::sync::Arc;
use std::time::Duration;

use crate::function::{
    Expected, Function, MAX_PARALLELISM, Mortal, Operation, Single, Subject, cases, operation, owner,
};
use proptest::prelude::*;
use thalweg_common::clock::{Clock as _, ManualClock};
use thalweg_common::codec;
use thalweg_common::key_group::groups_of;
use thalweg_state::{KeyedStore, StateSnapshot};

/// What happens to a job with this state.
#[derive(Debug, Clone)]
enum Step {
    Record(u16, Operation),
    /// A batch of these keys, which are only looked up.
    LookUp(Vec<u16>),
    /// Time passes.
    Wait(u16),
    /// A checkpoint, a failure, and a restart with this many subtasks.
    Restart(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0u16..40, operation()).prop_map(|(key, operation)| Step::Record(key, operation));
    let restart = (1u32..=MAX_PARALLELISM).prop_map(Step::Restart);
    let look_up = prop::collection::vec(0u16..40, 0..100).prop_map(Step::LookUp);
    let wait = (0u16..5_000).prop_map(Step::Wait);
    prop::collection::vec(prop_oneof![30 => record, 3 => look_up, 3 => wait, 1 => restart], 0..300)
}

/// One subtask of the function.
struct Subtask<F> {
    function: F,
    store: KeyedStore<u16>,
}

impl<F: Subject> Subtask<F> {
    fn apply(&mut self, key: u16, operation: &Operation) {
        self.function.apply(&mut self.store.select(key).unwrap(), operation);
    }

    fn read(&mut self, key: u16) -> Expected {
        self.function.read(&self.store.select(key).unwrap())
    }
}

fn subtasks<F: Subject>(parallelism: u32, clock: &Arc<ManualClock>) -> Vec<Subtask<F>> {
    let subtask = |index| {
        let mut function = F::default();
        let owned = groups_of(index, parallelism, MAX_PARALLELISM);
        let store = KeyedStore::new("function", function.declared(), MAX_PARALLELISM, owned).unwrap();
        Subtask { function, store: store.with_clock(clock.clone()) }
    };
    (0..parallelism).map(subtask).collect()
}

/// Every snapshot goes through its bytes, as it does in a checkpoint.
fn restart<F: Subject>(
    before: &mut [Subtask<F>],
    parallelism: u32,
    clock: &Arc<ManualClock>,
) -> Vec<Subtask<F>> {
    let snapshots: Vec<Vec<u8>> = before
        .iter_mut()
        .map(|subtask| codec::to_bytes(&subtask.store.snapshot().unwrap()).unwrap())
        .collect();
    let mut after = subtasks(parallelism, clock);
    for subtask in &mut after {
        for bytes in &snapshots {
            let states: BTreeMap<String, StateSnapshot> = codec::from_bytes(bytes).unwrap();
            subtask.store.restore(&states).unwrap();
        }
    }
    after
}

fn run<F: Subject>(parallelism: u32, steps: &[Step]) -> Result<(), TestCaseError> {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let mut running = subtasks::<F>(parallelism, &clock);
    let mut expected: BTreeMap<u16, Expected> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Record(key, operation) => {
                let owner = owner(*key, running.len());
                running[owner].apply(*key, operation);
                let expected = expected.entry(*key).or_default();
                F::expect(expected, operation, clock.now_ms());
                prop_assert_eq!(running[owner].read(*key), F::part_at(expected, clock.now_ms()));
            }
            Step::LookUp(keys) => {
                let parallelism = running.len();
                for (index, subtask) in running.iter_mut().enumerate() {
                    let mine = keys.iter().copied().filter(|key| owner(*key, parallelism) == index);
                    subtask.store.look_up(&mine.collect::<Vec<_>>()).unwrap();
                }
            }
            Step::Wait(milliseconds) => clock.advance(Duration::from_millis(u64::from(*milliseconds))),
            Step::Restart(parallelism) => running = restart(&mut running, *parallelism, &clock),
        }
    }
    let last = restart(&mut running, 3, &clock);
    for (is_restored, mut all) in [(false, running), (true, last)] {
        let keys: usize = all.iter().map(|subtask| subtask.store.keys().unwrap().len()).sum();
        let at = |expected| F::part_at(expected, clock.now_ms());
        let alive = expected.values().filter(|expected| !at(expected).is_empty()).count();
        // What has expired may still be there, unless it was left out by a snapshot.
        prop_assert!(keys == alive || (F::IS_MORTAL && !is_restored && keys > alive), "{} {}", keys, alive);
        for (key, expected) in &expected {
            let owner = owner(*key, all.len());
            prop_assert_eq!(all[owner].read(*key), at(expected));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn the_store_is_a_map(parallelism in 1u32..=4, steps in steps()) {
        run::<Function>(parallelism, &steps)?;
    }

    #[test]
    fn a_single_value_is_a_map(parallelism in 1u32..=4, steps in steps()) {
        run::<Single>(parallelism, &steps)?;
    }

    #[test]
    fn what_expires_is_a_map_that_forgets(parallelism in 1u32..=4, steps in steps()) {
        run::<Mortal>(parallelism, &steps)?;
    }
}
