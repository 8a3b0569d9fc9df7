//! What a job that may emit several results of a key has come to in the end: the newest one of each key.
//!
//! Stands at the end of a record's way where combining decides how often a result is emitted, so that only the last one
//! can be compared. Invariant: the tally that is shown is over exactly one record per key, the newest that a completed
//! checkpoint covers.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::batch::Batch;
use thalweg::operator::{Sink, SinkContext};
use thalweg::prelude::Failure;
use thalweg_common::id::CheckpointId;

use crate::tally::{Digest, Prepared, Tallies, Tally};

/// Keeps the newest count of each key, and shows the tally of these; for jobs in this process that do not fail.
#[derive(Debug, Clone)]
pub struct NewestSink {
    tallies: Tallies,
    subtask: u32,
    newest: HashMap<u64, u64, FixedState>,
    /// Of all of `newest`, kept up to date with each record.
    tally: Tally,
    prepared: Prepared,
}

impl NewestSink {
    /// A sink that shows its results in `tallies`.
    pub fn new(tallies: &Tallies) -> Self {
        Self {
            tallies: tallies.clone(),
            subtask: 0,
            newest: HashMap::default(),
            tally: Tally::default(),
            prepared: Prepared::default(),
        }
    }
}

impl Sink<(u64, u64)> for NewestSink {
    fn open(&mut self, context: &SinkContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        if restored.is_some() {
            let message =
                "the newest results of a measured job are not part of its checkpoints; run it again";
            return Err(Failure::user(message).permanent());
        }
        self.subtask = context.subtask_index;
        self.tallies.commit(self.subtask, self.tally);
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<(u64, u64)>) -> Result<(), Failure> {
        for (key, value) in batch.drain() {
            match self.newest.insert(key, value) {
                Some(before) => self.tally.sum = self.tally.sum.wrapping_sub((key, before).digest()),
                None => self.tally.count += 1,
            }
            self.tally.sum = self.tally.sum.wrapping_add((key, value).digest());
        }
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>, Failure> {
        Ok(self.prepared.add(checkpoint, self.tally))
    }

    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        if let Some(tally) = self.prepared.take(checkpoint) {
            self.tallies.commit(self.subtask, tally);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_result_of_a_key_counts() {
        let tallies = Tallies::default();
        let mut sink = NewestSink::new(&tallies);
        sink.write(&mut vec![(1, 1), (2, 7), (1, 2), (1, 5)].into()).unwrap();
        sink.prepare(1).unwrap();
        sink.write(&mut vec![(2, 8)].into()).unwrap();
        sink.prepare(2).unwrap();
        let expected = |records: &[(u64, u64)]| {
            let mut tally = Tally::default();
            records.iter().for_each(|record| tally.add(record));
            tally
        };
        sink.commit(1).unwrap();
        assert_eq!(tallies.total(), expected(&[(1, 5), (2, 7)]));
        sink.commit(2).unwrap();
        assert_eq!(tallies.total(), expected(&[(2, 8), (1, 5)]));
        assert_ne!(tallies.total(), expected(&[(2, 8), (1, 4)]));
    }
}
