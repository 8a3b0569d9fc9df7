//! `FileSink`: files in buckets, in a directory or on S3, each record exactly once. Flink's `FileSink`.
//!
//! On a record's way this is its end: the bucket is found, the record becomes bytes of the part that is open there, and the part becomes
//! visible when it was rolled and the checkpoint behind that is complete. In here from the outside to the inside: [`writer`] has the buckets
//! and parts of a subtask; [`rolling`] and [`buckets`] decide; [`target`] is a [`directory`] or S3 ([`objects`]); [`part`] is what checkpoints
//! hold, and [`names`] tells whose a file is.
//!
//! Invariants: a visible file is complete and never changes; a part becomes visible if and only if a completed checkpoint covers it; what
//! failed attempts left is removed, what a restored checkpoint names never is.

mod buckets;
mod directory;
mod format;
mod names;
mod objects;
mod part;
mod rolling;
mod target;
mod writer;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Sink, SinkContext, UnderWay};

use self::buckets::Buckets;
pub use self::buckets::{BucketContext, DatePattern};
pub use self::format::{Bulk, PartBytes, PartFormat, Rows};
use self::names::Affixes;
pub use self::part::FileCommittable;
pub use self::rolling::RollingPolicy;
use self::writer::Writer;
use crate::formats::{BulkFormat, Encoder};

/// Writes records to files in a directory or on S3, each exactly once.
///
/// Records go to buckets, which are directories: by default one for each hour of the clock, as in Flink. In each of them a subtask has one part
/// open. A part is *in progress* until the [rolling policy](RollingPolicy) closes it, then *pending*, and *finished* when the next checkpoint is
/// complete: only then anybody sees it. Row formats carry parts in progress over checkpoints; bulk formats roll at each of them. At the end of a
/// bounded input all parts are finished; a job that is stopped with a savepoint leaves those in progress to whoever starts with it.
///
/// Behind a failure, and behind a start from a savepoint, parts that were in progress at the checkpoint are finished as they were
/// then: what they have is covered by it. So such a file may be smaller than the policy says.
///
/// Names are `part-<subtask>-<attempt>-<number>-<job>`. What begins with a dot is not finished and must be ignored, which Flink, Spark, Hive and
/// this crate's sources do. Use a directory of its own for each job. In a cluster a local directory must be the same on all machines, or each
/// machine keeps the parts of the subtasks that it ran. On S3 the rules of the bucket must not abort incomplete uploads
/// sooner than the job's longest stop; uploads of a job that is cancelled are left to these rules.
///
/// ```
/// use thalweg_connectors::files::{FileSink, RollingPolicy};
/// use thalweg_connectors::formats::Text;
///
/// let counts = FileSink::<String, _>::rows("s3://data-lake/counts", Text);
/// let by_user = FileSink::<String, _>::rows("/data/users", Text)
///     .bucket_by(|user: &String, _| format!("user={user}"))
///     .rolling(RollingPolicy::on_checkpoint())
///     .part_suffix(".txt");
/// # let _ = (counts, by_user);
/// ```
pub struct FileSink<T, F: PartFormat<T>> {
    settings: Settings<T, F>,
    /// Never locked: with it a prototype may be shared, whatever its parts are made of.
    opened: Mutex<Option<Writer<T, F>>>,
}

/// What the author chose.
struct Settings<T, F> {
    uri: String,
    format: F,
    buckets: Buckets<T>,
    policy: RollingPolicy,
    affixes: Affixes,
    /// How long after its beginning a bucket gets its success file, in milliseconds.
    success_after: Option<i64>,
    success_name: String,
}

impl<T, F: Clone> Clone for Settings<T, F> {
    fn clone(&self) -> Self {
        Self {
            uri: self.uri.clone(),
            format: self.format.clone(),
            buckets: self.buckets.clone(),
            policy: self.policy,
            affixes: self.affixes.clone(),
            success_after: self.success_after,
            success_name: self.success_name.clone(),
        }
    }
}

impl<T, F: PartFormat<T>> Clone for FileSink<T, F> {
    /// The same sink, not yet opened.
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), opened: Mutex::default() }
    }
}

impl<T, F: PartFormat<T>> std::fmt::Debug for FileSink<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSink")
            .field("uri", &self.settings.uri)
            .field("policy", &self.settings.policy)
            .finish_non_exhaustive()
    }
}

impl<T, E: Encoder<T>> FileSink<T, Rows<E>> {
    /// Writes a line for each record below `uri`: a directory, `file:///directory` or `s3://bucket/prefix`.
    pub fn rows(uri: impl Into<String>, encoder: E) -> Self {
        Self::with(uri.into(), Rows(encoder), RollingPolicy::default())
    }
}

impl<T: 'static, B: BulkFormat<T>> FileSink<T, Bulk<B>> {
    /// Writes files of a bulk format below `uri`, which are rolled at each checkpoint, and at 128 MiB.
    pub fn bulk(uri: impl Into<String>, format: B) -> Self {
        Self::with(uri.into(), Bulk { format }, RollingPolicy::on_checkpoint())
    }
}

impl<T, F: PartFormat<T>> FileSink<T, F> {
    fn with(uri: String, format: F, policy: RollingPolicy) -> Self {
        let settings = Settings {
            uri,
            format,
            buckets: Buckets::ByClock(DatePattern::hours()),
            policy,
            affixes: Affixes::default(),
            success_after: None,
            success_name: "_SUCCESS".to_owned(),
        };
        Self { settings, opened: Mutex::default() }
    }

    /// When parts are rolled. A bulk format rolls at checkpoints whatever the policy says.
    #[must_use]
    pub fn rolling(mut self, policy: RollingPolicy) -> Self {
        self.settings.policy = if F::IS_BULK { policy.and_on_checkpoint() } else { policy };
        self
    }

    /// Without buckets: all files are in the directory itself.
    #[must_use]
    pub fn without_buckets(mut self) -> Self {
        self.settings.buckets = Buckets::None;
        self
    }

    /// A bucket for each time of the clock that this pattern tells apart; by default `yyyy-MM-dd--HH`, in UTC.
    #[must_use]
    pub fn bucket_by_time(mut self, pattern: DatePattern) -> Self {
        self.settings.buckets = Buckets::ByClock(pattern);
        self
    }

    /// The bucket that a function names, a relative path such as `dt=2024-01-05/hr=10`: Flink's `BucketAssigner`. It may look at the record, its
    /// timestamp, the watermark and the clock.
    #[must_use]
    pub fn bucket_by(
        mut self,
        bucket: impl Fn(&T, &BucketContext) -> String + Send + Sync + 'static,
    ) -> Self {
        self.settings.buckets = Buckets::By(std::sync::Arc::new(bucket));
        self
    }

    /// What names of files begin with, in place of `part`.
    #[must_use]
    pub fn part_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.affixes.prefix = prefix.into();
        self
    }

    /// What names of files end with, such as `.json`.
    #[must_use]
    pub fn part_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.settings.affixes.suffix = suffix.into();
        self
    }

    /// Writes an empty file `_SUCCESS` into a bucket when it is older than `delay`, none of its parts is in progress, and all of them are
    /// finished: at the first checkpoint behind that. Later records go to the bucket all the same, and it is marked again. Only one
    /// subtask can know that a bucket is complete, so the sink must have the parallelism 1.
    #[must_use]
    pub fn success_files(mut self, delay: Duration) -> Self {
        self.settings.success_after = Some(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        self
    }

    /// The name of success files, in place of `_SUCCESS`.
    #[must_use]
    pub fn success_name(mut self, name: impl Into<String>) -> Self {
        self.settings.success_name = name.into();
        self
    }

    fn check(&self, context: &SinkContext) -> Result<(), Failure> {
        let Settings { affixes, success_after, success_name, .. } = &self.settings;
        let is_name = |name: &str| {
            !name.contains(|letter: char| letter == '/' || letter == '\\' || letter.is_control())
        };
        let wrong = |what: &str| Err(Failure::user(what.to_owned()).permanent());
        if !is_name(&affixes.prefix) || !is_name(&affixes.suffix) || affixes.prefix.starts_with(['.', '_']) {
            return wrong(
                "the prefix and suffix of parts become parts of file names, which have no `/` and do not begin with `.` or `_`; change them",
            );
        }
        if success_name.is_empty() || !is_name(success_name) {
            return wrong("the name of success files must be a file name; change it");
        }
        if success_after.is_some() && context.parallelism > 1 {
            return wrong(
                "success files need a sink with one subtask, because no subtask knows whether the others are done with a bucket; set \
                 parallelism(1) on the sink, or leave success_files() out",
            );
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut Writer<T, F>, Failure> {
        let opened = self.opened.get_mut().unwrap_or_else(PoisonError::into_inner);
        opened.as_mut().ok_or_else(|| Failure::internal("the file sink was used before it was opened"))
    }
}

impl<T: Send + 'static, F: PartFormat<T>> Sink<T> for FileSink<T, F> {
    type Committable = FileCommittable;

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.check(context)?;
        self.opened = Mutex::new(Some(Writer::open(self.settings.clone(), context)?));
        Ok(())
    }

    fn recover(&mut self, prepared: &[FileCommittable]) -> Result<(), Failure> {
        self.writer()?.recover(prepared)
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.writer()?.write(batch)
    }

    fn write_watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.writer()?.watermark(timestamp);
        Ok(())
    }

    fn advance(&mut self) -> Result<UnderWay, Failure> {
        self.writer()?.advance()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.writer()?.finish()
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<FileCommittable>, Failure> {
        self.writer()?.prepare(checkpoint)
    }

    fn commit(&mut self, prepared: &[FileCommittable]) -> Result<(), Failure> {
        self.writer()?.commit(prepared)
    }
}
