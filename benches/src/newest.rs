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

use crate::tally::{Digest, Tallies, Tally};

/// Keeps the newest count of each key, and shows the tally of these; for jobs in this process that do not fail.
#[derive(Debug, Clone)]
pub struct NewestSink {
    tallies: Tallies,
    subtask: u32,
    newest: HashMap<u64, u64, FixedState>,
    /// Of all of `newest`, kept up to date with each record.
    tally: Tally,
}

impl NewestSink {
    /// A sink that shows its results in `tallies`.
    pub fn new(tallies: &Tallies) -> Self {
        Self { tallies: tallies.clone(), subtask: 0, newest: HashMap::default(), tally: Tally::default() }
    }
}

impl Sink<(u64, u64)> for NewestSink {
    type Committable = Tally;

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.subtask = context.subtask_index;
        self.tallies.commit(self.subtask, self.tally);
        Ok(())
    }

    fn recover(&mut self, prepared: &[Tally]) -> Result<(), Failure> {
        if prepared.is_empty() {
            return Ok(());
        }
        let message = "the newest results of a measured job are not part of its checkpoints; run it again";
        Err(Failure::user(message).permanent())
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

    fn prepare(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Tally>, Failure> {
        Ok(vec![self.tally])
    }

    fn commit(&mut self, prepared: &[Tally]) -> Result<(), Failure> {
        if let Some(tally) = prepared.last() {
            self.tallies.commit(self.subtask, *tally);
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
        let first = sink.prepare(1).unwrap();
        sink.write(&mut vec![(2, 8)].into()).unwrap();
        let second = sink.prepare(2).unwrap();
        let expected = |records: &[(u64, u64)]| {
            let mut tally = Tally::default();
            records.iter().for_each(|record| tally.add(record));
            tally
        };
        sink.commit(&first).unwrap();
        assert_eq!(tallies.total(), expected(&[(1, 5), (2, 7)]));
        sink.commit(&second).unwrap();
        assert_eq!(tallies.total(), expected(&[(2, 8), (1, 5)]));
        assert_ne!(tallies.total(), expected(&[(2, 8), (1, 4)]));
    }
}
