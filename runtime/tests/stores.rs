//! Keyed operators over both stores: the same code, the same results, and snapshots that change stores and parallelism.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};

type Harness = OperatorHarness<(u64, u64), (u64, u64)>;

const KEYS: u64 = 30_000;
/// A cache for a part of the keys.
const MEMORY: u64 = 1536 << 10;

/// Counts records by key.
fn count() -> std::sync::Arc<dyn thalweg_runtime::program::OperatorFactory> {
    operators::reduce(|pair: &(u64, u64)| pair.0, |a: (u64, u64), b: (u64, u64)| (a.0, a.1 + b.1))
}

fn ones(keys: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    keys.into_iter().map(|key| (key, 1)).collect()
}

fn open(setup: Setup) -> Harness {
    Harness::open(count().as_ref(), setup).unwrap()
}

/// The keys of one subtask.
fn owned(keys: impl IntoIterator<Item = u64>, index: u32, parallelism: u32) -> Vec<u64> {
    let mut scratch = Vec::new();
    let mut owner = |key: &u64| subtask_of(key_group(key_hash(key, &mut scratch), 128), parallelism, 128);
    keys.into_iter().filter(|key| owner(key) == index).collect()
}

/// Counts every key below `KEYS` once, and every tenth once more after the barrier.
fn snapshot_at(setup: Setup, keys: Vec<u64>) -> OperatorSnapshot {
    let mut harness = open(setup);
    for part in keys.chunks(1_000) {
        harness.push(ones(part.iter().copied())).unwrap();
    }
    let frozen = harness.freeze(1).unwrap();
    // Behind the barrier: not part of the snapshot, although it comes before that is written.
    let later: Vec<u64> = keys.iter().copied().filter(|key| key % 10 == 0).collect();
    let mut later = later.chunks(100);
    harness.push(ones(later.next().unwrap().iter().copied())).unwrap();
    let snapshot = frozen.finish(|| {
        if let Some(later) = later.next() {
            harness.push(ones(later.iter().copied()))?;
        }
        harness.encode()
    });
    let snapshot = snapshot.unwrap();
    let again = harness.output().len() as u64;
    assert!(again > keys.len() as u64);
    snapshot
}

fn counts(setup: Setup, keys: Vec<u64>) -> BTreeMap<u64, u64> {
    let mut harness = open(setup);
    harness.push(ones(keys)).unwrap();
    harness.output().into_iter().collect()
}

fn setups(folder: &Path, name: &str) -> [Setup; 2] {
    [Setup::default(), Setup::default().on_disk(&folder.join(name), MEMORY)]
}

#[test]
fn state_is_what_it_was_at_the_barrier_in_both_stores_and_from_memory_to_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let expected: BTreeMap<u64, u64> = (0..KEYS).map(|key| (key, 2)).collect();
    let [memory, disk] = setups(temporary.path(), "first");
    let (in_memory, on_disk) =
        (snapshot_at(memory, (0..KEYS).collect()), snapshot_at(disk, (0..KEYS).collect()));
    assert!(in_memory.store.is_none() && on_disk.keyed_state.is_empty());
    for (number, snapshot) in [&in_memory, &on_disk, &in_memory].into_iter().enumerate() {
        let [memory, disk] = setups(temporary.path(), &format!("again-{number}"));
        let setup = if number == 0 { memory } else { disk };
        assert_eq!(counts(setup.restoring(snapshot.clone()), (0..KEYS).collect()), expected, "{number}");
    }
    let refused = Harness::open(count().as_ref(), Setup::default().restoring(on_disk));
    let message = refused.err().unwrap().message;
    assert!(message.contains("`state.backend.type`") && message.contains("savepoint"), "{message}");
}

#[test]
fn files_are_restored_at_another_parallelism() {
    let temporary = tempfile::tempdir().unwrap();
    let setup = |name: &str, index, parallelism| {
        let directory = temporary.path().join(format!("{name}-{index}"));
        Setup::default().on_disk(&directory, MEMORY).subtask(index, parallelism)
    };
    let snapshots: Vec<_> =
        (0..2).map(|index| snapshot_at(setup("two", index, 2), owned(0..KEYS, index, 2))).collect();
    for parallelism in [1, 3] {
        let mut all = BTreeMap::new();
        for index in 0..parallelism {
            let mut setup = setup(&format!("at-{parallelism}"), index, parallelism);
            for snapshot in &snapshots {
                setup = setup.restoring(snapshot.clone());
            }
            all.extend(counts(setup, owned(0..KEYS, index, parallelism)));
        }
        assert_eq!(all, (0..KEYS).map(|key| (key, 2)).collect(), "parallelism {parallelism}");
    }
}
