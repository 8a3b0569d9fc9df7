//! `cargo xtask chaos`: the tests that kill, starve and cut off real processes, as often as wanted; the simulation of random
//! topologies, as many as wanted; and a job under kills and a failing store, as long as wanted.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{Cargo, display};
use crate::clock::{Stopwatch, seconds};
use crate::exit::{Interrupted, Usage};
use crate::program::Built;
use crate::setup::{self, Tool};
use crate::workspace::Workspace;

const HELP: &str = "\
Runs the tests that kill, starve and cut off real processes. They are part of `cargo xtask test`; here they
can be picked and repeated, to find what fails once in a hundred times. The first failure ends the run.

`topologies` kills nothing: it simulates jobs with random graphs, credit, batch sizes, slow operators, checkpoints and
cancellations, one for each seed, and looks for deadlocks and for records that are lost, doubled or out of order. The
first finding ends the run and prints the command that repeats its seed alone.

`exactly-once` runs a job whose state is four times its memory, with checkpoints on an S3 that fails, kills a worker, a task
manager or the leading job manager every 5 to 15 seconds, and has an oracle count what is lost and what is duplicated. The
seed decides whether barriers overtake records, whether the job is rescaled, and whether an enumerator finds what it reads.
A minute of it is one of the tests. Its seed is printed and repeats the schedule.

Usage: cargo xtask chaos [OPTIONS] [FILTER]...
       cargo xtask chaos topologies [--seeds <N>] [--from <SEED>]
       cargo xtask chaos exactly-once [--minutes <N>] [--seed <N>] [--json] [--help]

Arguments:
  [FILTER]...        only tests whose names contain one of these

Options:
      --repeat <N>   run them so many times [default: 1]
      --seeds <N>    so many topologies [default: 10000]
      --from <SEED>  the first seed [default: 0]
  -h, --help         print this help

Examples:
  cargo xtask chaos
  cargo xtask chaos leader --repeat 20
  cargo xtask chaos topologies --from 12 --seeds 1
  cargo xtask chaos exactly-once --minutes 10 --json

Exit codes: 0 all passed every time, 1 one failed, 2 bad arguments, 3 the machine lacks something, 130 interrupted.
";

/// The word that asks for the simulation.
const TOPOLOGIES: &str = "topologies";

/// The word that asks for the job under kills, and the program that runs it.
const EXACTLY_ONCE: &str = "exactly-once";
const EXACTLY_ONCE_PROGRAM: &str = "exactly_once";

/// The test that simulates. It reads its seeds from the environment.
const SIMULATION: [&str; 8] = [
    "test",
    "--package=thalweg-runtime",
    "--lib",
    "--",
    "--exact",
    "simulation::random_topologies_never_deadlock",
    "--nocapture",
    "--quiet",
];

#[derive(Debug, PartialEq, Eq)]
enum Options {
    Processes {
        repeat: u32,
        filters: Vec<String>,
    },
    Topologies {
        from: u64,
        seeds: u64,
    },
    /// With arguments of its own.
    ExactlyOnce(Vec<OsString>),
}

/// `cargo xtask chaos`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    match read_arguments(arguments)? {
        None => Ok(()),
        Some(Options::Processes { repeat, filters }) => run_processes(repeat, &filters),
        Some(Options::Topologies { from, seeds }) => run_topologies(from, seeds),
        Some(Options::ExactlyOnce(arguments)) => run_exactly_once(&arguments),
    }
}

fn run_processes(repeat: u32, filters: &[String]) -> Result<()> {
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[Tool::Nextest])?);
    cargo.run(&crate::test::PROGRAMS)?;
    let mut test =
        vec!["nextest", "run", "--workspace", "-E", "package(thalweg-chaos-tests)", "--no-fail-fast"];
    test.extend(filters.iter().map(String::as_str));
    for round in 1..=repeat {
        eprintln!("==> round {round} of {repeat}: {}", display(&test));
        let stopwatch = Stopwatch::start();
        let status = cargo.command(&test).status().context("cannot start cargo")?;
        if !status.success() {
            bail!("round {round} of {repeat} failed after {}", seconds(stopwatch.elapsed()));
        }
        eprintln!("    round {round} passed in {}", seconds(stopwatch.elapsed()));
    }
    println!("{repeat} rounds passed");
    Ok(())
}

fn run_topologies(from: u64, seeds: u64) -> Result<()> {
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[])?);
    eprintln!("==> {seeds} topologies from seed {from}: {}", display(&SIMULATION));
    let stopwatch = Stopwatch::start();
    let mut command = cargo.command(SIMULATION);
    command.env("THALWEG_TOPOLOGIES_FROM", from.to_string()).env("THALWEG_TOPOLOGIES", seeds.to_string());
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the simulation has found something after {}; it is above", seconds(stopwatch.elapsed()));
    }
    println!("{seeds} topologies passed in {}", seconds(stopwatch.elapsed()));
    Ok(())
}

fn run_exactly_once(arguments: &[OsString]) -> Result<()> {
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[])?);
    let program = Built::chaos(&cargo)?.find(EXACTLY_ONCE_PROGRAM)?.to_path_buf();
    let status = Command::new(program)
        .args(arguments)
        .current_dir(&workspace.root)
        .status()
        .context("cannot start the run")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(2) => Err(Usage("see above".to_owned()).into()),
        Some(130) => Err(Interrupted.into()),
        _ => bail!("the run has found something ({status}); it is above"),
    }
}

fn read_arguments(arguments: &mut lexopt::Parser) -> Result<Option<Options>> {
    let (mut repeat, mut seeds, mut from) = (None, None, None);
    let mut filters = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("repeat") => repeat = Some(number("--repeat", 1, arguments)?),
            lexopt::Arg::Long("seeds") => seeds = Some(number("--seeds", 1, arguments)?),
            lexopt::Arg::Long("from") => from = Some(number("--from", 0, arguments)?),
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            lexopt::Arg::Value(word) if word == EXACTLY_ONCE && filters.is_empty() => {
                return Ok(Some(Options::ExactlyOnce(arguments.raw_args()?.collect())));
            }
            lexopt::Arg::Value(filter) => filters.push(filter.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let is_simulation = filters == [TOPOLOGIES];
    if is_simulation && repeat.is_some() || !is_simulation && (seeds.is_some() || from.is_some()) {
        let message = "--seeds and --from are for `cargo xtask chaos topologies`, --repeat is for all others";
        return Err(Usage(message.to_owned()).into());
    }
    Ok(Some(if is_simulation {
        Options::Topologies { from: from.unwrap_or(0), seeds: seeds.unwrap_or(10_000) }
    } else {
        let repeat = u32::try_from(repeat.unwrap_or(1)).unwrap_or(u32::MAX);
        Options::Processes { repeat, filters }
    }))
}

/// The value of an option, a number from `least`.
fn number(option: &str, least: u64, arguments: &mut lexopt::Parser) -> Result<u64> {
    let value = arguments.value()?;
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number >= least);
    Ok(number.ok_or_else(|| Usage(format!("{option} takes a number from {least}, not {value:?}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Options>> {
        read_arguments(&mut lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn arguments_are_read() {
        let expected = Options::Processes { repeat: 20, filters: vec!["leader".into()] };
        assert_eq!(read(&["leader", "--repeat", "20"]).expect("valid"), Some(expected));
        let expected = Options::Topologies { from: 7, seeds: 1 };
        let one = ["topologies", "--seeds", "1", "--from", "7"];
        assert_eq!(read(&one).expect("valid"), Some(expected));
        let many = Options::Topologies { from: 0, seeds: 10_000 };
        assert_eq!(read(&["topologies"]).expect("valid"), Some(many));
        assert!(read(&["leader", "--seeds", "1"]).expect_err("no simulation").is::<Usage>());
        assert!(read(&["topologies", "--repeat", "2"]).expect_err("a simulation").is::<Usage>());
        let rest = ["--minutes", "2", "--json"].map(OsString::from).to_vec();
        let found = read(&["exactly-once", "--minutes", "2", "--json"]).expect("valid");
        assert_eq!(found, Some(Options::ExactlyOnce(rest)));
        assert_eq!(read(&["-h"]).expect("valid"), None);
        assert!(read(&["--repeat", "0"]).expect_err("not a number of rounds").is::<Usage>());
    }
}
