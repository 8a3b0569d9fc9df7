//! Keyed state in RocksDB, several times as large as its memory: workers and task managers are killed, and every line is there
//! once; checkpoints upload little more than what has changed, and what they no longer need is deleted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::wait;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::{CheckpointStatistics, CheckpointStatus};

const KEYS: u64 = 100_000;
const NUMBERS: u64 = 300_000;
/// The cache of each subtask has room for about a quarter of its keys.
const MEMORY: &str = "3 mb";

fn job() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chaos_job"))
}

/// The shared files below the folder of a job's checkpoints.
fn shared_files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.join("shared")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[tokio::test]
async fn state_larger_than_memory_survives_kills_of_workers_and_task_managers() -> Result<()> {
    let options = ClusterOptions { task_managers: 2, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options.set("taskmanager.memory.managed.size", MEMORY)).await?;
    let (output, checkpoints) = (cluster.folder().join("output"), cluster.folder().join("checkpoints"));
    let (output_text, checkpoints_text) = (output.display().to_string(), checkpoints.display().to_string());
    let (numbers, keys) = (NUMBERS.to_string(), KEYS.to_string());
    let arguments = ["--count", &numbers, "--rate", "12000", "--keys", &keys, "--output", &output_text];
    let configuration = [
        ("state.backend.type", "rocksdb"),
        ("execution.checkpointing.interval", "300 ms"),
        ("execution.checkpointing.dir", checkpoints_text.as_str()),
        ("execution.checkpointing.tolerable-failed-checkpoints", "100"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "100"),
        ("restart-strategy.fixed-delay.delay", "10 ms"),
        ("parallelism.default", "2"),
    ];
    let job = cluster.submit(job(), &arguments, &configuration).await?;
    let folder = checkpoints.join(job.to_string());
    let progress = || oracle::committed_lines(&output).map_or(0, |lines| lines.values().sum::<u64>());

    // One kill in every sixth of the run: a worker, then a task manager with all it has, and so on.
    for sixth in 1..5 {
        wait::until_true("a sixth of the output", || progress() >= NUMBERS * sixth / 6).await?;
        let victim = *cluster.task_managers().first().context("no task manager")?;
        let worker = cluster.task_manager(victim)?.id().children()?.into_iter().next();
        match worker.filter(|_| sixth % 2 == 1) {
            Some(worker) => worker.kill()?,
            None => {
                cluster.kill_task_manager(victim)?;
                cluster.start_task_manager().await?;
            }
        }
    }

    // All keys have state by now. What a checkpoint uploads is a small part of what it consists of.
    let client = cluster.client().await?;
    wait::until("a checkpoint that is much smaller than the state", async || {
        let history = client.checkpoints(job).await?.history;
        let mut completed = history.iter().filter(|one| one.status == CheckpointStatus::Completed);
        let is_small = |one: &CheckpointStatistics| {
            let uploaded: u64 = one.subtasks.iter().map(|part| part.phases.incremental_bytes).sum();
            one.state_bytes() > 500_000 && uploaded * 4 < one.state_bytes()
        };
        Ok(completed.any(is_small).then_some(()))
    })
    .await?;
    let before = shared_files(&folder);
    assert!(!before.is_empty());
    wait::until_true("files that compactions have replaced to be deleted", || {
        !before.is_subset(&shared_files(&folder))
    })
    .await?;

    cluster.reaches(job, JobStatus::Finished).await?;
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
    let expected = oracle::running_counts(keys.iter().map(String::as_str));
    assert_eq!(oracle::compare(&expected, &oracle::committed_lines(&output)?), Difference::default());
    wait::until_true("the shared files to be gone", || shared_files(&folder).is_empty()).await?;
    for number in cluster.task_managers() {
        let state = cluster.task_manager_folder(number).join("state");
        let is_empty = || fs::read_dir(&state).map_or(true, |mut entries| entries.next().is_none());
        wait::until_true("the state of workers that are gone to be removed", is_empty).await?;
    }
    Ok(())
}
