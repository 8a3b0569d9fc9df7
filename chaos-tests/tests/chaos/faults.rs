//! A worker that panics, aborts, exits, runs out of memory or hangs: the job recovers and its output is exact.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_common::status::JobStatus;
use thalweg_proto::model::FailureRecord;

const NUMBERS: u64 = 20_000;
const KEYS: u64 = 97;

fn job() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chaos_job"))
}

/// Every key's running count up to how often it occurs.
fn expected() -> std::collections::BTreeMap<String, u64> {
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
    oracle::running_counts(keys.iter().map(String::as_str))
}

/// Runs the job with a fault in its middle and returns the failures that the cluster recorded.
async fn recovers_from(fault: &str, more: &[&str]) -> Result<Vec<FailureRecord>> {
    let options = ClusterOptions { task_managers: 2, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    let (output, marker) = (cluster.folder().join("output"), cluster.folder().join("struck"));
    let text = |path: &Path| path.display().to_string();
    let (output_text, marker_text) = (text(&output), text(&marker));
    let numbers = NUMBERS.to_string();
    let mut arguments = vec!["--count", &numbers, "--rate", "10000", "--output", &output_text];
    arguments.extend(["--fault", fault, "--after", "9000", "--marker", &marker_text]);
    arguments.extend(more);
    let configuration = [
        ("execution.checkpointing.interval", "100 ms"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "3"),
        ("restart-strategy.fixed-delay.delay", "50 ms"),
        ("parallelism.default", "2"),
    ];
    let job = cluster.submit(job(), &arguments, &configuration).await?;
    cluster.reaches(job, JobStatus::Finished).await?;
    let difference = oracle::compare(&expected(), &oracle::committed_lines(&output)?);
    assert_eq!(difference, Difference::default(), "after {fault}");
    assert!(marker.exists(), "the fault never struck");
    let details = cluster.describe(job).await?;
    assert_eq!(details.summary.name, "chaos_job", "a job without a name has its binary's");
    Ok(details.failures)
}

/// The first failure's message and details.
fn text_of(failures: &[FailureRecord]) -> Result<String> {
    Ok(failures.first().context("no failure recorded")?.failure.to_string())
}

#[tokio::test]
async fn a_panic_fails_the_task_with_its_message() -> Result<()> {
    let text = text_of(&recovers_from("panic", &[]).await?)?;
    assert!(text.contains("the job under test panics as told"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_error_fails_the_task_with_its_message() -> Result<()> {
    let text = text_of(&recovers_from("error", &[]).await?)?;
    assert!(text.contains("the job under test fails as told"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_abort_fails_the_worker_with_its_signal() -> Result<()> {
    let text = text_of(&recovers_from("abort", &[]).await?)?;
    assert!(text.contains("SIGABRT") || text.contains("signal 6"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_exit_fails_the_worker_with_its_status() -> Result<()> {
    let text = text_of(&recovers_from("exit", &[]).await?)?;
    assert!(
        text.contains("exit status 3") || text.contains("status 3") || text.contains("exit status: 3"),
        "{text}"
    );
    Ok(())
}

/// A memory cgroup of 64 MiB; removed when the worker in it is gone.
struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// `None` where this process may not make one.
    fn new() -> Option<Self> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/thalweg-test-{}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let limit = Self(folder);
        std::fs::write(limit.0.join("memory.limit_in_bytes"), (64 << 20).to_string()).ok()?;
        Some(limit)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn an_out_of_memory_kill_is_named_as_one() -> Result<()> {
    let Some(limit) = MemoryLimit::new() else {
        eprintln!("skipped: this machine lets no test make a memory cgroup");
        return Ok(());
    };
    let tasks = limit.0.join("tasks").display().to_string();
    let text = text_of(&recovers_from("memory", &["--cgroup", &tasks]).await?)?;
    assert!(text.contains("SIGKILL") && text.contains("memory"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_task_that_hangs_in_user_code_is_killed_when_its_job_is_cancelled() -> Result<()> {
    let options = ClusterOptions::default().set("task.cancellation.timeout", "500 ms");
    let cluster = Cluster::start(options).await?;
    let (output, marker) = (cluster.folder().join("output"), cluster.folder().join("struck"));
    let (output_text, marker_text) = (output.display().to_string(), marker.display().to_string());
    let arguments = [
        "--output",
        &output_text,
        "--rate",
        "10000",
        "--fault",
        "hang",
        "--after",
        "10",
        "--marker",
        &marker_text,
    ];
    let job = cluster.submit(job(), &arguments, &[]).await?;
    thalweg_chaos_tests::wait::until_true("the fault to strike", || marker.exists()).await?;
    cluster.client().await?.cancel(job).await?;
    cluster.reaches(job, JobStatus::Canceled).await?;
    let healthy = cluster.submit(self::job(), &["--count", "100", "--output", &output_text], &[]).await?;
    cluster.reaches(healthy, JobStatus::Finished).await
}
