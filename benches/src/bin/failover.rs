//! What a killed leader costs: how long a running job's output pauses, and how soon a new leader accepts a job.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use thalweg_benches::measurement::Measurement;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::wait;
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};

/// Measures what a killed leader costs.
#[derive(Parser)]
struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let (mut pauses, mut acceptances) = (Vec::new(), Vec::new());
    for _ in 0..options.runs.max(1) {
        let (pause, acceptance) = run(&SystemClock::shared()).await?;
        pauses.push(pause.as_secs_f64() * 1000.0);
        acceptances.push(acceptance.as_secs_f64() * 1000.0);
    }
    Measurement::median("failover", "output_pause", "ms", &pauses).print(options.json)?;
    Measurement::median("failover", "new_leader_accepts", "ms", &acceptances).print(options.json)
}

/// Kills the leader below a job that prints; returns the longest pause of its output and the time to the next acceptance.
async fn run(clock: &SharedClock) -> Result<(Duration, Duration)> {
    let mut cluster = Cluster::start(ClusterOptions { job_managers: 3, ..ClusterOptions::default() }).await?;
    let job = binary("unbounded_counter")?;
    cluster.submit(job.clone(), &["--rate", "5000"], &[]).await?;
    let logs = cluster
        .task_manager_folder(*cluster.task_managers().first().context("no task manager")?)
        .join("logs");
    let log = wait::until("the job's first output", async || Ok(output_log(&logs))).await?;
    let leader = cluster.leader().await?;
    let process = cluster.job_manager(leader)?.id();
    let accepted = Cell::new(None);
    let (pause, ()) = tokio::try_join!(longest_pause(clock, &log, || accepted.get().is_some()), async {
        process.kill()?;
        let watch = Stopwatch::start(clock);
        cluster.submit(job, &["--rate", "1"], &[]).await?;
        accepted.set(Some(watch.elapsed()));
        Ok(())
    })?;
    Ok((pause, accepted.get().context("the submission was accepted")?))
}

/// The file into which a worker has printed something.
fn output_log(logs: &Path) -> Option<PathBuf> {
    let jobs = fs::read_dir(logs).ok()?.flatten();
    let files = jobs.flat_map(|job| fs::read_dir(job.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).find(|path| {
        path.extension().is_some_and(|kind| kind == "out") && path.metadata().is_ok_and(|data| data.len() > 0)
    })
}

/// The longest time in which a growing file did not grow.
async fn longest_pause(clock: &SharedClock, file: &Path, done: impl Fn() -> bool) -> Result<Duration> {
    let mut since_growth = Stopwatch::start(clock);
    let (mut size, mut longest) = (fs::metadata(file)?.len(), Duration::ZERO);
    while !done() {
        longest = longest.max(since_growth.elapsed());
        let now = fs::metadata(file)?.len();
        if now != size {
            size = now;
            since_growth.restart();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(longest)
}
