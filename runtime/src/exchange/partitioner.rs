//! Partitioners: which channel each record of a batch takes.
//!
//! On a record's way this is the first step of an output. It is called once per batch and fills in one channel per record;
//! the loop over the records is inside it. Invariant: records of one key always take the same channel, in every process
//! and every attempt of the same parallelism.

use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_common::record::Record;

/// Chooses a channel for each record.
pub trait Partitioner<T>: Send {
    /// Appends to `targets` the channel of every record in turn, each below `channels`. `targets` comes empty.
    fn select(&mut self, records: &[T], channels: usize, targets: &mut Vec<u32>);
}

/// By the group of the record's key: channel `i` leads to the subtask that owns the group.
pub struct HashPartitioner<F> {
    /// Hashes a record's key; the buffer is for its encoding.
    hash: F,
    max_parallelism: u32,
    /// The channel of each key group, for the number of channels seen last.
    channel_of_group: Vec<u32>,
    channels: usize,
    scratch: Vec<u8>,
}

/// A partitioner by this key, for receivers with this max parallelism.
pub fn by_key<T, K: Record>(
    key: impl Fn(&T) -> K + Send,
    max_parallelism: u32,
) -> HashPartitioner<impl Fn(&T, &mut Vec<u8>) -> u64 + Send> {
    HashPartitioner::by(
        move |record: &T, scratch: &mut Vec<u8>| key_hash(&key(record), scratch),
        max_parallelism,
    )
}

impl<F> HashPartitioner<F> {
    /// A partitioner by the hash of a key.
    #[must_use]
    pub fn by(hash: F, max_parallelism: u32) -> Self {
        Self { hash, max_parallelism, channel_of_group: Vec::new(), channels: 0, scratch: Vec::new() }
    }
}

impl<T, F: Fn(&T, &mut Vec<u8>) -> u64 + Send> Partitioner<T> for HashPartitioner<F> {
    fn select(&mut self, records: &[T], channels: usize, targets: &mut Vec<u32>) {
        if self.channels != channels {
            let groups = 0..self.max_parallelism;
            let channel = |group| subtask_of(group, channels as u32, self.max_parallelism);
            self.channel_of_group = groups.map(channel).collect();
            self.channels = channels;
        }
        targets.extend(records.iter().map(|record| {
            let hash = (self.hash)(record, &mut self.scratch);
            self.channel_of_group[key_group(hash, self.max_parallelism) as usize]
        }));
    }
}

/// One after the other: rebalance, and rescale, which differs only in having fewer channels.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: u32,
}

impl RoundRobin {
    /// Starts at `first`, such as the sending subtask's index, so that not all senders start at the same receiver.
    #[must_use]
    pub fn starting_at(first: u32) -> Self {
        Self { next: first }
    }
}

impl<T> Partitioner<T> for RoundRobin {
    fn select(&mut self, records: &[T], channels: usize, targets: &mut Vec<u32>) {
        let channels = channels as u32;
        let mut next = if self.next < channels { self.next } else { self.next % channels };
        targets.extend(records.iter().map(|_| {
            let target = next;
            next = if next + 1 == channels { 0 } else { next + 1 };
            target
        }));
        self.next = next;
    }
}

/// To the only channel. An output with one channel hands batches on as they are and does not even ask.
#[derive(Debug, Default)]
pub struct Forward;

impl<T> Partitioner<T> for Forward {
    fn select(&mut self, records: &[T], _channels: usize, targets: &mut Vec<u32>) {
        targets.resize(targets.len() + records.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select<T>(partitioner: &mut impl Partitioner<T>, records: &[T], channels: usize) -> Vec<u32> {
        let mut targets = Vec::new();
        partitioner.select(records, channels, &mut targets);
        targets
    }

    #[test]
    fn round_robin_goes_on_where_it_stopped() {
        let mut partitioner = RoundRobin::starting_at(7);
        assert_eq!(select(&mut partitioner, &["a", "b"], 3), [1, 2]);
        assert_eq!(select(&mut partitioner, &["c", "d", "e", "f"], 3), [0, 1, 2, 0]);
        assert_eq!(select(&mut partitioner, &["g"], 3), [1]);
    }

    #[test]
    fn forward_knows_one_channel() {
        assert_eq!(select(&mut Forward, &[1, 2, 3], 1), [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_key_has_the_subtask_that_owns_its_group(
            records in proptest::collection::vec((any::<u64>(), any::<u8>()), 0..100),
            max_parallelism in 1u32..1_000,
            share in 1usize..1_000,
        ) {
            let channels = share.min(max_parallelism as usize);
            let mut partitioner = by_key(|record: &(u64, u8)| record.0, max_parallelism);
            select(&mut partitioner, &records, 1);
            let targets = select(&mut partitioner, &records, channels);
            prop_assert_eq!(targets.len(), records.len());
            for (record, target) in records.iter().zip(targets) {
                let group = key_group(key_hash(&record.0, &mut Vec::new()), max_parallelism);
                prop_assert_eq!(target, subtask_of(group, channels as u32, max_parallelism));
            }
        }
    }
}
