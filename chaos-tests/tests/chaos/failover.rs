//! Task managers and leading job managers that are killed: nothing is lost, nothing is doubled, nothing stops for long.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;

fn job() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chaos_job"))
}

const NUMBERS: u64 = 50_000;
const KEYS: u64 = 97;

/// What the sinks have committed, as the number of records that must have been read for it.
fn progress(output: &std::path::Path) -> u64 {
    oracle::committed_lines(output).map_or(0, |lines| lines.values().sum())
}

#[tokio::test]
async fn a_task_manager_killed_at_every_tenth_of_the_run_changes_no_byte() -> Result<()> {
    let mut cluster =
        Cluster::start(ClusterOptions { task_managers: 2, ..ClusterOptions::default() }).await?;
    let output = cluster.folder().join("output");
    let output_text = output.display().to_string();
    let numbers = NUMBERS.to_string();
    let arguments = ["--count", &numbers, "--rate", "5000", "--output", &output_text];
    let configuration = [
        ("execution.checkpointing.interval", "100 ms"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "100"),
        ("restart-strategy.fixed-delay.delay", "10 ms"),
        ("parallelism.default", "4"),
    ];
    let job = cluster.submit(job(), &arguments, &configuration).await?;
    for tenth in 1..10 {
        wait::until_true(&format!("{tenth} tenths of the output"), || {
            progress(&output) >= NUMBERS * tenth / 10
        })
        .await?;
        let victim = *cluster.task_managers().first().context("no task manager")?;
        cluster.kill_task_manager(victim)?;
        cluster.start_task_manager().await?;
    }
    cluster.reaches(job, JobStatus::Finished).await?;
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
    let expected = oracle::running_counts(keys.iter().map(String::as_str));
    let found = oracle::committed_lines(&output)?;
    assert_eq!(oracle::compare(&expected, &found), Difference::default());
    assert_eq!(bytes_of(&found), bytes_of(&expected));
    Ok(())
}

/// The lines in order as one text: subtasks write to files of their own, so only the order over files is free.
fn bytes_of(lines: &BTreeMap<String, u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (line, count) in lines {
        for _ in 0..*count {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
    }
    bytes
}

/// A running job at parallelism 2 on three task managers with one slot each.
async fn with_a_spare_task_manager(more: &[&str]) -> Result<(Cluster, JobId, PathBuf)> {
    let options = ClusterOptions { task_managers: 3, slots: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    let output = cluster.folder().join("output");
    let (output_text, numbers) = (output.display().to_string(), NUMBERS.to_string());
    let mut arguments = vec!["--count", &numbers, "--rate", "8000", "--output", &output_text];
    arguments.extend(more);
    let configuration = [
        ("execution.checkpointing.interval", "100 ms"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "1"),
        ("restart-strategy.fixed-delay.delay", "10 ms"),
        ("parallelism.default", "2"),
    ];
    let job = cluster.submit(job(), &arguments, &configuration).await?;
    wait::until_true("the first output", || progress(&output) > 0).await?;
    Ok((cluster, job, output))
}

/// The workers of each task manager.
fn workers(cluster: &mut Cluster) -> Result<BTreeMap<u32, Vec<u32>>> {
    let mut workers = BTreeMap::new();
    for number in cluster.task_managers() {
        let children = cluster.task_manager(number)?.id().children()?;
        workers.insert(number, children.iter().map(|child| child.0).collect());
    }
    Ok(workers)
}

/// Waits for the end of a job that was restarted once, and checks what it has written. Returns the workers that it had
/// while its second attempt ran.
async fn ends_in_its_second_attempt(
    cluster: &mut Cluster,
    job: JobId,
    output: &std::path::Path,
) -> Result<BTreeMap<u32, Vec<u32>>> {
    let client = cluster.client().await?;
    wait::until("the second attempt to run", async || {
        let summary = client.describe(job).await?.summary;
        Ok((summary.status == JobStatus::Running && summary.attempt == 2).then_some(()))
    })
    .await?;
    let found = workers(cluster)?;
    cluster.reaches(job, JobStatus::Finished).await?;
    assert_eq!(cluster.describe(job).await?.summary.attempt, 2);
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
    let expected = oracle::running_counts(keys.iter().map(String::as_str));
    assert_eq!(oracle::compare(&expected, &oracle::committed_lines(output)?), Difference::default());
    Ok(found)
}

#[tokio::test]
async fn a_killed_task_manager_is_replaced_by_the_spare_one_and_the_other_worker_lives_on() -> Result<()> {
    let (mut cluster, job, output) = with_a_spare_task_manager(&[]).await?;
    let before = workers(&mut cluster)?;
    let spare = *before.iter().find(|(_, workers)| workers.is_empty()).context("all are used")?.0;
    let mut used = before.iter().filter(|(_, workers)| !workers.is_empty());
    let (victim, survivor) = (*used.next().context("none is used")?.0, used.next().context("one is used")?);
    // The spare one has the binary before it is needed.
    let blobs = cluster.task_manager_folder(spare).join("blobs");
    let is_whole = |name: &str| !name.is_empty() && !name.contains('.');
    wait::until_true("the binary at the spare task manager", || {
        let names = std::fs::read_dir(&blobs).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| is_whole(&name))
    })
    .await?;
    cluster.kill_task_manager(victim)?;
    let after = ends_in_its_second_attempt(&mut cluster, job, &output).await?;
    assert_eq!(after.get(survivor.0), Some(survivor.1), "its worker was not started anew");
    assert_eq!(after.get(&spare).map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_failed_task_leaves_all_workers_alive() -> Result<()> {
    let marker = tempfile::tempdir()?;
    let marker = marker.path().join("struck").display().to_string();
    let arguments = ["--fault", "panic", "--after", "20000", "--marker", &marker];
    let (mut cluster, job, output) = with_a_spare_task_manager(&arguments).await?;
    let before = workers(&mut cluster)?;
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 2, "{before:?}");
    let after = ends_in_its_second_attempt(&mut cluster, job, &output).await?;
    assert_eq!(after, before, "no worker was started anew, and none on another task manager");
    Ok(())
}

#[tokio::test]
async fn the_leader_killed_twenty_times_under_steady_submissions_loses_and_doubles_no_job() -> Result<()> {
    let options = ClusterOptions { job_managers: 3, task_managers: 0, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await?;
    let mut accepted = Vec::new();
    let output = cluster.folder().join("output").display().to_string();
    let arguments = ["--output", output.as_str()];
    for _ in 0..20 {
        let leader = cluster.leader().await?;
        let process = cluster.job_manager(leader)?.id();
        accepted.push(cluster.submit(job(), &arguments, &[]).await?);
        // The leader dies while a submission is under way; the client repeats it with the same submission id.
        let (during, killed) = tokio::join!(cluster.submit(job(), &arguments, &[]), async { process.kill() });
        killed?;
        accepted.push(during?);
        cluster.kill_job_manager(leader)?;
        accepted.push(cluster.submit(job(), &arguments, &[]).await?);
        cluster.start_job_manager(leader)?;
        cluster.job_manager_ready(leader).await?;
    }
    let mut known: Vec<_> = cluster.client().await?.list().await?.iter().map(|job| job.job_id).collect();
    known.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(known, accepted, "every accepted job exists once");
    Ok(())
}

#[tokio::test]
async fn workers_die_with_their_task_manager() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    let output = cluster.folder().join("output").display().to_string();
    let job = cluster.submit(job(), &["--output", &output, "--rate", "1000"], &[]).await?;
    cluster.reaches(job, JobStatus::Running).await?;
    let number = *cluster.task_managers().first().context("no task manager")?;
    let workers = cluster.task_manager(number)?.id().children()?;
    assert!(!workers.is_empty(), "a running job has a worker process");
    cluster.kill_task_manager(number)?;
    wait::until_true("the workers to be gone", || workers.iter().all(|worker| !worker.is_alive())).await
}

#[tokio::test]
async fn a_job_runs_on_while_the_leader_dies_and_is_adopted_by_the_next() -> Result<()> {
    let options = ClusterOptions { job_managers: 3, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await?;
    let output = cluster.folder().join("output");
    let arguments = ["--output", &output.display().to_string(), "--rate", "2000"];
    let job = cluster.submit(job(), &arguments, &[("execution.checkpointing.interval", "100 ms")]).await?;
    wait::until_true("the first output", || progress(&output) > 0).await?;
    let leader = cluster.leader().await?;
    cluster.kill_job_manager(leader)?;
    // Output is committed by checkpoints, and those by a leader: more of it proves that the next one adopted the job.
    let before = progress(&output);
    wait::until_true("more output under the next leader", || progress(&output) > before + 1000).await?;
    let summary = cluster.describe(job).await?.summary;
    assert_eq!((summary.status, summary.attempt), (JobStatus::Running, 1), "the job was not restarted");
    Ok(())
}

#[tokio::test]
async fn a_job_manager_that_stood_still_does_not_depose_the_leader() -> Result<()> {
    // As on a machine that is busy: longer than any follower waits for its leader.
    const STANDSTILL: Duration = Duration::from_millis(2_000);
    let options = ClusterOptions { job_managers: 3, task_managers: 0, ..ClusterOptions::default() }
        .set("high-availability.heartbeat-interval", "100 ms")
        .set("high-availability.election-timeout.min", "400 ms")
        .set("high-availability.election-timeout.max", "800 ms");
    let mut cluster = Cluster::start(options).await?;
    let leader = cluster.leader().await?;
    let client = cluster.client().await?;
    let before = client.job_managers().await?;
    for follower in (1..=3).filter(|id| *id != leader) {
        let process = cluster.job_manager(follower)?.id();
        process.signal(Signal::STOP)?;
        tokio::time::sleep(STANDSTILL).await; // not a wait: so long it stands still
        process.signal(Signal::CONT)?;
        tokio::time::sleep(STANDSTILL / 2).await; // not a wait: time in which it would stand for election
        assert_eq!(client.job_managers().await?, before, "job manager {follower} has stood for election");
    }
    Ok(())
}
