//! Nexmark queries as jobs in one process, beside the same queries as plain loops; the generator's own cost.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use thalweg_benches::contest::{Case, Variant, measured};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::generator::Generator;
use thalweg_benches::nexmark::queries::Query;
use thalweg_benches::tally::Tallies;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "nexmark";

/// With guarantees there is a checkpoint this often.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Measures Nexmark queries: events per CPU second of the job, beside a plain loop as the baseline, and its peak memory.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each case is run; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How many events each query reads.
    #[arg(long, default_value_t = 50_000_000)]
    events: u64,
    /// The queries, with commas between them.
    #[arg(long, value_delimiter = ',', default_values_t = Query::ALL)]
    queries: Vec<Query>,
    /// Where state is, with commas between them. In RocksDB queries with state are run with exactly-once checkpoints, beside fixed figures of
    /// Flink's SQL.
    #[arg(long, value_delimiter = ',', default_values = ["hashmap", "rocksdb"])]
    stores: Vec<Store>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Hashmap,
    Rocksdb,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.events > 0, "there is nothing to measure without events; give --events a number above 0");
    let generator = Generator::default();
    measure_generator(&options, generator)?;
    for query in &options.queries {
        let variants = variants(*query, &options.stores);
        if variants.is_empty() {
            continue;
        }
        let case = Case {
            work: query.name(),
            bench: BENCH,
            variants,
            events: options.events,
            comparable: query.comparable(1),
            json: options.json,
            runs: options.runs,
        };
        case.run(
            || query.plain(generator, options.events),
            |env| {
                let tallies = Tallies::default();
                query.topology(env, generator, options.events, tallies.sink());
                tallies
            },
        )?;
    }
    Ok(())
}

/// How a query is run.
fn variants(query: Query, stores: &[Store]) -> Vec<Variant> {
    let mut variants = Vec::new();
    if stores.contains(&Store::Hashmap) {
        let exactly_once = Variant::new(format!("{query}_exactly_once")).exactly_once(CHECKPOINT_INTERVAL);
        variants.extend([Variant::new(query.name()), exactly_once]);
    }
    if let (Some(flink), true) = (query.flink_sql_on_rocksdb(), stores.contains(&Store::Rocksdb)) {
        let rocksdb = Variant::new(format!("{query}_rocksdb_exactly_once")).in_rocksdb();
        variants.push(rocksdb.exactly_once(CHECKPOINT_INTERVAL).against(flink));
    }
    variants
}

/// What making the events costs alone; it is part of every other case, of the baselines too.
fn measure_generator(options: &Options, generator: Generator) -> Result<()> {
    let mut costs_ns = Vec::new();
    for _ in 0..options.runs.max(1) {
        let ((), cost) = measured(|| {
            for number in 0..options.events {
                black_box(generator.event(black_box(number)));
            }
            Ok(())
        })?;
        costs_ns.push(cost.cpu_seconds * 1e9 / options.events as f64);
    }
    Measurement::median(BENCH, "generator_ns", "ns/event", &costs_ns).print(options.json)
}
