//! What a tested operator has counted.

use thalweg_proto::model::{MetricValue, OperatorCounters, UserMetric};

use super::{EnumeratedHarness, OperatorHarness};

impl<In, Out> OperatorHarness<In, Out> {
    /// How many late records it has dropped since the last call.
    pub fn take_late_records(&mut self) -> u64 {
        let dropped = self.metrics.late_records_dropped();
        dropped - std::mem::replace(&mut self.late_records_taken, dropped)
    }

    /// The value of a metric that it has registered itself: of a counter, a gauge, the events of a meter, the values of a histogram.
    /// `identifier` has its groups and its name with dots between them, as in Flink. Nothing if there is no such metric.
    pub fn metric(&self, identifier: &str) -> Option<f64> {
        shown(self.user_metrics(), identifier)
    }

    /// What it has counted, as its worker would tell it. What came to it and what left it only its chain knows.
    pub fn counters(&self) -> OperatorCounters {
        self.metrics.read(0)
    }

    /// All metrics that it has registered itself.
    pub fn user_metrics(&self) -> Vec<UserMetric> {
        self.metrics.read_user()
    }
}

impl<Out> EnumeratedHarness<Out> {
    /// The value of a metric that a reader has registered, as [`OperatorHarness::metric`] gives it.
    pub fn metric_of(&self, reader: usize, identifier: &str) -> Option<f64> {
        shown(self.readers.get(reader)?.metrics.read_user(), identifier)
    }
}

fn shown(metrics: Vec<UserMetric>, identifier: &str) -> Option<f64> {
    let metric = metrics.into_iter().find(|metric| metric.to_string() == identifier)?;
    Some(match metric.value {
        MetricValue::Counter(count) => count as f64,
        MetricValue::Gauge(value) => value,
        MetricValue::Meter(events) => events as f64,
        MetricValue::Histogram(statistics) => statistics.count as f64,
    })
}
