//! Unaligned checkpoints of a real job that is too slow for its sources: they complete all the same, and a job whose processes are
//! killed, or that is rescaled, goes on with the records that were on their way.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::Rescaled;
use thalweg_proto::model::{CheckpointStatistics, CheckpointStatus};

const NUMBERS: u64 = 24_000;

/// Submits the slow job, and answers where its output goes.
async fn submit(cluster: &Cluster, more: &[(&str, &str)]) -> Result<(JobId, PathBuf)> {
    let output = cluster.folder().join("output");
    let checkpoints = cluster.folder().join("checkpoints").display().to_string();
    let (output_text, numbers) = (output.display().to_string(), NUMBERS.to_string());
    // Sources that know no limit, and 4 ms for 10 updates.
    let arguments = ["--count", &numbers, "--slow-us", "400", "--output", &output_text];
    let mut configuration = vec![
        ("execution.checkpointing.interval", "100 ms"),
        ("execution.checkpointing.unaligned", "true"),
        ("execution.checkpointing.dir", &checkpoints),
        ("execution.checkpointing.tolerable-failed-checkpoints", "100"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "100"),
        ("restart-strategy.fixed-delay.delay", "10 ms"),
        ("parallelism.default", "4"),
    ];
    configuration.extend(more);
    let job = env!("CARGO_BIN_EXE_chaos_job").into();
    Ok((cluster.submit(job, &arguments, &configuration).await?, output))
}

/// Bytes of records on their way in a checkpoint.
fn persisted(checkpoint: &CheckpointStatistics) -> u64 {
    checkpoint.subtasks.iter().map(|part| part.phases.persisted_bytes).sum()
}

/// Every line of output must be there once.
fn assert_exact(output: &Path) -> Result<()> {
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % 97).to_string()).collect();
    let expected = oracle::running_counts(keys.iter().map(String::as_str));
    let difference = oracle::compare(&expected, &oracle::committed_lines(output)?);
    ensure!(difference == Difference::default(), "{difference:?}");
    Ok(())
}

/// Runs the slow job on two task managers, kills each of them once behind a checkpoint with records on their way, and compares
/// every line of output with what must be there.
async fn every_record_counts_once(aligned_timeout: &str) -> Result<()> {
    let mut cluster =
        Cluster::start(ClusterOptions { task_managers: 2, ..ClusterOptions::default() }).await?;
    let timeout = ("execution.checkpointing.aligned-checkpoint-timeout", aligned_timeout);
    let (job, output) = submit(&cluster, &[timeout]).await?;
    let client = cluster.client().await?;
    for _ in 0..2 {
        // Newer than what was restored last, and with records on their way.
        let before = client.checkpoints(job).await?.summary.restored_id.unwrap_or(0);
        wait::until("a checkpoint with records on their way", async || {
            let history = client.checkpoints(job).await?.history;
            let is_unaligned = |one: &&CheckpointStatistics| {
                one.id > before && one.status == CheckpointStatus::Completed && persisted(one) > 0
            };
            Ok(history.iter().find(is_unaligned).map(|_| ()))
        })
        .await?;
        let victim = *cluster.task_managers().first().context("no task manager")?;
        cluster.kill_task_manager(victim)?;
        cluster.start_task_manager().await?;
        wait::until("the job to be restored", async || {
            let restored = client.checkpoints(job).await?.summary.restored_id;
            Ok(restored.filter(|id| *id > before))
        })
        .await?;
    }
    cluster.reaches(job, JobStatus::Finished).await?;
    assert_exact(&output)
}

#[tokio::test]
async fn records_on_their_way_survive_killed_task_managers() -> Result<()> {
    every_record_counts_once("0 ms").await
}

#[tokio::test]
async fn a_checkpoint_that_begins_aligned_overtakes_after_its_timeout() -> Result<()> {
    every_record_counts_once("50 ms").await
}

#[tokio::test]
async fn records_on_their_way_find_their_channels_at_another_parallelism() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { slots: 5, ..ClusterOptions::default() }).await?;
    let apart = ("pipeline.operator-chaining.enabled", "false");
    // The last ten checkpoints are remembered: the one that was restored must be among them.
    let settings =
        [apart, ("pipeline.max-parallelism", "128"), ("execution.checkpointing.interval", "300 ms")];
    let (job, output) = submit(&cluster, &settings).await?;
    let client = cluster.client().await?;
    for parallelism in [2, 5, 3] {
        wait::until("a checkpoint", async || {
            let completed = client.checkpoints(job).await?.history;
            Ok(completed.iter().any(|one| one.status == CheckpointStatus::Completed).then_some(()))
        })
        .await?;
        let rescaled = client.rescale(job, parallelism, |_| ()).await?;
        assert_eq!(rescaled, Rescaled::Running, "to {parallelism}");
        let checkpoints = client.checkpoints(job).await?;
        let restored = checkpoints.summary.restored_id.context("nothing was restored")?;
        let taken = checkpoints.history.iter().find(|one| one.id == restored).context("it is forgotten")?;
        assert!(persisted(taken) > 0, "nothing was on its way: {taken:?}");
    }
    cluster.reaches(job, JobStatus::Finished).await?;
    assert_exact(&output)
}
