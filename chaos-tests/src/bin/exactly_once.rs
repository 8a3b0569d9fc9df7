//! `cargo xtask chaos exactly-once`: a keyed job under kills and a failing store, judged by an oracle.
//!
//! Standard output has the result, or with `--json` a line for each kill and one for the result; standard error tells how it
//! goes. Exit codes are 0 (each update exactly once), 1 (not so, or the run could not be done), 2 (bad arguments) and 130 (interrupted).

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use thalweg_chaos_tests::exactly_once::report::{Report, Teller};
use thalweg_chaos_tests::exactly_once::run::{Options, run};
use thalweg_chaos_tests::exactly_once::schedule::Pauses;
use tokio::signal::unix::{SignalKind, signal};

/// Kills workers, task managers and leading job managers of a running job, makes S3 fail, and counts what is lost or duplicated.
///
/// Three job managers, three task managers, an S3 on this machine behind a proxy that makes 5 % of the requests fail (503, resets
/// before and after the request was done, slow and truncated answers). The job keeps more than four times its managed memory in
/// RocksDB, takes incremental checkpoints to S3 every second and writes files exactly once. Every 5 to 15 seconds something is killed
/// with SIGKILL. The seed decides whether barriers overtake records, whether the job is rescaled now and then, and whether an enumerator finds
/// what its source reads. Then the job finishes, and an oracle computes from the events alone what the output must be.
#[derive(Parser)]
#[command(name = "cargo xtask chaos exactly-once", after_help = AFTER_HELP)]
struct Arguments {
    /// How long there are kills and faults
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,
    /// Repeats the schedule of an earlier run; made up and printed when absent
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Shortest and longest time from one kill to the next, in seconds
    #[arg(long, value_name = "N-N", default_value = "5-15")]
    pauses: Pauses,
    /// How many of a hundred requests to S3 fail
    #[arg(long, value_name = "PERCENT", default_value_t = Options::default().faults_percent, value_parser = clap::value_parser!(u16).range(0..=50))]
    faults: u16,
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = Options::default().rate)]
    rate: u32,
    /// How many events the job reads, so that it finishes under kills; as many as fill the time when absent
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Keep logs and output, also when nothing is found
    #[arg(long)]
    keep: bool,
    /// One JSON object a line: each kill, and the result
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cargo xtask chaos exactly-once --minutes 10 --json
  cargo xtask chaos exactly-once --minutes 1 --seed 42 --keep

A seed repeats what is combined, what is killed when, and which requests fail. What happens in between depends on the machine.
Exit codes: 0 nothing lost, duplicated or wrong, 1 something is, 2 bad arguments, 130 interrupted.";

fn main() -> ExitCode {
    match begin(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn begin(arguments: &Arguments) -> Result<ExitCode> {
    let duration = Duration::try_from_secs_f64((arguments.minutes * 60.0).ceil());
    let options = Options {
        seed: arguments.seed.unwrap_or_else(|| RandomState::new().hash_one(()) % 1_000_000),
        duration: duration.context("--minutes takes a number of minutes above zero")?,
        pauses: arguments.pauses,
        faults_percent: arguments.faults,
        rate: arguments.rate,
        events: arguments.events,
        keep: arguments.keep,
        teller: Teller { json: arguments.json },
        ..Options::default()
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // A run that is dropped takes its processes with it.
    let outcome = tokio::select! {
        biased;
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        outcome = run(&options) => Some(outcome),
    };
    let Some(outcome) = outcome else {
        eprintln!("interrupted; everything that was started has been stopped");
        return Ok(ExitCode::from(130));
    };
    let report = outcome.with_context(|| format!("seed {} gave no result", options.seed))?;
    options.teller.result(&report)?;
    Ok(judge(&report))
}

fn judge(report: &Report) -> ExitCode {
    if report.is_exact() {
        return ExitCode::SUCCESS;
    }
    eprintln!("the output is not exact; `--seed {}` repeats the schedule", report.seed);
    ExitCode::FAILURE
}
