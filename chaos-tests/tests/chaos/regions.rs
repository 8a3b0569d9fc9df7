//! Pipelines of one job that have nothing to do with each other: one is restarted, and the other one does not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::{JobDetails, SubtaskDetails};

const NUMBERS: u64 = 16_000;
const KEYS: u64 = 97;

/// So long the pipeline that failed stands still at least.
const DELAY_MS: u64 = 3_000;

/// A job at work, with a marker of its fault.
struct Trial {
    cluster: Cluster,
    job: JobId,
    output: PathBuf,
}

impl Trial {
    async fn start(options: ClusterOptions, more: &[&str], strategy: &str) -> Result<Self> {
        let cluster = Cluster::start(options).await?;
        let output = cluster.folder().to_path_buf();
        let marker = output.join("struck").display().to_string();
        let (output_text, numbers) = (output.display().to_string(), NUMBERS.to_string());
        let mut arguments = vec!["--count", &numbers, "--rate", "2000", "--output", &output_text];
        arguments.extend(["--marker", &marker]);
        arguments.extend(more);
        let delay = format!("{DELAY_MS} ms");
        let configuration = [
            ("execution.checkpointing.interval", "100 ms"),
            ("jobmanager.execution.failover-strategy", strategy),
            ("restart-strategy.type", "fixed-delay"),
            ("restart-strategy.fixed-delay.attempts", "1"),
            ("restart-strategy.fixed-delay.delay", &delay),
            ("restart-strategy.immediate-restart-after", "1 h"),
            ("parallelism.default", "1"),
        ];
        let job = PathBuf::from(env!("CARGO_BIN_EXE_two_pipelines_job"));
        let job = cluster.submit(job, &arguments, &configuration).await?;
        Ok(Self { cluster, job, output })
    }

    async fn details(&self) -> Result<JobDetails> {
        self.cluster.describe(self.job).await
    }

    /// Waits until all runs again after the restart.
    async fn restarted(&self) -> Result<()> {
        wait::until("the second attempt to run", async || {
            let summary = self.details().await?.summary;
            Ok((summary.status == JobStatus::Running && summary.attempt == 2).then_some(()))
        })
        .await
    }

    /// When each number came by, in milliseconds.
    fn trace(&self, side: &str) -> Result<Vec<(u64, u64)>> {
        let text = std::fs::read_to_string(self.output.join(format!("{side}.trace")))?;
        let line = |line: &str| {
            let (time, number) = line.split_once(' ')?;
            Some((time.parse().ok()?, number.parse().ok()?))
        };
        text.lines().map(|text| line(text).with_context(|| format!("not a trace: {text}"))).collect()
    }

    /// How many numbers have come by.
    fn progress(&self, side: &str) -> usize {
        self.trace(side).map_or(0, |trace| trace.len())
    }

    /// The job ends, and what both have written is exact.
    async fn ends_exactly(&self) -> Result<()> {
        self.cluster.reaches(self.job, JobStatus::Finished).await?;
        let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
        let expected = oracle::running_counts(keys.iter().map(String::as_str));
        for side in ["left", "right"] {
            let found = oracle::committed_lines(&self.output.join(side))?;
            assert_eq!(oracle::compare(&expected, &found), Difference::default(), "{side}");
        }
        Ok(())
    }

    /// The left one was restarted and stood still; of that the right one has noticed nothing.
    fn only_the_left_one_stood_still(&self) -> Result<()> {
        let right = self.trace("right")?;
        let numbers: BTreeSet<_> = right.iter().map(|(_, number)| *number).collect();
        assert_eq!(
            (right.len(), numbers.len()),
            (NUMBERS as usize, NUMBERS as usize),
            "no number came twice"
        );
        let (left_gap_ms, right_gap_ms) = (longest_gap_ms(&self.trace("left")?), longest_gap_ms(&right));
        assert!(left_gap_ms >= DELAY_MS, "it was restarted: {left_gap_ms} ms");
        assert!(right_gap_ms < DELAY_MS / 2, "it was not: {right_gap_ms} ms");
        Ok(())
    }
}

fn longest_gap_ms(trace: &[(u64, u64)]) -> u64 {
    trace.iter().zip(trace.iter().skip(1)).map(|(one, next)| next.0.saturating_sub(one.0)).max().unwrap_or(0)
}

/// The subtasks of one side.
fn side<'a>(details: &'a JobDetails, side: &str) -> Vec<&'a SubtaskDetails> {
    let vertices = details.vertices.iter().filter(|vertex| vertex.name.starts_with(side));
    vertices.flat_map(|vertex| &vertex.subtasks).collect()
}

/// The attempts of both sides.
fn attempts(details: &JobDetails) -> BTreeMap<&'static str, BTreeSet<u32>> {
    let of = |name| (name, side(details, name).iter().map(|subtask| subtask.attempt).collect());
    ["left", "right"].map(of).into()
}

fn expected(left: u32, right: u32) -> BTreeMap<&'static str, BTreeSet<u32>> {
    BTreeMap::from([("left", BTreeSet::from([left])), ("right", BTreeSet::from([right]))])
}

#[tokio::test]
async fn a_pipeline_that_fails_is_restarted_beside_another_one_in_its_worker_and_both_are_adopted()
-> Result<()> {
    let options = ClusterOptions { job_managers: 3, ..ClusterOptions::default() };
    let mut trial = Trial::start(options, &["--after", "4000"], "region").await?;
    trial.restarted().await?;
    assert_eq!(attempts(&trial.details().await?), expected(2, 1));
    // A new leader takes over both, each in its attempt.
    let leader = trial.cluster.leader().await?;
    trial.cluster.kill_job_manager(leader)?;
    trial.ends_exactly().await?;
    trial.only_the_left_one_stood_still()?;
    let details = trial.details().await?;
    assert_eq!((details.summary.attempt, attempts(&details)), (2, expected(2, 1)));
    assert_eq!(details.failures.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_task_manager_takes_only_its_pipeline_with_it() -> Result<()> {
    let options = ClusterOptions { task_managers: 3, slots: 1, ..ClusterOptions::default() };
    let mut trial = Trial::start(options, &[], "region").await?;
    trial.cluster.reaches(trial.job, JobStatus::Running).await?;
    wait::until_true("numbers of both", || ["left", "right"].iter().all(|side| trial.progress(side) > 3_000))
        .await?;
    let details = trial.details().await?;
    let place = |name| side(&details, name).first().map(|subtask| subtask.task_manager.clone());
    let (left, right) = (place("left").context("no left task")?, place("right"));
    assert_ne!(Some(&left), right.as_ref(), "each has a task manager of its own");
    let number = left.rsplit('-').next().context("a number")?.parse()?;
    trial.cluster.kill_task_manager(number)?;
    trial.restarted().await?;
    let details = trial.details().await?;
    assert_eq!(attempts(&details), expected(2, 1));
    assert_eq!(side(&details, "right").first().map(|subtask| subtask.task_manager.clone()), right);
    trial.ends_exactly().await?;
    trial.only_the_left_one_stood_still()?;
    let details = trial.details().await?;
    // Its counters have never begun anew.
    let read = |name| side(&details, name).first().map(|subtask| subtask.counters.records_in);
    assert_eq!(read("right"), Some(NUMBERS));
    assert!(read("left") < Some(NUMBERS), "it went on from a checkpoint");
    Ok(())
}

#[tokio::test]
async fn both_are_restarted_if_that_is_wanted() -> Result<()> {
    let trial = Trial::start(ClusterOptions::default(), &["--after", "4000"], "full").await?;
    trial.restarted().await?;
    assert_eq!(attempts(&trial.details().await?), expected(2, 2));
    trial.ends_exactly().await?;
    assert!(longest_gap_ms(&trial.trace("right")?) >= DELAY_MS);
    Ok(())
}
