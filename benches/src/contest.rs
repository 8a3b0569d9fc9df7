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

/// A way to run a job, and the name under which it is reported then.
#[derive(Debug, Clone)]
pub struct Variant {
    name: String,
    checkpoint_interval: Option<Duration>,
    store: &'static str,
    baseline: Option<f64>,
}

impl Variant {
    /// With state in memory and without checkpoints.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), checkpoint_interval: None, store: "hashmap", baseline: None }
    }

    /// With an exactly-once checkpoint this often.
    #[must_use]
    pub fn exactly_once(self, interval: Duration) -> Self {
        Self { checkpoint_interval: Some(interval), ..self }
    }

    /// With its state in RocksDB, and the memory for it that a job has whose user sets none.
    #[must_use]
    pub fn in_rocksdb(self) -> Self {
        Self { store: "rocksdb", ..self }
    }

    /// Beside this many events per CPU second in place of the loop.
    #[must_use]
    pub fn against(self, baseline: f64) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    fn run(&self, topology: impl FnOnce(&Environment) -> Tallies) -> Result<Tally> {
        let cluster = LocalCluster::new().configure("state.backend.type", self.store);
        run_job_with(cluster, 1, self.checkpoint_interval, topology)
    }
}

/// What a job and its loop have to do.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// What the job does, for errors.
    pub work: &'a str,
    /// The group of cases, for reports.
    pub bench: &'static str,
    /// How the job is run.
    pub variants: Vec<Variant>,
    /// How many events both read.
    pub events: u64,
    /// What of a result is the same in every run: all of it, most of the time.
    pub comparable: fn(Tally) -> Tally,
    /// Whether to report JSON.
    pub json: bool,
    /// How often both run.
    pub runs: usize,
}

impl Case<'_> {
    /// Runs the loop and all variants of the job in turn, and reports the jobs beside the loop.
    ///
    /// # Errors
    /// When a job fails, or comes to another result than the loop.
    pub fn run(&self, plain: impl Fn() -> Tally, topology: impl Fn(&Environment) -> Tallies) -> Result<()> {
        let (mut plain_costs, mut costs) = (Vec::new(), vec![Vec::new(); self.variants.len()]);
        for _ in 0..self.runs.max(1) {
            let (expected, cost) = measured(|| Ok(std::hint::black_box(plain())))?;
            plain_costs.push(cost);
            for (variant, costs) in self.variants.iter().zip(&mut costs) {
                let failed = || format!("the job {} failed", variant.name);
                let (tally, cost) = measured(|| variant.run(&topology)).with_context(failed)?;
                self.check(tally, expected)?;
                costs.push(cost);
            }
        }
        let plain = Measurement::median(self.bench, "", "", &self.rates(&plain_costs)).value;
        for (variant, costs) in self.variants.iter().zip(&costs) {
            self.report(variant, costs, plain)?;
        }
        Ok(())
    }

    fn rates(&self, costs: &[Cost]) -> Vec<f64> {
        costs.iter().map(|cost| self.events as f64 / cost.cpu_seconds).collect()
    }

    /// Events per CPU second of a job beside the loop's, and the peak of its memory. That has no baseline: the loop runs in
    /// the same process, where the allocator keeps what jobs before it have used.
    fn report(&self, variant: &Variant, costs: &[Cost], plain: f64) -> Result<()> {
        let name = &variant.name;
        let rate = Measurement::median(self.bench, name, "events/cpu s", &self.rates(costs));
        rate.against(variant.baseline.unwrap_or(plain)).print(self.json)?;
        let peaks: Vec<f64> = costs.iter().filter_map(|cost| cost.peak_mib).collect();
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
            (self.comparable)(tally) == (self.comparable)(expected),
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
        let exactly_once = Variant::new("numbers_exactly_once").exactly_once(Duration::from_millis(20));
        let rocksdb = Variant::new("numbers_rocksdb").in_rocksdb().against(1e6);
        Case {
            work: "numbers",
            bench: "test",
            variants: vec![Variant::new("numbers"), exactly_once, rocksdb],
            events: 100,
            comparable: |tally| tally,
            json: true,
            runs: 1,
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
        let only_sums = Case { comparable: |tally| Tally { count: 0, ..tally }, ..case() };
        only_sums.run(|| Tally { count: 99, ..right }, numbers).expect("the sums are the same");
    }
}
