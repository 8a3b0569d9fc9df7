//! `FileSource`: records of files in directories and on S3, read in parallel. Flink's `FileSource`.
//!
//! On a record's way this is its beginning. The [enumerator](super::TextFileEnumerator) lists files and cuts them into ranges of bytes; a reader reads
//! range after range: its bytes come from a disk or from S3 ([`access`]), are decompressed ([`stream`]), and become records: [`lines`], or
//! rows of a bulk format. Invariants: over all readers each record is read once; a snapshot has the place of the next record; nothing waits for
//! S3 on the thread of a slot.

mod access;
#[cfg(feature = "avro")]
mod avro;
mod glob;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{OperatorMetrics, SourceContext, SourceStatus};
use thalweg_runtime::side_output::Aside;
use thalweg_runtime::split::{EnumeratedSource, SourceReader, SourceSplit};

use self::access::{Access, bucket_and_key};
use self::lines::Lines;
use self::stream::Compression;
use super::enumerator::{FoundFiles, TextFileEnumerator};
use super::listing::{Bucket, Root};
use super::source::{Filter, Settings};
use super::split::FileRange;
use crate::formats::{BadRecord, BadRecords, Decoder, Malformed};

/// Size of a range, unless another one is set.
const SPLIT_BYTES: u64 = 64 * 1024 * 1024;

/// How long a reader that waits for S3 sleeps at the most; what it waits for wakes it.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Reads records of files: in directories, which are searched to their depths, or on S3.
///
/// Files, directories and prefixes are given as paths, `file:///directory` or `s3://bucket/prefix`; files whose names begin with `.` or `_`, or
/// that are in such directories, are left out. Large files are cut into ranges that are read in parallel: at the ends of lines, or between the row
/// groups of Parquet. Files that end in `.gz`, `.gzip`, `.zst` or `.zstd` are decompressed and read as a whole.
///
/// Files must not change while they are read: write new data to a hidden name and rename it. In a cluster every machine that runs the job must see the
/// same local files under the same path.
///
/// ```
/// use std::time::Duration;
/// use thalweg_connectors::files::FileSource;
/// use thalweg_connectors::formats::{BadRecords, Text};
///
/// let lines = FileSource::new("s3://data-lake/clicks", Text)
///     .matching("dt=*/*.txt.gz")
///     .monitor_continuously(Duration::from_secs(10))
///     .bad_records(BadRecords::Skip);
/// # let _ = lines;
/// ```
#[derive(Debug, Clone)]
pub struct FileSource<F> {
    places: Vec<String>,
    format: F,
    split_bytes: u64,
    watching: Option<Duration>,
    filter: Option<Filter>,
    policy: BadRecords,
}

/// How the files of a [`FileSource`] are read.
pub trait ReadFormat: Clone + Send + Sync + 'static {
    /// What they have.
    type Out: Record;

    /// Whether this file is read as a whole.
    #[doc(hidden)]
    fn keeps_whole(path: &str) -> bool;

    #[doc(hidden)]
    fn open(
        &self,
        range: &FileRange,
        context: &SourceContext,
    ) -> Result<Box<dyn RangeReader<Self::Out>>, Failure>;
}

/// Reads one range.
#[doc(hidden)]
pub trait RangeReader<T>: Send {
    /// Appends records until there are `max` of them.
    fn poll(&mut self, out: &mut Batch<T>, max: usize, bad: &mut Bad<'_>) -> Result<Progress, Failure>;

    /// What the range is restored with, if something was read.
    fn offset(&self) -> Option<u64>;
}

/// How far a range was read.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more at once.
    Read,
    /// There is more when it has come.
    Waiting,
    /// All of it.
    End,
}

/// What becomes of bad records.
#[doc(hidden)]
pub struct Bad<'a> {
    policy: &'a BadRecords,
    metrics: &'a OperatorMetrics,
    dead: &'a mut Vec<BadRecord>,
}

impl Bad<'_> {
    fn meet(
        &mut self,
        malformed: &Malformed,
        describe: impl FnOnce(String) -> BadRecord,
    ) -> Result<(), Failure> {
        self.dead.extend(self.policy.meet(self.metrics, malformed, describe)?);
        Ok(())
    }
}

/// Each line is a message of a format.
#[derive(Debug, Clone)]
pub struct LineFormat<D>(D);

impl<D: Decoder> ReadFormat for LineFormat<D> {
    type Out = D::Out;

    fn keeps_whole(path: &str) -> bool {
        Compression::of(path) != Compression::None
    }

    fn open(
        &self,
        range: &FileRange,
        context: &SourceContext,
    ) -> Result<Box<dyn RangeReader<D::Out>>, Failure> {
        let access = Access::open(&range.path, context)?;
        Ok(Box::new(Lines::open(self.0.clone(), access, range)?))
    }
}

impl<D: Decoder> FileSource<LineFormat<D>> {
    /// Files of lines, each of which `decoder` decodes.
    pub fn new(place: impl Into<String>, decoder: D) -> Self {
        Self::with(place.into(), LineFormat(decoder))
    }
}

#[cfg(feature = "parquet")]
impl<T: Record> FileSource<parquet::ParquetFormat<T>> {
    /// Parquet files, whose columns are the fields of `T`. How they are compressed they say themselves.
    pub fn parquet(place: impl Into<String>, _: crate::formats::Parquet<T>) -> Self {
        Self::with(place.into(), parquet::ParquetFormat::default())
    }
}

#[cfg(feature = "avro")]
impl<T: Record + serde::de::DeserializeOwned> FileSource<avro::AvroFormat<T>> {
    /// Avro's object container files, whose records are brought to the schema of `format`. A reader has a whole file in memory at a time.
    pub fn avro(place: impl Into<String>, format: crate::formats::AvroFile<T>) -> Self {
        Self::with(place.into(), avro::AvroFormat(format))
    }
}

impl<F: ReadFormat> FileSource<F> {
    fn with(place: String, format: F) -> Self {
        let (split_bytes, policy) = (SPLIT_BYTES, BadRecords::default());
        Self { places: vec![place], format, split_bytes, watching: None, filter: None, policy }
    }

    /// Reads another file, directory or prefix as well. What is named twice is read once.
    #[must_use]
    pub fn and(mut self, place: impl Into<String>) -> Self {
        self.places.push(place.into());
        self
    }

    /// Never ends: looks for new files at this interval. A file that was read is not read again, whatever happens to it.
    ///
    /// Of each file that was ever found the state keeps 16 bytes, by which it is known again by its path.
    #[must_use]
    pub fn monitor_continuously(mut self, interval: Duration) -> Self {
        self.watching = Some(interval);
        self
    }

    /// Cuts files into ranges of this size instead of 64 MiB. Smaller ones spread better, larger ones cost less.
    #[must_use]
    pub fn split_bytes(mut self, bytes: u64) -> Self {
        self.split_bytes = bytes.max(1);
        self
    }

    /// Reads only files whose paths below the directory are of this pattern: `*` stands for anything but `/`, `**` for anything, `?` for one
    /// character. A pattern without `/` is one of the name alone.
    #[must_use]
    pub fn matching(self, pattern: impl Into<String>) -> Self {
        let pattern = pattern.into();
        self.filter(move |path| glob::matches(&pattern, path))
    }

    /// Reads only files for whose paths below the directory this is true.
    #[must_use]
    pub fn filter(mut self, is_read: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Filter(Arc::new(is_read)));
        self
    }

    /// What becomes of records that cannot be read; by default the job fails.
    #[must_use]
    pub fn bad_records(mut self, policy: BadRecords) -> Self {
        self.policy = policy;
        self
    }

    fn roots(&self, context: &SourceContext) -> Result<Vec<Root>, Failure> {
        let root = |place: &String| {
            let failed = |error| Failure::from(&error).permanent();
            let storage = context.storages.open(place).map_err(failed)?;
            if let Some(directory) = storage.directory() {
                return Ok(Root::Path(directory.to_owned()));
            }
            let address = format!("{}/", storage.uri());
            let (bucket, prefix) = bucket_and_key(&address).ok_or_else(|| {
                Failure::user(format!("files cannot be read from {place}; use a directory or s3://"))
                    .permanent()
            })?;
            let prefix = prefix.trim_end_matches('/').to_owned();
            let storage = context.storages.open(bucket).map_err(failed)?;
            Ok(Root::Bucket(Bucket { storage, prefix, io: context.io.clone() }))
        };
        self.places.iter().map(root).collect()
    }
}

impl<F: ReadFormat> EnumeratedSource for FileSource<F> {
    type Out = F::Out;
    type Split = FileRange;
    type Reader = FileReader<F>;
    type Enumerator = TextFileEnumerator;

    fn enumerator(
        &self,
        context: &SourceContext,
        restored: Option<FoundFiles>,
    ) -> Result<TextFileEnumerator, Failure> {
        let settings = Settings {
            split_bytes: self.split_bytes,
            watching: self.watching,
            keeps_whole: Some(F::keeps_whole),
            filter: self.filter.clone(),
            ..Settings::of(self.roots(context)?)
        };
        Ok(TextFileEnumerator::new(settings, restored))
    }

    fn reader(&self, context: &SourceContext) -> Result<FileReader<F>, Failure> {
        Ok(FileReader {
            format: self.format.clone(),
            policy: self.policy,
            context: context.clone(),
            ranges: VecDeque::new(),
            current: None,
            finished: Vec::new(),
            dead: Vec::new(),
        })
    }
}

/// Reads the ranges of one subtask, one after the other.
pub struct FileReader<F: ReadFormat> {
    format: F,
    policy: BadRecords,
    context: SourceContext,
    /// The first of them is being read.
    ranges: VecDeque<FileRange>,
    current: Option<Box<dyn RangeReader<F::Out>>>,
    /// Ranges at their end, to be told.
    finished: Vec<String>,
    /// Bad records for the side output.
    dead: Vec<BadRecord>,
}

impl<F: ReadFormat> std::fmt::Debug for FileReader<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("ranges", &self.ranges).finish_non_exhaustive()
    }
}

impl<F: ReadFormat> SourceReader for FileReader<F> {
    type Out = F::Out;
    type Split = FileRange;

    fn add_splits(&mut self, splits: Vec<FileRange>) -> Result<(), Failure> {
        self.ranges.extend(splits);
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<F::Out>, max: usize) -> Result<SourceStatus, Failure> {
        while out.len() < max {
            let Some(range) = self.ranges.front_mut() else {
                return Ok(if out.is_empty() { SourceStatus::Finished } else { SourceStatus::Ready });
            };
            let reader = match &mut self.current {
                Some(reader) => reader,
                none => none.insert(self.format.open(range, &self.context)?),
            };
            let metrics = &self.context.metrics;
            let mut bad = Bad { policy: &self.policy, metrics, dead: &mut self.dead };
            let progress = reader.poll(out, max, &mut bad)?;
            range.offset = reader.offset().or(range.offset);
            match progress {
                Progress::Read => break,
                Progress::Waiting if out.is_empty() => {
                    return Ok(SourceStatus::Idle { retry_after: LONGEST_WAIT });
                }
                Progress::Waiting => break,
                Progress::End => {
                    self.finished.push(range.split_id());
                    self.ranges.pop_front();
                    self.current = None;
                }
            }
        }
        Ok(SourceStatus::Ready)
    }

    fn emit_aside(&mut self, aside: &mut Aside<'_>) {
        if let BadRecords::DeadLetter(tag) = &self.policy {
            self.dead.drain(..).for_each(|record| aside.output(tag, record));
        }
    }

    fn snapshot(&mut self) -> Result<Vec<FileRange>, Failure> {
        Ok(self.ranges.iter().cloned().collect())
    }

    fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }
}
