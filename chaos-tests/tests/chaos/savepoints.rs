//! Savepoints of real jobs: what was counted before goes on behind them, at any parallelism and in another version, and every update is
//! in the output exactly once.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::wait;
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{Begin, ClientError, SubmitOptions};
use thalweg_proto::model::{SavepointMode, SubmitResult};

const NUMBERS: u64 = 30_000;
const KEYS: u64 = 97;

struct Bench {
    cluster: Cluster,
    output: PathBuf,
    savepoints: String,
}

impl Bench {
    async fn start() -> Result<Self> {
        Self::with(ClusterOptions { slots: 8, ..ClusterOptions::default() }).await
    }

    async fn with(options: ClusterOptions) -> Result<Self> {
        let cluster = Cluster::start(options).await?;
        let output = cluster.folder().join("output");
        let savepoints = format!("file://{}", cluster.folder().join("savepoints").display());
        Ok(Self { cluster, output, savepoints })
    }

    fn options(&self, parallelism: u32, arguments: &[&str]) -> Result<SubmitOptions> {
        let (output, count) = (self.output.display().to_string(), NUMBERS.to_string());
        let mut all = vec!["--output", &output, "--count", &count, "--rate", "6000"];
        all.extend(arguments);
        let parallelism = parallelism.to_string();
        let configuration = [
            ("execution.checkpointing.interval", "100 ms"),
            ("execution.checkpointing.savepoint-dir", self.savepoints.as_str()),
            ("parallelism.default", parallelism.as_str()),
        ];
        Ok(SubmitOptions {
            properties: Default::default(),
            binary: binary("savepoint_job")?,
            arguments: all.into_iter().map(ToString::to_string).collect(),
            configuration: configuration.map(|(key, value)| (key.to_string(), value.to_string())).into(),
            submission_id: SubmissionId::random()?,
        })
    }

    async fn submit(&self, parallelism: u32, arguments: &[&str], begin: Begin) -> Result<SubmitResult> {
        let client = self.cluster.client().await?;
        Ok(client.submit_with(self.options(parallelism, arguments)?, begin, |_| ()).await?)
    }

    fn lines(&self) -> u64 {
        oracle::committed_lines(&self.output).map_or(0, |lines| lines.values().sum())
    }

    async fn progress(&self, lines: u64) -> Result<()> {
        wait::until_true("output", || self.lines() >= lines).await
    }

    async fn take(&self, job: JobId, mode: SavepointMode) -> Result<String> {
        let client = self.cluster.client().await?;
        Ok(client.savepoint(job, None, mode, |_| ()).await?.path)
    }

    /// Stops the job with a savepoint.
    async fn stop(&self, job: JobId) -> Result<String> {
        let path = self.take(job, SavepointMode::Stop).await?;
        self.cluster.reaches(job, JobStatus::Finished).await?;
        Ok(path)
    }

    /// Puts a file of numbers into the input, whole.
    fn put(&self, input: &Path, numbers: std::ops::Range<u64>) -> Result<()> {
        let (hidden, name) = (input.join(".part"), input.join(format!("{:06}", numbers.start)));
        let lines: String = numbers.map(|number| format!("{number}\n")).collect();
        std::fs::write(&hidden, lines)?;
        Ok(std::fs::rename(hidden, name)?)
    }

    /// Every update is there once.
    fn assert_exact(&self) -> Result<()> {
        let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        assert_eq!(
            oracle::compare(&expected, &oracle::committed_lines(&self.output)?),
            Difference::default()
        );
        Ok(())
    }

    /// The `thalweg` command at this cluster.
    fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("thalweg")?);
        command.args(["--jobmanager", &self.cluster.addresses().join(",")]).args(arguments);
        Ok(command.output()?)
    }
}

fn from(path: &str) -> Begin {
    Begin::Savepoint { path: path.to_string(), allow_non_restored_state: false, claim: false }
}

fn allowing(path: &str) -> Begin {
    Begin::Savepoint { path: path.to_string(), allow_non_restored_state: true, claim: false }
}

#[tokio::test]
async fn a_stopped_job_goes_on_at_any_parallelism_and_in_a_newer_version() -> Result<()> {
    let bench = Bench::start().await?;
    let mut job = bench.submit(2, &[], Begin::Fresh).await?.job_id;
    for (step, parallelism, version) in [(1, 1, "first"), (2, 3, "first"), (3, 4, "added"), (4, 8, "added")] {
        bench.progress(NUMBERS * step / 8).await?;
        let path = bench.stop(job).await?;
        let result = bench.submit(parallelism, &["--version-of-it", version], from(&path)).await?;
        assert!(result.report.context("no report")?.is_accepted());
        job = result.job_id;
    }
    bench.cluster.reaches(job, JobStatus::Finished).await?;
    bench.assert_exact()
}

#[tokio::test]
async fn an_intermediate_savepoint_commits_nothing_and_its_job_goes_on() -> Result<()> {
    let bench = Bench::start().await?;
    let job = bench.submit(2, &[], Begin::Fresh).await?.job_id;
    bench.progress(NUMBERS / 10).await?;
    let path = bench.take(job, SavepointMode::Continue).await?;
    assert!(Path::new(path.trim_start_matches("file://")).join("_metadata").is_file(), "{path}");
    let client = bench.cluster.client().await?;
    let known = client.savepoints(job).await?;
    assert_eq!(
        known.iter().map(|one| (one.path.as_str(), one.is_final)).collect::<Vec<_>>(),
        [(path.as_str(), false)]
    );
    bench.cluster.reaches(job, JobStatus::Finished).await?;
    bench.assert_exact()?;
    let refused = client.savepoint(job, None, SavepointMode::Continue, |_| ()).await.unwrap_err();
    assert!(refused.to_string().contains("has ended"), "{refused}");
    client.dispose_savepoint(&path).await?;
    assert!(client.savepoints(job).await?.is_empty());
    assert!(!Path::new(path.trim_start_matches("file://")).join("_metadata").exists());
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_starts() -> Result<()> {
    let bench = Bench::start().await?;
    let job = bench.submit(2, &[], Begin::Fresh).await?.job_id;
    bench.progress(NUMBERS / 10).await?;
    let path = bench.take(job, SavepointMode::Continue).await?;
    let refusal = async |arguments: &[&str], begin: Begin| {
        let error = bench.submit(2, arguments, begin).await.expect_err("it is refused");
        assert!(matches!(error.downcast_ref(), Some(ClientError::Refused { .. })), "{error:?}");
        error.to_string()
    };
    let removed = refusal(&["--version-of-it", "removed"], from(&path)).await;
    assert!(removed.contains("count"), "{removed}");
    let incompatible = refusal(&["--version-of-it", "incompatible"], from(&path)).await;
    assert!(incompatible.contains("count"), "{incompatible}");
    let check = Begin::Check { against: job, allow_non_restored_state: false };
    let checked = refusal(&["--version-of-it", "incompatible"], check).await;
    assert!(checked.contains("count"), "{checked}");
    let upgraded = bench.command(&[
        "upgrade",
        &job.to_string(),
        &binary("savepoint_job")?.display().to_string(),
        "--",
        "--output",
        &bench.output.display().to_string(),
        "--version-of-it",
        "incompatible",
    ])?;
    let said = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    assert!(!upgraded.status.success() && said.contains("was not touched"), "{said}");
    assert_eq!(bench.cluster.describe(job).await?.summary.attempt, 1, "the running job is untouched");
    bench.cluster.reaches(job, JobStatus::Finished).await?;
    bench.assert_exact()?;
    bench.submit(2, &["--version-of-it", "removed"], allowing(&path)).await?;
    Ok(())
}

#[tokio::test]
async fn an_upgrade_that_fails_brings_the_old_version_back() -> Result<()> {
    let bench = Bench::start().await?;
    let job = bench.submit(2, &[], Begin::Fresh).await?.job_id;
    bench.progress(NUMBERS / 10).await?;
    let (program, output) =
        (binary("savepoint_job")?.display().to_string(), bench.output.display().to_string());
    let count = NUMBERS.to_string();
    let version =
        ["--", "--output", &output, "--count", &count, "--rate", "6000", "--version-of-it", "added"];
    let mut failing = vec!["upgrade", "--json", "--limit", "5s", "-D", "restart-strategy.type=none"];
    let name = job.to_string();
    failing.extend([name.as_str(), program.as_str()]);
    failing.extend(version);
    failing.push("--fails");
    let failed = bench.command(&failing)?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("the old version is started again"), "{said}");
    let jobs = bench.cluster.client().await?.list().await?;
    let runs = jobs.iter().find(|job| job.status == JobStatus::Running).context("no job runs")?.job_id;
    let name = runs.to_string();
    let mut working = vec!["upgrade", name.as_str(), program.as_str()];
    working.extend(version);
    let upgraded = bench.command(&working)?;
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    let jobs = bench.cluster.client().await?.list().await?;
    for job in jobs.iter().filter(|job| !job.status.is_terminal()) {
        bench.cluster.reaches(job.job_id, JobStatus::Finished).await?;
    }
    bench.assert_exact()
}

#[tokio::test]
async fn files_that_appear_are_read_once_over_kills_and_changes_of_parallelism() -> Result<()> {
    let options = ClusterOptions { job_managers: 3, task_managers: 2, slots: 8, ..ClusterOptions::default() };
    let mut bench = Bench::with(options).await?;
    let input = bench.cluster.folder().join("input");
    std::fs::create_dir(&input)?;
    let arguments = ["--input", &input.display().to_string()];
    let files = 60;
    let of_file = |file: u64| NUMBERS / files * file..NUMBERS / files * (file + 1);
    let mut job = bench.submit(2, &arguments, Begin::Fresh).await?.job_id;
    for file in 0..files {
        bench.put(&input, of_file(file))?;
        // Not all that is there is read when something happens.
        let behind = of_file(file.saturating_sub(1)).end;
        match file {
            10 | 30 => {
                bench.progress(of_file(file - 5).end).await?;
                let victim = bench.cluster.task_managers()[0];
                bench.cluster.kill_task_manager(victim)?;
                bench.cluster.start_task_manager().await?;
            }
            20 => {
                bench.progress(of_file(file - 5).end).await?;
                let leader = bench.cluster.leader().await?;
                bench.cluster.kill_job_manager(leader)?;
            }
            15 | 35 | 45 => {
                bench.progress(behind).await?;
                let path = bench.stop(job).await?;
                let parallelism = [5, 1, 3][file as usize / 15 - 1];
                job = bench.submit(parallelism, &arguments, from(&path)).await?.job_id;
            }
            _ => {}
        }
    }
    bench.progress(NUMBERS).await?;
    let client = bench.cluster.client().await?;
    client.cancel(job).await?;
    bench.cluster.reaches(job, JobStatus::Canceled).await?;
    bench.assert_exact()
}
