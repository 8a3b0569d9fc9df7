//! What a slow sink does to its surroundings: memory of the worker, the rate of a pipeline beside it, checkpoints.
//!
//! The job has two pipelines of the same form, `source -> key_by -> count -> sink`, from sources that never end. One sink
//! takes 100 records a second, by blocking 10 ms at every one, as a naive sink does; the other takes all. The four halves
//! of the pipelines have a slot each: with one worker all channels are local, with two everything behind `key_by` is in the other
//! worker, and both pipelines share the connection. The baseline is the same job without the slow pipeline.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use thalweg::DataStream;
use thalweg::prelude::Environment;
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::progress::CountingSink;
use thalweg_benches::schedule::KEYS;
use thalweg_benches::submitted::{self, Submitted};
use thalweg_chaos_tests::cluster::ClusterOptions;
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "backpressure";

/// How long the slow sink blocks at each record: it takes 100 a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Files to which the sinks write how far they are.
const SLOW: &str = "slow";
const SIBLING: &str = "sibling";

/// The pause between two looks at a job.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Measures what a sink that takes 100 records a second does to its surroundings.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often each case is run; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// For how long each run is measured.
    #[arg(long, default_value_t = 10.0, value_parser = submitted::seconds)]
    seconds: f64,
    /// In how many workers, with commas between them: 1, 2.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=2), default_values_t = [1, 2])]
    workers: Vec<u32>,
    /// How often a checkpoint is taken.
    #[arg(long, default_value_t = 1_000)]
    checkpoint_interval_ms: u64,
}

/// What the job is told.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct JobOptions {
    /// The folder for what the sinks report.
    #[arg(long)]
    folder: String,
    /// Runs the slow pipeline as well.
    #[arg(long)]
    slow: bool,
}

/// What a run has shown.
struct Outcome {
    growth_mib: f64,
    sibling_rate: f64,
    checkpoint_ms: f64,
}

fn main() -> Result<()> {
    submitted::main(topology, measure)
}

fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = JobOptions::parse_from(env.args());
    let sink = |name| CountingSink::new(format!("{}/{name}", options.folder));
    // Groups get slots in the order of their names, from each task manager in turn.
    pipeline(env, ["1-sibling-source", "2-sibling-sink"], SIBLING, sink(SIBLING));
    if options.slow {
        pipeline(env, ["3-slow-source", "4-slow-sink"], SLOW, sink(SLOW).blocking(PAUSE));
    }
    Ok(())
}

fn pipeline(env: &Environment, [source, end]: [&str; 2], name: &str, sink: CountingSink) {
    let records: DataStream<(u64, u64)> =
        env.generate(None, None, |number| (splitmix(number) % KEYS, number));
    let records = records.uid(&format!("{name}-source")).slot_sharing_group(source);
    let counts = records.key_by(|record| record.0).count();
    counts.uid(&format!("{name}-count")).slot_sharing_group(end).sink(name, sink);
}

async fn measure(options: &Options) -> Result<()> {
    for workers in &options.workers {
        let (mut slow, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..options.runs.max(1) {
            alone.push(run(options, *workers, false).await?);
            slow.push(run(options, *workers, true).await?);
        }
        let prefix = if *workers == 1 { "" } else { "two_workers_" };
        let report = |case: &str, unit, figure: fn(&Outcome) -> f64| {
            let of = |outcomes: &[Outcome]| outcomes.iter().map(figure).collect::<Vec<_>>();
            let baseline = Measurement::median(BENCH, "", unit, &of(&alone)).value;
            let measurement = Measurement::median(BENCH, format!("{prefix}{case}"), unit, &of(&slow));
            measurement.against(baseline).print(options.json)
        };
        report("worker_growth_mib", "MiB", |outcome| outcome.growth_mib)?;
        report("sibling_rate", "records/s", |outcome| outcome.sibling_rate)?;
        report("checkpoint_ms", "ms", |outcome| outcome.checkpoint_ms)?;
    }
    Ok(())
}

async fn run(options: &Options, workers: u32, slow: bool) -> Result<Outcome> {
    let cluster = ClusterOptions { task_managers: workers, slots: 4 / workers, ..ClusterOptions::default() };
    let arguments = |folder: &str| {
        let slow = slow.then(|| "--slow".to_string());
        [format!("--folder={folder}")].into_iter().chain(slow).collect()
    };
    let interval = format!("{} ms", options.checkpoint_interval_ms);
    let configuration = [("execution.checkpointing.interval", interval.as_str())];
    let job = Submitted::start(cluster, arguments, &configuration).await?;
    let found = job.workers().len();
    ensure!(found == workers as usize, "the job runs in {found} workers and not in {workers}");
    // The queues in front of the slow sink are as good as empty yet.
    let resident_mib = job.resident_mib()?;
    if slow {
        job.sample(SLOW).await?;
    }
    let clock = SystemClock::shared();
    let before = job.sample(SIBLING).await?.point;
    let checkpoint_ms = longest_checkpoint(options, &job, &clock).await?;
    let sibling_rate = job.sample(SIBLING).await?.point.rate_since(before);
    let growth_mib = job.peak_resident_mib()? - resident_mib;
    Ok(Outcome { growth_mib, sibling_rate, checkpoint_ms })
}

/// Milliseconds of the longest checkpoint that completes while the job is measured. If none does, those for which the job
/// was watched, which is less than the checkpoint takes.
async fn longest_checkpoint(options: &Options, job: &Submitted, clock: &SharedClock) -> Result<f64> {
    let watch = Stopwatch::start(clock);
    let mut longest_ms = None;
    while watch.elapsed().as_secs_f64() < options.seconds {
        let latest = job.running().await?.checkpoints.latest;
        longest_ms = longest_ms.max(latest.map(|checkpoint| checkpoint.duration_ms));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let watched_ms = watch.elapsed().as_secs_f64() * 1e3;
    if longest_ms.is_none() {
        eprintln!(
            "no checkpoint completed in {watched_ms:.0} ms: checkpoint_ms is that, and in truth it is more"
        );
    }
    Ok(longest_ms.map_or(watched_ms, |longest_ms| longest_ms as f64))
}
