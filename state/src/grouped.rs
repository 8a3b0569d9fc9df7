//! Entries of one state on their way into a snapshot, by key group.

use thalweg_common::key_group::{KeyGroup, encoded_key_hash, key_group};
use thalweg_common::record::Record;

use crate::snapshot::Entries;

/// Collects the entries of one state.
pub(crate) struct GroupedEntries {
    max_parallelism: u32,
    first: KeyGroup,
    groups: Vec<Vec<u8>>,
    key: Vec<u8>,
    group: usize,
}

impl GroupedEntries {
    /// For the groups from `first` on, with room for `bytes` in all.
    pub(crate) fn new(max_parallelism: u32, owned: std::ops::Range<KeyGroup>, bytes: u64) -> Self {
        let room = usize::try_from(bytes).unwrap_or(0) / owned.len().max(1);
        let groups = owned.clone().map(|_| Vec::with_capacity(room + room / 16)).collect();
        Self { max_parallelism, first: owned.start, groups, key: Vec::new(), group: 0 }
    }

    /// Goes to a key. Only keys of owned groups are in a store.
    pub(crate) fn key<K: Record>(&mut self, key: &K) {
        self.key.clear();
        key.encode(&mut self.key);
        let group = key_group(encoded_key_hash(&self.key), self.max_parallelism);
        self.group = (group - self.first) as usize;
    }

    /// Begins an entry of that key: what comes behind the key is to be appended.
    pub(crate) fn entry(&mut self) -> &mut Vec<u8> {
        let entries = &mut self.groups[self.group];
        entries.extend_from_slice(&self.key);
        entries
    }

    /// Adds an entry that is encoded already, of a key of an owned group.
    pub(crate) fn add(&mut self, group: KeyGroup, parts: [&[u8]; 3]) {
        let entries = group.checked_sub(self.first).and_then(|index| self.groups.get_mut(index as usize));
        if let Some(entries) = entries {
            parts.into_iter().for_each(|part| entries.extend_from_slice(part));
        }
    }

    /// The groups that have entries.
    pub(crate) fn into_groups(self) -> impl Iterator<Item = (KeyGroup, Entries)> {
        let groups = (self.first..).zip(self.groups);
        groups.filter(|(_, entries)| !entries.is_empty()).map(|(group, entries)| (group, Entries(entries)))
    }
}
