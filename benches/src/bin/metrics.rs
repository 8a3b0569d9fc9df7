//! What full metrics cost: the CPU seconds of a job whose every figure is reported, beside the same job on a cluster that reports nothing.
//!
//! The job is `source -> key_by -> count -> sink` in one worker. Both clusters run at the same time on the same cores, so that a slow
//! moment of the machine is slow for both. "Full" is the finest level (`PARALLELISM`) in CloudWatch's embedded metric format, and the endpoints for
//! Prometheus of job manager and task manager read once a second, which is fifteen times as often as Prometheus reads by itself. CPU
//! seconds are those of all processes, per record.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use thalweg::prelude::Environment;
use thalweg_benches::measurement::Measurement;
use thalweg_benches::nexmark::text::splitmix;
use thalweg_benches::progress::CountingSink;
use thalweg_benches::submitted::{self, Submitted};
use thalweg_chaos_tests::cluster::ClusterOptions;
use thalweg_common::clock::{Stopwatch, SystemClock};
use thalweg_test_support::http;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The group of cases.
const BENCH: &str = "metrics";

/// How long the jobs run before they are measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// How often Prometheus' endpoints are read.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// The file to which the job's sink writes how far it is.
const PROGRESS: &str = "progress";

const KEYS: u64 = 100_000;

/// Measures what full metrics cost in CPU seconds per record.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often both are run; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// For how long each run is measured. Metrics are written four times a minute, so less than that is too little.
    #[arg(long, default_value_t = 30.0, value_parser = submitted::seconds)]
    seconds: f64,
}

fn main() -> Result<()> {
    submitted::main(topology, measure)
}

fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let progress = env.args().first().cloned().unwrap_or_default();
    let numbers = env.generate(None, None, |number| splitmix(number) % KEYS).uid("numbers");
    numbers.key_by(|number| *number).count().uid("counts").sink("counted", CountingSink::new(progress));
    Ok(())
}

async fn measure(options: &Options) -> Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..options.runs.max(1) {
        let (full, none) = run(options).await?;
        with.push(full);
        without.push(none);
    }
    let baseline = Measurement::median(BENCH, "none", "records/cpu s", &without);
    baseline.print(options.json)?;
    Measurement::median(BENCH, "full", "records/cpu s", &with).against(baseline.value).print(options.json)?;
    let ratios: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with / without).collect();
    Measurement::median(BENCH, "full_of_none_in_pairs", "share", &ratios).print(options.json)
}

/// Records per CPU second with full metrics, and without reporters.
async fn run(options: &Options) -> Result<(f64, f64)> {
    let (ports, full) = fully_reporting()?;
    let arguments = |folder: &str| vec![format!("{folder}/{PROGRESS}")];
    let full = Submitted::start(full, arguments, &[]).await?;
    let none = Submitted::start(one_slot(), arguments, &[]).await?;
    full.sample(PROGRESS).await?;
    none.sample(PROGRESS).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = (full.sample(PROGRESS).await?, none.sample(PROGRESS).await?);
    let watch = Stopwatch::start(&SystemClock::shared());
    while watch.elapsed().as_secs_f64() < options.seconds {
        for port in ports {
            let metrics = scrape(port).await?;
            ensure!(metrics.contains("# TYPE"), "port {port} answers {metrics:?} in place of metrics");
        }
        tokio::time::sleep(SCRAPE_INTERVAL).await;
    }
    let after = (full.sample(PROGRESS).await?, none.sample(PROGRESS).await?);
    Ok((after.0.per_cpu_second_since(before.0), after.1.per_cpu_second_since(before.1)))
}

fn one_slot() -> ClusterOptions {
    ClusterOptions { slots: 1, ..ClusterOptions::default() }
}

/// A cluster that reports everything, and the ports where Prometheus reads it. Job manager and task manager take one each.
fn fully_reporting() -> Result<([u16; 2], ClusterOptions)> {
    let base = two_free_ports()?;
    let options = one_slot()
        .set("metrics.level", "PARALLELISM")
        .set("metrics.reporter.emf.enabled", "true")
        .set("metrics.reporter.prom.port", &format!("{base}-{}", base + 1));
    Ok(([base, base + 1], options))
}

/// The first of two ports next to each other that nobody uses.
fn two_free_ports() -> Result<u16> {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

/// What Prometheus would read.
async fn scrape(port: u16) -> Result<String> {
    let answer = http::request(&format!("http://127.0.0.1:{port}"), "GET", "/metrics", &[]).await;
    let answer = answer.with_context(|| format!("nobody answers Prometheus at port {port}"))?;
    Ok(String::from_utf8(answer.body)?)
}
