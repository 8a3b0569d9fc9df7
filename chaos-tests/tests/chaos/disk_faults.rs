//! Disks that are full or turn read-only under checkpoints, savepoints and the state of a worker: the job is told why and what
//! helps, its last good checkpoint stays, and it goes on where it was when the disk works again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::disk::{Disk, isolated};
use thalweg_chaos_tests::trial::{Trial, files_below};
use thalweg_chaos_tests::wait;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::SavepointMode;

const TOLERATED: (&str, &str) = ("execution.checkpointing.tolerable-failed-checkpoints", "1000");
const SMALL: u64 = 32 << 20;
const LARGE: u64 = 128 << 20;

/// A cluster, and the place of the checkpoints in it.
async fn cluster() -> Result<(Cluster, PathBuf)> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let place = cluster.folder().join("checkpoints");
    Ok((cluster, place))
}

/// Every word is in the text.
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

/// Whether a file is of one of these checkpoints.
fn is_of(file: &Path, checkpoints: &[(u64, String)]) -> bool {
    let name = file.display().to_string();
    checkpoints
        .iter()
        .any(|(id, _)| name.starts_with(&format!("chk-{id}/")) || name.contains(&format!("-c{id}-")))
}

#[tokio::test]
async fn checkpoints_that_do_not_fit_the_disk_are_given_up_and_the_job_runs_on() -> Result<()> {
    if !isolated(module_path!(), "checkpoints_that_do_not_fit_the_disk_are_given_up_and_the_job_runs_on")? {
        return Ok(());
    }
    let (cluster, place) = cluster().await?;
    let disk = Disk::in_memory(&place, SMALL)?;
    let mut trial = Trial::start(cluster, &place.display().to_string(), &[TOLERATED]).await?;
    let failed = trial.failed_checkpoints(5, || disk.fill()).await?;
    let cause = ["No space left on device", &place.display().to_string(), "free some space"];
    assert_says(&failed[0].1, &cause);
    assert_says(&trial.shown("checkpoints")?, &["FAILED", "No space left on device"]);
    let details = trial.details().await?;
    assert_eq!((details.summary.status, details.summary.attempt), (JobStatus::Running, 1));

    // What was there is there. What fails takes no more room than the last of it.
    let retained = trial.retained().await?;
    ensure!(
        retained.len() == 2 && retained.iter().all(|id| *id < failed[failed.len() - 1].0),
        "{retained:?}"
    );
    let folder = place.join(trial.job.to_string());
    let is_gone = |failed: &[(u64, String)]| {
        files_below(&folder).map(|left| !left.iter().any(|file| is_of(file, failed)))
    };
    wait::until("little to be left of failed checkpoints", async || {
        let failed = trial.failed_checkpoints(5, || disk.fill()).await?;
        Ok(is_gone(&failed[2..])?.then_some(()))
    })
    .await?;
    disk.resize(LARGE)?;
    trial.completes_beyond(&retained).await?;
    wait::until("nothing to be left of them", async || Ok(is_gone(&failed)?.then_some(()))).await?;
    assert_eq!(trial.details().await?.summary.attempt, 1);

    // The last good checkpoint is restored while nothing can be written.
    trial.failed_checkpoints(2, || disk.fill()).await?;
    trial.survives_a_kill().await?;
    let retained = trial.retained().await?;
    trial.failed_checkpoints(2, || disk.fill()).await?;
    disk.resize(2 * LARGE)?;
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

#[tokio::test]
async fn a_job_that_tolerates_no_failed_checkpoint_starts_again_until_there_is_room() -> Result<()> {
    if !isolated(
        module_path!(),
        "a_job_that_tolerates_no_failed_checkpoint_starts_again_until_there_is_room",
    )? {
        return Ok(());
    }
    let (cluster, place) = cluster().await?;
    let disk = Disk::in_memory(&place, SMALL)?;
    let trial = Trial::start(cluster, &place.display().to_string(), &[]).await?;
    let cause =
        ["No space left on device", &place.display().to_string(), "free some space", "0 are tolerated"];
    trial.failure(&cause, || disk.fill()).await?;
    trial.more_attempts(3, || disk.fill()).await?;
    assert_says(&trial.shown("describe")?, &["No space left on device", "free some space"]);
    let retained = trial.retained().await?;
    disk.resize(2 * LARGE)?;
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

#[tokio::test]
async fn a_checkpoint_directory_that_turns_read_only_is_told_and_used_again_when_it_is_repaired() -> Result<()>
{
    if !isolated(
        module_path!(),
        "a_checkpoint_directory_that_turns_read_only_is_told_and_used_again_when_it_is_repaired",
    )? {
        return Ok(());
    }
    let (cluster, place) = cluster().await?;
    let image = cluster.folder().join("disk.image");
    let Some(disk) = Disk::ext4(&image, &place, SMALL * 2)? else { return Ok(()) };
    let mut trial = Trial::start(cluster, &place.display().to_string(), &[TOLERATED]).await?;
    disk.break_down()?;
    let failed = trial.failed_checkpoints(3, || Ok(())).await?;
    let cause = ["Read-only file system", &place.display().to_string(), "mount the file system for writing"];
    assert_says(&failed[0].1, &cause);
    let retained = trial.retained().await?;
    trial.survives_a_kill().await?;
    trial.failed_checkpoints(2, || Ok(())).await?;
    disk.repair()?;
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

/// The state of the worker of the only task manager is on `disk`.
fn state_of(cluster: &Cluster) -> Result<PathBuf> {
    let manager = *cluster.task_managers().first().context("no task manager")?;
    Ok(cluster.task_manager_folder(manager).join("state"))
}

#[tokio::test]
async fn a_full_disk_below_the_state_of_a_worker_sends_the_job_back_until_there_is_room() -> Result<()> {
    if !isolated(
        module_path!(),
        "a_full_disk_below_the_state_of_a_worker_sends_the_job_back_until_there_is_room",
    )? {
        return Ok(());
    }
    let (cluster, place) = cluster().await?;
    let state = state_of(&cluster)?;
    let disk = Disk::in_memory(&state, SMALL * 4)?;
    let trial = Trial::start(cluster, &place.display().to_string(), &[]).await?;
    let cause = ["No space left on device", &state.display().to_string(), "free"];
    trial.failure(&cause, || disk.fill()).await?;
    trial.more_attempts(3, || disk.fill()).await?;
    let shown = trial.shown("describe")?;
    assert_says(&shown, &cause);
    let retained = trial.retained().await?;
    disk.resize(2 * LARGE)?;
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

#[tokio::test]
async fn a_read_only_disk_below_the_state_of_a_worker_sends_the_job_back_until_it_is_repaired() -> Result<()>
{
    if !isolated(
        module_path!(),
        "a_read_only_disk_below_the_state_of_a_worker_sends_the_job_back_until_it_is_repaired",
    )? {
        return Ok(());
    }
    let (cluster, place) = cluster().await?;
    let (state, image) = (state_of(&cluster)?, cluster.folder().join("disk.image"));
    let Some(disk) = Disk::ext4(&image, &state, SMALL * 4)? else { return Ok(()) };
    let trial = Trial::start(cluster, &place.display().to_string(), &[]).await?;
    disk.break_down()?;
    let cause = ["Read-only file system", &state.display().to_string()];
    let said = trial.failure(&cause, || Ok(())).await?;
    assert!(said.contains("make the disk writable") || said.contains("mount the file system"), "{said}");
    trial.more_attempts(2, || Ok(())).await?;
    assert_says(&trial.shown("describe")?, &cause);
    let retained = trial.retained().await?;
    // An attempt that has failed has closed its files.
    wait::until("the disk to be repaired", async || Ok(Some(disk.repair()?))).await?;
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

#[tokio::test]
async fn a_savepoint_that_does_not_fit_the_disk_is_refused_and_leaves_nothing() -> Result<()> {
    if !isolated(module_path!(), "a_savepoint_that_does_not_fit_the_disk_is_refused_and_leaves_nothing")? {
        return Ok(());
    }
    let (cluster, place) = cluster().await?;
    let savepoints = cluster.folder().join("savepoints");
    let disk = Disk::in_memory(&savepoints, SMALL)?;
    disk.fill()?;
    let trial = Trial::start(cluster, &place.display().to_string(), &[]).await?;
    let client = trial.cluster.client().await?;
    let directory = savepoints.display().to_string();
    for mode in [SavepointMode::Continue, SavepointMode::Stop] {
        let refused = client.savepoint(trial.job, Some(&directory), mode, |_| ()).await;
        let refused = refused.err().context("a savepoint on a full disk")?.to_string();
        assert_says(
            &refused,
            &["no savepoint was taken", "No space left on device", &directory, "free some space"],
        );
    }
    let left = || files_below(&savepoints).map(|files| files.len() == 1);
    wait::until("nothing to be left", async || Ok(left()?.then_some(()))).await?;
    assert_eq!(trial.details().await?.summary.attempt, 1, "the job does not notice");
    disk.resize(2 * LARGE)?;
    client.savepoint(trial.job, Some(&directory), SavepointMode::Continue, |_| ()).await?;
    trial.finishes_exactly().await
}
