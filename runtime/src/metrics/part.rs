//! Gauges of what comes and goes: shown for as long as they live.

use super::kinds::Gauge;
use super::operator::OperatorMetrics;

/// A gauge of a part of a connector's input, such as a shard: it is shown until it is dropped. As a [`Gauge`], but not one of the operator's
/// bounded number of metrics: there are as many as a subtask has parts. The default is one that nobody sees.
#[derive(Debug, Default)]
pub struct PartGauge {
    gauge: Gauge,
    /// Where it is shown, and under which number.
    shown: Option<(OperatorMetrics, u64)>,
}

impl PartGauge {
    pub(super) fn new(gauge: Gauge, metrics: OperatorMetrics, number: u64) -> Self {
        Self { gauge, shown: Some((metrics, number)) }
    }

    /// Shows this value from now on.
    pub fn set(&self, value: f64) {
        self.gauge.set(value);
    }
}

impl Drop for PartGauge {
    fn drop(&mut self) {
        if let Some((metrics, number)) = self.shown.take() {
            metrics.forget_part(number);
        }
    }
}
