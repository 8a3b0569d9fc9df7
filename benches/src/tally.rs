//! What a job and a plain loop are compared by: how many records came out, and a sum over all of them.
//!
//! Stands at the end of a record's way. [`TallySink`] reads every field of every record, so that no work in front of it
//! can be left out. Invariant: what is shown, in this process or in files, is exactly what completed checkpoints cover.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use thalweg::Record;
use thalweg::batch::Batch;
use thalweg::operator::{Sink, SinkContext};
use thalweg::prelude::{Failure, OrFailure};
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

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum.wrapping_add(other.sum) }
    }

    /// What the subtasks of a [`TallySink::in_directory`] have written there, together.
    ///
    /// # Errors
    /// When there is nothing, or a file cannot be read or holds something else.
    pub fn of_directory(directory: &Path) -> anyhow::Result<Self> {
        let mut total = None;
        for entry in
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == FILE_EXTENSION) {
                let text = fs::read_to_string(&path)?;
                let tally = Self::parse(&text).with_context(|| format!("{} is no tally", path.display()))?;
                total = Some(tally.and(total.unwrap_or_default()));
            }
        }
        total.with_context(|| format!("{} holds no tally; has the job ended?", directory.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        ensure!(numbers.len() == 2, "it has {} numbers instead of two", numbers.len());
        Ok(Self { count: numbers[0], sum: numbers[1] })
    }
}

/// The committed tallies of a job's sink in this process, of each subtask. Clones show the same ones.
#[derive(Debug, Clone, Default)]
pub struct Tallies {
    by_subtask: Arc<Mutex<BTreeMap<u32, Tally>>>,
}

impl Tallies {
    /// The sink that fills it.
    pub fn sink(&self) -> TallySink {
        TallySink::committing_to(Ledger::Memory(self.clone()))
    }

    /// All subtasks together.
    pub fn total(&self) -> Tally {
        let by_subtask = self.by_subtask.lock().unwrap_or_else(PoisonError::into_inner);
        by_subtask.values().copied().fold(Tally::default(), Tally::and)
    }

    pub(crate) fn commit(&self, subtask: u32, tally: Tally) {
        self.by_subtask.lock().unwrap_or_else(PoisonError::into_inner).insert(subtask, tally);
    }
}

/// The files of tallies are `<subtask>.tally`.
const FILE_EXTENSION: &str = "tally";

/// Where committed tallies go.
#[derive(Debug, Clone)]
enum Ledger {
    /// To whoever asks in this process.
    Memory(Tallies),
    /// Into a file for each subtask, which the next commit replaces.
    Directory(PathBuf),
}

impl Ledger {
    fn commit(&self, subtask: u32, tally: Tally) -> Result<(), Failure> {
        match self {
            Self::Memory(tallies) => tallies.commit(subtask, tally),
            Self::Directory(directory) => {
                let path = directory.join(format!("{subtask}.{FILE_EXTENSION}"));
                let unfinished = path.with_extension("unfinished");
                let written = fs::create_dir_all(directory)
                    .and_then(|()| fs::write(&unfinished, format!("{} {}\n", tally.count, tally.sum)))
                    .and_then(|()| fs::rename(&unfinished, &path));
                written.or_failure(format_args!("cannot write the tally {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Counts and sums up what it is given.
#[derive(Debug, Clone)]
pub struct TallySink {
    ledger: Ledger,
    reads_records: bool,
    subtask: u32,
    /// Of everything since the job began.
    tally: Tally,
}

impl TallySink {
    /// Keeps the tally of each subtask in a file below `directory`, where [`Tally::of_directory`] finds it: for jobs on a
    /// cluster whose task managers share that directory. Use a directory of its own for each job.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self::committing_to(Ledger::Directory(directory.into()))
    }

    /// Only counts records and drops them, which leaves the sum at zero: what a comparison needs whose other side has a
    /// sink that reads nothing.
    #[must_use]
    pub fn counting_only(mut self) -> Self {
        self.reads_records = false;
        self
    }

    fn committing_to(ledger: Ledger) -> Self {
        Self { ledger, reads_records: true, subtask: 0, tally: Tally::default() }
    }
}

impl<T: Digest> Sink<T> for TallySink {
    /// What everything adds up to that was written before a barrier, from the beginning of the job on.
    type Committable = Tally;

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.subtask = context.subtask_index;
        Ok(())
    }

    fn recover(&mut self, prepared: &[Tally]) -> Result<(), Failure> {
        self.tally = prepared.last().copied().unwrap_or_default();
        self.ledger.commit(self.subtask, self.tally)
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if !self.reads_records {
            self.tally.count += batch.len() as u64;
            batch.clear();
            return Ok(());
        }
        let mut tally = self.tally;
        for record in batch.drain() {
            tally.add(&record);
        }
        self.tally = tally;
        Ok(())
    }

    fn prepare(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Tally>, Failure> {
        Ok(vec![self.tally])
    }

    fn commit(&mut self, prepared: &[Tally]) -> Result<(), Failure> {
        match prepared.last() {
            Some(tally) => self.ledger.commit(self.subtask, *tally),
            None => Ok(()),
        }
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
        let first = Sink::<u64>::prepare(&mut sink, 1).unwrap();
        write(&mut sink, 20);
        assert_eq!(tallies.total(), Tally::default());
        let third = Sink::<u64>::prepare(&mut sink, 3).unwrap();
        Sink::<u64>::commit(&mut sink, &first).unwrap();
        assert_eq!(tallies.total(), Tally { count: 1, sum: 10 });
        Sink::<u64>::commit(&mut sink, &third).unwrap();
        assert_eq!(tallies.total(), Tally { count: 2, sum: 30 });
    }

    #[test]
    fn a_directory_shows_the_last_commit_of_every_subtask() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Tally::of_directory(directory.path()).is_err(), "nothing is there");
        for (subtask, numbers) in [(0, 0..10_u64), (1, 10..100)] {
            let mut sink = TallySink { subtask, ..TallySink::in_directory(directory.path()) };
            for number in numbers {
                sink.write(&mut vec![number].into()).unwrap();
                let prepared = Sink::<u64>::prepare(&mut sink, number).unwrap();
                Sink::<u64>::commit(&mut sink, &prepared).unwrap();
            }
        }
        assert_eq!(Tally::of_directory(directory.path()).unwrap(), Tally { count: 100, sum: 4_950 });
        fs::write(directory.path().join("2.tally"), "12").unwrap();
        let error = Tally::of_directory(directory.path()).unwrap_err();
        assert!(error.to_string().contains("2.tally is no tally"), "{error}");
    }

    #[test]
    fn a_sink_that_only_counts_reads_nothing() {
        let tallies = Tallies::default();
        let mut sink = tallies.sink().counting_only();
        sink.write(&mut vec![7_u64, 8].into()).unwrap();
        let prepared = Sink::<u64>::prepare(&mut sink, 1).unwrap();
        Sink::<u64>::commit(&mut sink, &prepared).unwrap();
        assert_eq!(tallies.total(), Tally { count: 2, sum: 0 });
    }
}
