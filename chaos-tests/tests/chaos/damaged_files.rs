//! Files of RocksDB checkpoints that are damaged, cut off or gone: the job goes back to the checkpoint before and says so; when none
//! can be read it says what is wrong with each, deletes nothing, and goes on when the files are back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::trial::{Trial, files_below};
use thalweg_chaos_tests::wait;
use thalweg_common::status::JobStatus;

/// A job that waits for a task manager, and where its checkpoints are.
async fn waiting() -> Result<(Trial, PathBuf)> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let place = cluster.folder().join("checkpoints");
    let mut trial = Trial::start(cluster, &place.display().to_string(), &[]).await?;
    let manager = *trial.cluster.task_managers().first().context("no task manager")?;
    trial.cluster.kill_task_manager(manager)?;
    wait::until("the job to wait", async || {
        let details = trial.details().await?;
        let waits = details.summary.status == JobStatus::Restarting && !details.checkpoints.in_progress;
        Ok(waits.then_some(()))
    })
    .await?;
    let folder = place.join(trial.job.to_string());
    Ok((trial, folder))
}

/// A file of RocksDB that was uploaded for this checkpoint and that no older one has.
fn own_file(folder: &Path, checkpoint: u64) -> Result<PathBuf> {
    let files = files_below(&folder.join("shared"))?;
    let own = files.into_iter().find(|file| file.display().to_string().contains(&format!("-c{checkpoint}-")));
    Ok(folder.join("shared").join(own.context("it has no file of its own")?))
}

fn flip(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn cut_off(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    Ok(fs::write(path, &bytes[..bytes.len() / 2])?)
}

async fn goes_back_after(damage: fn(&Path, u64) -> Result<()>, reason: &str) -> Result<()> {
    let (mut trial, folder) = waiting().await?;
    let [before, newest] = trial.retained().await?[..] else { bail!("two should be kept") };
    damage(&folder, newest)?;
    trial.cluster.start_task_manager().await?;
    trial.completes_beyond(&[newest]).await?;
    let details = trial.details().await?;
    assert_eq!(details.checkpoints.restored_id, Some(before));
    let expected = format!("restored from checkpoint {before}; skipped checkpoint {newest}");
    let told = |text: &str| text.contains(&expected) && text.contains(reason);
    assert!(details.history.iter().any(|change| told(&change.reason)), "{:#?}", details.history);
    let shown = trial.shown("describe")?;
    assert!(told(&shown), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_of_rocksdb_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    goes_back_after(|folder, newest| flip(&own_file(folder, newest)?), "is damaged").await
}

#[tokio::test]
async fn a_file_of_rocksdb_that_is_cut_off_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    goes_back_after(|folder, newest| cut_off(&own_file(folder, newest)?), "so it was cut off").await
}

#[tokio::test]
async fn a_file_of_rocksdb_that_is_gone_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    let damage = |folder: &Path, newest| Ok(fs::remove_file(own_file(folder, newest)?)?);
    goes_back_after(damage, "it was deleted").await
}

#[tokio::test]
async fn metadata_that_is_cut_off_sends_the_job_back_by_one_checkpoint() -> Result<()> {
    let damage = |folder: &Path, newest| cut_off(&folder.join(format!("chk-{newest}/_metadata")));
    goes_back_after(damage, "it is damaged").await
}

/// Damages files of all checkpoints: nothing is deleted, both checkpoints are named, and with the files the job is back.
async fn waits_for_its_files(is_damaged: fn(&str) -> bool, damage: fn(&Path) -> Result<()>) -> Result<()> {
    let (mut trial, folder) = waiting().await?;
    let retained = trial.retained().await?;
    let mut sound = BTreeMap::new();
    for file in files_below(&folder)?.into_iter().filter(|file| is_damaged(&file.display().to_string())) {
        let path = folder.join(file);
        sound.insert(path.clone(), fs::read(&path)?);
        damage(&path)?;
    }
    let before = files_below(&folder)?;
    trial.cluster.start_task_manager().await?;
    let each: Vec<_> = retained.iter().map(|id| format!("checkpoint {id}: ")).collect();
    let mut words = vec!["none of the retained checkpoints can be restored", "bring the files back"];
    words.extend(each.iter().map(String::as_str));
    let said = trial.failure(&words, || Ok(())).await?;
    assert!(trial.shown("describe")?.contains(&said));
    assert_eq!(trial.retained().await?, retained);
    assert_eq!(files_below(&folder)?, before, "nothing is deleted or written");
    for (path, bytes) in sound {
        fs::write(path, bytes)?;
    }
    trial.completes_beyond(&retained).await?;
    trial.finishes_exactly().await
}

#[tokio::test]
async fn when_no_metadata_can_be_read_the_job_waits_for_it() -> Result<()> {
    waits_for_its_files(|file| file.ends_with("_metadata"), cut_off).await
}

#[tokio::test]
async fn when_every_file_of_rocksdb_is_damaged_the_job_waits_for_them() -> Result<()> {
    waits_for_its_files(|file| file.starts_with("shared/"), flip).await
}

#[tokio::test]
async fn when_every_file_of_rocksdb_is_gone_the_job_waits_for_them() -> Result<()> {
    waits_for_its_files(|file| file.starts_with("shared/"), |path| Ok(fs::remove_file(path)?)).await
}
