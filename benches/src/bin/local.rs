//! Running counts by key as jobs in one process, beside plain loops over a hash map; what a second subtask brings.
//!
//! The default sizes are chosen so that all cases together take about two minutes; `--scale` makes them larger, which the
//! case of ten million keys needs before checkpoints every ten seconds can happen.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::Environment;
use thalweg::aggregates::Count;
use thalweg_benches::contest::{Case, Variant, measured, run_job};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::newest::NewestSink;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::tally::{Tallies, Tally};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "local";

/// How many different strings are counted; each has 15 bytes.
const STRINGS: u64 = 100_000;

/// How many keys share what the hot one leaves.
const COLD_KEYS: u64 = 100_000;

/// Measures running counts by key: events per CPU second of the job, and of a plain loop as the baseline.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each case is run; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Multiplies the number of events of each case.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The cases, with commas between them; all if there are none.
    #[arg(long, value_delimiter = ',', value_parser = CASES)]
    cases: Vec<String>,
}

/// The names of the cases.
const CASES: [&str; 4] =
    ["keyed_count_1m", "keyed_count_10m", "keyed_count_100k_strings", "hot_key_parallelism_2"];

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.scale > 0.0, "--scale multiplies the number of events; give a number above 0");
    for name in CASES {
        if !options.cases.is_empty() && !options.cases.iter().any(|case| case == name) {
            continue;
        }
        match name {
            "keyed_count_1m" => numbers(&case(&options, name, 30_000_000, 1), 1_000_000)?,
            "keyed_count_10m" => numbers(&case(&options, name, 120_000_000, 10), 10_000_000)?,
            "keyed_count_100k_strings" => strings(&case(&options, name, 15_000_000, 1))?,
            _ => hot_key(&case(&options, name, 40_000_000, 1))?,
        }
    }
    Ok(())
}

/// A case whose own name belongs to the job with checkpoints.
fn case<'a>(options: &Options, name: &'a str, events: u64, checkpoint_interval_s: u64) -> Case<'a> {
    let interval = Duration::from_secs(checkpoint_interval_s);
    let without_checkpoints = Variant::new(format!("{name}_no_checkpoints"));
    Case {
        work: name,
        bench: BENCH,
        variants: vec![without_checkpoints, Variant::new(name).exactly_once(interval)],
        events: ((events as f64 * options.scale) as u64).max(1),
        comparable: |tally| tally,
        json: options.json,
        runs: options.runs,
    }
}

/// A number below `count`, evenly spread over the events.
#[inline]
fn uniform(event: u64, count: u64) -> u64 {
    ((u128::from(splitmix(event)) * u128::from(count)) >> 64) as u64
}

/// Counts numbers as keys.
fn numbers(case: &Case<'_>, keys: u64) -> Result<()> {
    let events = case.events;
    let plain = || {
        let (mut counts, mut tally) = (HashMap::<u64, u64, FixedState>::default(), Tally::default());
        for key in (0..events).map(|event| uniform(event, keys)) {
            let count = counts.entry(key).or_default();
            *count += 1;
            tally.add(&(key, *count));
        }
        tally
    };
    case.run(plain, |env| count_numbers(env, events, move |event| uniform(event, keys)))
}

fn count_numbers(
    env: &Environment,
    events: u64,
    key: impl Fn(u64) -> u64 + Clone + Send + Sync + 'static,
) -> Tallies {
    let tallies = Tallies::default();
    let keys = env.generate(None, Some(events), key).uid("keys");
    keys.key_by(|key| *key).count().uid("count").sink("counts", tallies.sink());
    tallies
}

/// Counts strings as keys. In both forms an event is a string of its own, as it is when it was read from somewhere.
fn strings(case: &Case<'_>) -> Result<()> {
    let events = case.events;
    let strings: std::sync::Arc<[String]> = (0..STRINGS).map(|number| format!("key-{number:011}")).collect();
    let plain = || {
        let (mut counts, mut tally) = (HashMap::<String, u64, FixedState>::default(), Tally::default());
        for event in 0..events {
            let key = strings[uniform(event, STRINGS) as usize].clone();
            let (key, count) = match counts.get_mut(&key) {
                Some(count) => {
                    *count += 1;
                    (key, *count)
                }
                None => {
                    counts.insert(key.clone(), 1);
                    (key, 1)
                }
            };
            tally.add(&(key, count));
        }
        tally
    };
    let topology = |env: &Environment| {
        let (tallies, strings) = (Tallies::default(), strings.clone());
        let string = move |event| strings[uniform(event, STRINGS) as usize].clone();
        let keys = env.generate(None, Some(events), string).uid("keys");
        keys.key_by(String::clone).count().uid("count").sink("counts", tallies.sink());
        tallies
    };
    case.run(plain, topology)
}

/// Half of all events have the same key: events per second of two subtasks beside one, in elapsed time. The aggregate is
/// associative, so that records are combined before they are sent; what is compared is the final count of each key.
fn hot_key(case: &Case<'_>) -> Result<()> {
    let events = case.events;
    // The hot key is 0.
    let key = |event: u64| uniform(event, 2 * COLD_KEYS).saturating_sub(COLD_KEYS - 1);
    let mut counts = HashMap::<u64, u64, FixedState>::default();
    (0..events).for_each(|event| *counts.entry(key(event)).or_default() += 1);
    let mut expected = Tally::default();
    counts.into_iter().for_each(|count| expected.add(&count));

    let count = |parallelism| {
        let topology = |env: &Environment| {
            let tallies = Tallies::default();
            let keys = env.generate(None, Some(events), key).uid("keys");
            let counts = keys.key_by(|key| *key).aggregate(Count).uid("count");
            counts.sink("counts", NewestSink::new(&tallies));
            tallies
        };
        measured(|| run_job(parallelism, Some(Duration::from_secs(1)), topology))
    };
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..case.runs.max(1) {
        for (parallelism, rates) in [1, 2].into_iter().zip(&mut rates) {
            let (tally, cost) = count(parallelism)?;
            case.check(tally, expected)?;
            rates.push(events as f64 / cost.elapsed.as_secs_f64());
        }
    }
    let [one, two] = rates;
    let baseline = Measurement::median(BENCH, "", "", &one).value;
    let measurement = Measurement::median(BENCH, case.work, "events/s", &two);
    measurement.against(baseline).print(case.json)
}
