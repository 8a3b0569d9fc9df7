//! `cargo xtask chaos`: the tests that kill, starve and cut off real processes, as often as wanted.

use anyhow::{Context, Result, bail};

use crate::cargo::{Cargo, display};
use crate::clock::{Stopwatch, seconds};
use crate::exit::Usage;
use crate::setup::{self, Tool};
use crate::workspace::Workspace;

const HELP: &str = "\
Runs the tests that kill, starve and cut off real processes. They are part of `cargo xtask test`; here they
can be picked and repeated, to find what fails once in a hundred times. The first failure ends the run.

Usage: cargo xtask chaos [OPTIONS] [FILTER]...

Arguments:
  [FILTER]...        only tests whose names contain one of these

Options:
      --repeat <N>   run them so many times [default: 1]
  -h, --help         print this help

Examples:
  cargo xtask chaos
  cargo xtask chaos leader --repeat 20

Exit codes: 0 all passed every time, 1 one failed, 2 bad arguments, 3 the machine lacks something.
";

#[derive(Debug, PartialEq, Eq)]
struct Options {
    repeat: u32,
    filters: Vec<String>,
}

/// `cargo xtask chaos`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    let Some(options) = read_arguments(arguments)? else { return Ok(()) };
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[Tool::Nextest])?);
    cargo.run(&crate::test::PROGRAMS)?;
    let mut test =
        vec!["nextest", "run", "--workspace", "-E", "package(thalweg-chaos-tests)", "--no-fail-fast"];
    test.extend(options.filters.iter().map(String::as_str));
    for round in 1..=options.repeat {
        eprintln!("==> round {round} of {}: {}", options.repeat, display(&test));
        let stopwatch = Stopwatch::start();
        let status = cargo.command(&test).status().context("cannot start cargo")?;
        if !status.success() {
            bail!("round {round} of {} failed after {}", options.repeat, seconds(stopwatch.elapsed()));
        }
        eprintln!("    round {round} passed in {}", seconds(stopwatch.elapsed()));
    }
    println!("{} rounds passed", options.repeat);
    Ok(())
}

fn read_arguments(arguments: &mut lexopt::Parser) -> Result<Option<Options>> {
    let mut options = Options { repeat: 1, filters: Vec::new() };
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("repeat") => {
                let value = arguments.value()?;
                options.repeat = value
                    .to_str()
                    .and_then(|text| text.parse().ok())
                    .filter(|repeat| *repeat > 0)
                    .ok_or_else(|| Usage(format!("--repeat takes a number from 1, not {value:?}")))?;
            }
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            lexopt::Arg::Value(filter) => options.filters.push(filter.to_string_lossy().into_owned()),
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
        let expected = Options { repeat: 20, filters: vec!["leader".into()] };
        assert_eq!(read(&["leader", "--repeat", "20"]).expect("valid"), Some(expected));
        assert_eq!(read(&["-h"]).expect("valid"), None);
        assert!(read(&["--repeat", "0"]).expect_err("not a number of rounds").is::<Usage>());
    }
}
