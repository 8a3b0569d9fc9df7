//! Tests of the ready bits and of the set of channels. Beside them, not in them: `ready.rs` is compiled a second time for
//! `loom_tests.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::ready::{ChannelSet, ReadySet};
use super::waker::TaskParker;

#[test]
fn a_bit_wakes_once_until_it_is_taken() {
    let mut parker = TaskParker::new();
    let set = ReadySet::new(70, parker.waker());
    let (none, mut ready) = (ChannelSet::new(70), ChannelSet::new(70));
    let signal = set.signal(69);
    signal.raise();
    signal.raise();
    assert!(parker.park(Duration::ZERO));
    signal.raise();
    assert!(!parker.park(Duration::ZERO), "the bit is still set: nobody needs to wake the task");

    let mut blocked = ChannelSet::new(70);
    blocked.insert(69);
    set.take(&mut ready, &blocked);
    assert_eq!(ready.next_from(0, &none), None, "a blocked channel's bit stays where it is");
    set.take(&mut ready, &none);
    assert_eq!(ready.next_from(0, &none), Some(69));
    signal.raise();
    assert!(parker.park(Duration::ZERO));
}

#[test]
fn a_failure_wakes_even_if_the_bit_is_set() {
    let mut parker = TaskParker::new();
    let set = ReadySet::new(1, parker.waker());
    set.signal(0).raise();
    assert!(parker.park(Duration::ZERO));
    set.signal(0).fail();
    assert!(parker.park(Duration::ZERO));
    assert!(set.take_alarms().has_failure());
    assert!(!set.take_alarms().has_failure());
}

proptest! {
    #[test]
    fn the_set_is_a_set(
        channels in 0usize..200,
        members in proptest::collection::btree_set(0usize..200, 0..50),
        without in proptest::collection::btree_set(0usize..200, 0..50),
        start in 0usize..200,
    ) {
        let members: BTreeSet<_> = members.into_iter().filter(|channel| *channel < channels).collect();
        let without: BTreeSet<_> = without.into_iter().filter(|channel| *channel < channels).collect();
        let start = if channels == 0 { 0 } else { start % channels };
        let (mut set, mut other) = (ChannelSet::all(channels), ChannelSet::new(channels));
        (0..channels).filter(|channel| !members.contains(channel)).for_each(|channel| set.remove(channel));
        without.iter().for_each(|channel| assert!(other.insert(*channel)));
        prop_assert_eq!(set.len(), members.len());
        let left: Vec<_> = members.difference(&without).copied().collect();
        let expected = left.iter().find(|channel| **channel >= start).or(left.first()).copied();
        prop_assert_eq!(set.next_from(start, &other), expected);
    }
}
