//! Steps that are run one after the other, each announced, timed and judged, and a table of them at the end.
//!
//! Invariant: a failed step never hides the ones after it; the whole fails if any step did.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::{Stopwatch, seconds};
use crate::exit::MachineLacks;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// Not done, for this reason; not a failure.
    Skipped(String),
    Failed(String),
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// The steps run so far.
#[derive(Debug)]
pub struct Steps {
    steps: Vec<Step>,
    stopwatch: Stopwatch,
}

impl Steps {
    pub fn new() -> Self {
        Self { steps: Vec::new(), stopwatch: Stopwatch::start() }
    }

    /// Runs one step. `what` says what it does, best as a command that can be repeated by hand.
    ///
    /// # Errors
    /// Only when the machine lacks something: then no other step makes sense. Any other failure is kept for the summary.
    pub fn run(
        &mut self,
        name: &'static str,
        what: &str,
        step: impl FnOnce() -> Result<Outcome>,
    ) -> Result<()> {
        eprintln!("==> {name}: {what}");
        let stopwatch = Stopwatch::start();
        let outcome = match step() {
            Ok(outcome) => outcome,
            Err(error) if error.is::<MachineLacks>() => return Err(error),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let took = stopwatch.elapsed();
        match &outcome {
            Outcome::Passed => eprintln!("    {name} passed in {}", seconds(took)),
            Outcome::Skipped(reason) => eprintln!("    {name} SKIPPED: {reason}"),
            Outcome::Failed(reason) => eprintln!("    {name} FAILED after {}: {reason}", seconds(took)),
        }
        self.steps.push(Step { name, outcome, took });
        Ok(())
    }

    /// Prints the table.
    ///
    /// # Errors
    /// Names the steps that failed.
    pub fn finish(self) -> Result<()> {
        print!("{}", self.table());
        let failed: Vec<_> = self
            .steps
            .iter()
            .filter(|step| matches!(step.outcome, Outcome::Failed(_)))
            .map(|step| step.name)
            .collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }

    fn table(&self) -> String {
        let width = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0).max("total".len());
        let mut table = String::from("\n");
        for Step { name, outcome, took } in &self.steps {
            let verdict = match outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Skipped(reason) => format!("skipped: {}", first_line(reason)),
                Outcome::Failed(reason) => format!("FAILED: {}", first_line(reason)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(table, "  {name:width$}  {:>12}  {verdict}", seconds(*took));
        }
        let _ = writeln!(table, "  {:width$}  {:>12}", "total", seconds(self.stopwatch.elapsed()));
        table
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failed_step_is_named_at_the_end_and_the_others_still_run() {
        let mut steps = Steps::new();
        steps.run("one", "passes", || Ok(Outcome::Passed)).expect("recorded");
        steps.run("two", "fails", || Err(anyhow!("broken\nin two lines"))).expect("recorded");
        steps.run("three", "is skipped", || Ok(Outcome::Skipped("no network".into()))).expect("recorded");
        let table = steps.table();
        assert!(
            table.contains("passed")
                && table.contains("FAILED: broken")
                && table.contains("skipped: no network")
        );
        assert!(!table.contains("in two lines"), "the table has one line per step: {table}");
        assert_eq!(steps.finish().expect_err("one failed").to_string(), "failed: two");
    }

    #[test]
    fn a_machine_that_lacks_something_ends_the_run() {
        let mut steps = Steps::new();
        let outcome = steps.run("setup", "looks for gcc", || Err(MachineLacks("install gcc".into()).into()));
        assert!(outcome.expect_err("the run ends").is::<MachineLacks>());
    }
}
