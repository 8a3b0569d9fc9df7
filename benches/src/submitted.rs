//! A measuring program that is a job as well: it starts a cluster of real processes and submits itself.
//!
//! The same executable measures and runs in the workers, told apart by [`is_job`]. What its processes have used is read
//! while they run, from one moment to another, so that neither their start nor their end counts.

use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use clap::Parser;
use thalweg::Environment;
use thalweg::operator::OpenContext;
use thalweg::prelude::Failure;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::ProcessId;
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_proto::model::{Checkpoints, JobDetails};

use crate::progress::Point;
use crate::usage;

/// A setting of a job as it is given to a measurement: `KEY=VALUE`.
///
/// # Errors
/// When there is no `=`, with what to write.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether a cluster has started this process to plan or run a job.
pub fn is_job() -> bool {
    std::env::var_os("THALWEG_MODE").is_some()
}

/// What such a process does: it plans or runs the job.
///
/// # Errors
/// A mistake in the topology, or what a worker cannot recover from.
pub fn run_job(topology: impl FnOnce(&mut Environment) -> thalweg::Result<()>) -> Result<()> {
    thalweg::run(topology).map_err(|error| Error::from_boxed(error.into()))
}

/// The whole of such a program: a process that a cluster has started plans or runs the job, any other one measures.
///
/// # Errors
/// Those of either.
pub fn main<O: Parser>(
    topology: impl FnOnce(&mut Environment) -> thalweg::Result<()>,
    measure: impl AsyncFnOnce(&O) -> Result<()>,
) -> Result<()> {
    if is_job() {
        return run_job(topology);
    }
    let options = O::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&options))
}

/// How long something is measured, as it is given to a measurement.
///
/// # Errors
/// When it is no number above 0.
pub fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds| *seconds > 0.0).ok_or_else(|| "give a number above 0".to_owned())
}

/// Fails a source or sink of a job that was restarted: counts that start over would be taken for slow ones.
pub(crate) fn refuse_restart(context: &OpenContext) -> Result<(), Failure> {
    if context.attempt > 1 {
        return Err(Failure::user("a measured job was restarted; its figures mean nothing").permanent());
    }
    Ok(())
}

/// This executable as a running job. Dropping it kills the cluster.
pub struct Submitted {
    cluster: Cluster,
    job: JobId,
    managers: Vec<ProcessId>,
    workers: Vec<ProcessId>,
}

/// How far a job was at some moment, and what all its processes had used until then.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// CPU seconds of the job manager, the task managers and the workers.
    pub cpu_seconds: f64,
    /// How far the job was.
    pub point: Point,
}

impl Sample {
    /// What was counted in a CPU second between an earlier sample and this one.
    pub fn per_cpu_second_since(self, earlier: Self) -> f64 {
        (self.point.count - earlier.point.count) as f64 / (self.cpu_seconds - earlier.cpu_seconds)
    }
}

impl Submitted {
    /// Starts a cluster, submits this executable and waits until all its tasks run. `arguments` are made from the
    /// cluster's folder, in which the job may write.
    ///
    /// # Errors
    /// When a process does not start, or the job fails before it runs.
    pub async fn start(
        options: ClusterOptions,
        arguments: impl FnOnce(&str) -> Vec<String>,
        configuration: &[(&str, &str)],
    ) -> Result<Self> {
        let mut cluster = Cluster::start(options).await?;
        let mut managers = vec![cluster.job_manager(1)?.id()];
        for number in cluster.task_managers() {
            managers.push(cluster.task_manager(number)?.id());
        }
        let folder = cluster.folder().to_str().context("a path that is not UTF-8")?;
        let arguments = arguments(folder);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let job = cluster.submit(std::env::current_exe()?, &arguments, configuration).await?;
        let mut submitted = Self { cluster, job, managers, workers: Vec::new() };
        submitted.workers =
            wait::until("all tasks to run", async || submitted.running_workers().await).await?;
        Ok(submitted)
    }

    /// The workers, once all tasks run.
    async fn running_workers(&self) -> Result<Option<Vec<ProcessId>>> {
        let summary = self.running().await?.summary;
        if summary.tasks_running < summary.tasks_total {
            return Ok(None);
        }
        let task_managers = self.managers.iter().skip(1);
        let workers: Vec<Vec<_>> = task_managers.map(|manager| manager.children()).collect::<Result<_>>()?;
        Ok(Some(workers.concat()))
    }

    /// What the cluster tells of the job.
    ///
    /// # Errors
    /// When the job has failed or was restarted.
    pub async fn running(&self) -> Result<JobDetails> {
        let details = self.cluster.describe(self.job).await?;
        if !details.failures.is_empty() || details.summary.status.is_terminal() {
            bail!("the measured job is {}: {:#?}", details.summary.status, details.failures);
        }
        Ok(details)
    }

    /// The checkpoints that the cluster still knows of.
    ///
    /// # Errors
    /// When there is no leader.
    pub async fn checkpoints(&self) -> Result<Checkpoints> {
        Ok(self.cluster.client().await?.checkpoints(self.job).await?)
    }

    /// The folder in which the job may write.
    pub fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    /// The processes that run the job's tasks.
    pub fn workers(&self) -> &[ProcessId] {
        &self.workers
    }

    /// CPU seconds of the job manager, the task managers and the workers.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.managers.iter().chain(&self.workers).map(|process| usage::cpu_seconds(*process)).sum()
    }

    /// Resident memory of the workers in MiB.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn resident_mib(&self) -> Result<f64> {
        self.workers.iter().map(|worker| usage::resident_mib(*worker)).sum()
    }

    /// The most resident memory that the workers ever had, in MiB.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn peak_resident_mib(&self) -> Result<f64> {
        self.workers.iter().map(|worker| usage::peak_resident_mib(*worker)).sum()
    }

    /// How far the job is by the progress that its sink writes into `file`, and what it has used. Waits for the first line.
    ///
    /// # Errors
    /// When the job has failed, or there is no progress in time.
    pub async fn sample(&self, file: &str) -> Result<Sample> {
        self.running().await?;
        let path = self.folder().join(file);
        let what = format!("progress in {file}");
        wait::until(&what, async || {
            let cpu_seconds = self.cpu_seconds()?;
            Ok(Point::latest(&path)?.map(|point| Sample { cpu_seconds, point }))
        })
        .await
    }
}
