//! The `thalweg` command: submits, lists, describes, watches and cancels the jobs of a cluster, and works with savepoints.
//!
//! The start of a command's way. This file reads the arguments, finds the cluster, hands over to the command and turns
//! its end into an exit code. Invariants: results go to stdout, everything else to stderr; the exit codes are those of
//! `thalweg --help`.

mod arguments;
mod commands;
mod config_arguments;
#[cfg(test)]
mod documentation_tests;
mod exit;
mod human;
mod notice;
mod output;
mod pki_arguments;
mod property_arguments;
mod reference;
mod savepoint_arguments;
mod state_arguments;
mod table;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use arguments::Arguments;
use exit::Exit;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error).into(),
    };
    match run(arguments) {
        Ok(exit) => exit.into(),
        Err(error) => failed(&error).into(),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start: the system gives no more threads or files; raise its limits (`ulimit -a`)")?;
    runtime.block_on(commands::execute(arguments))
}

/// Help and version are a result; anything else that clap says is about wrong usage.
fn not_understood(error: &clap::Error) -> Exit {
    let shows_help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || shows_help {
        // A reader that is gone needs no help.
        let _ = error.print();
        return if error.use_stderr() { Exit::Usage } else { Exit::Success };
    }
    complain(&exit::usage_message(&error.render().to_string()));
    Exit::Usage
}

fn failed(error: &anyhow::Error) -> Exit {
    match Exit::of_error(error) {
        Some(exit) => {
            complain(&exit::message(error));
            exit
        }
        None => Exit::Success,
    }
}

/// The last word on stderr. The exit code tells the rest, so a closed stderr does not matter.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}
