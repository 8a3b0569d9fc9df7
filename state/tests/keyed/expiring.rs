//! States whose values live for a time only: what is seen when, what is cleaned up where, and what becomes of them between versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::function::{
    COUNT_TTL_MS, LIST_TTL_MS, MAX_PARALLELISM, MOST_TTL_MS, Mortal, SEEN_TTL_MS, Subject,
};
use thalweg_common::clock::ManualClock;
use thalweg_common::key_group::groups_of;
use thalweg_common::limits::EXPIRY_PLACES;
use thalweg_state::{
    Declarations, Declare, DeclareExpiring, ExpiringList, ExpiringMap, ExpiringValue, KeyedStore, ListState,
    MapState, StateSnapshot, StateTtl, TtlUpdate, TtlVisibility, ValueState, migrate_states,
};

fn after(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds as u64)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(1_000_000))
}

fn store(declarations: Declarations<u16>, clock: &Arc<ManualClock>) -> KeyedStore<u16> {
    let all = groups_of(0, 1, MAX_PARALLELISM);
    KeyedStore::new("function", declarations, MAX_PARALLELISM, all).unwrap().with_clock(clock.clone())
}

fn mortal(clock: &Arc<ManualClock>) -> (Mortal, KeyedStore<u16>) {
    let mut function = Mortal::default();
    let declarations = function.declared();
    (function, store(declarations, clock))
}

/// A single value with this time to live.
fn value(ttl: StateTtl, clock: &Arc<ManualClock>) -> (ExpiringValue<u64>, KeyedStore<u16>) {
    let (mut value, mut declarations) = (ExpiringValue::default(), Declarations::default());
    value.declare("value", ttl, &mut declarations);
    (value, store(declarations, clock))
}

#[test]
fn the_plan_knows_how_long_values_live() {
    let descriptors = Mortal::default().declared().descriptors().unwrap();
    let ttls: Vec<_> = descriptors.iter().map(|state| (state.name.as_str(), state.ttl)).collect();
    let seen = StateTtl::new(after(SEEN_TTL_MS)).updated(TtlUpdate::OnReadAndWrite);
    assert_eq!(
        ttls,
        [
            ("count", Some(StateTtl::new(after(COUNT_TTL_MS)))),
            ("last-word", None),
            ("seen", Some(seen)),
            ("list", Some(StateTtl::new(after(LIST_TTL_MS)))),
            ("most", Some(StateTtl::new(after(MOST_TTL_MS)).updated(TtlUpdate::OnReadAndWrite))),
        ]
    );
    let json = serde_json::to_value(&descriptors).unwrap();
    assert_eq!(json[2]["ttl"]["update"], "on_read_and_write");
    let mut older = json[1].clone();
    older.as_object_mut().unwrap().remove("ttl");
    assert_eq!(
        serde_json::from_value::<thalweg_common::graph::StateDescriptor>(older).unwrap(),
        descriptors[1]
    );
}

#[test]
fn only_what_the_settings_say_begins_a_life_anew() {
    let (always, clock) = (StateTtl::new(after(10)), clock());
    let (on_write, mut written) = value(always, &clock);
    let (on_read, mut read) = value(always.updated(TtlUpdate::OnReadAndWrite), &clock);
    on_write.set(&mut written.select(1).unwrap(), 1);
    on_read.set(&mut read.select(1).unwrap(), 1);
    clock.advance(after(9));
    assert_eq!(on_write.get(&mut written.select(1).unwrap()), Some(&1));
    assert_eq!(on_read.get(&mut read.select(1).unwrap()), Some(&1));
    clock.advance(after(9));
    assert_eq!(on_write.get(&mut written.select(1).unwrap()), None);
    assert_eq!(on_read.peek(&read.select(1).unwrap()), Some(&1));
    clock.advance(after(1));
    assert_eq!(on_read.peek(&read.select(1).unwrap()), None, "a peek is no read");
    assert_eq!(on_read.take(&mut read.select(1).unwrap()), None);
    *on_write.get_or_insert_with(&mut written.select(1).unwrap(), || 5) += 1;
    clock.advance(after(9));
    assert_eq!(on_write.get_mut(&mut written.select(1).unwrap()), Some(&mut 6));
    clock.advance(after(9));
    assert_eq!(on_write.peek(&written.select(1).unwrap()), Some(&6), "a change in place is a write");
}

#[test]
fn what_is_over_may_be_seen_until_it_is_cleaned_up() {
    let clock = clock();
    let visible = StateTtl::new(after(10)).visible(TtlVisibility::ReturnExpiredIfNotCleanedUp);
    let (value, mut store) = value(visible, &clock);
    value.set(&mut store.select(1).unwrap(), 7);
    clock.advance(after(10));
    assert_eq!(value.get(&mut store.select(1).unwrap()), Some(&7));
    assert!(store.snapshot().unwrap()["value"].groups.is_empty(), "a snapshot leaves it out");
    store.look_up(&[0; EXPIRY_PLACES]).unwrap();
    assert_eq!(value.get(&mut store.select(1).unwrap()), None);
}

/// A list with this time to live.
fn list(ttl: StateTtl, clock: &Arc<ManualClock>) -> (ExpiringList<u64>, KeyedStore<u16>) {
    let (mut list, mut declarations) = (ExpiringList::default(), Declarations::default());
    list.declare("list", ttl, &mut declarations);
    (list, store(declarations, clock))
}

#[test]
fn each_element_of_a_list_lives_for_itself() {
    let (always, clock) = (StateTtl::new(after(10)), clock());
    let (on_write, mut written) = list(always, &clock);
    let (on_read, mut read) = list(always.updated(TtlUpdate::OnReadAndWrite), &clock);
    let seen = |list: &ExpiringList<u64>, store: &mut KeyedStore<u16>| -> Vec<u64> {
        list.get(&mut store.select(1).unwrap()).copied().collect()
    };
    for (list, store) in [(&on_write, &mut written), (&on_read, &mut read)] {
        list.add(&mut store.select(1).unwrap(), 1);
        clock.advance(after(6));
        list.add(&mut store.select(1).unwrap(), 2);
        assert_eq!(seen(list, store), [1, 2]);
        clock.advance(after(4));
    }
    assert_eq!(seen(&on_write, &mut written), [0; 0], "10 ms later both are over");
    assert_eq!(seen(&on_read, &mut read), [1, 2], "read 4 ms ago");
    clock.advance(after(9));
    on_read.add(&mut read.select(1).unwrap(), 3);
    clock.advance(after(1));
    assert_eq!(on_read.peek(&read.select(1).unwrap()).copied().collect::<Vec<_>>(), [3], "a peek is no read");
    assert_eq!(seen(&on_read, &mut read), [3]);
    clock.advance(after(10));
    assert!(read.snapshot().unwrap()["list"].groups.is_empty(), "a snapshot leaves a list out that is over");
    assert_eq!(seen(&on_read, &mut read), [0; 0]);
    assert_eq!(read.keys().unwrap(), Vec::<u16>::new());
}

#[test]
fn a_list_that_is_only_added_to_holds_a_bounded_part_that_is_over() {
    let clock = clock();
    let (list, mut store) = list(StateTtl::new(after(100)), &clock);
    let most = (0..10_000_u64).map(|number| {
        clock.advance(after(1));
        list.add(&mut store.select(1).unwrap(), number);
        store.snapshot().unwrap()["list"].groups.values().map(|entries| entries.0.len()).sum::<usize>()
    });
    // Key, time and length in front; time and value of each of the 100 that live, and of no more that do not.
    assert!(most.max().unwrap() <= 2 + 8 + 8 + 2 * 101 * 16);
}

#[test]
fn a_read_cleans_up_what_it_meets() {
    let clock = clock();
    let (function, mut store) = mortal(&clock);
    let mut at = store.select(1).unwrap();
    function.count.set(&mut at, 1);
    function.seen.insert(&mut at, 1, 1);
    clock.advance(after(COUNT_TTL_MS));
    assert_eq!(function.count.get(&mut at), None);
    assert!(!function.seen.contains(&mut at, &1));
    assert_eq!(store.keys().unwrap(), Vec::<u16>::new());
}

#[test]
fn batches_clean_up_a_memory_store_bit_by_bit() {
    let clock = clock();
    let (function, mut store) = mortal(&clock);
    for key in 0..1_000 {
        let mut at = store.select(key).unwrap();
        function.count.set(&mut at, 1);
        if key % 2 == 0 {
            function.word.set(&mut at, "stays".into());
        }
    }
    // Many entries under one key count as so many.
    let mut at = store.select(1).unwrap();
    for entry in 0..200 {
        function.seen.insert(&mut at, entry, 1);
    }
    clock.advance(after(COUNT_TTL_MS));
    let mut before = store.cache_rows();
    assert_eq!(before, 1_000);
    let mut batches = 0;
    while before > 500 {
        store.look_up(&[0; EXPIRY_PLACES]).unwrap();
        let left = store.cache_rows();
        assert!(before - left <= EXPIRY_PLACES, "bounded: {}", before - left);
        (before, batches) = (left, batches + 1);
        assert!(batches < 2_048 / EXPIRY_PLACES * 4, "once around");
    }
    assert!(batches > 1_000 / EXPIRY_PLACES);
    assert!((0..1_000).step_by(2).all(|key| function.word.get(&store.select(key).unwrap()).is_some()));
    store.look_up(&[]).unwrap();
    assert_eq!(store.cache_rows(), 500);
}

/// What is stored under one key, of states that live for ever.
fn forever() -> (ValueState<u32>, MapState<u8, u32>, ListState<u32>, Declarations<u16>) {
    let (mut total, mut pages, mut list) = (ValueState::default(), MapState::default(), ListState::default());
    let mut declarations = Declarations::default();
    total.declare("total", &mut declarations);
    pages.declare("pages", &mut declarations);
    list.declare("list", &mut declarations);
    (total, pages, list, declarations)
}

/// The same with a time to live, and wider numbers.
fn for_a_time() -> (ExpiringValue<u64>, ExpiringMap<u8, u64>, ExpiringList<u64>, Declarations<u16>) {
    let (mut total, mut pages, mut list) =
        (ExpiringValue::default(), ExpiringMap::default(), ExpiringList::default());
    let mut declarations = Declarations::default();
    let ttl = StateTtl::new(after(10));
    total.declare("total", ttl, &mut declarations);
    pages.declare("pages", ttl, &mut declarations);
    list.declare("list", ttl, &mut declarations);
    (total, pages, list, declarations)
}

fn migrated(
    states: BTreeMap<String, StateSnapshot>,
    declarations: &Declarations<u16>,
    now_ms: i64,
) -> BTreeMap<String, StateSnapshot> {
    let key_schema = states["total"].key_schema.clone();
    let descriptors = declarations.descriptors().unwrap();
    migrate_states("function", states, &descriptors, &key_schema, now_ms, false).unwrap()
}

#[test]
fn a_time_to_live_may_come_and_go_between_versions() {
    let clock = clock();
    let (total, pages, list, declarations) = forever();
    let mut first = store(declarations, &clock);
    let mut at = first.select(1).unwrap();
    total.set(&mut at, 7);
    pages.insert(&mut at, 2, 8);
    list.extend(&mut at, [5, 6]);
    let unmigrated = first.snapshot().unwrap();

    let (total, pages, list, declarations) = for_a_time();
    let states = migrated(unmigrated.clone(), &declarations, 1_000_000);
    let mut second = store(declarations, &clock);
    let error = second.restore(&unmigrated).unwrap_err().to_string();
    assert!(error.contains("of `function` was written as"), "{error}");
    second.restore(&states).unwrap();
    clock.advance(after(9));
    let mut at = second.select(1).unwrap();
    assert_eq!((total.get(&mut at).copied(), pages.get(&mut at, &2).copied()), (Some(7), Some(8)));
    assert_eq!(list.get(&mut at).copied().collect::<Vec<_>>(), [5, 6]);
    total.set(&mut at, 9);
    list.add(&mut at, 7);
    clock.advance(after(1));
    let mut at = second.select(1).unwrap();
    assert_eq!(total.get(&mut at), Some(&9));
    assert_eq!(pages.get(&mut at, &2), None, "its life began with the restore");
    assert_eq!(list.get(&mut at).copied().collect::<Vec<_>>(), [7]);

    // Back again: u64 does not become u32, so the declaration is another one.
    let (mut total, mut pages) = (ValueState::<u64>::default(), MapState::<u8, u64>::default());
    let mut list = ListState::<u64>::default();
    let mut declarations = Declarations::default();
    total.declare("total", &mut declarations);
    pages.declare("pages", &mut declarations);
    list.declare("list", &mut declarations);
    let states = migrated(second.snapshot().unwrap(), &declarations, 0);
    let mut third = store(declarations, &clock);
    third.restore(&states).unwrap();
    clock.advance(after(1_000));
    assert_eq!(total.get(&third.select(1).unwrap()), Some(&9));
    assert!(pages.is_empty(&third.select(1).unwrap()), "what had expired was left out");
    assert_eq!(list.get(&third.select(1).unwrap()), [7]);
}
