//! `TextFileSource`: the lines of files and directories, read in parallel by byte ranges.
//!
//! Every subtask lists the input for itself and reads the splits that are its own (see [`super::split`]). The snapshot
//! holds the list of files and the place of the next unread line, so a restored subtask goes on with exactly that line.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thalweg_common::clock::Stopwatch;
use thalweg_common::codec;
use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_INPUT_FILES;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Source, SourceContext, SourceStatus};

use super::listing;
use super::reader::SplitReader;
use super::split::{InputFile, Position, Share};

/// Size of a split, unless another one is set.
const SPLIT_BYTES: u64 = 4 * 1024 * 1024;

/// Text that is read in one call at most, so that a barrier never waits long behind long lines.
const POLL_BYTES: u64 = 1024 * 1024;

/// Reads text files line by line.
///
/// A line ends with `\n` or `\r\n`, which are not part of the record; the last line needs no end. Files are read in
/// parallel: they are cut into splits by byte range, and a split owns the lines that start in it. In directories, which
/// are searched to their depths, files whose names start with `.` or `_` are left out.
///
/// Files must not change while they are read: write new data to a hidden name and rename it. With a cluster, every
/// machine that runs the job must see the same files under the same path.
///
/// ```
/// use std::time::Duration;
/// use thalweg_connectors::TextFileSource;
///
/// let once = TextFileSource::lines("README.md");
/// let forever = TextFileSource::lines("/var/spool/orders").watching(Duration::from_secs(10));
/// # let _ = (once, forever);
/// ```
#[derive(Debug)]
pub struct TextFileSource {
    settings: Settings,
    opened: Option<Opened>,
}

/// What the author chose.
#[derive(Debug, Clone)]
struct Settings {
    roots: Vec<PathBuf>,
    split_bytes: u64,
    rounds: u64,
    watching: Option<Duration>,
}

/// A subtask at work.
#[derive(Debug)]
struct Opened {
    progress: Progress,
    /// The paths in `progress.files`, to find new ones.
    known: HashSet<String>,
    /// The split at `progress.position`, if it is being read.
    reader: Option<SplitReader>,
    /// Since the directories were searched last.
    since_search: Stopwatch,
}

/// What a snapshot holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Progress {
    share: Share,
    files: Vec<InputFile>,
    position: Position,
}

impl Clone for TextFileSource {
    /// The same source, not yet opened.
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), opened: None }
    }
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
        Self { settings, opened: None }
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

impl Source for TextFileSource {
    type Out = String;

    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        let (subtask, parallelism) = (context.subtask_index, context.parallelism);
        if self.settings.watching.is_some() && self.settings.rounds != 1 {
            return Err(Failure::user(
                "a source that watches its directory has no end, so it cannot be repeated; remove watching() or repeat()",
            )
            .permanent());
        }
        let since_search = Stopwatch::start(&context.clock);
        let progress = match restored {
            Some(bytes) => Progress::restore(bytes, subtask, parallelism)?,
            None => {
                let share = Share { subtask, parallelism, split_bytes: self.settings.split_bytes };
                // An input that was never there will not appear by trying again.
                let files =
                    listing::new_files(&self.settings.roots, &HashSet::new()).map_err(Failure::permanent)?;
                Progress { share, files, position: Position::default() }
            }
        };
        let known = progress.files.iter().map(|file| file.path.clone()).collect();
        self.opened = Some(Opened { progress, known, reader: None, since_search });
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<String>, max: usize) -> Result<SourceStatus, Failure> {
        let opened = self.opened.as_mut().ok_or_else(not_open)?;
        if opened.read(&self.settings, out, max)? {
            return Ok(SourceStatus::Ready);
        }
        let Some(interval) = self.settings.watching else { return Ok(SourceStatus::Finished) };
        let waited = opened.since_search.elapsed();
        if waited < interval {
            return Ok(SourceStatus::Idle { retry_after: interval - waited });
        }
        opened.since_search.restart();
        if opened.search(&self.settings)? {
            return Ok(SourceStatus::Ready);
        }
        Ok(SourceStatus::Idle { retry_after: interval })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        let opened = self.opened.as_ref().ok_or_else(not_open)?;
        Ok(codec::to_bytes(&opened.progress)?)
    }
}

impl Opened {
    /// Appends up to `max` lines. Says whether there may be more.
    fn read(&mut self, settings: &Settings, out: &mut Batch<String>, max: usize) -> Result<bool, Failure> {
        let (mut lines, mut bytes) = (0, 0);
        while lines < max && bytes < POLL_BYTES {
            let Some(reader) = &mut self.reader else {
                if !self.open_split(settings.rounds)? {
                    return Ok(lines > 0);
                }
                continue;
            };
            match reader.next_line()? {
                Some(line) => {
                    bytes += line.len() as u64;
                    lines += 1;
                    out.push(line);
                    self.progress.position.offset = Some(reader.offset());
                }
                None => {
                    self.reader = None;
                    self.progress.position.next_split();
                }
            }
        }
        Ok(true)
    }

    /// Opens the next split of this subtask. Says whether there is one.
    fn open_split(&mut self, rounds: u64) -> Result<bool, Failure> {
        let Progress { share, files, position } = &mut self.progress;
        let Some(range) = share.find(files, rounds, position) else { return Ok(false) };
        let Some(file) = files.get(position.file) else { return Ok(false) };
        self.reader = Some(SplitReader::open(&file.path, &range, position.offset)?);
        Ok(true)
    }

    /// Looks for new files. Says whether there are any.
    fn search(&mut self, settings: &Settings) -> Result<bool, Failure> {
        let files = listing::new_files(&settings.roots, &self.known)?;
        let found = !files.is_empty();
        self.known.extend(files.iter().map(|file| file.path.clone()));
        self.progress.files.extend(files);
        Ok(found)
    }
}

impl Progress {
    fn restore(bytes: &[u8], subtask: u32, parallelism: u32) -> Result<Self, Failure> {
        let progress: Self = codec::from_bytes(bytes)?;
        let share = progress.share;
        if (share.subtask, share.parallelism) != (subtask, parallelism) {
            return Err(Failure::user(format!(
                "the text file source was checkpointed as subtask {} of {} and cannot go on as subtask {subtask} of \
                 {parallelism}; start it with the parallelism it had",
                share.subtask, share.parallelism
            ))
            .permanent());
        }
        if progress.files.len() > MAX_INPUT_FILES {
            return Err(Failure::internal(format!(
                "the checkpoint names more than {MAX_INPUT_FILES} input files"
            )));
        }
        Ok(progress)
    }
}

fn not_open() -> Failure {
    Failure::internal("the text file source was used before it was opened")
}
