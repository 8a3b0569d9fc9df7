//! Key groups: the unit in which keyed state is partitioned, moved and restored, as in Flink.
//!
//! A key's hash chooses its group, the group's number chooses the subtask. The hash is xxh3 with a fixed
//! seed over the key's record encoding, so that it never differs between processes, machines or releases.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::limits::{DEFAULT_MAX_PARALLELISM_MIN, MAX_PARALLELISM};
use crate::record::Record;

/// A key group's number, below the operator's max parallelism.
pub type KeyGroup = u32;

/// The stable hash of a key. `scratch` is reused between calls and keeps no meaning.
#[inline]
pub fn key_hash<K: Record>(key: &K, scratch: &mut Vec<u8>) -> u64 {
    key.key_hash(scratch)
}

/// The stable hash of the key with this encoding.
#[inline]
pub fn encoded_key_hash(encoded: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded)
}

/// The group of a key with this hash.
#[inline]
pub fn key_group(hash: u64, max_parallelism: u32) -> KeyGroup {
    // The upper half multiplied down: as even as a modulo, without a division.
    ((u64::from((hash >> 32) as u32) * u64::from(max_parallelism)) >> 32) as u32
}

/// The subtask that owns `group`.
#[inline]
pub fn subtask_of(group: KeyGroup, parallelism: u32, max_parallelism: u32) -> u32 {
    (u64::from(group) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

/// The groups that `subtask` owns: contiguous, and together all groups.
pub fn groups_of(subtask: u32, parallelism: u32, max_parallelism: u32) -> KeyGroupRange {
    let bound =
        |index: u32| (u64::from(index) * u64::from(max_parallelism)).div_ceil(u64::from(parallelism)) as u32;
    KeyGroupRange { start: bound(subtask), end: bound(subtask + 1) }
}

/// Flink's default: one and a half times the parallelism, rounded up to a power of two, at least 128.
pub fn default_max_parallelism(parallelism: u32) -> u32 {
    (parallelism + parallelism / 2).next_power_of_two().clamp(DEFAULT_MAX_PARALLELISM_MIN, MAX_PARALLELISM)
}

/// A half-open range of key groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first group.
    pub start: KeyGroup,
    /// The first group that is not in the range.
    pub end: KeyGroup,
}

impl KeyGroupRange {
    /// Whether `group` is in the range.
    pub fn contains(&self, group: KeyGroup) -> bool {
        self.as_range().contains(&group)
    }

    /// The groups, to iterate over.
    pub fn as_range(&self) -> Range<KeyGroup> {
        self.start..self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_max_parallelism_is_flinks() {
        let table = [
            (1, 128),
            (85, 128),
            (86, 256),
            (171, 256),
            (172, 512),
            (341, 512),
            (342, 1024),
            (683, 1024),
            (684, 2048),
            (20_000, 32_768),
        ];
        for (parallelism, expected) in table {
            assert_eq!(default_max_parallelism(parallelism), expected, "{parallelism}");
        }
    }

    proptest! {
        #[test]
        fn every_group_has_the_subtask_that_owns_it(max in 1u32..2000, share in 1u32..2000) {
            let parallelism = share.min(max);
            let mut next = 0;
            for subtask in 0..parallelism {
                let groups = groups_of(subtask, parallelism, max);
                prop_assert_eq!(groups.start, next);
                next = groups.end;
                for group in groups.as_range() {
                    prop_assert_eq!(subtask_of(group, parallelism, max), subtask);
                }
            }
            prop_assert_eq!(next, max);
        }
    }

    proptest! {
        /// The short way of numbers leads where the long one does.
        #[test]
        fn the_hash_of_a_number_is_that_of_its_encoding(number: u128) {
            fn check<K: Record>(key: K) -> Result<(), TestCaseError> {
                let mut encoded = Vec::new();
                key.encode(&mut encoded);
                prop_assert_eq!(key_hash(&key, &mut Vec::new()), encoded_key_hash(&encoded));
                Ok(())
            }
            check(number as u8)?;
            check(number as i16)?;
            check(number as u32)?;
            check(number as u64)?;
            check(number as i64)?;
            check(number)?;
            check(number as usize)?;
            check(f64::from_bits(number as u64))?;
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let mut scratch = Vec::new();
        let mut counts = [0u32; 4];
        for key in 0u64..40_000 {
            let group = key_group(key_hash(&key, &mut scratch), 128);
            counts[subtask_of(group, 4, 128) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_hash_never_changes() {
        // A savepoint of any release must find its keys: these numbers are part of the format.
        let mut scratch = Vec::new();
        let groups = ["AAPL", "AMZN", "MSFT", "INTC", "TBV"]
            .map(|key| key_group(key_hash(&key.to_string(), &mut scratch), 128));
        assert_eq!(groups, [69, 106, 8, 54, 45]);
        assert_eq!(key_group(key_hash(&42u64, &mut scratch), 128), 106);
    }
}
