//! `WatermarkStrategy`: how a stream gets its timestamps and watermarks. Flink's concept, with its names.

use std::time::Duration;

use thalweg_common::Timestamp;

use super::generators::{BoundedOutOfOrderness, IngestionTime, NoWatermarks};
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
        Self { generator: time.clone(), assigner: time, idleness: None }
    }
}

impl<G> WatermarkStrategy<G> {
    /// With a [`WatermarkGenerator`](super::WatermarkGenerator) of your own.
    #[must_use]
    pub fn for_generator(generator: G) -> Self {
        Self { generator, assigner: FromSource, idleness: None }
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
        WatermarkStrategy { generator: self.generator, assigner, idleness: self.idleness }
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
