//! Watermark generators: what decides, record by record and from time to time, which watermark a stream has.
//!
//! On a watermark's way this is its beginning. A generator sees the records of one origin: of a split of a source, or of all that comes
//! to a subtask. It is called inside a loop over a batch, so what it does for a record is all that is paid for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;

use super::strategy::TimestampAssigner;
use super::{MAX_WATERMARK, NO_WATERMARK};
use crate::batch::{Batch, NO_TIMESTAMP};
use crate::event::WatermarkStatus;
use crate::operator::OpenContext;

/// Decides on watermarks: Flink's `WatermarkGenerator`. The topology holds a prototype; each subtask, and each split of a source, has a
/// clone of it.
///
/// A *periodic* generator remembers something of each record and emits in [`on_periodic_emit`](Self::on_periodic_emit); a *punctuated*
/// one emits in [`on_event`](Self::on_event), where a record says that all before it is complete:
///
/// ```
/// use thalweg_common::Timestamp;
/// use thalweg_runtime::time::{WatermarkGenerator, WatermarkOutput};
///
/// #[derive(Clone)]
/// struct EndOfDay;
///
/// impl WatermarkGenerator<String> for EndOfDay {
///     fn on_event(&mut self, line: &String, timestamp: Timestamp, output: &mut WatermarkOutput) {
///         if line == "end of day" {
///             output.emit_watermark(timestamp);
///         }
///     }
///
///     fn on_periodic_emit(&mut self, _: &mut WatermarkOutput) {}
/// }
/// ```
pub trait WatermarkGenerator<T>: Clone + Send + Sync + 'static {
    /// Told once, before everything else, where it runs.
    fn open(&mut self, context: &OpenContext) {
        let _ = context;
    }

    /// A record has come. Its timestamp is in milliseconds since the epoch, or [`NO_TIMESTAMP`] if it has none. A watermark that is
    /// emitted here goes directly behind the record.
    fn on_event(&mut self, record: &T, timestamp: Timestamp, output: &mut WatermarkOutput);

    /// Called every `pipeline.auto-watermark-interval`, while the output has room, and when the origin becomes idle.
    fn on_periodic_emit(&mut self, output: &mut WatermarkOutput);

    /// What it does, for people who read the job's plan. Its type, unless it says something else.
    fn describe(&self) -> String {
        let name = std::any::type_name::<Self>();
        let generics = name.find('<').unwrap_or(name.len());
        let path = name[..generics].rfind("::").map_or(0, |end| end + 2);
        name[path..].to_owned()
    }
}

/// Takes what a generator has to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatermarkOutput {
    pub(super) watermark: Option<Timestamp>,
    pub(super) status: Option<WatermarkStatus>,
}

impl WatermarkOutput {
    /// No record with this timestamp or an earlier one comes any more. One that is not later than those before means nothing;
    /// [`MAX_WATERMARK`] is reserved for the end of the input and counts as one millisecond less. Who was idle is active again.
    pub fn emit_watermark(&mut self, timestamp: Timestamp) {
        let timestamp = timestamp.min(MAX_WATERMARK - 1);
        self.watermark = Some(self.watermark.map_or(timestamp, |before| before.max(timestamp)));
        self.status = Some(WatermarkStatus::Active);
    }

    /// There will be no watermarks for the time being: nobody is to wait for them.
    pub fn mark_idle(&mut self) {
        self.status = Some(WatermarkStatus::Idle);
    }

    /// There will be watermarks again.
    pub fn mark_active(&mut self) {
        self.status = Some(WatermarkStatus::Active);
    }

    /// Whether nothing was said.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.watermark.is_none() && self.status.is_none()
    }
}

/// Records are at most so much out of order: the watermark is the latest timestamp minus the delay, minus one millisecond. Flink's
/// `BoundedOutOfOrdernessWatermarks`, and without a delay `AscendingTimestampsWatermarks`.
#[derive(Debug, Clone)]
pub struct BoundedOutOfOrderness {
    latest: Timestamp,
    behind_ms: i64,
}

impl BoundedOutOfOrderness {
    /// With the longest time, in whole milliseconds, by which a record may come later than one that happened behind it.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self { latest: NO_TIMESTAMP, behind_ms: delay_ms.saturating_add(1) }
    }
}

impl<T> WatermarkGenerator<T> for BoundedOutOfOrderness {
    #[inline]
    fn on_event(&mut self, _: &T, timestamp: Timestamp, _: &mut WatermarkOutput) {
        self.latest = self.latest.max(timestamp);
    }

    fn on_periodic_emit(&mut self, output: &mut WatermarkOutput) {
        let watermark = self.latest.saturating_sub(self.behind_ms);
        if watermark > NO_WATERMARK {
            output.emit_watermark(watermark);
        }
    }

    fn describe(&self) -> String {
        match self.behind_ms {
            1 => "monotonous timestamps".to_owned(),
            behind_ms => {
                format!("out of order by {:?}", Duration::from_millis((behind_ms - 1).unsigned_abs()))
            }
        }
    }
}

/// Never a watermark: for jobs in processing time.
#[derive(Debug, Clone, Copy)]
pub struct NoWatermarks;

impl<T> WatermarkGenerator<T> for NoWatermarks {
    #[inline]
    fn on_event(&mut self, _: &T, _: Timestamp, _: &mut WatermarkOutput) {}

    fn on_periodic_emit(&mut self, _: &mut WatermarkOutput) {}

    fn describe(&self) -> String {
        "no watermarks".to_owned()
    }
}

/// Ingestion time: a record has happened when it comes here, and the watermark follows the clock. If the machine's clock is set back, time
/// stands still until it has caught up.
#[derive(Debug, Clone, Default)]
pub struct IngestionTime {
    clock: Option<SharedClock>,
    /// The latest time that was given to a record or to a watermark. Shared with all clones: records are never late.
    latest: Arc<AtomicI64>,
}

impl IngestionTime {
    /// The clock's time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&mut self, context: &OpenContext) {
        self.clock = Some(Arc::clone(&context.clock));
    }

    fn now(&self) -> Timestamp {
        let now = self.clock.as_ref().map_or(NO_TIMESTAMP, |clock| clock.now_ms());
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

impl<T> WatermarkGenerator<T> for IngestionTime {
    fn open(&mut self, context: &OpenContext) {
        self.open(context);
    }

    #[inline]
    fn on_event(&mut self, _: &T, _: Timestamp, _: &mut WatermarkOutput) {}

    fn on_periodic_emit(&mut self, output: &mut WatermarkOutput) {
        output.emit_watermark(self.now().saturating_sub(1));
    }

    fn describe(&self) -> String {
        "ingestion time".to_owned()
    }
}

impl<T> TimestampAssigner<T> for IngestionTime {
    fn open(&mut self, context: &OpenContext) {
        self.open(context);
    }

    fn assign(&mut self, batch: &mut Batch<T>) {
        let now = self.now();
        batch.set_timestamps(|_| now);
    }
}
