//! `TextFileSource`: the lines of files and directories, read in parallel by byte ranges.
//!
//! The input is divided into lanes, a few for each subtask (see [`super::split`]). A lane lists the input for itself and reads the ranges that
//! are its own; it is what moves between subtasks when a job is restored with another parallelism. Its snapshot holds the list of
//! files and the place of the next unread line, so that it goes on with exactly that line, wherever it is.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use thalweg_common::clock::Stopwatch;
use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_INPUT_FILES;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{SourceContext, SourceStatus};
use thalweg_runtime::split::{SourceReader, SplitSource};

use super::listing;
use super::reader::SplitReader;
use super::split::{Lane, Position, Share};

/// Lanes of each subtask of a job that begins: so many times as many subtasks find something to read when it is restored.
const LANES: u32 = 4;

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
/// With one subtask, the lines come in the order of the files' names and of the lines in them. A job that is restored may have
/// another parallelism than before; above four times the one that it began with, some subtasks have nothing to read.
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
struct Settings {
    roots: Vec<PathBuf>,
    split_bytes: u64,
    rounds: u64,
    watching: Option<Duration>,
}

/// Reads the lanes of one subtask.
#[derive(Debug)]
pub struct TextFileReader {
    settings: Settings,
    lanes: Vec<OpenLane>,
    /// Since the directories were searched last.
    since_search: Stopwatch,
}

/// A lane and what is known of it.
#[derive(Debug)]
struct OpenLane {
    lane: Lane,
    /// The paths in its list, to find new ones.
    known: HashSet<String>,
    /// The range at its position, if it is being read.
    reader: Option<SplitReader>,
    /// Whether everything in its list is read.
    is_at_end: bool,
}

impl TextFileSource {
    /// The lines of a file, or of all files in a directory.
    pub fn lines(path: impl Into<PathBuf>) -> Self {
        Self::lines_of([path])
    }

    /// The lines of several files and directories. One that is named twice is read once.
    pub fn lines_of<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let settings = Settings {
            roots: paths.into_iter().map(Into::into).collect(),
            split_bytes: SPLIT_BYTES,
            rounds: 1,
            watching: None,
        };
        Self { settings }
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
    /// The list of all files that were ever found is part of the state; move old files away only by starting a new job.
    #[must_use]
    pub fn watching(mut self, interval: Duration) -> Self {
        self.settings.watching = Some(interval);
        self
    }
}

impl SplitSource for TextFileSource {
    type Out = String;
    type Split = Lane;
    type Reader = TextFileReader;

    fn splits(&self, context: &SourceContext) -> Result<Vec<Lane>, Failure> {
        let Settings { roots, split_bytes, .. } = &self.settings;
        // An input that was never there will not appear by trying again.
        let files = listing::new_files(roots, &HashSet::new()).map_err(Failure::permanent)?;
        let lanes = context.parallelism * LANES;
        let lane = |lane| {
            let share = Share { lane, lanes, split_bytes: *split_bytes };
            Lane { share, files: files.clone(), position: Position::default() }
        };
        Ok(context.share_of(0..lanes).map(lane).collect())
    }

    fn reader(&self, context: &SourceContext) -> Result<TextFileReader, Failure> {
        if self.settings.watching.is_some() && self.settings.rounds != 1 {
            return Err(Failure::user(
                "a source that watches its directory has no end, so it cannot be repeated; remove watching() or repeat()",
            )
            .permanent());
        }
        let since_search = Stopwatch::start(&context.clock);
        Ok(TextFileReader { settings: self.settings.clone(), lanes: Vec::new(), since_search })
    }
}

impl SourceReader for TextFileReader {
    type Out = String;
    type Split = Lane;

    fn add_splits(&mut self, splits: Vec<Lane>) -> Result<(), Failure> {
        if splits.iter().any(|lane| lane.files.len() > MAX_INPUT_FILES) {
            return Err(Failure::internal(format!(
                "the checkpoint names more than {MAX_INPUT_FILES} input files"
            )));
        }
        self.lanes.extend(splits.into_iter().map(OpenLane::new));
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<String>, max: usize) -> Result<SourceStatus, Failure> {
        if self.read(out, max)? {
            return Ok(SourceStatus::Ready);
        }
        let Some(interval) = self.settings.watching else { return Ok(SourceStatus::Finished) };
        let waited = self.since_search.elapsed();
        if waited < interval {
            return Ok(SourceStatus::Idle { retry_after: interval - waited });
        }
        self.since_search.restart();
        if self.search()? {
            return Ok(SourceStatus::Ready);
        }
        Ok(SourceStatus::Idle { retry_after: interval })
    }

    fn snapshot(&mut self) -> Result<Vec<Lane>, Failure> {
        let is_watching = self.settings.watching.is_some();
        let open = self.lanes.iter().filter(|open| is_watching || !open.is_at_end);
        Ok(open.map(|open| open.lane.clone()).collect())
    }
}

impl TextFileReader {
    /// Appends up to `max` lines. Says whether there may be more.
    fn read(&mut self, out: &mut Batch<String>, max: usize) -> Result<bool, Failure> {
        let (mut lines, mut bytes) = (0, 0);
        while lines < max && bytes < POLL_BYTES {
            // The lane whose range comes first in the input, so that one subtask alone reads in order.
            let open = self.lanes.iter_mut().filter(|open| !open.is_at_end);
            let Some(open) = open.min_by_key(|open| open.lane.position.order()) else { return Ok(lines > 0) };
            let Some(reader) = &mut open.reader else {
                open.open_range(self.settings.rounds)?;
                continue;
            };
            match reader.next_line()? {
                Some(line) => {
                    bytes += line.len() as u64;
                    lines += 1;
                    out.push(line);
                    open.lane.position.offset = Some(reader.offset());
                }
                None => {
                    open.reader = None;
                    open.lane.position.next_range();
                    open.is_at_end = open.lane.find(self.settings.rounds).is_none();
                }
            }
        }
        Ok(true)
    }

    /// Looks for new files. Says whether there are any.
    fn search(&mut self) -> Result<bool, Failure> {
        let mut found = false;
        for open in &mut self.lanes {
            let files = listing::new_files(&self.settings.roots, &open.known)?;
            found |= !files.is_empty();
            open.known.extend(files.iter().map(|file| file.path.clone()));
            open.is_at_end &= files.is_empty();
            open.lane.files.extend(files);
        }
        Ok(found)
    }
}

impl OpenLane {
    fn new(lane: Lane) -> Self {
        let known = lane.files.iter().map(|file| file.path.clone()).collect();
        Self { lane, known, reader: None, is_at_end: false }
    }

    /// Opens the next range, if there is one.
    fn open_range(&mut self, rounds: u64) -> Result<(), Failure> {
        let range = self.lane.find(rounds);
        let Lane { files, position, .. } = &self.lane;
        match range.zip(files.get(position.file)) {
            Some((range, file)) => {
                self.reader = Some(SplitReader::open(&file.path, &range, position.offset)?);
            }
            None => self.is_at_end = true,
        }
        Ok(())
    }
}
