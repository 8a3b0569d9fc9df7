//! What the machine needs before anything can be built or tested, and how it gets it.
//!
//! Stands before every command. Each thing is looked for first, installed when that is possible, and otherwise named
//! together with the command that installs it. The answer is the environment for cargo.
//! Invariant: on a machine that has everything this takes a fraction of a second and changes nothing.

mod environment;
mod libclang;
mod packages;
mod peers;
mod rocksdb;
mod tools;

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub use environment::BuildEnvironment;
pub use packages::is_program;
pub use tools::Tool;

use crate::workspace::Workspace;

const HELP: &str = "\
Installs or names what this machine lacks: gcc, g++, make, libclang, rustfmt, clippy,
cargo-nextest and cargo-deny; for the tests Chromium and its driver; and in a cache outside the
checkout RocksDB, compiled once, and for the tests an S3 (needs python3 with venv and pip) and a
Kinesis (needs node and npm).

What was found is written to .cargo/machine.toml, so that plain cargo commands find it as well.

Usage: cargo xtask setup

Options:
  -h, --help  print this help

Environment:
  THALWEG_CACHE    where compiled RocksDB and the peers of tests are kept (default: ${XDG_CACHE_HOME:-$HOME/.cache}/thalweg)
  LIBCLANG_PATH    the directory of libclang, where it is in an unusual place
  ROCKSDB_LIB_DIR  a directory with a librocksdb.a of your own
  THALWEG_S3_PEER  the program `ministack`, where it is installed by other means
  THALWEG_KINESIS_PEER  the `main.js` of kinesis-local, where it is installed by other means

Examples:
  cargo xtask setup
  THALWEG_CACHE=/var/cache/thalweg cargo xtask setup

Exit codes: 0 everything is there, 3 something is missing (the message names the command to run).
";

/// `cargo xtask setup`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        None => {}
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => {
            print!("{HELP}");
            return Ok(());
        }
        Some(other) => return Err(other.unexpected().into()),
    }
    let workspace = Workspace::find()?;
    let tools = [Tool::Rustfmt, Tool::Clippy, Tool::Nextest, Tool::Deny];
    let environment = prepare(&workspace, &tools)?;
    for tool in tools {
        println!("{}", tools::describe(tool));
    }
    print!("{}", environment.describe());
    Ok(())
}

/// Makes sure that everything needed for building, and these tools, are there. Who needs cargo-nextest runs tests, and gets
/// what those need as well.
///
/// # Errors
/// [`crate::exit::MachineLacks`] names what is missing and the command that installs it.
pub fn prepare(workspace: &Workspace, tools: &[Tool]) -> Result<BuildEnvironment> {
    packages::ensure_for_builds()?;
    for &tool in tools {
        tools::ensure(tool)?;
    }
    let mut environment = BuildEnvironment::default();
    libclang::configure(&mut environment);
    rocksdb::configure(workspace, &mut environment);
    if tools.contains(&Tool::Nextest) {
        packages::ensure_for_tests()?;
        peers::ensure(&mut environment)?;
    }
    if let Err(error) = environment.save(&workspace.root) {
        eprintln!("warning: only the commands of xtask will find what was found: {error:#}");
    }
    Ok(environment)
}

/// Where things are kept that outlive a checkout.
fn cache_directory() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("THALWEG_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("thalweg")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/thalweg")))
        .context("neither THALWEG_CACHE nor XDG_CACHE_HOME nor HOME is set; set THALWEG_CACHE to a directory")
}
