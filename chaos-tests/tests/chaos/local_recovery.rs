//! Local recovery: a task manager is killed, and one that takes its place on the same machine restores from the copies there;
//! copies that are damaged are passed over; none is left when the job has ended.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::wait;

use crate::counting::Counting;

const KEYS: u64 = 60_000;
const NUMBERS: u64 = 200_000;

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// Everything that the workers of a task manager have logged.
fn worker_logs(task_manager: &Path) -> String {
    let logs = files(&task_manager.join("logs")).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    logs.collect()
}

/// Bytes that the two tasks with state have restored from copies, and from the storage, once both have told.
fn restored(logs: &str) -> Option<(u64, u64)> {
    let lines: Vec<&str> =
        logs.lines().filter(|line| line.contains(" bytes from copies on this machine")).collect();
    let number =
        |line: &str, before: &str| line.split_once(before)?.0.rsplit(' ').next()?.parse::<u64>().ok();
    let both = lines.iter().filter_map(|line| {
        Some((number(line, " bytes from copies")?, number(line, " bytes from the checkpoint")?))
    });
    let both: Vec<_> = both.collect();
    (both.len() >= 2).then(|| both.iter().take(2).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
}

/// Kills the only task manager and waits until its worker is gone, too.
async fn kill(cluster: &mut Cluster) -> Result<()> {
    let victim = *cluster.task_managers().first().context("no task manager")?;
    let workers = cluster.task_manager(victim)?.id().children()?;
    cluster.kill_task_manager(victim)?;
    wait::until_true("its workers to end", || !workers.iter().any(|worker| worker.is_alive())).await
}

async fn returns_to_its_copies(backend: &str) -> Result<()> {
    let machine = TempDir::new()?;
    let roots = machine.path().display().to_string();
    let options = ClusterOptions { task_managers: 1, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options.set("taskmanager.state.local.root-dirs", &roots)).await?;
    let counting = Counting::submit(&cluster, backend, NUMBERS, KEYS).await?;
    // All keys have state by now, which is more than what is part of the metadata.
    wait::until_true("a third of the output", || counting.progress() >= NUMBERS / 3).await?;

    kill(&mut cluster).await?;
    let copies = files(&machine.path().join(counting.job.to_string()));
    ensure!(!copies.is_empty(), "there are no copies");
    let second = cluster.start_task_manager().await?;
    let logs = cluster.task_manager_folder(second);
    let told = wait::until("both tasks to restore", async || Ok(restored(&worker_logs(&logs)))).await?;
    ensure!(told.0 > 500_000 && told.1 == 0, "restored from copies and the storage: {told:?}");

    let before = counting.progress();
    wait::until_true("output of the second attempt", || counting.progress() > before + NUMBERS / 10).await?;
    kill(&mut cluster).await?;
    for copy in files(&machine.path().join(counting.job.to_string())) {
        // A new file: the old one may be the storage's, too, which is on the same disk.
        fs::remove_file(&copy)?;
        fs::write(&copy, "damaged")?;
    }
    let third = cluster.start_task_manager().await?;
    let logs = cluster.task_manager_folder(third);
    let told = wait::until("both tasks to restore", async || Ok(restored(&worker_logs(&logs)))).await?;
    ensure!(told.0 == 0 && told.1 > 500_000, "restored from copies and the storage: {told:?}");
    ensure!(worker_logs(&logs).contains("is of no use"), "nothing is said about the damaged copies");

    counting.finishes_with_every_count(&cluster).await?;
    wait::until_true("the copies of the job to be gone", || files(machine.path()).is_empty()).await
}

#[tokio::test]
async fn state_on_disk_is_restored_from_copies_on_the_machine() -> Result<()> {
    returns_to_its_copies("rocksdb").await
}

#[tokio::test]
async fn state_in_memory_is_restored_from_copies_on_the_machine() -> Result<()> {
    returns_to_its_copies("hashmap").await
}
