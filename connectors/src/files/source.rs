//! `TextFileSource`: the lines of files and directories, read in parallel by byte ranges.
//!
//! Its [enumerator](super::TextFileEnumerator) lists the input and cuts it; readers get range by range. The snapshot of a reader holds the
//! place of the next unread line, so that whoever goes on goes on with exactly that line.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{SourceContext, SourceStatus};
use thalweg_runtime::split::{EnumeratedSource, SourceReader, SourceSplit};
use thalweg_runtime::time::SplitReport;

use super::enumerator::{FoundFiles, TextFileEnumerator};
use super::listing::Root;
use super::reader::SplitReader;
use super::split::FileRange;

/// Size of a range, unless another one is set.
const SPLIT_BYTES: u64 = 4 * 1024 * 1024;

/// Text that is read in one call at most, so that a barrier never waits long behind long lines.
const POLL_BYTES: u64 = 1024 * 1024;

/// Reads text files line by line.
///
/// A line ends with `\n` or `\r\n`, which are not part of the record; the last line needs no end. Files are read in
/// parallel: they are cut into ranges of bytes, and a range owns the lines that start in it. In directories, which
/// are searched to their depths, files whose names start with `.` or `_` are left out.
///
/// Files must not change while they are read: write new data to a hidden name and rename it. With a cluster, every
/// machine that runs the job must see the same files under the same path.
///
/// One task finds the ranges, and whichever reader is done with one gets the next, as Flink's `FileSource` does it. With one subtask, the
/// lines come in the order of the files' names and of the lines in them.
///
/// With a watermark strategy directly behind it each range has a watermark of its own from when a reader begins it, as each file has in
/// Flink; a reader without a range is idle as soon as the input has been looked through and there is nothing for it.
///
/// ```
/// use std::time::Duration;
/// use thalweg_connectors::TextFileSource;
///
/// let once = TextFileSource::lines("README.md");
/// let forever = TextFileSource::lines("/var/spool/orders").watching(Duration::from_secs(10));
/// # let _ = (once, forever);
/// ```
#[derive(Debug, Clone)]
pub struct TextFileSource {
    settings: Settings,
}

/// What the author chose.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) roots: Vec<Root>,
    pub(super) split_bytes: u64,
    pub(super) rounds: u64,
    pub(super) watching: Option<Duration>,
    /// Which files are not cut, by their paths.
    pub(super) keeps_whole: Option<fn(&str) -> bool>,
    /// Which files are read, by their paths below the root.
    pub(super) filter: Option<Filter>,
}

/// Whether a file is read, by its path below the root.
#[derive(Clone)]
pub(super) struct Filter(pub(super) Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filter")
    }
}

impl Settings {
    /// Those that an author has not changed.
    pub(super) fn of(roots: Vec<Root>) -> Self {
        Self { roots, split_bytes: SPLIT_BYTES, rounds: 1, watching: None, keeps_whole: None, filter: None }
    }

    /// Whether a file is read, by its path below the root.
    pub(super) fn is_wanted(&self, path: &str) -> bool {
        self.filter.as_ref().is_none_or(|Filter(filter)| filter(path))
    }
}

/// Reads the ranges of one subtask, one after the other.
#[derive(Debug, Default)]
pub struct TextFileReader {
    /// The first of them is being read.
    ranges: VecDeque<FileRange>,
    reader: Option<SplitReader>,
    /// Ranges at their end, to be told.
    finished: Vec<String>,
    /// What the last poll has read, range by range.
    read: Vec<RangeRead>,
}

/// What one poll has read of one range.
#[derive(Debug)]
struct RangeRead {
    range: String,
    lines: usize,
    has_ended: bool,
}

impl TextFileSource {
    /// The lines of a file, or of all files in a directory.
    pub fn lines(path: impl Into<PathBuf>) -> Self {
        Self::lines_of([path])
    }

    /// The lines of several files and directories. One that is named twice is read once.
    pub fn lines_of<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self { settings: Settings::of(paths.into_iter().map(|path| Root::Path(path.into())).collect()) }
    }

    /// Cuts files into pieces of this size instead of 4 MiB. Smaller ones spread better, larger ones cost less.
    #[must_use]
    pub fn split_bytes(mut self, bytes: u64) -> Self {
        self.settings.split_bytes = bytes.max(1);
        self
    }

    /// Reads the whole input `times` times, for tests and demonstrations that need a lot of it.
    #[must_use]
    pub fn repeat(mut self, times: u64) -> Self {
        self.settings.rounds = times;
        self
    }

    /// Never ends: looks for new files at this interval. A file that was read is not read again, whatever happens to it.
    ///
    /// Of each file that was ever found the state keeps 16 bytes, by which it is known again by its path.
    #[must_use]
    pub fn watching(mut self, interval: Duration) -> Self {
        self.settings.watching = Some(interval);
        self
    }
}

impl EnumeratedSource for TextFileSource {
    type Out = String;
    type Split = FileRange;
    type Reader = TextFileReader;
    type Enumerator = TextFileEnumerator;

    fn enumerator(
        &self,
        _: &SourceContext,
        restored: Option<FoundFiles>,
    ) -> Result<TextFileEnumerator, Failure> {
        if self.settings.watching.is_some() && self.settings.rounds != 1 {
            return Err(Failure::user(
                "a source that watches its directory has no end, so it cannot be repeated; remove watching() or repeat()",
            )
            .permanent());
        }
        Ok(TextFileEnumerator::new(self.settings.clone(), restored))
    }

    fn reader(&self, _: &SourceContext) -> Result<TextFileReader, Failure> {
        Ok(TextFileReader::default())
    }
}

impl SourceReader for TextFileReader {
    type Out = String;
    type Split = FileRange;

    const TELLS_SPLITS: bool = true;
    const READS_IN_TURN: bool = true;

    fn add_splits(&mut self, splits: Vec<FileRange>) -> Result<(), Failure> {
        self.ranges.extend(splits);
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<String>, max: usize) -> Result<SourceStatus, Failure> {
        let (mut lines, mut bytes, mut of_earlier_ranges) = (0, 0, 0);
        self.read.clear();
        while lines < max && bytes < POLL_BYTES {
            let Some(range) = self.ranges.front_mut() else {
                return Ok(if lines > 0 { SourceStatus::Ready } else { SourceStatus::Finished });
            };
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(SplitReader::open(&range.path, &range.bytes(), range.offset)?),
            };
            match reader.next_line()? {
                Some(line) => {
                    bytes += line.len() as u64;
                    lines += 1;
                    out.push(line);
                    range.offset = Some(reader.offset());
                }
                None => {
                    let range = range.split_id();
                    self.finished.push(range.clone());
                    self.read.push(RangeRead { range, lines: lines - of_earlier_ranges, has_ended: true });
                    of_earlier_ranges = lines;
                    self.ranges.pop_front();
                    self.reader = None;
                }
            }
        }
        if let Some(range) = self.ranges.front() {
            let (range, lines) = (range.split_id(), lines - of_earlier_ranges);
            self.read.push(RangeRead { range, lines, has_ended: false });
        }
        Ok(SourceStatus::Ready)
    }

    fn tell_splits(&mut self, report: &mut SplitReport) {
        for RangeRead { range, lines, has_ended } in self.read.drain(..) {
            report.records(&range, lines);
            if has_ended {
                report.finished(&range);
            }
        }
    }

    fn snapshot(&mut self) -> Result<Vec<FileRange>, Failure> {
        Ok(self.ranges.iter().cloned().collect())
    }

    fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }
}
