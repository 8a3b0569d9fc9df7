//! Checkpoints on the disk of a real cluster: how many are kept, which outlive their job, and what a restart does when the
//! newest is damaged, cut off or gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::CheckpointStatus;

const KEPT: usize = 3;

fn job() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chaos_job"))
}

/// A cluster with one task manager, and an endless job on it whose state is too large to be inlined.
async fn start(more: &[(&str, &str)]) -> Result<(Cluster, JobId, PathBuf)> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let (output, checkpoints) = (cluster.folder().join("output"), cluster.folder().join("checkpoints"));
    let (output_text, checkpoints_text) = (output.display().to_string(), checkpoints.display().to_string());
    let arguments = ["--rate", "40000", "--keys", "20000", "--output", &output_text];
    let mut configuration = vec![
        ("execution.checkpointing.interval", "200 ms"),
        ("execution.checkpointing.dir", checkpoints_text.as_str()),
        ("state.checkpoints.num-retained", "3"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "100"),
        ("restart-strategy.fixed-delay.delay", "10 ms"),
        ("parallelism.default", "2"),
    ];
    configuration.extend(more);
    let job = cluster.submit(job(), &arguments, &configuration).await?;
    let folder = checkpoints.join(job.to_string());
    Ok((cluster, job, folder))
}

/// Waits until as many checkpoints as are kept have completed, with a snapshot in a file of its own among them.
async fn full(cluster: &Cluster, job: JobId, folder: &Path) -> Result<()> {
    let client = cluster.client().await?;
    wait::until("checkpoints with files", async || {
        let retained = client.checkpoints(job).await?.retained;
        let newest = retained.last().map(|newest| folder.join(format!("chk-{}", newest.id)));
        let has_file = newest.is_some_and(|newest| snapshot_file(&newest).is_some());
        Ok((retained.len() == KEPT && has_file).then_some(()))
    })
    .await
}

/// The checkpoints that have a folder.
fn on_disk(folder: &Path) -> BTreeSet<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("chk-")?.parse().ok()).collect()
}

fn snapshot_file(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    paths.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name != "_metadata" && !name.starts_with('.')
    })
}

#[tokio::test]
async fn as_many_checkpoints_as_configured_are_on_the_disk_and_their_phases_are_told() -> Result<()> {
    let (cluster, job, folder) = start(&[]).await?;
    full(&cluster, job, &folder).await?;
    let client = cluster.client().await?;
    // Those that are kept, perhaps one that is being written, and one that is being deleted.
    for _ in 0..20 {
        let before: BTreeSet<_> = client.checkpoints(job).await?.retained.iter().map(|one| one.id).collect();
        let present = on_disk(&folder);
        let after: BTreeSet<_> = client.checkpoints(job).await?.retained.iter().map(|one| one.id).collect();
        assert!(before.intersection(&after).all(|kept| present.contains(kept)), "{before:?} {present:?}");
        assert!(present.len() <= KEPT + 2 + after.difference(&before).count(), "{before:?} {present:?}");
    }
    let history = client.checkpoints(job).await?.history;
    let last = history.iter().rev().find(|one| one.status == CheckpointStatus::Completed).context("none")?;
    assert_eq!(last.subtasks.len() as u32, last.subtasks_total);
    assert!(last.subtasks.iter().all(|part| part.phases.async_us > 0 && part.phases.sync_us > 0), "{last:?}");
    assert!(last.state_bytes() > 100_000, "{last:?}");
    client.cancel(job).await?;
    cluster.reaches(job, JobStatus::Canceled).await?;
    wait::until_true("the checkpoints to be gone", || on_disk(&folder).is_empty()).await
}

#[tokio::test]
async fn checkpoints_outlive_a_cancelled_job_when_they_are_to() -> Result<()> {
    let retention = ("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
    let (cluster, job, folder) = start(&[retention]).await?;
    full(&cluster, job, &folder).await?;
    let client = cluster.client().await?;
    client.cancel(job).await?;
    cluster.reaches(job, JobStatus::Canceled).await?;
    let retained: BTreeSet<_> = client.checkpoints(job).await?.retained.iter().map(|one| one.id).collect();
    assert_eq!(retained.len(), KEPT);
    wait::until_true("only the kept ones to be left", || on_disk(&folder) == retained).await?;
    for id in retained {
        assert!(folder.join(format!("chk-{id}/_metadata")).is_file());
    }
    Ok(())
}

/// Kills the only task manager, damages the newest checkpoint, and lets the job come back on another one: it restores the
/// checkpoint before and goes on.
async fn goes_back_after(damage: fn(&Path) -> Result<()>, expected: &str) -> Result<()> {
    let (mut cluster, job, folder) = start(&[]).await?;
    full(&cluster, job, &folder).await?;
    let victim = *cluster.task_managers().first().context("no task manager")?;
    cluster.kill_task_manager(victim)?;
    let client = cluster.client().await?;
    wait::until("the job to wait", async || {
        let details = client.describe(job).await?;
        Ok((details.summary.status == JobStatus::Restarting && !details.checkpoints.in_progress)
            .then_some(()))
    })
    .await?;
    let retained = client.checkpoints(job).await?.retained;
    let [.., before, newest] = &retained[..] else { bail!("fewer than two are kept: {retained:?}") };
    damage(&folder.join(format!("chk-{}", newest.id)))?;
    cluster.start_task_manager().await?;
    let restored = wait::until("an older checkpoint to be restored and a new one to complete", async || {
        let checkpoints = client.checkpoints(job).await?;
        let is_newer = checkpoints.retained.last().is_some_and(|latest| latest.id > newest.id);
        Ok(checkpoints.summary.restored_id.filter(|id| is_newer && *id < newest.id))
    })
    .await?;
    assert_eq!(restored, before.id);
    let details = client.describe(job).await?;
    let reasons: Vec<_> = details.history.iter().map(|change| change.reason.as_str()).collect();
    let told = |reason: &&str| {
        reason.contains(&format!("restored from checkpoint {}; skipped checkpoint {}", before.id, newest.id))
            && reason.contains(expected)
    };
    assert!(reasons.iter().any(told), "{reasons:#?}");
    // Nothing is missing: every key was counted from 1 without a gap.
    let output = cluster.folder().join("output");
    let lines = oracle::committed_lines(&output)?;
    for key in ["0", "19999"] {
        let mut counts: Vec<u64> =
            lines.keys().filter_map(|line| line.strip_prefix(&format!("{key} "))?.parse().ok()).collect();
        counts.sort_unstable();
        assert_eq!(counts, (1..=counts.len() as u64).collect::<Vec<_>>(), "key {key}");
    }
    Ok(())
}

fn cut_off(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    fs::write(path, &bytes[..bytes.len() / 2])?;
    Ok(())
}

fn flip(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes)?;
    Ok(())
}

#[tokio::test]
async fn metadata_that_is_gone_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    goes_back_after(|folder| Ok(fs::remove_file(folder.join("_metadata"))?), "_metadata").await
}

#[tokio::test]
async fn metadata_that_is_cut_off_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    goes_back_after(|folder| cut_off(&folder.join("_metadata")), "damaged").await
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    let damage = |folder: &Path| cut_off(&snapshot_file(folder).context("no file")?);
    goes_back_after(damage, "so it was cut off").await
}

#[tokio::test]
async fn a_flipped_bit_of_a_snapshot_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    goes_back_after(|folder| flip(&snapshot_file(folder).context("no file")?), "checksum").await
}

#[tokio::test]
async fn several_checkpoints_at_a_time_and_killed_task_managers_change_no_line() -> Result<()> {
    const NUMBERS: u64 = 40_000;
    let mut cluster =
        Cluster::start(ClusterOptions { task_managers: 2, ..ClusterOptions::default() }).await?;
    let output = cluster.folder().join("output");
    let (output_text, numbers) = (output.display().to_string(), NUMBERS.to_string());
    let arguments = ["--count", &numbers, "--rate", "8000", "--output", &output_text];
    let configuration = [
        ("execution.checkpointing.interval", "10 ms"),
        ("execution.checkpointing.max-concurrent-checkpoints", "4"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "100"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "100"),
        ("restart-strategy.fixed-delay.delay", "10 ms"),
        ("parallelism.default", "4"),
    ];
    let job = cluster.submit(job(), &arguments, &configuration).await?;
    let progress = || oracle::committed_lines(&output).map_or(0, |lines| lines.values().sum::<u64>());
    for third in 1..3 {
        wait::until_true("a third of the output", || progress() >= NUMBERS * third / 3).await?;
        let victim = *cluster.task_managers().first().context("no task manager")?;
        cluster.kill_task_manager(victim)?;
        cluster.start_task_manager().await?;
    }
    cluster.reaches(job, JobStatus::Finished).await?;
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % 97).to_string()).collect();
    let expected = oracle::running_counts(keys.iter().map(String::as_str));
    assert_eq!(oracle::compare(&expected, &oracle::committed_lines(&output)?), Difference::default());
    Ok(())
}
