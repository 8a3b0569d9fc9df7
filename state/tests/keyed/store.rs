//! What the store refuses, and how much it says it takes.

use std::collections::BTreeMap;

use thalweg_common::failure::{Failure, Fault};
use thalweg_common::graph::StateKind;
use thalweg_common::key_group::{KeyGroupRange, groups_of, key_group, key_hash};
use thalweg_common::record::Record;
use thalweg_state::{
    Declarations, Declare, Entries, KeyedStore, MapState, RestoreError, SelectError, StateSnapshot,
    ValueState,
};

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 128 };

fn value_store<T: Record>(name: &str) -> (ValueState<T>, KeyedStore<String>) {
    let mut state = ValueState::default();
    let mut declarations = Declarations::default();
    state.declare(name, &mut declarations);
    (state, KeyedStore::new("counts", declarations, 128, ALL).unwrap())
}

/// The snapshot of a store whose `total` is 7 at the key "a".
fn snapshot() -> BTreeMap<String, StateSnapshot> {
    let (total, mut store) = value_store::<u64>("total");
    total.set(&mut store.select("a".into()).unwrap(), 7);
    store.snapshot().unwrap()
}

#[test]
fn the_plan_sees_every_state_and_refuses_two_of_one_name() {
    let mut declarations = Declarations::default();
    ValueState::<u64>::default().declare("total", &mut declarations);
    MapState::<String, u32>::default().declare("by-page", &mut declarations);
    let descriptors = declarations.descriptors().unwrap();
    let names: Vec<_> = descriptors.iter().map(|state| (state.name.as_str(), state.kind)).collect();
    assert_eq!(names, [("total", StateKind::Value), ("by-page", StateKind::Map)]);
    assert_eq!(descriptors[0].fingerprint, u64::schema().fingerprint());

    ValueState::<String>::default().declare("total", &mut declarations);
    let error = declarations.descriptors().unwrap_err();
    assert_eq!(
        error.to_string(),
        "two states are called `total`; a state's name must be unique in its operator"
    );
    assert_eq!(KeyedStore::<u8>::new("counts", declarations, 128, ALL).err(), Some(error));
}

#[test]
fn a_key_of_another_subtask_is_refused_and_leaves_no_trace() {
    let key = "a".to_string();
    let group = key_group(key_hash(&key, &mut Vec::new()), 128);
    let elsewhere =
        if groups_of(0, 2, 128).contains(group) { groups_of(1, 2, 128) } else { groups_of(0, 2, 128) };
    let mut state = ValueState::<u64>::default();
    let mut declarations = Declarations::default();
    state.declare("total", &mut declarations);
    let mut store = KeyedStore::new("counts", declarations, 128, elsewhere).unwrap();
    let SelectError::Foreign(error) = store.select(key).err().unwrap() else { panic!("another error") };
    assert_eq!((error.group, error.owned), (group, elsewhere));
    assert!(error.to_string().contains("`counts`"), "{error}");
    assert_eq!(store.keys().unwrap().len(), 0);
}

#[test]
fn a_changed_type_is_an_error_that_names_operator_and_state() {
    let (_, mut other_type) = value_store::<String>("total");
    let error = other_type.restore(&snapshot()).unwrap_err();
    assert!(matches!(error, RestoreError::Changed { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("`total`") && message.contains("`counts`") && message.contains("u64"),
        "{message}"
    );
    let failure = Failure::from(error);
    assert_eq!((failure.fault, failure.retryable), (Fault::User, false));

    let (_, mut other_name) = value_store::<u64>("sum");
    assert!(
        matches!(other_name.restore(&snapshot()), Err(RestoreError::Undeclared { state, .. }) if state == "total")
    );

    let mut declarations = Declarations::default();
    ValueState::<u64>::default().declare("total", &mut declarations);
    let mut other_key = KeyedStore::<u32>::new("counts", declarations, 128, ALL).unwrap();
    assert!(matches!(other_key.restore(&snapshot()), Err(RestoreError::KeyChanged { .. })));

    let mut declarations = Declarations::default();
    MapState::<u64, u64>::default().declare("total", &mut declarations);
    let mut other_kind = KeyedStore::<String>::new("counts", declarations, 128, ALL).unwrap();
    assert!(matches!(other_kind.restore(&snapshot()), Err(RestoreError::Changed { .. })));
}

#[test]
fn damaged_bytes_and_another_max_parallelism_are_errors() {
    let mut truncated = snapshot();
    for entries in truncated.get_mut("total").unwrap().groups.values_mut() {
        entries.0.pop();
    }
    let (_, mut store) = value_store::<u64>("total");
    assert!(matches!(store.restore(&truncated), Err(RestoreError::Damaged { .. })));

    let mut moved = snapshot();
    let total = moved.get_mut("total").unwrap();
    total.groups = total.groups.iter().map(|(group, entries)| ((group + 1) % 128, entries.clone())).collect();
    let (_, mut store) = value_store::<u64>("total");
    let error = store.restore(&moved).unwrap_err();
    assert!(error.to_string().contains("max parallelism"), "{error}");
}

#[test]
fn the_size_follows_what_is_held() {
    let (total, mut store) = value_store::<u64>("total");
    assert_eq!(store.size_bytes(), 0);
    total.set(&mut store.select("a".into()).unwrap(), 1);
    assert!(store.size_bytes() > 0, "an estimate before the first snapshot");
    // Length, one character, and the value.
    let entry = 8 + 1 + 8;
    store.snapshot().unwrap();
    assert_eq!(store.size_bytes(), entry);
    total.set(&mut store.select("b".into()).unwrap(), 1);
    assert_eq!(store.size_bytes(), 2 * entry);
    total.clear(&mut store.select("a".into()).unwrap());
    total.clear(&mut store.select("b".into()).unwrap());
    assert_eq!((store.size_bytes(), store.keys().unwrap().len()), (0, 0));
    assert!(store.snapshot().unwrap()["total"].groups.is_empty());
}

#[test]
#[should_panic(expected = "derive State on the struct that holds it")]
fn a_state_that_was_not_declared_cannot_be_used() {
    let (_, mut store) = value_store::<u64>("total");
    ValueState::<u64>::default().set(&mut store.select("a".into()).unwrap(), 1);
}

#[test]
fn entries_are_written_as_one_block_of_bytes() {
    let bytes = thalweg_common::codec::to_bytes(&Entries(vec![1, 2, 3])).unwrap();
    assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    assert_eq!(thalweg_common::codec::from_bytes(&bytes), Ok(Entries(vec![1, 2, 3])));
}
