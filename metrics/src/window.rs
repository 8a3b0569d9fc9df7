//! Rates over the last minute, as Flink's `MeterView`: the difference of two totals that lie about a minute apart.
//!
//! Fed with every report of a task; of these one in five seconds is kept, so that a window costs the same however often reports come.
//! The task's own clock measures: its busy, idle and back-pressured time add up to the time that it has run.

use std::collections::VecDeque;

use thalweg_proto::model::{MetricValue, OperatorCounters, TaskCounters};

/// The time over which rates are averaged.
const WINDOW_NS: u64 = 60_000_000_000;

/// The least time between two totals that are kept.
const SPACING_NS: u64 = 5_000_000_000;

/// Rates of a task and of its operators, per second, over the last minute or what there was of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MinuteRates {
    /// Records that the task has received.
    pub records_in: f64,
    /// Records that it has emitted.
    pub records_out: f64,
    /// The same of each operator, in the order of the chain.
    pub operators: Vec<OperatorRates>,
}

/// Rates of one operator.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperatorRates {
    /// Records received.
    pub records_in: f64,
    /// Records emitted.
    pub records_out: f64,
    /// Events of each of the user's metrics: a rate where it is a meter.
    pub meters: Vec<Option<f64>>,
}

/// The totals of one execution of a task over the last minute.
#[derive(Debug, Clone, Default)]
pub struct RateWindow {
    /// The newest last; all others at least [`SPACING_NS`] apart.
    totals: VecDeque<Totals>,
}

/// What rates are made of, at one moment of the task's time.
#[derive(Debug, Clone, Default)]
struct Totals {
    time_ns: u64,
    counts: Vec<u64>,
}

impl RateWindow {
    /// Takes a report of the task. One of an execution that began later starts the window anew.
    pub fn add(&mut self, counters: &TaskCounters) {
        let totals = Totals { time_ns: time_ns(counters), counts: counts(counters).collect() };
        let is_other =
            |last: &Totals| totals.time_ns < last.time_ns || totals.counts.len() != last.counts.len();
        if self.totals.back().is_some_and(is_other) {
            self.totals.clear();
        }
        if self.totals.is_empty() {
            // The execution began with nothing.
            self.totals.push_back(Totals { time_ns: 0, counts: vec![0; totals.counts.len()] });
        }
        let before_last = self.totals.len().checked_sub(2).and_then(|index| self.totals.get(index));
        let is_near = |(before, last): (&Totals, &Totals)| last.time_ns < before.time_ns + SPACING_NS;
        if before_last.zip(self.totals.back()).is_some_and(is_near) {
            self.totals.pop_back();
        }
        let from_ns = totals.time_ns.saturating_sub(WINDOW_NS);
        self.totals.push_back(totals);
        // The first one lies at the beginning of the window, or in front of it.
        while self.totals.get(1).is_some_and(|second| second.time_ns <= from_ns) {
            self.totals.pop_front();
        }
    }

    /// The rates of the task whose last report this is.
    #[must_use]
    pub fn rates(&self, counters: &TaskCounters) -> MinuteRates {
        let (Some(first), Some(last)) = (self.totals.front(), self.totals.back()) else {
            return MinuteRates::default();
        };
        let seconds = (last.time_ns - first.time_ns) as f64 / 1e9;
        let rate = |(from, to): (&u64, &u64)| {
            if seconds > 0.0 { to.saturating_sub(*from) as f64 / seconds } else { 0.0 }
        };
        let mut rates = first.counts.iter().zip(&last.counts).map(rate);
        let mut next = || rates.next().unwrap_or(0.0);
        let (records_in, records_out) = (next(), next());
        let operators = counters.operators.iter().map(|operator| OperatorRates {
            records_in: next(),
            records_out: next(),
            meters: operator.metrics.iter().map(|metric| events(&metric.value).map(|_| next())).collect(),
        });
        let operators = operators.collect();
        MinuteRates { records_in, records_out, operators }
    }
}

/// Everything that has a rate, in the order in which rates are read.
fn counts(counters: &TaskCounters) -> impl Iterator<Item = u64> {
    let of_operator = |operator: &OperatorCounters| {
        let meters: Vec<u64> = operator.metrics.iter().filter_map(|metric| events(&metric.value)).collect();
        [operator.records_in, operator.records_out].into_iter().chain(meters)
    };
    [counters.records_in, counters.records_out]
        .into_iter()
        .chain(counters.operators.iter().flat_map(of_operator))
}

fn events(value: &MetricValue) -> Option<u64> {
    match value {
        MetricValue::Meter(events) => Some(*events),
        _ => None,
    }
}

/// How long the task had run.
fn time_ns(counters: &TaskCounters) -> u64 {
    counters.busy_ns.saturating_add(counters.idle_ns).saturating_add(counters.back_pressured_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sight::fixtures::{counters, meter};

    /// A task that has run so long and received so many records.
    fn report(seconds: u64, records: u64) -> TaskCounters {
        TaskCounters { records_in: records, busy_ns: seconds * 1_000_000_000, ..counters() }
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let mut window = RateWindow::default();
        // 100 records a second for two minutes, then none.
        for second in 1..=300 {
            let last = report(second, second.min(120) * 100);
            window.add(&last);
            assert!(window.totals.len() <= 15, "{}", window.totals.len());
            let expected = match second {
                0..=120 => 100.0,
                121..=180 => (180 - second) as f64 / 60.0 * 100.0,
                _ => 0.0,
            };
            let found = window.rates(&last).records_in;
            // The window is a multiple of five seconds.
            assert!((found - expected).abs() <= 9.0, "{found} instead of {expected} after {second} s");
        }
    }

    #[test]
    fn reports_may_come_seldom_and_repeat() {
        let mut window = RateWindow::default();
        for (second, records) in [(10, 10), (10, 10), (200, 1_910), (200, 1_910)] {
            window.add(&report(second, records));
        }
        assert_eq!(window.rates(&report(200, 1_910)).records_in, 10.0);
    }

    #[test]
    fn another_execution_begins_anew() {
        let mut window = RateWindow::default();
        window.add(&report(100, 1_000_000));
        window.add(&report(2, 10));
        assert_eq!(window.rates(&report(2, 10)).records_in, 5.0);
        assert_eq!(RateWindow::default().rates(&counters()), MinuteRates::default());
    }

    #[test]
    fn operators_and_meters_have_rates() {
        let mut last = report(2, 10);
        let operator = OperatorCounters { records_in: 10, records_out: 30, ..OperatorCounters::default() };
        last.operators = vec![
            OperatorCounters { metrics: vec![meter(8)], ..operator.clone() },
            OperatorCounters { records_out: 0, ..operator },
        ];
        let mut window = RateWindow::default();
        window.add(&last);
        let rates = window.rates(&last).operators;
        assert_eq!((rates[0].records_in, rates[0].records_out), (5.0, 15.0));
        assert_eq!((rates[0].meters.as_slice(), rates[1].records_out), (&[Some(4.0)][..], 0.0));
    }
}
