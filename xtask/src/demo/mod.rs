//! `cargo xtask demo`: a real cluster, a real job, real kills, and every single count checked.
//!
//! Builds the programs, starts three job managers and two task managers, submits `examples/word_count` over gRPC, kills a
//! task manager after a third of the output and the leading job manager after two thirds, and compares what the job
//! wrote, line by line, with a plain single-threaded count.
//! Invariants: success means verified; everything that was started is stopped, except with `--keep`.

mod corpus;
mod output;
mod progress;
mod report;
mod show;
mod words;

use anyhow::{Context, Result};

use crate::cargo::Cargo;
use crate::cluster::DataDirectory;
use crate::exit::{Interrupted, Usage};
use crate::program::Built;
use crate::setup;
use crate::signal::Interrupt;
use crate::workspace::Workspace;

const HELP: &str = "\
Starts 3 job managers and 2 task managers on this machine, submits examples/word_count over gRPC,
kills a task manager (SIGKILL; a new one takes over) after a third and the leading job manager after
two thirds of the run, and checks that every word was counted exactly once.

Usage: cargo xtask demo [OPTIONS]

Options:
      --seconds <N>  how long the job is to run, about [default: 20]
      --json         print the result as the last line, as JSON
      --keep         leave the cluster running and say how to use it
  -h, --help         print this help

Examples:
  cargo xtask demo
  cargo xtask demo --json | tail -n 1
  cargo xtask demo --seconds 60 --keep

Exit codes: 0 verified, 1 not verified or failed, 2 bad arguments, 3 the machine lacks something, 130 interrupted.
";

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    seconds: u32,
    json: bool,
    keep: bool,
}

/// `cargo xtask demo`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    let Some(options) = read_arguments(arguments)? else { return Ok(()) };
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[])?);
    let programs = Built::cluster_and_examples(&cargo)?.cluster()?;

    // Until here a signal may end us at once; from here on there is something to stop.
    let interrupt = Interrupt::install().context("cannot handle signals")?;
    let mut directory = DataDirectory::create("demo")?;
    let outcome =
        show::show(options, &workspace, programs, directory.path(), &interrupt).and_then(|report| {
            if options.json {
                println!("{}", report.to_json());
            }
            report.verify()
        });
    match &outcome {
        Ok(()) if options.keep => directory.keep(),
        Err(error) if !error.is::<Interrupted>() => {
            directory.keep();
            eprintln!("    logs and data are in {}", directory.path().display());
        }
        _ => {}
    }
    outcome
}

fn read_arguments(arguments: &mut lexopt::Parser) -> Result<Option<Options>> {
    let mut options = Options { seconds: 20, json: false, keep: false };
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("seconds") => {
                let value = arguments.value()?;
                options.seconds = value
                    .to_str()
                    .and_then(|text| text.parse().ok())
                    .filter(|seconds| (10..=3600).contains(seconds))
                    .ok_or_else(|| {
                        Usage(format!("--seconds takes a number from 10 to 3600, not {value:?}"))
                    })?;
            }
            lexopt::Arg::Long("json") => options.json = true,
            lexopt::Arg::Long("keep") => options.keep = true,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Options>> {
        read_arguments(&mut lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn arguments_are_read() {
        let defaults = Options { seconds: 20, json: false, keep: false };
        assert_eq!(read(&[]).expect("valid"), Some(defaults));
        let all = Options { seconds: 60, json: true, keep: true };
        assert_eq!(read(&["--json", "--seconds", "60", "--keep"]).expect("valid"), Some(all));
        assert_eq!(read(&["--help"]).expect("valid"), None);
    }

    #[test]
    fn a_wrong_number_of_seconds_says_what_is_right() {
        for wrong in ["0", "-1", "many", "1e9"] {
            let error = read(&[&format!("--seconds={wrong}")]).expect_err("not a number of seconds");
            assert!(error.is::<Usage>() && error.to_string().contains("from 10 to 3600"), "{error}");
        }
    }
}
