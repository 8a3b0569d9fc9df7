//! Latencies from the time at which an event is due to its arrival at the sink, with their memory and CPU time.
//!
//! The job is `source -> key_by -> map -> sink` at default settings, with one task manager or with everything behind
//! `key_by` in a second one. Events are due at fixed times, whatever the job does, and count from then on; all processes
//! read the same clock. The first seconds do not count.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use thalweg::operator::{Context, KeyedProcess};
use thalweg::prelude::{Environment, Failure};
use thalweg::{DataStream, State};
use thalweg_benches::latencies::{HISTOGRAM, Latencies, LatencySink, WARM};
use thalweg_benches::measurement::Measurement;
use thalweg_benches::progress::CountingSink;
use thalweg_benches::schedule::{Event, PacedSource, Rate};
use thalweg_benches::submitted::{self, Submitted};
use thalweg_chaos_tests::cluster::ClusterOptions;
use thalweg_common::clock::{SystemClock, deadline_in};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "latency";

/// The file to which the sink of a job at full speed writes how far it is.
const PROGRESS: &str = "progress";

/// How much longer than its warm-up and measured time a job may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at a job.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Measures latencies from the time an event is due to its arrival.
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
    /// For how long each run is not measured before that.
    #[arg(long, default_value_t = 2.0)]
    warm_up_seconds: f64,
    /// The loads, with commas between them; all if there are none.
    #[arg(long, value_delimiter = ',', value_parser = LOADS.map(|load| load.name))]
    loads: Vec<String>,
}

/// A job under a rate.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    /// How many workers the job runs in.
    workers: u32,
    rate: LoadRate,
    /// Takes a checkpoint each second.
    exactly_once: bool,
}

#[derive(Debug, Clone, Copy)]
enum LoadRate {
    PerSecond(u64),
    /// Half of what the job does at full speed, which is measured first.
    Half,
    Silent,
}

const fn load(name: &'static str, workers: u32, rate: LoadRate) -> Load {
    Load { name, workers, rate, exactly_once: false }
}

const LOADS: [Load; 8] = [
    load("local_50k", 1, LoadRate::PerSecond(50_000)),
    Load { exactly_once: true, ..load("local_50k_exactly_once", 1, LoadRate::PerSecond(50_000)) },
    load("remote_50k", 2, LoadRate::PerSecond(50_000)),
    Load { exactly_once: true, ..load("remote_50k_exactly_once", 2, LoadRate::PerSecond(50_000)) },
    load("remote_half_rate", 2, LoadRate::Half),
    load("local_1k", 1, LoadRate::PerSecond(1_000)),
    load("remote_1k", 2, LoadRate::PerSecond(1_000)),
    load("idle", 2, LoadRate::Silent),
];

/// What the job is told.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct JobOptions {
    /// The folder for what the sink reports.
    #[arg(long)]
    folder: String,
    #[arg(long)]
    rate: Rate,
    #[arg(long)]
    warm_up_ms: u64,
    #[arg(long)]
    measured_ms: u64,
}

/// What a run has shown.
struct Outcome {
    latencies: Latencies,
    cpu_seconds_per_million: f64,
    peak_mib: f64,
}

fn main() -> Result<()> {
    submitted::main(topology, measure)
}

/// Hands every event on: what is measured is the way, not the work.
#[derive(State, Clone)]
struct Through {}

impl KeyedProcess<u64, Event> for Through {
    type Out = Event;

    fn on_record(&mut self, event: Event, context: &mut Context<'_, u64, Event>) -> Result<(), Failure> {
        context.emit(event);
        Ok(())
    }
}

fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = JobOptions::parse_from(env.args());
    let events = env.source("events", PacedSource::new(options.rate)).set_parallelism(1);
    let events = events.slot_sharing_group("sender");
    // With one task manager both groups are in its worker, with two each has its own.
    let keyed = events.key_by(|event| event.key).process(Through {}).uid("through");
    let mapped = keyed.slot_sharing_group("receiver").map(|event| Event { key: event.key + 1, ..event });
    end(&mapped, &options);
    Ok(())
}

fn end(events: &DataStream<Event>, options: &JobOptions) {
    let (warm_up, measured) =
        (Duration::from_millis(options.warm_up_ms), Duration::from_millis(options.measured_ms));
    match options.rate {
        Rate::Unlimited => events.sink("events", CountingSink::new(format!("{}/{PROGRESS}", options.folder))),
        _ => events.sink("events", LatencySink::new(&options.folder, warm_up, measured)),
    };
}

async fn measure(options: &Options) -> Result<()> {
    ensure!(options.warm_up_seconds >= 0.0, "--warm-up-seconds cannot be negative");
    for load in LOADS {
        if !options.loads.is_empty() && !options.loads.iter().any(|name| name == load.name) {
            continue;
        }
        match load.rate {
            LoadRate::Silent => measure_idle(options, load).await?,
            LoadRate::PerSecond(rate) => measure_latencies(options, load, rate).await?,
            LoadRate::Half => {
                let mut rates = Vec::new();
                for _ in 0..options.runs.max(1) {
                    rates.push(full_rate(options, load).await?);
                }
                let full = Measurement::median(BENCH, "remote_full_rate", "events/s", &rates);
                full.print(options.json)?;
                measure_latencies(options, load, (full.value / 2.0) as u64).await?;
            }
        }
    }
    Ok(())
}

async fn start(options: &Options, load: Load, rate: Rate) -> Result<Submitted> {
    let cluster =
        ClusterOptions { task_managers: load.workers, slots: 2 / load.workers, ..ClusterOptions::default() };
    let [warm_up_ms, measured_ms] =
        [options.warm_up_seconds, options.seconds].map(|seconds| (seconds * 1e3) as u64);
    let arguments = |folder: &str| {
        vec![
            format!("--folder={folder}"),
            format!("--rate={rate}"),
            format!("--warm-up-ms={warm_up_ms}"),
            format!("--measured-ms={measured_ms}"),
        ]
    };
    let configuration: &[_] =
        if load.exactly_once { &[("execution.checkpointing.interval", "1s")] } else { &[] };
    let job = Submitted::start(cluster, arguments, configuration).await?;
    let workers = job.workers().len();
    ensure!(
        workers == load.workers as usize,
        "the job runs in {workers} workers and not in {}",
        load.workers
    );
    Ok(job)
}

async fn measure_latencies(options: &Options, load: Load, rate: u64) -> Result<()> {
    let mut outcomes = Vec::new();
    for _ in 0..options.runs.max(1) {
        outcomes
            .push(run(options, load, rate).await.with_context(|| format!("the load {} failed", load.name))?);
    }
    let report = |case: &str, unit, figure: &dyn Fn(&Outcome) -> f64| {
        let samples: Vec<f64> = outcomes.iter().map(figure).collect();
        Measurement::median(BENCH, format!("{}_{case}", load.name), unit, &samples).print(options.json)
    };
    for (case, quantile) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0)] {
        report(case, "ms", &|outcome| outcome.latencies.quantile_ms(quantile))?;
    }
    report("cpu_s_per_million", "cpu s/M", &|outcome| outcome.cpu_seconds_per_million)?;
    report("peak_mib", "MiB", &|outcome| outcome.peak_mib)
}

/// Runs the job at a rate until its sink has written the histogram.
async fn run(options: &Options, load: Load, rate: u64) -> Result<Outcome> {
    let job = start(options, load, Rate::PerSecond(rate)).await?;
    let longest = PATIENCE + Duration::from_secs_f64(options.warm_up_seconds + options.seconds);
    appears(&job, WARM, longest).await?;
    let cpu_seconds = job.cpu_seconds()?;
    appears(&job, HISTOGRAM, longest).await?;
    let cpu_seconds = job.cpu_seconds()? - cpu_seconds;
    let latencies = Latencies::read(job.folder())?.context("the histogram vanished")?;
    ensure!(latencies.count() > 0, "no event was due while the job was measured; give more --seconds");
    let cpu_seconds_per_million = cpu_seconds / latencies.count() as f64 * 1e6;
    Ok(Outcome { latencies, cpu_seconds_per_million, peak_mib: job.peak_resident_mib()? })
}

/// Waits for a file that the job's sink writes.
async fn appears(job: &Submitted, file: &str, longest: Duration) -> Result<()> {
    let deadline = deadline_in(&SystemClock::shared(), longest);
    while !job.folder().join(file).exists() {
        if deadline.is_over() {
            job.running().await?;
        }
        ensure!(
            !deadline.is_over(),
            "waited {longest:?} for the file {file} of the job; the job cannot keep up with the rate"
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Events a second of the job at full speed.
async fn full_rate(options: &Options, load: Load) -> Result<f64> {
    let job = start(options, load, Rate::Unlimited).await?;
    job.sample(PROGRESS).await?;
    tokio::time::sleep(Duration::from_secs_f64(options.warm_up_seconds)).await;
    let before = job.sample(PROGRESS).await?;
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    Ok(job.sample(PROGRESS).await?.point.rate_since(before.point))
}

/// CPU time of a job that runs and has nothing to do.
async fn measure_idle(options: &Options, load: Load) -> Result<()> {
    let (mut shares, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..options.runs.max(1) {
        let job = start(options, load, Rate::Silent).await?;
        tokio::time::sleep(Duration::from_secs_f64(options.warm_up_seconds)).await;
        let before = job.cpu_seconds()?;
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        shares.push((job.cpu_seconds()? - before) / options.seconds * 100.0);
        job.running().await?;
        peaks.push(job.peak_resident_mib()?);
    }
    Measurement::median(BENCH, "idle_cpu_percent", "%", &shares).print(options.json)?;
    Measurement::median(BENCH, "idle_peak_mib", "MiB", &peaks).print(options.json)
}
