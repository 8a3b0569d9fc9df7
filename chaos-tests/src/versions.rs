//! A job that goes from one version to another: a cluster for `savepoint_job`, what is done with it, and what its output must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_proto::client::{Begin, SubmitOptions};

use crate::cluster::{Cluster, ClusterOptions};
use crate::oracle::{self, Difference};
use crate::process::binary;
use crate::wait;

/// How many numbers it counts.
pub const NUMBERS: u64 = 12_000;
/// In how many keys they are.
pub const KEYS: u64 = 97;
const RATE: &str = "6000";

/// A setting.
pub type Setting<'a> = (&'a str, &'a str);

/// State in RocksDB.
pub const ROCKSDB: Setting<'static> = ("state.backend.type", "rocksdb");
/// Everything twice.
pub const AT_2: Setting<'static> = ("parallelism.default", "2");

/// A cluster for `savepoint_job`, in several versions one after the other.
pub struct Bench {
    /// Where they run.
    pub cluster: Cluster,
    /// Where all of them write.
    pub output: PathBuf,
    /// Where savepoints go.
    pub savepoints: PathBuf,
}

/// How the `thalweg` command ended.
#[derive(Debug)]
pub struct Ended {
    /// With exit code 0.
    pub succeeded: bool,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

impl Bench {
    /// Starts a cluster of eight slots.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start() -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions { slots: 8, ..ClusterOptions::default() }).await?;
        let (output, savepoints) = (cluster.folder().join("output"), cluster.folder().join("savepoints"));
        Ok(Self { cluster, output, savepoints })
    }

    /// Submits the job, with a checkpoint every 100 ms.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn submit(&self, settings: &[Setting<'_>], arguments: &[&str], begin: Begin) -> Result<JobId> {
        let mut all = BTreeMap::from([("execution.checkpointing.interval", "100 ms")]);
        all.extend(settings.iter().copied());
        let output = self.output.display().to_string();
        let given = ["--output", &output, "--rate", RATE].into_iter().chain(arguments.iter().copied());
        let options = SubmitOptions {
            properties: Default::default(),
            binary: binary("savepoint_job")?,
            arguments: given.map(str::to_string).collect(),
            configuration: all.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            submission_id: SubmissionId::random()?,
        };
        Ok(self.cluster.client().await?.submit_with(options, begin, |_| ()).await?.job_id)
    }

    /// The job to its first third.
    ///
    /// # Errors
    /// When it does not come so far.
    pub async fn begun(&self, settings: &[Setting<'_>]) -> Result<JobId> {
        let job = self.submit(settings, &["--count", &NUMBERS.to_string()], Begin::Fresh).await?;
        self.progress(NUMBERS / 3).await?;
        Ok(job)
    }

    /// Waits for so many lines of output.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn progress(&self, lines: u64) -> Result<()> {
        let written = || oracle::committed_lines(&self.output).map_or(0, |lines| lines.values().sum::<u64>());
        wait::until_true("output", || written() >= lines).await
    }

    /// The `thalweg` command at this cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = Command::new(binary("thalweg")?);
        command.args(["--jobmanager", &self.cluster.addresses().join(",")]).args(arguments);
        let output = command.output()?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok(Ended { succeeded: output.status.success(), stdout, stderr })
    }

    /// Stops a job by the command, and answers the path of its savepoint.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&self, job: JobId, flags: &[&str]) -> Result<String> {
        let (job, directory) = (job.to_string(), self.savepoints.display().to_string());
        let mut arguments = vec!["stop", &job, "--savepoint", "--dir", &directory];
        arguments.extend(flags);
        let ended = self.command(&arguments)?;
        ensure!(ended.succeeded && ended.stdout.contains(&format!("Job {job} is FINISHED")), "{ended:?}");
        path_in(&ended)
    }

    /// Every update is there once.
    ///
    /// # Errors
    /// What is lost or doubled.
    pub fn assert_exact(&self) -> Result<()> {
        let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        let difference = oracle::compare(&expected, &oracle::committed_lines(&self.output)?);
        ensure!(difference == Difference::default(), "{difference:?}");
        Ok(())
    }

    /// The counts of every key are there from one on, each once: what a job that was stopped has written. Answers how many there are.
    ///
    /// # Errors
    /// What is lost or doubled.
    pub fn assert_without_gaps(&self) -> Result<u64> {
        let lines = oracle::committed_lines(&self.output)?;
        for key in 0..KEYS {
            let mut counts: Vec<u64> =
                lines.keys().filter_map(|line| line.strip_prefix(&format!("{key} "))?.parse().ok()).collect();
            counts.sort_unstable();
            ensure!(counts.iter().copied().eq(1..=counts.len() as u64), "key {key}: {counts:?}");
        }
        let written: u64 = lines.values().sum();
        ensure!(written == lines.len() as u64, "{written} lines, {} different ones", lines.len());
        Ok(written)
    }

    /// What is in the output directory.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn files(&self) -> Result<BTreeSet<PathBuf>> {
        fs::read_dir(&self.output)?.map(|entry| Ok(entry?.path())).collect()
    }
}

/// The path that a savepoint's success tells.
fn path_in(ended: &Ended) -> Result<String> {
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    let path = words.windows(2).find(|pair| pair[0] == "Savepoint").map(|pair| pair[1].to_string());
    path.with_context(|| format!("no savepoint in {ended:?}"))
}

/// The beginning from a savepoint or checkpoint, which stays what it is.
#[must_use]
pub fn from(path: &str) -> Begin {
    Begin::Savepoint { path: path.to_string(), allow_non_restored_state: false, claim: false }
}
