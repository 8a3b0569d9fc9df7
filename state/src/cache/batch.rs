//! Entries on their way from the cache to what lies behind it, in one buffer, with the keys that they have there.
//!
//! The key of an entry: the key group (two bytes, big-endian, so that a group is a range), then the key's record encoding. An
//! entry of a map has the length of the key in front of it, as a varint, and the encoding of the map's key behind it: with the
//! length no key is the beginning of another one, so that the entries of one key are exactly those with its prefix. A timer has its time
//! in front of the key (eight bytes, big-endian, the sign bit turned over), so that those of a group are in the order of their times.
//! Invariant: `entries` describe the buffer without gaps in the order in which they were added, until they are sorted.

use std::ops::Deref;

use thalweg_common::Timestamp;
use thalweg_common::graph::StateKind;
use thalweg_common::key_group::KeyGroup;

/// Bytes of the key group in front of every key.
pub(crate) const GROUP_BYTES: usize = 2;

/// Appends the group in front of a key. There are never more than 2^15 groups.
pub(crate) fn put_group(out: &mut Vec<u8>, group: KeyGroup) {
    out.extend_from_slice(&(group as u16).to_be_bytes());
}

/// Appends the key under which a value state has its value, or with which the entries of a map state begin.
pub(crate) fn put_key(out: &mut Vec<u8>, kind: StateKind, group: KeyGroup, key: &[u8]) {
    put_group(out, group);
    if kind == StateKind::Map {
        put_length(out, key.len());
    }
    out.extend_from_slice(key);
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Turns the order of numbers with a sign into that of numbers without one.
const SIGN: u64 = 1 << 63;

/// Appends the key under which a timer is stored.
pub(crate) fn put_timer(out: &mut Vec<u8>, group: KeyGroup, at: Timestamp, key: &[u8]) {
    put_group(out, group);
    out.extend_from_slice(&(at.cast_unsigned() ^ SIGN).to_be_bytes());
    out.extend_from_slice(key);
}

/// Group, time and key of a stored timer.
pub(crate) fn split_timer(stored: &[u8]) -> Option<(KeyGroup, Timestamp, &[u8])> {
    let (group, rest) = stored.split_first_chunk::<GROUP_BYTES>()?;
    let (at, key) = rest.split_first_chunk()?;
    let at = (u64::from_be_bytes(*at) ^ SIGN).cast_signed();
    Some((KeyGroup::from(u16::from_be_bytes(*group)), at, key))
}

/// The record encoding of a map's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapKey<'a> {
    /// As it is stored.
    Stored(&'a [u8]),
    /// The time of a timer.
    Time([u8; 8]),
}

impl Deref for MapKey<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Time(bytes) => bytes,
        }
    }
}

/// The parts of a stored key: the group, the key, and the map's key, which is empty for a value state.
pub(crate) fn split_key(kind: StateKind, stored: &[u8]) -> Option<(KeyGroup, &[u8], MapKey<'_>)> {
    if kind == StateKind::Timers {
        let (group, at, key) = split_timer(stored)?;
        return Some((group, key, MapKey::Time(at.to_le_bytes())));
    }
    let (group, mut rest) = stored.split_first_chunk::<GROUP_BYTES>()?;
    let group = KeyGroup::from(u16::from_be_bytes(*group));
    if kind != StateKind::Map {
        return Some((group, rest, MapKey::Stored(&[])));
    }
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let (key, map_key) = rest.split_at_checked(length)?;
    Some((group, key, MapKey::Stored(map_key)))
}

/// Where an entry lies in the buffer of its batch.
#[derive(Debug, Clone, Copy)]
struct Entry {
    state: u32,
    start: usize,
    key_bytes: u32,
    /// `None` removes what is stored under the key.
    value_bytes: Option<u32>,
}

/// A number of entries of all states.
#[derive(Debug, Default)]
pub struct EntryBatch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One entry: the state's number, its stored key, and the value, or none to remove it.
pub type StoredEntry<'a> = (usize, &'a [u8], Option<&'a [u8]>);

impl EntryBatch {
    /// Adds an entry; `key` and `value` append their bytes.
    pub(crate) fn put(
        &mut self,
        state: usize,
        key: impl FnOnce(&mut Vec<u8>),
        value: Option<impl FnOnce(&mut Vec<u8>)>,
    ) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        let key_end = self.bytes.len();
        let value_bytes = value.map(|value| {
            value(&mut self.bytes);
            length(self.bytes.len() - key_end)
        });
        self.entries.push(Entry {
            state: state as u32,
            start,
            key_bytes: length(key_end - start),
            value_bytes,
        });
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory of the entries.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Forgets all entries and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Takes over the entries of another batch.
    pub(crate) fn append(&mut self, other: &EntryBatch) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.entries.extend(other.entries.iter().map(|entry| Entry { start: base + entry.start, ..*entry }));
    }

    /// Brings the entries into the order of their states and keys.
    ///
    /// Keys lie all over a large buffer, and a sort looks at each of them about twenty times. So what it looks at are their first bytes, side
    /// by side, and the keys themselves only where these are equal.
    pub fn sort(&mut self) {
        let (bytes, entries) = (&self.bytes, &self.entries);
        let key = |entry: &Entry| &bytes[entry.start..][..entry.key_bytes as usize];
        let begins =
            entries.iter().zip(0_u32..).map(|(entry, index)| (entry.state, prefix(key(entry)), index));
        let mut order: Vec<(u32, u128, u32)> = begins.collect();
        order.sort_unstable_by(|left, right| {
            let rest = |place: &(u32, u128, u32)| key(&entries[place.2 as usize]);
            (left.0, left.1).cmp(&(right.0, right.1)).then_with(|| rest(left).cmp(rest(right)))
        });
        self.entries = order.into_iter().map(|(.., index)| entries[index as usize]).collect();
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = StoredEntry<'_>> {
        self.entries.iter().map(|entry| {
            let (key, rest) = self.bytes[entry.start..].split_at(entry.key_bytes as usize);
            (entry.state as usize, key, entry.value_bytes.map(|bytes| &rest[..bytes as usize]))
        })
    }
}

/// The first bytes of a key as a number with the same order, as far as it goes.
fn prefix(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    let length = key.len().min(first.len());
    first[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(first)
}

/// One key or value is no larger than the frame that it came in, far below this.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("an entry of state has less than 4 GiB")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stored_keys_by_example() {
        let long = vec![7; 300];
        type Row<'a> = (StateKind, KeyGroup, &'a [u8], &'a [u8], &'a [u8]);
        let table: [Row<'_>; 5] = [
            (StateKind::Value, 0, b"", b"", &[0, 0]),
            (StateKind::Value, 0x0102, b"ab", b"", &[1, 2, b'a', b'b']),
            (StateKind::Map, 0x7fff, b"ab", b"c", &[0x7f, 0xff, 2, b'a', b'b', b'c']),
            (StateKind::Map, 1, b"", b"c", &[0, 1, 0, b'c']),
            (StateKind::Map, 1, &long, b"", &[&[0, 1, 0xac, 2], long.as_slice()].concat()),
        ];
        for (kind, group, key, map_key, expected) in table {
            let mut stored = Vec::new();
            put_key(&mut stored, kind, group, key);
            stored.extend_from_slice(map_key);
            assert_eq!(stored, expected);
            assert_eq!(split_key(kind, &stored), Some((group, key, MapKey::Stored(map_key))));
        }
    }

    #[test]
    fn stored_timers_are_in_the_order_of_their_times() {
        let times = [i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX];
        let stored = times.map(|at| {
            let mut stored = Vec::new();
            put_timer(&mut stored, 0x0102, at, b"key");
            assert_eq!(split_timer(&stored), Some((0x0102, at, &b"key"[..])));
            let time = MapKey::Time(at.to_le_bytes());
            assert_eq!(split_key(StateKind::Timers, &stored), Some((0x0102, &b"key"[..], time)));
            stored
        });
        assert!(stored.is_sorted() && stored.iter().all(|stored| stored.starts_with(&[1, 2])));
    }

    #[test]
    fn what_is_no_stored_key_has_no_parts() {
        for (kind, stored) in [
            (StateKind::Value, &[1][..]),
            (StateKind::Map, &[0, 1]),
            (StateKind::Timers, &[0, 1, 0, 0, 0, 0, 0, 0, 0]),
            (StateKind::Map, &[0, 1, 3, b'a']),
            (StateKind::Map, &[0, 1, 0xff]),
            (StateKind::Map, &[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]),
        ] {
            assert_eq!(split_key(kind, stored), None, "{stored:?}");
        }
    }

    proptest! {
        #[test]
        fn no_key_s_entries_begin_with_another_key(left: Vec<u8>, right: Vec<u8>, map_key: Vec<u8>) {
            prop_assume!(left != right);
            let (mut prefix, mut stored) = (Vec::new(), Vec::new());
            put_key(&mut prefix, StateKind::Map, 5, &left);
            put_key(&mut stored, StateKind::Map, 5, &right);
            stored.extend_from_slice(&map_key);
            prop_assert!(!stored.starts_with(&prefix));
        }

        #[test]
        fn a_sorted_batch_has_the_same_entries(keys: Vec<(u8, Vec<u8>, Option<Vec<u8>>)>) {
            let (mut first, mut batch) = (EntryBatch::default(), EntryBatch::default());
            for (index, (state, key, value)) in keys.iter().enumerate() {
                let half = if index % 2 == 0 { &mut first } else { &mut batch };
                let value = value.as_ref().map(|value| |out: &mut Vec<u8>| out.extend_from_slice(value));
                half.put(usize::from(*state), |out| out.extend_from_slice(key), value);
            }
            batch.append(&first);
            batch.sort();
            let owned = |(state, key, value): StoredEntry<'_>| (state as u8, key.to_vec(), value.map(<[u8]>::to_vec));
            let sorted: Vec<_> = batch.iter().map(owned).collect();
            prop_assert!(sorted.is_sorted_by_key(|(state, key, _)| (*state, key.clone())));
            let (mut sorted, mut expected) = (sorted, keys);
            sorted.sort();
            expected.sort();
            prop_assert_eq!(sorted, expected);
        }
    }
}
