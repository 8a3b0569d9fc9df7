//! Real jobs at another parallelism while they run: asked for by a user, refused, interrupted by the death of the leader, and by the
//! adaptive scheduler as task managers come and go. Every update is in the output exactly once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;

const KEYS: u64 = 97;

/// A cluster, and a job of which all follows the default parallelism: a source whose splits are ranges, a count by key, and a sink with
/// transactions.
struct Bench {
    cluster: Cluster,
    output: PathBuf,
    numbers: u64,
}

impl Bench {
    async fn start(options: ClusterOptions, numbers: u64) -> Result<Self> {
        let cluster = Cluster::start(options).await?;
        let output = cluster.folder().join("output");
        Ok(Self { cluster, output, numbers })
    }

    async fn submit(&self, parallelism: &str, settings: &[(&str, &str)]) -> Result<JobId> {
        let (output, count) = (self.output.display().to_string(), self.numbers.to_string());
        let checkpoints = self.cluster.folder().join("checkpoints").display().to_string();
        let arguments = ["--output", &output, "--count", &count, "--rate", "5000"];
        let mut configuration = vec![
            ("execution.checkpointing.interval", "200 ms"),
            ("execution.checkpointing.dir", checkpoints.as_str()),
            ("execution.checkpointing.tolerable-failed-checkpoints", "100"),
            ("parallelism.default", parallelism),
        ];
        configuration.extend(settings);
        self.cluster.submit(binary("savepoint_job")?, &arguments, &configuration).await
    }

    async fn progress(&self, part: u64, of: u64) -> Result<()> {
        let lines = || oracle::committed_lines(&self.output).map_or(0, |lines| lines.values().sum::<u64>());
        wait::until_true("output", || lines() >= self.numbers * part / of).await
    }

    /// That of every operator, from the source to the sink.
    async fn parallelism(&self, job: JobId) -> Result<u32> {
        let details = self.cluster.describe(job).await?;
        for name in ["numbers", "Process", "updates"] {
            let is_there = details.vertices.iter().any(|vertex| vertex.name.contains(name));
            anyhow::ensure!(is_there, "no `{name}`: {:?}", details.vertices);
        }
        let all: BTreeSet<u32> = details.vertices.iter().map(|vertex| vertex.parallelism).collect();
        anyhow::ensure!(all.len() == 1, "they differ: {:?}", details.vertices);
        all.first().copied().context("no vertices")
    }

    /// Waits until all tasks run, so many of them counting.
    async fn runs_at(&self, job: JobId, parallelism: u32) -> Result<()> {
        wait::until(&format!("the job to run at parallelism {parallelism}"), async || {
            let summary = self.cluster.describe(job).await?.summary;
            let runs = summary.status == JobStatus::Running && summary.tasks_running == summary.tasks_total;
            Ok((runs && self.parallelism(job).await? == parallelism).then_some(()))
        })
        .await
    }

    fn rescale(&self, job: JobId, parallelism: &str) -> Result<Command> {
        let mut command = Command::new(binary("thalweg")?);
        command.args(["--jobmanager", &self.cluster.addresses().join(",")]);
        command.args(["rescale", &job.to_string(), "--parallelism", parallelism]);
        Ok(command)
    }

    /// The job ends by itself, with every update there once.
    async fn ends_exactly(&self, job: JobId) -> Result<()> {
        self.cluster.reaches(job, JobStatus::Finished).await?;
        let keys: Vec<String> = (0..self.numbers).map(|number| (number % KEYS).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        assert_eq!(
            oracle::compare(&expected, &oracle::committed_lines(&self.output)?),
            Difference::default()
        );
        Ok(())
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// From two subtasks to four to one, with this store.
async fn up_and_down(store: &str) -> Result<()> {
    let bench = Bench::start(ClusterOptions { slots: 4, ..ClusterOptions::default() }, 40_000).await?;
    let job = bench.submit("2", &[("state.backend.type", store)]).await?;
    for (part, parallelism, attempt) in [(1, "4", 2), (2, "1", 3)] {
        bench.progress(part, 4).await?;
        let rescaled = bench.rescale(job, parallelism)?.output()?;
        assert!(rescaled.status.success(), "{}", said(&rescaled));
        assert!(said(&rescaled).contains("taking a checkpoint"), "{}", said(&rescaled));
        assert_eq!(bench.parallelism(job).await?.to_string(), parallelism);
        let summary = bench.cluster.describe(job).await?.summary;
        assert_eq!((summary.attempt, summary.status), (attempt, JobStatus::Running));
    }
    assert!(bench.cluster.describe(job).await?.failures.is_empty(), "rescaling is no failure");
    bench.ends_exactly(job).await
}

#[tokio::test]
async fn a_job_with_state_in_memory_goes_to_other_parallelisms() -> Result<()> {
    up_and_down("hashmap").await
}

#[tokio::test]
async fn a_job_with_state_in_rocksdb_goes_to_other_parallelisms() -> Result<()> {
    up_and_down("rocksdb").await
}

#[tokio::test]
async fn what_cannot_be_leaves_the_job_running() -> Result<()> {
    let bench = Bench::start(ClusterOptions { slots: 3, ..ClusterOptions::default() }, 20_000).await?;
    let job = bench.submit("2", &[]).await?;
    bench.progress(1, 10).await?;
    for (parallelism, expected) in [
        ("4", "it would need 4 slots, and 3 can be had"),
        ("200", "max parallelism"),
        ("2", "already"),
        ("0", "from 1"),
    ] {
        let refused = bench.rescale(job, parallelism)?.output()?;
        assert!(!refused.status.success() && said(&refused).contains(expected), "{}", said(&refused));
    }
    let summary = bench.cluster.describe(job).await?.summary;
    assert_eq!((summary.attempt, summary.status), (1, JobStatus::Running));
    bench.ends_exactly(job).await
}

#[tokio::test]
async fn a_leader_that_dies_meanwhile_leaves_the_job_at_one_parallelism_or_the_other() -> Result<()> {
    let options = ClusterOptions { job_managers: 3, slots: 4, ..ClusterOptions::default() };
    let mut bench = Bench::start(options, 50_000).await?;
    let job = bench.submit("2", &[]).await?;
    for (step, parallelism) in [(1, "4"), (2, "1"), (3, "3")] {
        bench.progress(step, 6).await?;
        let mut command = bench.rescale(job, parallelism)?;
        let mut asking: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let leader = bench.cluster.leader().await?;
        // The first leader dies before anything has happened, the others when the new parallelism is in the log.
        if step > 1 {
            wait::until("the new parallelism in the log", async || {
                let is_there = bench.parallelism(job).await?.to_string() == parallelism;
                Ok((is_there || asking.try_wait()?.is_some()).then_some(()))
            })
            .await?;
        }
        bench.cluster.kill_job_manager(leader)?;
        wait::until("the command to end", async || Ok(asking.try_wait()?)).await?;
        bench.cluster.reaches(job, JobStatus::Running).await?;
        bench.cluster.start_job_manager(leader)?;
        bench.cluster.job_manager_ready(leader).await?;
    }
    bench.ends_exactly(job).await
}

#[tokio::test]
async fn the_adaptive_scheduler_goes_by_the_slots_that_are_there() -> Result<()> {
    let options = ClusterOptions::default()
        .set("jobmanager.scheduler", "adaptive")
        .set("jobmanager.adaptive-scheduler.resource-stabilization-timeout", "300 ms")
        .set("jobmanager.adaptive-scheduler.scaling-interval.min", "500 ms");
    let mut bench = Bench::start(options, 60_000).await?;
    let job = bench.submit("4", &[]).await?;
    bench.runs_at(job, 2).await?;
    let more = bench.cluster.start_task_manager().await?;
    bench.runs_at(job, 4).await?;
    assert!(bench.cluster.describe(job).await?.failures.is_empty(), "scaling up is no failure");
    bench.cluster.kill_task_manager(more)?;
    bench.runs_at(job, 2).await?;
    bench.ends_exactly(job).await
}
