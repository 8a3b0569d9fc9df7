//! Event time in a topology: `DataStream::watermarks`, and the usual strategies by short names.

use std::time::Duration;

use thalweg_common::limits::{MAX_OPERATOR_NAME_BYTES, MIN_ALIGNMENT_INTERVAL_MS};
use thalweg_common::record::Record;
use thalweg_runtime::operators;
use thalweg_runtime::time::{
    BoundedOutOfOrderness, IngestionTime, NoWatermarks, TimestampAssigner, WatermarkAlignment,
    WatermarkGenerator, WatermarkStrategy,
};

use crate::error::Error;
use crate::graph::{NodeSpec, Place, WATERMARKS};
use crate::stream::{DataStream, unkeyed};

impl<T: Record> DataStream<T> {
    /// Gives the records their timestamps, and the stream its watermarks: Flink's `assignTimestampsAndWatermarks`.
    ///
    /// A watermark of `t` says that nothing with a timestamp of `t` or before comes any more. It flows among the records, and everything
    /// in event time (timers, windows) goes by it. Behind operators with several inputs it is the least of theirs; inputs that are
    /// idle do not count, and when all are, it is the latest of theirs. At the end of a bounded input the last watermark says that
    /// everything is complete.
    ///
    /// Best directly behind a source: there each split has its own watermark, where the source tells its splits apart, so that one
    /// which is ahead makes no record of another one late; and only there sources can be
    /// [aligned](WatermarkStrategy::with_watermark_alignment), so that none of them runs ahead of the others.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// #[derive(Record, Clone)]
    /// struct Trade {
    ///     ticker: String,
    ///     event_time: i64,
    /// }
    ///
    /// # fn topology(env: &Environment, trades: DataStream<Trade>) {
    /// let strategy = bounded_out_of_orderness(secs(5))
    ///     .timestamps(|trade: &Trade| trade.event_time)
    ///     .with_idleness(secs(15));
    /// let trades = trades.watermarks(strategy);
    /// # trades.map(|trade| trade.ticker).print();
    /// # }
    /// ```
    #[track_caller]
    pub fn watermarks<G, A>(&self, strategy: WatermarkStrategy<G, A>) -> Self
    where
        G: WatermarkGenerator<T>,
        A: TimestampAssigner<T>,
    {
        if strategy.idleness().is_some_and(|timeout| timeout.is_zero()) {
            let message = "with_idleness() needs a time above zero: after so long without a record nobody waits for a watermark";
            self.environment().fail(Place::caller(), Error::new(message));
        }
        if let Some(WatermarkAlignment { group, update_interval, .. }) = strategy.alignment()
            && (group.is_empty()
                || group.len() > MAX_OPERATOR_NAME_BYTES
                || *update_interval < Duration::from_millis(MIN_ALIGNMENT_INTERVAL_MS))
        {
            let message = format!(
                "with_watermark_alignment() needs the name of a group (at most {MAX_OPERATOR_NAME_BYTES} bytes), and an update interval of \
                 at least {MIN_ALIGNMENT_INTERVAL_MS} ms"
            );
            self.environment().fail(Place::caller(), Error::new(message));
        }
        let mut spec = NodeSpec::new(WATERMARKS, "Timestamps/Watermarks", Place::caller());
        spec.time = Some(strategy.describe::<T>());
        self.attach(spec, operators::watermarks(strategy), || Box::new(unkeyed::<T>))
    }
}

/// Watermarks for records that are out of order by `delay` at most:
/// [`WatermarkStrategy::for_bounded_out_of_orderness`].
pub fn bounded_out_of_orderness(delay: Duration) -> WatermarkStrategy<BoundedOutOfOrderness> {
    WatermarkStrategy::for_bounded_out_of_orderness(delay)
}

/// Watermarks for timestamps that never fall: [`WatermarkStrategy::for_monotonous_timestamps`].
pub fn monotonous_timestamps() -> WatermarkStrategy<BoundedOutOfOrderness> {
    WatermarkStrategy::for_monotonous_timestamps()
}

/// Without watermarks: [`WatermarkStrategy::no_watermarks`].
pub fn no_watermarks() -> WatermarkStrategy<NoWatermarks> {
    WatermarkStrategy::no_watermarks()
}

/// Timestamps and watermarks by the machine's clock: [`WatermarkStrategy::for_ingestion_time`].
pub fn ingestion_time() -> WatermarkStrategy<IngestionTime, IngestionTime> {
    WatermarkStrategy::for_ingestion_time()
}
