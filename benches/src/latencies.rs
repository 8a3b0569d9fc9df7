//! Histograms of latencies, filled by a sink in a worker and read by the program that measures.
//!
//! Stands at the end of a record's way: [`LatencySink`] takes the time between an event's due time and its arrival, when
//! the first part of the run is over. Invariant: a histogram's file is complete as soon as it is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use thalweg::batch::Batch;
use thalweg::operator::{OrFailure, Sink, SinkContext};
use thalweg::prelude::Failure;

use crate::monotonic::now_ns;
use crate::schedule::Event;
use crate::submitted::refuse_restart;

/// Is made when the warm-up is over.
pub const WARM: &str = "warm";
/// Holds the histogram, when the measured time is over.
pub const HISTOGRAM: &str = "histogram";

/// Longer latencies count as this one.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Of every value; that is a precision of a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS)?))
    }

    /// Adds one.
    pub fn record_ns(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns);
    }

    /// Adds many. Neighbours that the histogram does not tell apart are added together, which costs less.
    pub fn record_all_ns(&mut self, latencies_ns: impl Iterator<Item = u64>) {
        let (mut run, mut count) = (0..=0, 0);
        for latency_ns in latencies_ns {
            if !run.contains(&latency_ns) {
                self.0.saturating_record_n(*run.start(), count);
                run = self.0.lowest_equivalent(latency_ns)..=self.0.highest_equivalent(latency_ns);
                count = 0;
            }
            count += 1;
        }
        self.0.saturating_record_n(*run.start(), count);
    }

    /// Adds all of another histogram.
    ///
    /// # Errors
    /// When it does not fit, which it does if this module made both.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in milliseconds that this share of all events kept to.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e6
    }

    /// A line for every value that occurred: the value and how often.
    pub fn to_text(&self) -> String {
        let lines = self.0.iter_recorded();
        lines.map(|line| format!("{} {}\n", line.value_iterated_to(), line.count_at_value())).collect()
    }

    /// The histogram of which [`Latencies::to_text`] made this text.
    ///
    /// # Errors
    /// When it made something else.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut latencies = Self::new()?;
        for line in text.lines() {
            let (value, count) =
                line.split_once(' ').with_context(|| format!("`{line}` needs a value and a count"))?;
            latencies.0.record_n(value.parse()?, count.parse()?)?;
        }
        Ok(latencies)
    }

    /// Reads a histogram that a sink has written, if it is there yet.
    ///
    /// # Errors
    /// When it cannot be read although it is there.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(HISTOGRAM);
        match fs::read_to_string(&path) {
            Ok(text) => Self::from_text(&text)
                .map(Some)
                .with_context(|| format!("{} is no histogram", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Takes the latencies of events and writes their histogram into a file.
#[derive(Debug, Clone)]
pub struct LatencySink {
    folder: PathBuf,
    warm_up: Duration,
    measured: Duration,
    phase: Phase,
}

#[derive(Debug, Clone)]
enum Phase {
    /// No event has come.
    New,
    /// Events that were due before this time do not count.
    Warming { until_ns: u64 },
    /// Those that were due before this time do.
    Measuring { until_ns: u64, latencies: Box<Latencies> },
    /// The histogram is written.
    Over,
}

impl LatencySink {
    /// Counts the events that are due in the time `measured` that follows `warm_up` after the first event, and writes
    /// [`WARM`] and [`HISTOGRAM`] into `folder`.
    pub fn new(folder: impl Into<PathBuf>, warm_up: Duration, measured: Duration) -> Self {
        Self { folder: folder.into(), warm_up, measured, phase: Phase::New }
    }

    /// Takes events in the order in which they were due.
    fn take(&mut self, mut events: &[Event], now_ns: u64) -> Result<()> {
        while let Some(first) = events.first() {
            events = match &mut self.phase {
                Phase::New => {
                    self.phase = Phase::Warming { until_ns: first.due_ns + self.warm_up.as_nanos() as u64 };
                    events
                }
                Phase::Warming { until_ns } => {
                    let (_, later) = due_before(events, *until_ns);
                    if !later.is_empty() {
                        let until_ns = *until_ns + self.measured.as_nanos() as u64;
                        self.put(WARM, "")?;
                        self.phase = Phase::Measuring { until_ns, latencies: Box::new(Latencies::new()?) };
                    }
                    later
                }
                Phase::Measuring { until_ns, latencies } => {
                    let (measured, later) = due_before(events, *until_ns);
                    latencies.record_all_ns(measured.iter().map(|event| now_ns.saturating_sub(event.due_ns)));
                    if !later.is_empty() {
                        let text = latencies.to_text();
                        self.phase = Phase::Over;
                        self.put(HISTOGRAM, &text)?;
                    }
                    later
                }
                Phase::Over => &[],
            };
        }
        Ok(())
    }

    /// A file that is there is complete.
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let (part, path) = (self.folder.join(format!("{name}.part")), self.folder.join(name));
        fs::write(&part, text).with_context(|| format!("cannot write {}", part.display()))?;
        fs::rename(&part, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The events that were due before a time, and the others. One source makes them in this order.
fn due_before(events: &[Event], ns: u64) -> (&[Event], &[Event]) {
    events.split_at(events.partition_point(|event| event.due_ns < ns))
}

impl Sink<Event> for LatencySink {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        refuse_restart(context)
    }

    fn write(&mut self, batch: &mut Batch<Event>) -> Result<(), Failure> {
        let now = now_ns();
        self.take(batch.records(), now).or_failure("cannot report latencies")?;
        batch.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        values.into_iter().for_each(|value| latencies.record_ns(value));
        latencies
    }

    #[test]
    fn a_histogram_survives_its_text() {
        let table = [
            vec![],
            vec![1],
            vec![0, 1, 2, 1_000_000],
            vec![LONGEST_NS, LONGEST_NS * 2],
            (0..10_000).map(|number| number * number).collect(),
        ];
        for values in table {
            let latencies = of(values.clone());
            assert_eq!(Latencies::from_text(&latencies.to_text()).unwrap(), latencies, "{values:?}");
        }
        for rubbish in ["x", "1", "1 x", "-1 2"] {
            assert!(Latencies::from_text(rubbish).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn many_are_recorded_as_one_by_one() {
        let table: [Vec<u64>; 4] = [
            vec![],
            vec![0, 0, 1, 0],
            (0..9_000).rev().map(|n| n * 42).collect(),
            vec![LONGEST_NS * 2, 5, 5_000_000, 5_000_001],
        ];
        for values in table {
            let mut latencies = Latencies::new().unwrap();
            latencies.record_all_ns(values.iter().copied());
            assert_eq!(latencies, of(values));
        }
    }

    #[test]
    fn merged_ones_are_as_if_recorded_together() {
        let mut merged = of(0..1_000);
        merged.merge(&of(1_000..5_000)).unwrap();
        assert_eq!(merged, of(0..5_000));
        assert_eq!(merged.count(), 5_000);
    }

    #[test]
    fn quantiles_are_in_milliseconds() {
        let latencies = of((1..=1_000).map(|number| number * 1_000_000));
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = latencies.quantile_ms(quantile);
            assert!((found / expected - 1.0).abs() < 0.002, "{quantile}: {found}");
        }
    }

    #[test]
    fn only_the_measured_time_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (warm_up, measured) = (Duration::from_nanos(100), Duration::from_nanos(50));
        let mut sink = LatencySink::new(folder.path(), warm_up, measured);
        let warm = || folder.path().join(WARM).exists();
        let mut take = |due_ns, now_ns| sink.take(&[Event { key: 0, due_ns }], now_ns).unwrap();
        take(1_000, 9_000);
        take(1_099, 9_000);
        assert!(!warm());
        take(1_100, 1_107);
        assert!(warm());
        take(1_149, 1_159);
        assert_eq!(Latencies::read(folder.path()).unwrap(), None);
        take(1_150, 9_000);
        take(1_151, 9_000);
        assert_eq!(Latencies::read(folder.path()).unwrap(), Some(of([7, 10])));
    }
}
