//! The modes of a job's executable: it runs by itself, submits itself, prints its plan, or is a worker.
//!
//! The cluster sets `THALWEG_MODE` for plan and worker; people choose between the other two by `--jobmanager`. In all of
//! them the same topology code runs first, so that no closure ever travels.

#[cfg(feature = "local")]
pub(crate) mod local;
mod plan;
mod submit;
mod worker;

use std::env;
use std::path::Path;

use thalweg_common::config::Configuration;
use thalweg_common::graph::UNNAMED_JOB;
use thalweg_common::properties::{RUNTIME_PROPERTIES_VARIABLE, RuntimeProperties};
use thalweg_runtime::program::Program;

use crate::arguments::{Arguments, help};
use crate::environment::{Environment, received_configuration};
use crate::error::{Error, Result};

/// The exit code of a program that was refused: wrong arguments, or a topology that cannot run.
const EXIT_REFUSED: i32 = 2;

/// Runs the job that `topology` declares: in this process, or, with `--jobmanager`, on a cluster. `--help` tells more.
///
/// In this process it returns when the job has ended; Ctrl-C cancels the job. After a submission the process ends with the
/// exit code 0 if the job has finished (or, with `--detach`, was accepted), 1 if it has failed, 2 if it was refused, 3 if
/// it was canceled, and 4 if no cluster was reached.
///
/// The topology runs in several processes (that which submits, the job manager's check, each worker) and must declare
/// the same there: it may depend on the arguments, but not on time, chance or the machine.
///
/// # Errors
/// A mistake in the topology, with its file and line, or the failure of a job that ran in this process.
pub fn run(topology: impl FnOnce(&mut Environment) -> Result<()>) -> Result<()> {
    let arguments = match process_arguments() {
        Ok(arguments) => arguments,
        Err(error) => exit(EXIT_REFUSED, &error),
    };
    match env::var("THALWEG_MODE").as_deref() {
        Ok("plan") => plan::run(topology, &arguments),
        Ok("worker") => worker::run(topology, &arguments),
        Ok(other) => Err(Error::new(format!(
            "THALWEG_MODE is `{other}`, which is none of the modes that a cluster sets; unset it"
        ))),
        Err(_) => by_flags(topology, arguments),
    }
}

fn by_flags(topology: impl FnOnce(&mut Environment) -> Result<()>, arguments: Vec<String>) -> Result<()> {
    let parsed = match Arguments::parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => exit(EXIT_REFUSED, &error.into()),
    };
    if parsed.help {
        print!("{}", help(&program_name()));
        return Ok(());
    }
    match parsed.job_managers.clone() {
        Some(job_managers) => submit::run(topology, parsed, job_managers),
        None => run_here(topology, &parsed),
    }
}

#[cfg(feature = "local")]
fn run_here(topology: impl FnOnce(&mut Environment) -> Result<()>, arguments: &Arguments) -> Result<()> {
    local::run(topology, arguments)
}

#[cfg(not(feature = "local"))]
fn run_here(_topology: impl FnOnce(&mut Environment) -> Result<()>, _arguments: &Arguments) -> Result<()> {
    Err(Error::new(
        "this program was built without local mode: submit it with --jobmanager HOST:PORT, or enable the feature `local` \
         of the crate `thalweg`",
    ))
}

/// Runs the topology and builds its program.
fn declare(
    topology: impl FnOnce(&mut Environment) -> Result<()>,
    environment: Environment,
    configuration: &Configuration,
    default_name: &str,
) -> Result<Program> {
    let mut environment = environment.under(configuration);
    topology(&mut environment)?;
    environment.build(configuration, default_name)
}

/// The program as plan and workers build it, with what the cluster gives to both.
fn declare_for_cluster(
    topology: impl FnOnce(&mut Environment) -> Result<()>,
    arguments: &[String],
) -> Result<Program> {
    let configuration = match env::var("THALWEG_CONFIGURATION") {
        Ok(json) => received_configuration(&json)?,
        Err(_) => Configuration::new(),
    };
    let properties = match env::var(RUNTIME_PROPERTIES_VARIABLE) {
        Ok(json) => RuntimeProperties::from_json(&json).map_err(|error| {
            Error::new(error).context("the runtime properties from the cluster are wrong")
        })?,
        Err(_) => RuntimeProperties::default(),
    };
    let environment = Environment::new(arguments, false).with_properties(properties);
    declare(topology, environment, &configuration, UNNAMED_JOB)
}

fn process_arguments() -> Result<Vec<String>> {
    let text = |argument: std::ffi::OsString| {
        argument
            .into_string()
            .map_err(|argument| Error::new(format!("the argument {argument:?} is not UTF-8 text")))
    };
    env::args_os().skip(1).map(text).collect()
}

/// The name of the executable, without folder and extension.
fn program_name() -> String {
    let path = env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_stem().map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| UNNAMED_JOB.to_string())
}

/// Ends the process with a message.
fn exit(code: i32, error: &Error) -> ! {
    thalweg_common::telemetry::flush();
    eprintln!("Error: {error:?}");
    std::process::exit(code)
}
