//! Keyed state in RocksDB, several times as large as its memory: workers and task managers are killed, and every line is there
//! once; checkpoints upload little more than what has changed, and what they no longer need is deleted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::wait;
use thalweg_proto::model::{CheckpointStatistics, CheckpointStatus};

use crate::counting::Counting;

const KEYS: u64 = 100_000;
const NUMBERS: u64 = 300_000;
/// The cache of each subtask has room for about a quarter of its keys.
const MEMORY: &str = "3 mb";

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
    let counting = Counting::submit(&cluster, "rocksdb", NUMBERS, KEYS).await?;
    let folder = counting.checkpoints.join(counting.job.to_string());

    // One kill in every sixth of the run: a worker, then a task manager with all it has, and so on.
    for sixth in 1..5 {
        wait::until_true("a sixth of the output", || counting.progress() >= NUMBERS * sixth / 6).await?;
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
        let history = client.checkpoints(counting.job).await?.history;
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

    counting.finishes_with_every_count(&cluster).await?;
    wait::until_true("the shared files to be gone", || shared_files(&folder).is_empty()).await?;
    for number in cluster.task_managers() {
        let state = cluster.task_manager_folder(number).join("state");
        let is_empty = || fs::read_dir(&state).map_or(true, |mut entries| entries.next().is_none());
        wait::until_true("the state of workers that are gone to be removed", is_empty).await?;
    }
    Ok(())
}
