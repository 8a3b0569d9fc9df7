//! `cargo xtask`: everything that is done to this repository rather than by it.
//!
//! The first program that a newcomer and a build machine run, so it depends on almost nothing, compiles in seconds and
//! installs or names what the machine lacks. It only starts other programs (cargo, git, the cluster's own binaries) and
//! judges what they did; it links none of the workspace's crates.
//!
//! Invariants: standard output carries results (a summary, a JSON line), standard error carries progress; exit codes are
//! 0 (done), 1 (a check failed or a result was wrong), 2 (bad arguments), 3 (the machine lacks something) and
//! 130 (interrupted); every process that was started is ended before this one ends.

mod bench;
mod cargo;
mod chaos;
mod client;
mod clock;
mod cluster;
mod demo;
mod deny;
mod exit;
mod package;
mod process;
mod program;
mod setup;
mod signal;
mod steps;
mod structure;
mod terraform;
mod test;
mod workspace;

use std::process::ExitCode;

use exit::Usage;

const HELP: &str = "\
Builds, tests and shows Thalweg.

Usage: cargo xtask <COMMAND> [OPTIONS]

Commands:
  demo     start a cluster, run a job on it, kill parts of both and check every count
  test     everything that must pass before a change is merged
  verify   the same without the long tests: under a minute when nothing has to be compiled
  bench    measure throughput, latencies and memory
  chaos    run the tests that kill, starve and cut off real processes
  package  build the Debian package
  setup    install or name what this machine lacks (the other commands do it by themselves)

Run `cargo xtask <COMMAND> --help` for options and examples.

Exit codes: 0 done, 1 a check failed, 2 bad arguments, 3 the machine lacks something, 130 interrupted.
";

fn main() -> ExitCode {
    let mut arguments = lexopt::Parser::from_env();
    let outcome = match arguments.next() {
        Ok(Some(lexopt::Arg::Value(command))) => match command.to_str() {
            Some("demo") => demo::run(&mut arguments),
            Some("test") => test::run_test(&mut arguments),
            Some("verify") => test::run_verify(&mut arguments),
            Some("bench") => bench::run(&mut arguments),
            Some("chaos") => chaos::run(&mut arguments),
            Some("package") => package::run(&mut arguments),
            Some("setup") => setup::run(&mut arguments),
            Some("help") => print_help(),
            _ => {
                Err(Usage(format!("there is no command {command:?}; `cargo xtask --help` lists them")).into())
            }
        },
        Ok(Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h'))) => print_help(),
        Ok(Some(other)) => Err(other.unexpected().into()),
        Ok(None) => Err(Usage("name a command; `cargo xtask --help` lists them".into()).into()),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn print_help() -> anyhow::Result<()> {
    print!("{HELP}");
    Ok(())
}
