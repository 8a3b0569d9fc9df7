//! `WatermarkStrategy`: how a stream gets its timestamps and watermarks. Flink's concept, with its names.

use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::graph::TimeDescriptor;

use super::alignment::{DEFAULT_UPDATE_INTERVAL, WatermarkAlignment};
use super::generators::{BoundedOutOfOrderness, IngestionTime, NoWatermarks, WatermarkGenerator};
use crate::batch::Batch;
use crate::operator::OpenContext;

/// How a stream gets its timestamps (an assigner) and its watermarks (a generator), and when it counts as idle.
///
/// Directly behind a source, in the same chain, watermarks are made for each of its splits on its own, where its reader
/// [tells](crate::split::SourceReader::TELLS_SPLITS) which records are from which split; elsewhere for each subtask.
///
/// ```
/// use std::time::Duration;
/// use thalweg_runtime::time::WatermarkStrategy;
///
/// struct Trade {
///     event_time: i64,
/// }
///
/// let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(5))
///     .timestamps(|trade: &Trade| trade.event_time)
///     .with_idleness(Duration::from_secs(15));
/// # let _ = strategy;
/// ```
#[derive(Debug, Clone)]
pub struct WatermarkStrategy<G, A = FromSource> {
    pub(crate) generator: G,
    pub(crate) assigner: A,
    pub(crate) idleness: Option<Duration>,
    pub(crate) alignment: Option<WatermarkAlignment>,
}

impl WatermarkStrategy<BoundedOutOfOrderness> {
    /// For timestamps that never fall: in each split of a source, or in each subtask. The watermark is the latest one minus one
    /// millisecond, because others may have the same.
    #[must_use]
    pub fn for_monotonous_timestamps() -> Self {
        Self::for_bounded_out_of_orderness(Duration::ZERO)
    }

    /// For records that are out of order by `delay` at most. The watermark is the latest timestamp minus the delay, minus one
    /// millisecond.
    #[must_use]
    pub fn for_bounded_out_of_orderness(delay: Duration) -> Self {
        Self::for_generator(BoundedOutOfOrderness::new(delay))
    }
}

impl WatermarkStrategy<NoWatermarks> {
    /// Without watermarks: for jobs in processing time. Watermarks from before it end here, but for the last one.
    #[must_use]
    pub fn no_watermarks() -> Self {
        Self::for_generator(NoWatermarks)
    }
}

impl WatermarkStrategy<IngestionTime, IngestionTime> {
    /// A record's timestamp is the time of the machine's clock when it comes here; no record is ever late.
    #[must_use]
    pub fn for_ingestion_time() -> Self {
        let time = IngestionTime::new();
        Self { generator: time.clone(), assigner: time, idleness: None, alignment: None }
    }
}

impl<G> WatermarkStrategy<G> {
    /// With a [`WatermarkGenerator`](super::WatermarkGenerator) of your own.
    #[must_use]
    pub fn for_generator(generator: G) -> Self {
        Self { generator, assigner: FromSource, idleness: None, alignment: None }
    }
}

impl<G, A> WatermarkStrategy<G, A> {
    /// Takes the timestamps, in milliseconds since the epoch, from the records. Without it they are those that the source has given.
    #[must_use]
    pub fn timestamps<T, F>(self, timestamp: F) -> WatermarkStrategy<G, FromRecord<F>>
    where
        F: Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
    {
        self.with_timestamp_assigner(FromRecord(timestamp))
    }

    /// Gives timestamps by an assigner of your own, a batch at a time.
    #[must_use]
    pub fn with_timestamp_assigner<B>(self, assigner: B) -> WatermarkStrategy<G, B> {
        let Self { generator, idleness, alignment, .. } = self;
        WatermarkStrategy { generator, assigner, idleness, alignment }
    }

    /// Counts a split, or a subtask, as idle from which no record has come for so long, so that nobody waits for its watermark: by the
    /// clock, from the start of the task on, and without the time in which the task could not go on because its output was full. The
    /// next record makes it active at once. The time must be above zero.
    #[must_use]
    pub fn with_idleness(mut self, timeout: Duration) -> Self {
        self.idleness = Some(timeout);
        self
    }

    /// The time that was set by [`with_idleness`](Self::with_idleness).
    #[must_use]
    pub fn idleness(&self) -> Option<Duration> {
        self.idleness
    }

    /// Aligns the source with all others of the job that name the same group: none reads further ahead than `max_drift` of the one that is
    /// furthest behind, so that what waits for the slow one (windows, joins) need not keep all that the fast one has read. Flink's
    /// `withWatermarkAlignment`, with its rules:
    ///
    /// - Every `update_interval`, one second unless it is said, each subtask tells its watermark, and learns the least one of the group. If its
    ///   own is more than `max_drift` later it reads nothing until the others have come closer. The watermark is looked at as often as it is
    ///   emitted and told, so a source may be ahead by what it reads in these intervals, too.
    /// - Where a reader [can pause single splits](crate::split::SourceReader::PAUSES_SPLITS), the splits that are too far ahead wait each
    ///   on its own; elsewhere all of a subtask wait, when the one that is furthest behind is too far ahead.
    /// - Who is idle or at its end is not waited for. One that has no watermark yet is, so sources that may have no records at all need
    ///   [`with_idleness`](Self::with_idleness). Who waits here does not become idle by waiting.
    /// - A source that waits takes part in checkpoints, savepoints and the end of the job as ever, and counts as idle in the task's metrics.
    ///
    /// The leading job manager knows the least watermark of a group. While there is no leader sources go by what they heard last, for a few
    /// seconds (or three intervals); then they read on without being aligned until one answers.
    ///
    /// The strategy must stand directly behind a source, in the same chain.
    ///
    /// ```
    /// use std::time::Duration;
    /// use thalweg_runtime::time::WatermarkStrategy;
    ///
    /// let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(5))
    ///     .with_idleness(Duration::from_secs(60))
    ///     .with_watermark_alignment("orders and payments", Duration::from_secs(20), None);
    /// # let _ = strategy;
    /// ```
    #[must_use]
    pub fn with_watermark_alignment(
        mut self,
        group: impl Into<String>,
        max_drift: Duration,
        update_interval: impl Into<Option<Duration>>,
    ) -> Self {
        let update_interval = update_interval.into().unwrap_or(DEFAULT_UPDATE_INTERVAL);
        self.alignment = Some(WatermarkAlignment { group: group.into(), max_drift, update_interval });
        self
    }

    /// What the plan tells of it.
    #[must_use]
    pub fn describe<T>(&self) -> TimeDescriptor
    where
        G: WatermarkGenerator<T>,
    {
        TimeDescriptor {
            words: self.generator.describe(),
            idleness_ms: self.idleness.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            alignment: self.alignment.as_ref().map(WatermarkAlignment::describe),
        }
    }

    /// What was set by [`with_watermark_alignment`](Self::with_watermark_alignment).
    #[must_use]
    pub fn alignment(&self) -> Option<&WatermarkAlignment> {
        self.alignment.as_ref()
    }
}

/// Gives records their timestamps: Flink's `TimestampAssigner`, for a batch at a time. The topology holds a prototype, each subtask
/// has a clone.
pub trait TimestampAssigner<T>: Clone + Send + Sync + 'static {
    /// Told once, before everything else, where it runs.
    fn open(&mut self, context: &OpenContext) {
        let _ = context;
    }

    /// Sets the timestamps of a batch, for example by [`Batch::set_timestamps`].
    fn assign(&mut self, batch: &mut Batch<T>);
}

/// The timestamps that the source has given, or the operators before.
#[derive(Debug, Clone, Copy)]
pub struct FromSource;

impl<T> TimestampAssigner<T> for FromSource {
    fn assign(&mut self, _: &mut Batch<T>) {}
}

/// Timestamps by a function of the record.
#[derive(Debug, Clone, Copy)]
pub struct FromRecord<F>(F);

impl<T, F> TimestampAssigner<T> for FromRecord<F>
where
    F: Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
{
    fn assign(&mut self, batch: &mut Batch<T>) {
        batch.set_timestamps(&self.0);
    }
}
