//! Sources whose input has parts: splits, and the readers that read them. The concepts, and the names, are those of Flink's FLIP-27.
//!
//! A split is a part of the input that one subtask reads at a time: a range of a file, a partition, a shard, a range of numbers. Its
//! position travels with it, so that it can go on in any other subtask: a job that begins with a savepoint may have another
//! parallelism. Invariant: each split is in exactly one reader, or in none before it begins and behind its end.
//!
//! The splits of a [`SplitSource`] are said once, when a job begins; those of an [`EnumeratedSource`] are found while it runs.
//!
//! ```
//! use thalweg_common::Record;
//! use thalweg_common::failure::Failure;
//! use thalweg_runtime::batch::Batch;
//! use thalweg_runtime::operator::{SourceContext, SourceStatus};
//! use thalweg_runtime::operators;
//! use thalweg_runtime::split::{SourceReader, SourceSplit, SplitSource};
//! use thalweg_runtime::testing::{Setup, SourceHarness};
//!
//! /// Counts several things down.
//! #[derive(Clone)]
//! struct Countdowns(Vec<(String, u64)>);
//!
//! #[derive(Record, Clone)]
//! # #[record(crate = thalweg_common)]
//! struct Countdown {
//!     name: String,
//!     left: u64,
//! }
//!
//! impl SourceSplit for Countdown {
//!     fn split_id(&self) -> String {
//!         self.name.clone()
//!     }
//! }
//!
//! struct Reader(Vec<Countdown>);
//!
//! impl SplitSource for Countdowns {
//!     type Out = u64;
//!     type Split = Countdown;
//!     type Reader = Reader;
//!
//!     fn splits(&self, context: &SourceContext) -> Result<Vec<Countdown>, Failure> {
//!         let all = self.0.iter().map(|(name, left)| Countdown { name: name.clone(), left: *left });
//!         Ok(context.share_of(all).collect())
//!     }
//!
//!     fn reader(&self, _: &SourceContext) -> Result<Reader, Failure> {
//!         Ok(Reader(Vec::new()))
//!     }
//! }
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
//!     fn poll(&mut self, out: &mut Batch<u64>, max: usize) -> Result<SourceStatus, Failure> {
//!         let Some(split) = self.0.last_mut() else { return Ok(SourceStatus::Finished) };
//!         let rest = split.left.saturating_sub(max as u64);
//!         out.extend((rest..split.left).rev());
//!         split.left = rest;
//!         self.0.retain(|split| split.left > 0);
//!         Ok(SourceStatus::Ready)
//!     }
//!
//!     fn snapshot(&mut self) -> Result<Vec<Countdown>, Failure> {
//!         Ok(self.0.clone())
//!     }
//! }
//!
//! let source = operators::source(Countdowns(vec![("a".into(), 2), ("b".into(), 3)]));
//! let mut second = SourceHarness::<u64>::open(source.as_ref(), Setup::default().subtask(1, 2)).unwrap();
//! second.poll_all().unwrap();
//! assert_eq!(second.output(), [2, 1, 0]);
//! ```

pub(crate) mod dealer;
mod enumerator;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod holdings;
pub(crate) mod message;
#[cfg(test)]
mod protocol_tests;

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

pub use self::enumerator::{Discovery, EnumeratedSource, Next, SplitEnumerator};
use crate::batch::Batch;
use crate::operator::{SourceContext, SourceStatus};
use crate::side_output::Aside;
use crate::time::SplitReport;

/// A part of a source's input, and how far it was read.
pub trait SourceSplit: Record {
    /// Tells it from all other splits of its source. The same wherever it is read, and from its beginning to its end.
    fn split_id(&self) -> String;

    /// Says that one reader must have it, whatever others have to do: the one whose number is this modulo the number of readers, also behind a
    /// restore at another parallelism. Always the same for a split. Nothing by default: any reader may have it.
    fn pin(&self) -> Option<u32> {
        None
    }
}

/// A source whose input has splits. A prototype: the topology holds one, every subtask makes its reader from a clone.
pub trait SplitSource: Clone + Send + Sync + 'static {
    /// What it reads.
    type Out: Record;
    /// A part of its input.
    type Split: SourceSplit;
    /// What reads splits in a subtask.
    type Reader: SourceReader<Out = Self::Out, Split = Self::Split>;

    /// The splits of this subtask, when the source has read nothing yet: over all subtasks each split exactly once. Where all of them
    /// see the same list, [`share_of`](crate::operator::OpenContext::share_of) divides it. Not asked when a job is restored.
    ///
    /// # Errors
    /// A source that cannot be read; the task fails with it.
    fn splits(&self, context: &SourceContext) -> Result<Vec<Self::Split>, Failure>;

    /// A reader without splits.
    ///
    /// # Errors
    /// What cannot be opened; the task fails with it.
    fn reader(&self, context: &SourceContext) -> Result<Self::Reader, Failure>;
}

/// Reads the splits of one subtask. As everything in a task, its methods must not wait for the outside.
pub trait SourceReader: Send + 'static {
    /// What it reads.
    type Out: Record;
    /// From what.
    type Split: SourceSplit;

    /// Whether [`tell_splits`](Self::tell_splits) tells anything. Then watermarks of a strategy directly behind the source are kept for
    /// each split on its own; otherwise for all splits of a subtask together.
    const TELLS_SPLITS: bool = false;

    /// Whether it reads its splits one after the other, in the order in which it got them. Then a split has a watermark from when its turn
    /// comes, and those behind it hold nobody back. Only where it tells of its splits.
    const READS_IN_TURN: bool = false;

    /// Whether [`pause_splits`](Self::pause_splits) works: then splits of a source that is
    /// [aligned](crate::time::WatermarkStrategy::with_watermark_alignment) with others wait one by one, otherwise all of a subtask together.
    /// Only where it tells of its splits, and does not read them in turn.
    const PAUSES_SPLITS: bool = false;

    /// Reads these from now on, each from its position.
    ///
    /// # Errors
    /// What cannot be opened; the task fails with it.
    fn add_splits(&mut self, splits: Vec<Self::Split>) -> Result<(), Failure>;

    /// Appends at most `max` records to `out`, as [`Source::poll`](crate::operator::Source::poll) does.
    /// [`SourceStatus::Finished`] says that all splits so far are at their end, or that there are none.
    ///
    /// # Errors
    /// What cannot be read; the task fails with it.
    fn poll(&mut self, out: &mut Batch<Self::Out>, max: usize) -> Result<SourceStatus, Failure>;

    /// Tells from which splits the records of the last poll are, in the order in which it has given them, and which splits have come
    /// to their end. Called behind a poll if somebody wants to know.
    fn tell_splits(&mut self, report: &mut SplitReport) {
        let _ = report;
    }

    /// Reads nothing of these splits until it is told others, and all of the others: Flink's `pauseOrResumeSplits`. Called with every change.
    /// If there is nothing else to read, [`poll`](Self::poll) says that it is idle, not finished.
    fn pause_splits(&mut self, paused: &BTreeSet<String>) {
        let _ = paused;
    }

    /// Emits what the last poll has for side outputs, such as records that cannot be read. Called behind each poll; what nobody reads
    /// is dropped.
    fn emit_aside(&mut self, aside: &mut Aside<'_>) {
        let _ = aside;
    }

    /// The splits that are not at their end, each with the position behind the last record that was given out. They may be others
    /// than those that were added, if a split can be divided into several.
    ///
    /// # Errors
    /// A position that cannot be told; the task fails with it.
    fn snapshot(&mut self) -> Result<Vec<Self::Split>, Failure>;

    /// The ids of splits that have come to their end since the last call. A reader that has several at a time and whose splits are
    /// found by an enumerator gives them, so that it gets the next one before it has read all of them.
    fn take_finished(&mut self) -> Vec<String> {
        Vec::new()
    }
}
