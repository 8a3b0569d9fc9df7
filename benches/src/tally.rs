//! What a job and a plain loop are compared by: how many records came out, and a sum over all of them.
//!
//! Stands at the end of a record's way. [`TallySink`] reads every field of every record, so that no work in front of it
//! can be left out. Invariant: what [`Tallies`] shows is exactly what completed checkpoints cover.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use thalweg::Record;
use thalweg::batch::Batch;
use thalweg::operator::{Sink, SinkContext};
use thalweg::prelude::Failure;
use thalweg_common::id::CheckpointId;

/// A number that depends on everything in a record.
pub trait Digest {
    /// That number: equal records have the same one.
    fn digest(&self) -> u64;
}

/// The digest of a record made of these numbers. The products do not wait for each other, so that it costs little.
#[inline]
pub fn digest_of<const N: usize>(numbers: [u64; N]) -> u64 {
    let mut sum = 0_u64;
    let mut factor = 0x9e37_79b9_7f4a_7c15_u64;
    for number in numbers {
        sum = sum.wrapping_add(number.wrapping_mul(factor));
        factor = factor.wrapping_mul(0xd134_2543_de82_ef95);
    }
    (sum ^ (sum >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Digest for u64 {
    #[inline]
    fn digest(&self) -> u64 {
        *self
    }
}

impl Digest for String {
    #[inline]
    fn digest(&self) -> u64 {
        let (words, rest) = self.as_bytes().as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().fold(0, |sum, word| digest_of([sum, u64::from_le_bytes(*word)]));
        digest_of([words, u64::from_le_bytes(last), self.len() as u64])
    }
}

impl<A: Digest, B: Digest> Digest for (A, B) {
    #[inline]
    fn digest(&self) -> u64 {
        digest_of([self.0.digest(), self.1.digest()])
    }
}

/// How many records, and the sum of their digests: the same in whatever order they come.
#[derive(Record, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many records.
    pub count: u64,
    /// The wrapping sum of their digests.
    pub sum: u64,
}

impl Tally {
    /// Adds a record.
    #[inline]
    pub fn add(&mut self, record: &impl Digest) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(record.digest());
    }
}

/// The committed tallies of a job's sink, of each subtask. Clones show the same ones.
#[derive(Debug, Clone, Default)]
pub struct Tallies {
    by_subtask: Arc<Mutex<BTreeMap<u32, Tally>>>,
}

impl Tallies {
    /// The sink that fills it.
    pub fn sink(&self) -> TallySink {
        TallySink { tallies: self.clone(), subtask: 0, tally: Tally::default(), prepared: BTreeMap::new() }
    }

    /// All subtasks together.
    pub fn total(&self) -> Tally {
        let by_subtask = self.by_subtask.lock().unwrap_or_else(PoisonError::into_inner);
        by_subtask.values().fold(Tally::default(), |total, tally| Tally {
            count: total.count + tally.count,
            sum: total.sum.wrapping_add(tally.sum),
        })
    }

    pub(crate) fn commit(&self, subtask: u32, tally: Tally) {
        self.by_subtask.lock().unwrap_or_else(PoisonError::into_inner).insert(subtask, tally);
    }
}

/// Counts and sums up what it is given; for jobs in this process.
#[derive(Debug, Clone)]
pub struct TallySink {
    tallies: Tallies,
    subtask: u32,
    /// Of everything since the job began.
    tally: Tally,
    /// The tally at each barrier that is not committed.
    prepared: BTreeMap<CheckpointId, Tally>,
}

impl<T: Digest> Sink<T> for TallySink {
    fn open(&mut self, context: &SinkContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        self.subtask = context.subtask_index;
        self.tally = match restored {
            Some(mut bytes) => Tally::decode(&mut bytes)?,
            None => Tally::default(),
        };
        self.tallies.commit(self.subtask, self.tally);
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let mut tally = self.tally;
        for record in batch.records.drain(..) {
            tally.add(&record);
        }
        self.tally = tally;
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>, Failure> {
        self.prepared.insert(checkpoint, self.tally);
        let mut bytes = Vec::new();
        self.tally.encode(&mut bytes);
        Ok(bytes)
    }

    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        let later = self.prepared.split_off(&(checkpoint + 1));
        if let Some((_, tally)) = std::mem::replace(&mut self.prepared, later).pop_last() {
            self.tallies.commit(self.subtask, tally);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_knows_each_field_and_not_the_order() {
        let tally = |records: &[(u64, u64)]| {
            let mut tally = Tally::default();
            records.iter().for_each(|record| tally.add(record));
            tally
        };
        assert_eq!(tally(&[(1, 2), (3, 4)]), tally(&[(3, 4), (1, 2)]));
        assert_ne!(tally(&[(1, 2), (3, 4)]), tally(&[(1, 4), (3, 2)]));
        assert_ne!(digest_of([1, 2]), digest_of([2, 1]));
        for (left, right) in [("a", "b"), ("12345678a", "12345678b"), ("", "\0"), ("12345678x", "1234567x8")]
        {
            assert_ne!(left.to_string().digest(), right.to_string().digest());
        }
    }

    #[test]
    fn only_what_a_checkpoint_covers_is_shown() {
        let tallies = Tallies::default();
        let mut sink = tallies.sink();
        let write = |sink: &mut TallySink, number: u64| sink.write(&mut vec![number].into()).unwrap();
        write(&mut sink, 10);
        Sink::<u64>::prepare(&mut sink, 1).unwrap();
        write(&mut sink, 20);
        assert_eq!(tallies.total(), Tally::default());
        Sink::<u64>::prepare(&mut sink, 3).unwrap();
        Sink::<u64>::commit(&mut sink, 2).unwrap();
        assert_eq!(tallies.total(), Tally { count: 1, sum: 10 });
        Sink::<u64>::commit(&mut sink, 3).unwrap();
        assert_eq!(tallies.total(), Tally { count: 2, sum: 30 });
    }
}
