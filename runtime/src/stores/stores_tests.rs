//! Settings of stores, and the shares of a worker's memory.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixtures;
use crate::operators::{Collected, CollectionSource};

fn configuration(text: &str) -> Configuration {
    Configuration::from_yaml_like(text).unwrap()
}

#[test]
fn settings_are_read_from_their_keys() {
    let settings = StateSettings::from_configuration(&Configuration::new()).unwrap();
    assert_eq!((settings.backend, settings.incremental), (StateBackend::HashMap, true));
    let all =
        "state.backend: hashmap\nstate.backend.incremental: false\ntaskmanager.memory.managed.size: 5 mb";
    let settings = StateSettings::from_configuration(&configuration(all)).unwrap();
    assert_eq!((settings.incremental, settings.managed_bytes), (false, 5 << 20));
    assert!(settings.local_directories.is_empty(), "without a task manager there is no place for copies");
    let roots = "taskmanager.state.local.root-dirs: /a, /b,";
    let settings = StateSettings::from_configuration(&configuration(roots)).unwrap();
    assert_eq!(settings.local_directories, ["/a", "/b"].map(PathBuf::from));
    let off = format!("{roots}\nstate.backend.local-recovery: false");
    assert!(StateSettings::from_configuration(&configuration(&off)).unwrap().local_directories.is_empty());
    let rocksdb = StateSettings::from_configuration(&configuration("state.backend.type: rocksdb"));
    if cfg!(feature = "rocksdb") {
        assert_eq!(rocksdb.unwrap().backend, StateBackend::RocksDb);
    } else {
        let message = rocksdb.unwrap_err().message;
        assert!(
            message.contains("`state.backend.type`") && message.contains("feature `rocksdb`"),
            "{message}"
        );
    }
}

#[test]
fn a_worker_has_the_memory_of_its_slots() {
    let program = fixtures::sums(CollectionSource::new([]), 2, &Collected::default());
    let subtask = |vertex, index| SubtaskId { vertex, index };
    for (tasks, slots) in [
        (vec![subtask(0, 0), subtask(1, 0)], 1),
        (vec![subtask(0, 0), subtask(1, 1)], 2),
        (vec![subtask(0, 0), subtask(1, 0), subtask(0, 1), subtask(1, 1)], 2),
        (vec![], 0),
    ] {
        assert_eq!(slots_of(&program.graph, &tasks), slots, "{tasks:?}");
    }
}
