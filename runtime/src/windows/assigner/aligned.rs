//! Windows that are aligned to the clock, the same for all keys: tumbling, sliding and cumulate.

use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::{InvalidWindows, WindowAssigner, WindowTime, milliseconds};
use crate::operator::{Key, KeyedProcess};
use crate::windows::aggregate::{Elements, WindowAggregate};
use crate::windows::late::Lateness;
use crate::windows::output::WindowOutput;
use crate::windows::sliced::SlicedWindows;
use crate::windows::slicing::Slicing;
use crate::windows::time_window::TimeWindow;

/// The type, its builder methods and its assigner, of windows that are aligned to the clock.
macro_rules! aligned {
    ($(#[$doc:meta])* $name:ident, $shown:literal, $period:literal $(, $($own:tt)+)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            size_ms: i64,
            period_ms: i64,
            offset_ms: i64,
            time: WindowTime,
        }

        impl $name {
            fn over(size: Duration, period: Duration) -> Self {
                let (size_ms, period_ms) = (milliseconds(size), milliseconds(period));
                Self { size_ms, period_ms, offset_ms: 0, time: WindowTime::Event }
            }

            /// Shifts all windows by this much, which is less than
            #[doc = $period]
            /// : with an offset of 15 minutes windows of an hour begin a quarter past. Without it they are aligned to the epoch, in UTC; days
            /// in a time zone that is 8 hours ahead have an offset of 16 hours.
            #[must_use]
            pub fn offset(mut self, offset: Duration) -> Self {
                self.offset_ms = milliseconds(offset);
                self
            }

            /// By the clock of the machine in place of the timestamps of the records. Then nothing is late, and nothing can be
            /// repeated exactly.
            #[must_use]
            pub fn processing_time(mut self) -> Self {
                self.time = WindowTime::Processing;
                self
            }
        }

        impl<In> WindowAssigner<In> for $name {
            fn assign(
                &self,
                _: &In,
                timestamp: Timestamp,
                windows: &mut Vec<TimeWindow>,
            ) -> Result<(), Failure> {
                let slicing = self.slicing();
                let span = slicing.span(timestamp);
                windows.extend(slicing.ends(&span).filter_map(|end| slicing.window_ending(end)));
                Ok(())
            }

            fn time(&self) -> WindowTime {
                self.time
            }

            fn check(&self) -> Result<(), InvalidWindows> {
                let Self { size_ms, period_ms, offset_ms, .. } = *self;
                if size_ms < 1 || period_ms < 1 {
                    return Err(InvalidWindows::new(format!(
                        "a window of {size_ms} ms every {period_ms} ms: both are to be 1 ms at least"
                    )));
                }
                if offset_ms >= period_ms {
                    return Err(InvalidWindows::new(format!(
                        "an offset of {offset_ms} ms of windows that begin every {period_ms} ms: it has to be less than that"
                    )));
                }
                if self.slicing().leaves_a_rest() {
                    return Err(InvalidWindows::new(format!(
                        "cumulate windows of {size_ms} ms in steps of {period_ms} ms: the size has to be a multiple of the step"
                    )));
                }
                Ok(())
            }

            fn name(&self) -> &'static str {
                $shown
            }

            fn describe(&self) -> String {
                let span = |ms: i64| Duration::from_millis(ms.unsigned_abs());
                let mut words = format!("{} of {:?}", $shown.to_lowercase(), span(self.size_ms));
                if self.period_ms != self.size_ms {
                    words.push_str(&format!(" every {:?}", span(self.period_ms)));
                }
                if self.offset_ms != 0 {
                    words.push_str(&format!(", offset by {:?}", span(self.offset_ms)));
                }
                words + self.time.suffix()
            }

            fn aggregated<K, A, O>(
                self,
                aggregate: A,
                output: O,
                lateness: Lateness<In>,
            ) -> impl KeyedProcess<K, In, Out = O::Out>
            where
                In: Record,
                K: Key,
                A: WindowAggregate<In>,
                O: WindowOutput<K, A::Out>,
            {
                SlicedWindows::new(self.slicing(), self.time, aggregate, output, lateness)
            }

            $($($own)+)?
        }
    };
}

aligned!(
    /// Windows of one size, one behind the other.
    TumblingWindows,
    "Tumbling Window",
    "the size",
    // A window is a single slice, whose elements are in the order in which they came.
    fn listed<K, O>(self, output: O, lateness: Lateness<In>) -> impl KeyedProcess<K, In, Out = O::Out>
    where
        In: Record,
        K: Key,
        O: WindowOutput<K, Vec<In>>,
    {
        WindowAssigner::<In>::aggregated(self, Elements, output, lateness)
    }
);
aligned!(
    /// Windows of one size that begin more often than they end: a record is in several.
    SlidingWindows,
    "Sliding Window",
    "the slide"
);
aligned!(
    /// Windows that begin together and end one step after the other: the running day, hour by hour.
    CumulateWindows,
    "Cumulate Window",
    "the step"
);

impl TumblingWindows {
    /// Windows of this size.
    pub fn of(size: Duration) -> Self {
        Self::over(size, size)
    }

    fn slicing(&self) -> Slicing {
        Slicing::hopping(self.size_ms, self.period_ms, self.offset_ms)
    }
}

impl SlidingWindows {
    /// Windows of this size, one every `slide`.
    pub fn of(size: Duration, slide: Duration) -> Self {
        Self::over(size, slide)
    }

    fn slicing(&self) -> Slicing {
        Slicing::hopping(self.size_ms, self.period_ms, self.offset_ms)
    }
}

impl CumulateWindows {
    /// Windows that grow by `step` until they have this size.
    pub fn of(size: Duration, step: Duration) -> Self {
        Self::over(size, step)
    }

    fn slicing(&self) -> Slicing {
        Slicing::cumulating(self.size_ms, self.period_ms, self.offset_ms)
    }
}
