//! What the job under test reads, and what it has to make of it. Pure.
//!
//! Events are the numbers from 0. The number says which key it belongs to; a key has seen `count` events, and its `digest`
//! follows from all of them in their order, so that one event that is missing, doubled or late changes all later ones. Events of
//! a key come from the same subtask of the source, whose order every channel keeps, as long as the parallelism stays and the source
//! makes all numbers itself. Otherwise they come in any order, which the digests tell.

use super::rng::{mixed, unmixed};

/// How many subtasks everything has at first.
pub const PARALLELISM: u64 = 4;

/// Keys that a fifth of the events go to, so that some change many times between two checkpoints.
const HOT_KEYS: u64 = 16 * PARALLELISM;

/// Numbers in a key's payload: a kilobyte, which no compression makes smaller.
pub const PAYLOAD_WORDS: u64 = 128;

/// How many of its last events a key remembers one by one.
pub const REMEMBERED: u64 = 4;

/// The key that an event belongs to. The first events go to each key in turn, so that all have state soon.
///
/// `keys` is a multiple of [`PARALLELISM`]; source subtask `i` reads the numbers, and so the keys, that leave the remainder `i`.
#[must_use]
pub fn key_of(event: u64, keys: u64) -> u64 {
    if event < keys {
        return event;
    }
    let lot = mixed(event);
    let group = if lot.is_multiple_of(5) { HOT_KEYS.min(keys) } else { keys };
    let row = (lot >> 8) % (group / PARALLELISM);
    row * PARALLELISM + event % PARALLELISM
}

/// A key's digest behind one more event.
#[must_use]
pub fn next_digest(digest: u64, event: u64) -> u64 {
    mixed(digest.rotate_left(7) ^ mixed(event.wrapping_add(1)))
}

/// The event that makes the digest `after` of the digest `before`.
#[must_use]
pub fn event_between(before: u64, after: u64) -> u64 {
    unmixed(unmixed(after) ^ before.rotate_left(7)).wrapping_sub(1)
}

/// Whether a key forgets the events that it remembers, before it remembers this one.
#[must_use]
pub fn forgets(key: u64, count: u64) -> bool {
    key % 4 == 3 && count.is_multiple_of(8)
}

/// What is told of a remembered event: their sum is in the output, because a map has no order.
#[must_use]
pub fn trace(count: u64, event: u64) -> u64 {
    mixed(mixed(count) ^ event)
}

/// A line of output.
#[must_use]
pub fn line(key: u64, count: u64, digest: u64, remembered: u64) -> String {
    format!("{key} {count} {digest:016x} {remembered:016x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_events_of_a_key_come_from_one_subtask_and_all_keys_are_used() {
        let keys = 400;
        let found: BTreeSet<u64> = (0..20_000).map(|event| key_of(event, keys)).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), (0..keys).collect::<Vec<_>>());
        assert!((0..20_000).all(|event| key_of(event, keys) % PARALLELISM == event % PARALLELISM));
        let hot = (keys..20_000).filter(|event| key_of(*event, keys) < HOT_KEYS).count();
        assert!((4_500..8_500).contains(&hot), "{hot}");
    }

    #[test]
    fn the_order_of_events_matters() {
        let digest = |events: [u64; 3]| events.into_iter().fold(0, next_digest);
        assert_ne!(digest([1, 2, 3]), digest([2, 1, 3]));
        assert_ne!(digest([1, 2, 3]), digest([1, 2, 2]));
        assert_eq!(event_between(digest([1, 2, 3]), next_digest(digest([1, 2, 3]), 77)), 77);
    }
}
