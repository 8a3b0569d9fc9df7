//! What the demonstration found, as a sentence, as the promised JSON line, and as a judgement.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use super::output::Verdict;
use crate::clock::seconds;

/// What was killed in the course of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kills {
    pub task_managers: u32,
    pub job_managers: u32,
}

/// The result of the main run.
#[derive(Debug)]
pub struct Report {
    records: u64,
    took: Duration,
    checkpoints: u64,
    kills: Kills,
    lost: u64,
    duplicated: u64,
    correctness: Result<(), String>,
}

impl Report {
    pub fn new(verdict: &Verdict, took: Duration, checkpoints: u64, kills: Kills) -> Self {
        Self {
            records: verdict.records,
            took,
            checkpoints,
            kills,
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            correctness: verdict.check().map_err(|error| error.to_string()),
        }
    }

    /// Whether the demonstration has shown what it was to show.
    ///
    /// # Errors
    /// Says what was not as it should be.
    pub fn verify(&self) -> Result<()> {
        if let Err(problem) = &self.correctness {
            bail!("{problem}");
        }
        if self.kills.task_managers == 0 || self.kills.job_managers == 0 {
            bail!("the job ended before everything could be killed; let it run longer (--seconds)");
        }
        Ok(())
    }

    pub fn to_json(&self) -> String {
        let Self { records, checkpoints, lost, duplicated, .. } = self;
        let Kills { task_managers, job_managers } = self.kills;
        let seconds = self.took.as_secs_f64();
        format!(
            "{{\"demo\":\"word_count\",\"records\":{records},\"seconds\":{seconds:.2},\"checkpoints\":{checkpoints},\
             \"task_managers_killed\":{task_managers},\"job_managers_killed\":{job_managers},\
             \"lost\":{lost},\"duplicated\":{duplicated}}}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, checkpoints, lost, duplicated, .. } = self;
        let took = seconds(self.took);
        write!(
            formatter,
            "{records} records in {took}, {checkpoints} checkpoints, {lost} lost, {duplicated} duplicated"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLS: Kills = Kills { task_managers: 1, job_managers: 1 };

    fn report(verdict: &Verdict, kills: Kills) -> Report {
        Report::new(verdict, Duration::from_millis(20_125), 40, kills)
    }

    #[test]
    fn the_json_line_is_the_promised_one() {
        let json = report(&Verdict { records: 12, ..Verdict::default() }, KILLS).to_json();
        let value: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(value["records"], 12);
        assert_eq!(
            json,
            "{\"demo\":\"word_count\",\"records\":12,\"seconds\":20.12,\"checkpoints\":40,\"task_managers_killed\":1,\
             \"job_managers_killed\":1,\"lost\":0,\"duplicated\":0}"
        );
    }

    #[test]
    fn a_wrong_result_is_never_let_through() {
        assert!(report(&Verdict::default(), KILLS).verify().is_ok());
        for wrong in [
            Verdict { lost: 1, ..Verdict::default() },
            Verdict { duplicated: 1, ..Verdict::default() },
            Verdict { unexpected: 1, ..Verdict::default() },
        ] {
            assert!(report(&wrong, KILLS).verify().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_run_without_all_its_kills_shows_nothing() {
        for kills in
            [Kills { task_managers: 0, job_managers: 1 }, Kills { task_managers: 1, job_managers: 0 }]
        {
            let error = report(&Verdict::default(), kills).verify().expect_err("something was not killed");
            assert!(error.to_string().contains("--seconds"), "{error}");
        }
    }
}
