//! The four kinds of metrics that user code may register, as in Flink: counter, gauge, meter, histogram.
//!
//! All are handles: clones show the same. A handle that no group has given counts for nobody, so that a function may be
//! declared with `Counter::default()` in its field and gets its real one in `open`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_proto::model::HistogramStatistics;

/// How many of the last values of a histogram are remembered.
const REMEMBERED_VALUES: usize = 128;

/// Counts up and down.
///
/// One thread adds: the one that calls the function. (As with Flink's `SimpleCounter`, what two threads add at the same time may be
/// counted once.)
#[derive(Debug, Clone, Default)]
pub struct Counter {
    count: Arc<AtomicI64>,
}

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `count`.
    #[inline]
    pub fn inc_by(&self, count: i64) {
        self.count.store(self.count().wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(&self) {
        self.inc_by(-1);
    }

    /// What has been counted since the task began.
    #[inline]
    pub fn count(&self) -> i64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Shows a present value. Where Flink asks a gauge for its value, here the function sets it.
#[derive(Debug, Clone, Default)]
pub struct Gauge {
    /// The bits of a number, so that it is written in one step. All zeros are 0.0.
    bits: Arc<AtomicU64>,
}

impl Gauge {
    /// Shows this value from now on. Whole numbers are exact up to 2^53.
    #[inline]
    pub fn set(&self, value: f64) {
        self.bits.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value that was set last; 0 before the first.
    #[inline]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.bits.load(Ordering::Relaxed))
    }
}

/// Marks events. What is shown is how many there are per second.
///
/// As of a [`Counter`], one thread marks.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    events: Arc<AtomicU64>,
}

impl Meter {
    /// An event has happened.
    #[inline]
    pub fn mark(&self) {
        self.mark_many(1);
    }

    /// So many events have happened.
    #[inline]
    pub fn mark_many(&self, events: u64) {
        self.events.store(self.count().wrapping_add(events), Ordering::Relaxed);
    }

    /// How many events there were since the task began.
    #[inline]
    pub fn count(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

/// Shows how the last values are distributed. It is shown by `thalweg describe` and not exported to CloudWatch, as in the managed
/// service for Apache Flink.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    values: Arc<Mutex<Values>>,
}

#[derive(Debug, Default)]
struct Values {
    count: u64,
    /// A ring: the oldest is replaced.
    last: Vec<f64>,
    next: usize,
}

impl Histogram {
    /// Adds a value. One that is no number is not counted.
    pub fn update(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let mut values = self.values();
        values.count += 1;
        if values.last.len() < REMEMBERED_VALUES {
            values.last.push(value);
        } else {
            let oldest = values.next;
            values.last[oldest] = value;
            values.next = (oldest + 1) % REMEMBERED_VALUES;
        }
    }

    /// How many values there were, and what the last of them (128) are like; all zeros before the first.
    pub fn statistics(&self) -> HistogramStatistics {
        let (count, mut last) = {
            let values = self.values();
            (values.count, values.last.clone())
        };
        last.sort_unstable_by(f64::total_cmp);
        let (Some(min), Some(max)) = (last.first(), last.last()) else {
            return HistogramStatistics::default();
        };
        // The nearest rank: the smallest value that so many of all do not exceed.
        let quantile = |percent: usize| last[(last.len() * percent).div_ceil(100) - 1];
        HistogramStatistics {
            count,
            min: *min,
            max: *max,
            mean: last.iter().sum::<f64>() / last.len() as f64,
            p50: quantile(50),
            p95: quantile(95),
            p99: quantile(99),
        }
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_show_the_same() {
        let (counter, gauge, meter) = (Counter::default(), Gauge::default(), Meter::default());
        counter.inc();
        counter.clone().inc_by(4);
        counter.dec();
        gauge.clone().set(-1.5);
        meter.mark();
        meter.clone().mark_many(2);
        assert_eq!((counter.count(), gauge.value(), meter.count()), (4, -1.5, 3));
    }

    #[test]
    fn a_histogram_knows_its_last_values() {
        let histogram = Histogram::default();
        assert_eq!(histogram.statistics(), HistogramStatistics::default());
        histogram.update(7.0);
        let one =
            HistogramStatistics { count: 1, min: 7.0, max: 7.0, mean: 7.0, p50: 7.0, p95: 7.0, p99: 7.0 };
        assert_eq!(histogram.statistics(), one);
        // 100 values behind others that are forgotten.
        for value in (0..28).map(|_| 1e9).chain((1..=100).map(f64::from)).chain((0..28).map(|_| 50.0)) {
            histogram.update(value);
        }
        histogram.update(f64::NAN);
        let statistics = histogram.statistics();
        assert_eq!((statistics.count, statistics.min, statistics.max), (157, 1.0, 100.0));
        assert_eq!((statistics.p50, statistics.p95, statistics.p99), (50.0, 94.0, 99.0));
    }
}
