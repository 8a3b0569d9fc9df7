//! What windows that overlap cost beside those that do not: a sliding window of 60 seconds every second beside a tumbling one of 60 seconds,
//! over the same records.
//!
//! A record is added up once whatever the windows are; what a sliding window has in addition are its results, sixty for each of the tumbling
//! one. So the figures are for keys that have many records in a second, and beside them for keys that have few.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use thalweg::Environment;
use thalweg::aggregates::Count;
use thalweg::prelude::*;
use thalweg_benches::contest::{measured, run_job};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::tally::{Digest, Tallies, Tally};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "windows";

const UNIT: &str = "ns/event";

const SIZE: Duration = Duration::from_secs(60);
const SLIDE: Duration = Duration::from_secs(1);

/// A record is in so many sliding windows.
const OVERLAP: u64 = SIZE.as_secs() / SLIDE.as_secs();

/// So many events happen in a millisecond.
const EVENTS_PER_MS: u64 = 100;

/// There is a checkpoint this often.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Measures CPU nanoseconds per event of sliding windows, beside tumbling ones.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each case is run; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How many events each run reads: 100 in a millisecond of event time.
    #[arg(long, default_value_t = 60_000_000)]
    events: u64,
    /// The cases, with commas between them.
    #[arg(long, value_delimiter = ',', default_values = CASES.map(|case| case.name))]
    cases: Vec<String>,
}

/// What is aggregated, over how many keys.
struct Case {
    name: &'static str,
    work: Work,
    keys: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Slices that leave a window are subtracted.
    Count,
    /// Nothing can be subtracted.
    Highest,
}

const CASES: [Case; 3] = [
    Case { name: "sliding_60s_1s", work: Work::Count, keys: 1_000 },
    Case { name: "sliding_60s_1s_highest", work: Work::Highest, keys: 1_000 },
    Case { name: "sliding_60s_1s_sparse_keys", work: Work::Count, keys: 10_000 },
];

/// A result: a number that is the same for all results of a case, whichever windows they are of, times what is in the window.
#[derive(Record, Clone, Copy, Debug)]
struct Shown {
    key: u64,
    value: u64,
}

impl Digest for Shown {
    #[inline]
    fn digest(&self) -> u64 {
        splitmix(self.key).wrapping_mul(self.value)
    }
}

/// An event: its key and its time.
#[derive(Record, Clone, Copy, Debug)]
struct Event {
    key: u64,
    value: u64,
    at_ms: i64,
}

impl Event {
    #[inline]
    fn new(number: u64, keys: u64) -> Self {
        let bits = splitmix(number);
        let key = ((u128::from(bits) * u128::from(keys)) >> 64) as u64;
        Self { key, value: bits & 0xff, at_ms: (number / EVENTS_PER_MS) as i64 }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.events > 0, "there is nothing to measure without events; give --events a number above 0");
    for name in &options.cases {
        let known = || CASES.map(|case| case.name).join(", ");
        let case = CASES.iter().find(|case| case.name == name);
        case.with_context(|| format!("there is no case `{name}`; there are {}", known()))?.run(&options)?;
    }
    Ok(())
}

impl Case {
    fn run(&self, options: &Options) -> Result<()> {
        let (mut tumbling_costs, mut sliding_costs) = (Vec::new(), Vec::new());
        for _ in 0..options.runs.max(1) {
            let (apart, cost) = measured(|| self.job(options.events, SIZE))?;
            tumbling_costs.push(cost.cpu_seconds * 1e9 / options.events as f64);
            let (overlapping, cost) = measured(|| self.job(options.events, SLIDE))?;
            sliding_costs.push(cost.cpu_seconds * 1e9 / options.events as f64);
            self.check(apart, overlapping)?;
        }
        let baseline = Measurement::median(BENCH, "", UNIT, &tumbling_costs).value;
        Measurement::median(BENCH, self.name, UNIT, &sliding_costs).against(baseline).print(options.json)
    }

    /// Windows of 60 seconds every `slide`.
    fn job(&self, events: u64, slide: Duration) -> Result<Tally> {
        let keys = self.keys;
        let work = self.work;
        let topology = move |env: &Environment| {
            let tallies = Tallies::default();
            let events =
                env.generate(None, Some(events), move |number| Event::new(number, keys)).uid("events");
            let timed = events.watermarks(monotonous_timestamps().timestamps(|event: &Event| event.at_ms));
            let windows = timed.key_by(|event| event.key).window(sliding(SIZE, slide));
            let results = match work {
                Work::Count => windows.aggregate_with(Count, |key, _, value| [Shown { key: *key, value }]),
                Work::Highest => windows.reduce_with(
                    |one, other| if other.value > one.value { other } else { one },
                    |key, _, Event { value, .. }| [Shown { key: *key, value }],
                ),
            };
            results.uid("windows").sink("results", tallies.sink()).uid("results");
            tallies
        };
        run_job(1, Some(CHECKPOINT_INTERVAL), topology)
    }

    /// Each record is counted in as many windows as it is in.
    fn check(&self, apart: Tally, overlapping: Tally) -> Result<()> {
        let is_right = match self.work {
            Work::Count => overlapping.sum == apart.sum.wrapping_mul(OVERLAP),
            // Nearly every window has the highest value that there is, so that only the number of results says something.
            Work::Highest => true,
        };
        ensure!(
            is_right && overlapping.count > apart.count,
            "sliding windows give {overlapping:?}, tumbling ones {apart:?}: they have not seen the same records"
        );
        Ok(())
    }
}
