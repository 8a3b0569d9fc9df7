//! Sources whose splits are found while the job runs, as in Flink's FLIP-27: an enumerator finds them, readers read them.
//!
//! There is one enumerator for each such source, in a task of its own; its assignments are records of the edge to the readers. So each split is in
//! a checkpoint exactly once: with the enumerator, with a reader, or on its way. Readers say what they have, and a reader that has room
//! gets the next split that waits: a slow reader takes fewer.
//!
//! ```
//! use std::time::Duration;
//!
//! use thalweg_common::Record;
//! use thalweg_common::failure::Failure;
//! use thalweg_runtime::batch::Batch;
//! use thalweg_runtime::operator::{SourceContext, SourceStatus};
//! use thalweg_runtime::split::{Discovery, EnumeratedSource, Next, SourceReader, SourceSplit, SplitEnumerator};
//! use thalweg_runtime::testing::{EnumeratedHarness, Setup};
//!
//! /// Countdowns that begin one after the other.
//! #[derive(Clone)]
//! struct Countdowns(u64);
//!
//! #[derive(Record, Clone)]
//! # #[record(crate = thalweg_common)]
//! struct Countdown {
//!     from: u64,
//!     left: u64,
//! }
//!
//! impl SourceSplit for Countdown {
//!     fn split_id(&self) -> String {
//!         self.from.to_string()
//!     }
//! }
//!
//! /// Finds one countdown at a time.
//! struct Enumerator {
//!     begun: u64,
//!     all: u64,
//! }
//!
//! impl SplitEnumerator for Enumerator {
//!     type Split = Countdown;
//!     type State = u64;
//!
//!     fn discover(&mut self) -> Result<Discovery<Countdown>, Failure> {
//!         self.begun += 1;
//!         let next = if self.begun < self.all { Next::After(Duration::from_millis(1)) } else { Next::Never };
//!         Ok(Discovery { splits: vec![Countdown { from: self.begun, left: self.begun }], next })
//!     }
//!
//!     fn state(&self) -> u64 {
//!         self.begun
//!     }
//! }
//!
//! struct Reader(Vec<Countdown>);
//!
//! impl SourceReader for Reader {
//!     type Out = u64;
//!     type Split = Countdown;
//!
//!     fn add_splits(&mut self, splits: Vec<Countdown>) -> Result<(), Failure> {
//!         self.0.extend(splits);
//!         Ok(())
//!     }
//!
//!     fn poll(&mut self, out: &mut Batch<u64>, _: usize) -> Result<SourceStatus, Failure> {
//!         let Some(countdown) = self.0.last_mut() else { return Ok(SourceStatus::Finished) };
//!         countdown.left -= 1;
//!         out.push(countdown.left);
//!         self.0.retain(|countdown| countdown.left > 0);
//!         Ok(SourceStatus::Ready)
//!     }
//!
//!     fn snapshot(&mut self) -> Result<Vec<Countdown>, Failure> {
//!         Ok(self.0.clone())
//!     }
//! }
//!
//! impl EnumeratedSource for Countdowns {
//!     type Out = u64;
//!     type Split = Countdown;
//!     type Reader = Reader;
//!     type Enumerator = Enumerator;
//!
//!     fn enumerator(&self, _: &SourceContext, restored: Option<u64>) -> Result<Enumerator, Failure> {
//!         Ok(Enumerator { begun: restored.unwrap_or(0), all: self.0 })
//!     }
//!
//!     fn reader(&self, _: &SourceContext) -> Result<Reader, Failure> {
//!         Ok(Reader(Vec::new()))
//!     }
//! }
//!
//! let mut source = EnumeratedHarness::open(Countdowns(3), 2, None).unwrap();
//! source.read_all().unwrap();
//! let mut read = source.output();
//! read.sort();
//! assert_eq!(read, [0, 0, 0, 1, 1, 2]);
//! ```

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::{SourceReader, SourceSplit};
use crate::operator::SourceContext;

/// A source whose splits are found while the job runs. A prototype, as [`SplitSource`](super::SplitSource) is.
pub trait EnumeratedSource: Clone + Send + Sync + 'static {
    /// What it reads.
    type Out: Record;
    /// A part of its input.
    type Split: SourceSplit;
    /// What reads splits in a subtask. If it has several at a time it should say which of them are at their end
    /// ([`take_finished`](SourceReader::take_finished)).
    type Reader: SourceReader<Out = Self::Out, Split = Self::Split>;
    /// What finds splits.
    type Enumerator: SplitEnumerator<Split = Self::Split>;

    /// The one enumerator, new or as it was in a checkpoint.
    ///
    /// # Errors
    /// What cannot be opened; the task fails with it.
    fn enumerator(
        &self,
        context: &SourceContext,
        restored: Option<<Self::Enumerator as SplitEnumerator>::State>,
    ) -> Result<Self::Enumerator, Failure>;

    /// A reader without splits.
    ///
    /// # Errors
    /// What cannot be opened; the task fails with it.
    fn reader(&self, context: &SourceContext) -> Result<Self::Reader, Failure>;

    /// How many splits a reader has at the most. With few of them whoever is faster reads more; with `u64::MAX` every split is dealt as
    /// soon as it is found, to the reader that has the fewest. By default two: one that is read and one to go on with.
    fn splits_per_reader(&self) -> u64 {
        2
    }
}

/// Finds the splits of a source: Flink's `SplitEnumerator`, without the part of it that assigns them, which the runtime does.
///
/// Its methods run on a thread of their own, one at a time, so that they may wait for the outside. What a call that has not returned
/// finds is not lost when the job fails: the next attempt begins with the state of the last checkpoint. So the same state must lead to
/// the same splits, with the same ids, as far as the outside is still the same. A call of an attempt that was stopped may still run when
/// the next one begins; therefore calls only look at the outside, and change nothing but what is the same when it is done twice.
pub trait SplitEnumerator: Send + 'static {
    /// What it finds.
    type Split: SourceSplit;
    /// What it must know to go on: which splits were found. Those that were found and nobody has are kept by the runtime.
    type State: Record;

    /// Whether it wants to know which splits are at their end.
    const TRACKS_FINISHED: bool = false;

    /// Whether [`close`](Self::close) does anything.
    const CLOSES: bool = false;

    /// Looks for splits. Called at once when a job begins or restores, then as [`Discovery::next`] says, but not while very many splits
    /// wait to be read.
    ///
    /// # Errors
    /// An input that cannot be looked at; the task fails with it.
    fn discover(&mut self) -> Result<Discovery<Self::Split>, Failure>;

    /// Splits were read to their end: gives those that may be read now. Only called with [`TRACKS_FINISHED`](Self::TRACKS_FINISHED),
    /// then at least once for each split; behind a restore perhaps again, with those that it knows already.
    ///
    /// # Errors
    /// As `discover`.
    fn finished(&mut self, splits: &[String]) -> Result<Vec<Self::Split>, Failure> {
        let _ = splits;
        Ok(Vec::new())
    }

    /// What is part of checkpoints. Asked behind each call that has found or was told something.
    fn state(&self) -> Self::State;

    /// The job has stopped with a savepoint, or its input has ended, and that is durable: what is held outside for as long as a job reads can be
    /// given up. Not called when a job fails or is cancelled. Only called with [`CLOSES`](Self::CLOSES), and waited for some seconds at the
    /// most.
    ///
    /// # Errors
    /// What cannot be given up: it is logged, because the job has done its work.
    fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// What a look at the input has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery<S> {
    /// Splits that were not found before. At the most some thousands at a time: each costs memory until a reader has it.
    pub splits: Vec<S>,
    /// When to look again.
    pub next: Next,
}

/// When to look for splits again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There are more: as soon as there is room for them.
    AtOnce,
    /// After this time.
    After(Duration),
    /// Not again: the input is bounded and all of its splits were found. The source ends when they are read, and the enumerator is called no more.
    Never,
}
