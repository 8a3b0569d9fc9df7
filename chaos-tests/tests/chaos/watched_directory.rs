//! A job reads a watched directory while files are added to it, and whatever may go wrong goes wrong: workers, task managers and leaders are
//! killed, and it is rescaled. Each line is counted exactly once.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;

const FILES: u64 = 160;
const LINES: u64 = 150;
const NUMBERS: u64 = FILES * LINES;
const KEYS: u64 = 97;

struct Bench {
    cluster: Cluster,
    input: PathBuf,
    output: PathBuf,
    /// How many files are there.
    written: Cell<u64>,
}

impl Bench {
    async fn start(options: ClusterOptions) -> Result<Self> {
        let cluster = Cluster::start(options).await?;
        let (input, output) = (cluster.folder().join("input"), cluster.folder().join("output"));
        fs::create_dir(&input)?;
        Ok(Self { cluster, input, output, written: Cell::new(0) })
    }

    async fn submit(&self, settings: &[(&str, &str)]) -> Result<JobId> {
        let (input, output) = (self.input.display().to_string(), self.output.display().to_string());
        let checkpoints = self.cluster.folder().join("checkpoints").display().to_string();
        let mut configuration = vec![
            ("execution.checkpointing.interval", "100 ms"),
            ("execution.checkpointing.dir", checkpoints.as_str()),
            ("execution.checkpointing.tolerable-failed-checkpoints", "100"),
            ("restart-strategy.type", "fixed-delay"),
            ("restart-strategy.fixed-delay.attempts", "100"),
            ("restart-strategy.fixed-delay.delay", "10 ms"),
            ("parallelism.default", "2"),
        ];
        configuration.extend(settings);
        let arguments = ["--input", &input, "--output", &output];
        self.cluster.submit(binary("savepoint_job")?, &arguments, &configuration).await
    }

    /// Adds the next file, if not all are there: under a hidden name first, as whoever writes into a watched directory has to.
    fn add_file(&self) -> Result<()> {
        let file = self.written.get();
        if file < FILES {
            let lines: String =
                (file * LINES..(file + 1) * LINES).map(|number| format!("{number}\n")).collect();
            let hidden = self.input.join(format!(".{file}"));
            fs::write(&hidden, lines)?;
            fs::rename(hidden, self.input.join(file.to_string()))?;
            self.written.set(file + 1);
        }
        Ok(())
    }

    /// Adds files until so much of all numbers is in the output.
    async fn progress(&self, part: u64, of: u64) -> Result<()> {
        let lines = || oracle::committed_lines(&self.output).map_or(0, |lines| lines.values().sum::<u64>());
        wait::until(&format!("{part}/{of} of the output"), async || {
            // Not ahead of the job: each fault shall meet files that come and go.
            if self.written.get() * LINES <= NUMBERS * part / of {
                self.add_file()?;
            }
            Ok((lines() >= NUMBERS * part / of).then_some(()))
        })
        .await
    }

    /// Rescales the job while files are added. A leader that has just taken over may ask to be asked again.
    async fn rescale(&self, job: JobId, parallelism: &str) -> Result<()> {
        let mut command = Command::new(binary("thalweg")?);
        command.args(["--jobmanager", &self.cluster.addresses().join(",")]);
        command.args(["rescale", &job.to_string(), "--parallelism", parallelism]);
        let mut rescaling = command.stdout(Stdio::null()).spawn()?;
        wait::until(&format!("parallelism {parallelism}"), async || {
            self.add_file()?;
            let Some(ended) = rescaling.try_wait()? else { return Ok(None) };
            if !ended.success() {
                rescaling = command.spawn()?;
            }
            Ok(ended.success().then_some(()))
        })
        .await
    }

    /// All that was written is in the output once, and stays so when the job is gone.
    async fn ends_exactly(&self, job: JobId) -> Result<()> {
        let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        self.cluster.client().await?.cancel(job).await?;
        self.cluster.reaches(job, JobStatus::Canceled).await?;
        assert_eq!(
            oracle::compare(&expected, &oracle::committed_lines(&self.output)?),
            Difference::default()
        );
        Ok(())
    }
}

async fn through_everything(settings: &[(&str, &str)]) -> Result<()> {
    let options = ClusterOptions { job_managers: 3, task_managers: 3, slots: 2, ..ClusterOptions::default() };
    let mut bench = Bench::start(options).await?;
    let job = bench.submit(settings).await?;

    bench.progress(1, 10).await?;
    let victim = *bench.cluster.task_managers().first().context("no task manager")?;
    bench.cluster.kill_task_manager(victim)?;
    bench.cluster.start_task_manager().await?;

    bench.progress(2, 10).await?;
    bench.rescale(job, "4").await?;

    bench.progress(4, 10).await?;
    let mut workers = Vec::new();
    for number in bench.cluster.task_managers() {
        workers.extend(bench.cluster.task_manager(number)?.id().children()?);
    }
    workers.first().context("no worker")?.kill()?;

    bench.progress(5, 10).await?;
    let leader = bench.cluster.leader().await?;
    bench.cluster.kill_job_manager(leader)?;
    // Tasks run on without a leader, and splits are dealt; the new one sees them through.
    bench.progress(7, 10).await?;
    bench.cluster.start_job_manager(leader)?;
    bench.cluster.job_manager_ready(leader).await?;
    bench.cluster.reaches(job, JobStatus::Running).await?;

    bench.rescale(job, "1").await?;
    bench.progress(9, 10).await?;
    for victim in bench.cluster.task_managers() {
        bench.cluster.kill_task_manager(victim)?;
        bench.cluster.start_task_manager().await?;
    }
    bench.progress(1, 1).await?;
    bench.ends_exactly(job).await
}

#[tokio::test]
async fn each_line_is_counted_once_whatever_dies() -> Result<()> {
    through_everything(&[]).await
}

#[tokio::test]
async fn each_line_is_counted_once_with_unaligned_checkpoints() -> Result<()> {
    through_everything(&[
        ("execution.checkpointing.unaligned", "true"),
        ("pipeline.operator-chaining.enabled", "false"),
        ("pipeline.max-parallelism", "128"),
    ])
    .await
}
