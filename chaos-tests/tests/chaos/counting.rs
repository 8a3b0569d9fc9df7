//! A job that counts numbers by key, with checkpoints three times a second and restarts enough for any test; and what it must write.

use std::path::PathBuf;

use anyhow::Result;
use thalweg_chaos_tests::cluster::Cluster;
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;

/// The job, submitted.
pub(crate) struct Counting {
    pub(crate) job: JobId,
    pub(crate) checkpoints: PathBuf,
    output: PathBuf,
    numbers: u64,
    keys: u64,
}

impl Counting {
    /// Counts so many numbers, 12,000 a second, of so many keys, with state of this backend.
    pub(crate) async fn submit(cluster: &Cluster, backend: &str, numbers: u64, keys: u64) -> Result<Self> {
        let (output, checkpoints) = (cluster.folder().join("output"), cluster.folder().join("checkpoints"));
        let arguments = ["--rate", "12000"].map(str::to_owned).into_iter().chain([
            format!("--count={numbers}"),
            format!("--keys={keys}"),
            format!("--output={}", output.display()),
        ]);
        let arguments: Vec<String> = arguments.collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let directory = checkpoints.display().to_string();
        let configuration = [
            ("state.backend.type", backend),
            ("execution.checkpointing.interval", "300 ms"),
            ("execution.checkpointing.dir", directory.as_str()),
            ("execution.checkpointing.tolerable-failed-checkpoints", "100"),
            ("restart-strategy.type", "fixed-delay"),
            ("restart-strategy.fixed-delay.attempts", "100"),
            ("restart-strategy.fixed-delay.delay", "10 ms"),
            ("parallelism.default", "2"),
        ];
        let job = PathBuf::from(env!("CARGO_BIN_EXE_chaos_job"));
        let job = cluster.submit(job, &arguments, &configuration).await?;
        Ok(Self { job, checkpoints, output, numbers, keys })
    }

    /// Lines that can be seen.
    pub(crate) fn progress(&self) -> u64 {
        oracle::committed_lines(&self.output).map_or(0, |lines| lines.values().sum())
    }

    /// Waits for its end; every count must be there once.
    pub(crate) async fn finishes_with_every_count(&self, cluster: &Cluster) -> Result<()> {
        cluster.reaches(self.job, JobStatus::Finished).await?;
        let keys: Vec<String> = (0..self.numbers).map(|number| (number % self.keys).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        assert_eq!(
            oracle::compare(&expected, &oracle::committed_lines(&self.output)?),
            Difference::default()
        );
        Ok(())
    }
}
