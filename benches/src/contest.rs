//! A job beside the plain single-threaded loop that does the same: both run in this process, take turns, and must come to
//! the same result.
//!
//! What is reported is events per CPU second of the whole process, so that work on other threads counts too, and the peak of
//! its memory.

use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use thalweg::Environment;
use thalweg::testing::LocalCluster;
use thalweg_common::clock::{Stopwatch, SystemClock};

use crate::measurement::Measurement;
use crate::tally::{Tallies, Tally};
use crate::usage;

/// What is less than this counts as this, so that nothing is divided by zero.
const SHORTEST_CPU_SECONDS: f64 = 1e-6;

/// What a run has cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU seconds of all threads of this process.
    pub cpu_seconds: f64,
    /// The highest resident memory of this process meanwhile, in MiB: whatever it holds, also what the allocator keeps of
    /// earlier work. Unknown where the kernel does not let a process forget its earlier peak.
    pub peak_mib: Option<f64>,
    /// From its beginning to its end.
    pub elapsed: Duration,
}

/// Runs `work` and says what it has cost.
///
/// # Errors
/// When the work fails or the kernel's accounts cannot be read.
pub fn measured<R>(work: impl FnOnce() -> Result<R>) -> Result<(R, Cost)> {
    let forgotten = usage::reset_own_peak().is_ok();
    let watch = Stopwatch::start(&SystemClock::shared());
    let before = usage::own_cpu_seconds();
    let result = work()?;
    let elapsed = watch.elapsed();
    let cpu_seconds = (usage::own_cpu_seconds() - before).max(SHORTEST_CPU_SECONDS);
    let peak_mib = if forgotten { Some(usage::own_peak_mib()?) } else { None };
    Ok((result, Cost { cpu_seconds, peak_mib, elapsed }))
}

/// Runs a job in this process.
///
/// # Errors
/// When the job fails.
pub fn run_job(
    parallelism: u32,
    checkpoint_interval: Option<Duration>,
    topology: impl FnOnce(&Environment) -> Tallies,
) -> Result<Tally> {
    run_job_with(LocalCluster::new(), parallelism, checkpoint_interval, topology)
}

/// Runs a job in this process, with the settings of `cluster`.
///
/// # Errors
/// When the job fails.
pub fn run_job_with(
    cluster: LocalCluster,
    parallelism: u32,
    checkpoint_interval: Option<Duration>,
    topology: impl FnOnce(&Environment) -> Tallies,
) -> Result<Tally> {
    let mut cluster = cluster.configure("parallelism.default", parallelism);
    if let Some(interval) = checkpoint_interval {
        let interval = format!("{} ms", interval.as_millis());
        cluster = cluster.configure("execution.checkpointing.interval", interval);
    }
    let tallies = cluster.run(|env| Ok(topology(env))).map_err(|error| Error::from_boxed(error.into()))?;
    Ok(tallies.total())
}

/// What a job and its loop have to do.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// The name under which the job without checkpoints is reported.
    pub without_checkpoints: String,
    /// The name under which the job with exactly-once checkpoints is reported.
    pub exactly_once: String,
    /// How often those are taken.
    pub checkpoint_interval: Duration,
    /// How many events both read.
    pub events: u64,
    /// The group of cases, for reports.
    pub bench: &'static str,
    /// Whether to report JSON.
    pub json: bool,
    /// How often both run.
    pub runs: usize,
    /// What the job does, for errors.
    pub work: &'a str,
}

impl Case<'_> {
    /// Runs the loop, the job without checkpoints and the job with them, in turn, and reports both jobs beside the loop.
    ///
    /// # Errors
    /// When a job fails, or comes to another result than the loop.
    pub fn run(&self, plain: impl Fn() -> Tally, topology: impl Fn(&Environment) -> Tallies) -> Result<()> {
        let (mut plain_costs, mut costs) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..self.runs.max(1) {
            let (expected, cost) = measured(|| Ok(std::hint::black_box(plain())))?;
            plain_costs.push(cost);
            for (interval, costs) in [None, Some(self.checkpoint_interval)].into_iter().zip(&mut costs) {
                let job = || run_job(1, interval, &topology);
                let (tally, cost) = measured(job).with_context(|| format!("the job {} failed", self.work))?;
                self.check(tally, expected)?;
                costs.push(cost);
            }
        }
        for (name, costs) in [&self.without_checkpoints, &self.exactly_once].into_iter().zip(&costs) {
            self.report(name, costs, &plain_costs)?;
        }
        Ok(())
    }

    /// Events per CPU second of a job beside the loop's, and the peak of its memory. That has no baseline: the loop runs in
    /// the same process, where the allocator keeps what jobs before it have used.
    fn report(&self, name: &str, job: &[Cost], plain: &[Cost]) -> Result<()> {
        let rates = |costs: &[Cost]| {
            costs.iter().map(|cost| self.events as f64 / cost.cpu_seconds).collect::<Vec<_>>()
        };
        let baseline = Measurement::median(self.bench, "", "", &rates(plain)).value;
        let rate = Measurement::median(self.bench, name, "events/cpu s", &rates(job));
        rate.against(baseline).print(self.json)?;
        let peaks: Vec<f64> = job.iter().filter_map(|cost| cost.peak_mib).collect();
        if peaks.is_empty() {
            return Ok(());
        }
        Measurement::median(self.bench, format!("{name}_peak_mib"), "MiB", &peaks).print(self.json)
    }

    /// Fails unless a job has come to the expected result.
    ///
    /// # Errors
    /// When it has not.
    pub fn check(&self, tally: Tally, expected: Tally) -> Result<()> {
        ensure!(
            tally == expected,
            "the job {} gives {tally:?}, the plain loop over the same events {expected:?}; one of both is wrong",
            self.work
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case<'static> {
        Case {
            without_checkpoints: "numbers".into(),
            exactly_once: "numbers_exactly_once".into(),
            checkpoint_interval: Duration::from_millis(20),
            events: 100,
            bench: "test",
            json: true,
            runs: 1,
            work: "numbers",
        }
    }

    fn numbers(env: &Environment) -> Tallies {
        let tallies = Tallies::default();
        env.generate(None, Some(100), |number| number).sink("numbers", tallies.sink());
        tallies
    }

    #[test]
    fn equal_results_are_reported_and_others_are_an_error() {
        let right = Tally { count: 100, sum: 4_950 };
        case().run(|| right, numbers).expect("both give the same");
        for wrong in [Tally { count: 99, ..right }, Tally { sum: 4_951, ..right }] {
            let error = case().run(|| wrong, numbers).expect_err("the results differ");
            assert!(error.to_string().contains("the job numbers gives Tally { count: 100"), "{error}");
        }
    }
}
