//! Event time: watermarks, and what makes, merges and carries them.
//!
//! A watermark of `t` says that no record with a timestamp of `t` or before comes any more on its way. A
//! [`WatermarkStrategy`] makes them (`strategy`), for each split of a source on its own (`origins`), where the source says which records are
//! from which split (`splits`). They flow among the records as [`Event`](crate::event::Event)s, are merged by every input gate (`merger`),
//! and handed from operator to operator by [`Link::watermark`](crate::link::Link::watermark).

pub(crate) mod alignment;
mod generators;
pub(crate) mod inquiry;
mod merger;
pub(crate) mod origins;
pub(crate) mod splits;
mod strategy;

use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::config::{Configuration, keys};

pub use alignment::{DEFAULT_UPDATE_INTERVAL, WatermarkAlignment};
pub use generators::{
    BoundedOutOfOrderness, IngestionTime, NoWatermarks, WatermarkGenerator, WatermarkOutput,
};
pub use merger::{Merged, WatermarkMerger};
pub use splits::SplitReport;
pub use strategy::{FromRecord, FromSource, TimestampAssigner, WatermarkStrategy};

/// The last watermark: nothing comes behind it. Sent at the end of a bounded input.
pub const MAX_WATERMARK: Timestamp = Timestamp::MAX;

/// Before the first watermark.
pub const NO_WATERMARK: Timestamp = Timestamp::MIN;

/// The settings of a job that are about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSettings {
    /// How often generators are asked for a watermark; never if it is zero.
    pub auto_watermark_interval: Duration,
    /// Whether a test moves the clock by hand. Then generators are asked whenever there is nothing more to read, a timer of the clock
    /// fires at its time and not behind its millisecond, and nothing has a thread of its own.
    pub(crate) is_by_hand: bool,
}

impl TimeSettings {
    /// As the job is configured.
    #[must_use]
    pub fn from_configuration(configuration: &Configuration) -> Self {
        let interval = configuration.duration(&keys::AUTO_WATERMARK_INTERVAL);
        let default = Self::default();
        Self { auto_watermark_interval: interval.unwrap_or(default.auto_watermark_interval), ..default }
    }
}

impl Default for TimeSettings {
    fn default() -> Self {
        Self { auto_watermark_interval: Duration::from_millis(200), is_by_hand: false }
    }
}
