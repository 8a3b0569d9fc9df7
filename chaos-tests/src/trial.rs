//! A counting job with its state in RocksDB, whose storage fails while it runs: what it must go on to do, and what people see of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::{CheckpointStatus, JobDetails};

use crate::cluster::Cluster;
use crate::oracle::{self, Difference};
use crate::process::binary;
use crate::wait;

/// How many numbers the job counts, in how many keys, and how many a second.
const NUMBERS: u64 = 40_000;
const KEYS: u64 = 2_000;
const RATE: &str = "4000";

/// A running job.
pub struct Trial {
    /// Where it runs.
    pub cluster: Cluster,
    /// Which it is.
    pub job: JobId,
    output: PathBuf,
}

impl Trial {
    /// Submits the job, with checkpoints below `checkpoints`, two of which are kept, and waits for the first of them. It is restarted
    /// as often as it fails; `more` settings win.
    ///
    /// # Errors
    /// When it is refused, or does not come so far.
    pub async fn start(cluster: Cluster, checkpoints: &str, more: &[(&str, &str)]) -> Result<Self> {
        let output = cluster.folder().join("output");
        let (output_text, numbers, keys) =
            (output.display().to_string(), NUMBERS.to_string(), KEYS.to_string());
        let arguments = ["--count", &numbers, "--rate", RATE, "--keys", &keys, "--output", &output_text];
        let mut configuration = vec![
            ("state.backend.type", "rocksdb"),
            ("execution.checkpointing.interval", "200 ms"),
            ("execution.checkpointing.dir", checkpoints),
            ("execution.checkpointing.num-retained", "2"),
            ("restart-strategy.type", "fixed-delay"),
            ("restart-strategy.fixed-delay.attempts", "1000"),
            ("restart-strategy.fixed-delay.delay", "200 ms"),
            ("parallelism.default", "2"),
        ];
        configuration.extend(more);
        let job = cluster.submit(binary("chaos_job")?, &arguments, &configuration).await?;
        let trial = Self { cluster, job, output };
        wait::until("two checkpoints", async || Ok((trial.retained().await?.len() == 2).then_some(())))
            .await?;
        Ok(trial)
    }

    /// What the cluster tells of it.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn details(&self) -> Result<JobDetails> {
        self.cluster.describe(self.job).await
    }

    /// The checkpoints that can be restored, the oldest first.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn retained(&self) -> Result<Vec<u64>> {
        let checkpoints = self.cluster.client().await?.checkpoints(self.job).await?;
        Ok(checkpoints.retained.iter().map(|one| one.id).collect())
    }

    /// Waits, doing `meanwhile` again and again, until this many checkpoints have failed one after the other, and answers their
    /// reasons with their ids.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn failed_checkpoints(
        &self,
        count: usize,
        meanwhile: impl Fn() -> Result<()>,
    ) -> Result<Vec<(u64, String)>> {
        let client = self.cluster.client().await?;
        wait::until("checkpoints to fail", async || {
            meanwhile()?;
            let history = client.checkpoints(self.job).await?.history;
            let ended = history.iter().rev().filter(|one| one.status != CheckpointStatus::InProgress);
            let failed = ended.take_while(|one| one.status == CheckpointStatus::Failed);
            let failed: Vec<_> = failed.map(|one| (one.id, one.failure.clone())).collect();
            Ok((failed.len() >= count).then_some(failed))
        })
        .await
    }

    /// Waits, doing `meanwhile` again and again, until the job has begun so many attempts more.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn more_attempts(&self, count: u32, meanwhile: impl Fn() -> Result<()>) -> Result<()> {
        let wanted = self.details().await?.summary.attempt + count;
        wait::until("more attempts", async || {
            meanwhile()?;
            Ok((self.details().await?.summary.attempt >= wanted).then_some(()))
        })
        .await
    }

    /// Waits, doing `meanwhile` again and again, until the job has failed for a reason with all these words, and answers it.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn failure(&self, words: &[&str], meanwhile: impl Fn() -> Result<()>) -> Result<String> {
        wait::until(&format!("the job to fail because of {words:?}"), async || {
            meanwhile()?;
            let failures = self.details().await?.failures;
            let messages = failures.into_iter().map(|record| record.failure.message);
            Ok(messages.rev().find(|message| words.iter().all(|word| message.contains(word))))
        })
        .await
    }

    /// Waits for a checkpoint that is newer than all in `before`.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn completes_beyond(&self, before: &[u64]) -> Result<()> {
        let newest = before.last().copied().unwrap_or(0);
        wait::until("a checkpoint to complete", async || {
            Ok(self.retained().await?.last().is_some_and(|id| *id > newest).then_some(()))
        })
        .await
    }

    /// Kills the job's worker, and waits until another one runs the job from the newest checkpoint.
    ///
    /// # Errors
    /// When there is no worker, or another checkpoint is restored.
    pub async fn survives_a_kill(&mut self) -> Result<()> {
        let before = self.details().await?.summary.attempt;
        let manager = *self.cluster.task_managers().first().context("no task manager")?;
        let worker = self.cluster.task_manager(manager)?.id().children()?.into_iter().next();
        worker.context("no worker")?.kill()?;
        let restored = wait::until("the job to run again", async || {
            let details = self.details().await?;
            let runs = details.summary.attempt > before && details.summary.status == JobStatus::Running;
            Ok(runs.then_some(details.checkpoints.restored_id))
        })
        .await?;
        let retained = self.retained().await?;
        ensure!(
            restored.is_some_and(|restored| retained.contains(&restored)),
            "restored from {restored:?}, kept are {retained:?}"
        );
        Ok(())
    }

    /// Waits for the end of the job; every update must be in its output once.
    ///
    /// # Errors
    /// When it ends otherwise, or something is lost or doubled.
    pub async fn finishes_exactly(&self) -> Result<()> {
        self.cluster.reaches(self.job, JobStatus::Finished).await?;
        let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        let difference = oracle::compare(&expected, &oracle::committed_lines(&self.output)?);
        ensure!(difference == Difference::default(), "{difference:?}");
        Ok(())
    }

    /// What the `thalweg` command prints about the job.
    ///
    /// # Errors
    /// When it fails.
    pub fn shown(&self, command: &str) -> Result<String> {
        let shown = Command::new(binary("thalweg")?)
            .args(["--jobmanager", &self.cluster.addresses().join(","), command, &self.job.to_string()])
            .output()?;
        ensure!(shown.status.success(), "{command}: {shown:?}");
        Ok(String::from_utf8(shown.stdout)?)
    }
}

/// All files below a directory, relative to it.
///
/// # Errors
/// When it cannot be read.
pub fn files_below(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut files, mut directories) = (BTreeSet::new(), vec![directory.to_path_buf()]);
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry?.path();
            match path.is_dir() {
                true => directories.push(path),
                false => drop(files.insert(path.strip_prefix(directory)?.to_path_buf())),
            }
        }
    }
    Ok(files)
}
