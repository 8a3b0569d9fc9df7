//! Worker mode: builds the program, checks that it is the planned one, and runs the tasks that the task manager gives it.

use std::env;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use thalweg_common::clock::SystemClock;
use thalweg_common::config::Configuration;
use thalweg_common::failure::Failure;
use thalweg_common::security::{Role, Security};
use thalweg_common::task_scope::TaskScope;
use thalweg_common::telemetry;
use thalweg_runtime::program::Program;
use thalweg_runtime::worker::{self, WorkerOptions};

use crate::environment::{Environment, received_configuration};
use crate::error::{Error, Result};

use super::{EXIT_REFUSED, declare_for_cluster, exit};

/// Cores for each thread for network and control; the tasks of a slot have a thread of their own.
const CORES_PER_NETWORK_THREAD: usize = 4;

/// More such threads are of no use.
const MAX_NETWORK_THREADS: usize = 4;

/// The exit code of a worker that ended because of a failure.
const EXIT_FAILURE: i32 = 1;

pub(super) fn run(topology: impl FnOnce(&mut Environment) -> Result<()>, arguments: &[String]) -> ! {
    telemetry::init("worker");
    let prepared = worker_options(|name| env::var(name).ok()).and_then(|(options, fingerprint)| {
        let program = declare_for_cluster(topology, arguments)?;
        check_fingerprint(&program, fingerprint)?;
        Ok((options, program))
    });
    let (options, program) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => exit(EXIT_REFUSED, &error),
    };
    // What is left of tasks and threads ends with the process: nothing waits for user code that does not return.
    match serve(program, options) {
        Ok(()) => {
            telemetry::flush();
            std::process::exit(0)
        }
        Err(failure) => exit(EXIT_FAILURE, &failure.into()),
    }
}

fn serve(program: Program, options: WorkerOptions) -> std::result::Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(network_threads(thread::available_parallelism().map_or(1, NonZeroUsize::get)))
        .thread_name("worker-network")
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::external(format!("cannot start threads: {error}; raise the limit on threads"))
        })?;
    let result = runtime.block_on(worker::run(Arc::new(program), options, TaskScope::new("worker")));
    runtime.shutdown_background();
    result
}

fn network_threads(cores: usize) -> usize {
    cores.div_ceil(CORES_PER_NETWORK_THREAD).clamp(1, MAX_NETWORK_THREADS)
}

/// What the task manager says in the environment: the options, and the fingerprint of the plan.
fn worker_options(lookup: impl Fn(&str) -> Option<String>) -> Result<(WorkerOptions, u64)> {
    let text = |name: &str| {
        lookup(name).ok_or_else(|| {
            Error::new(format!("{name} is not set; a worker is started by a task manager and not by hand"))
        })
    };
    let wrong = |name: &str, error: &dyn std::fmt::Display| {
        Error::new(format!(
            "{name} is wrong: {error}; use a task manager of the same version as the job's SDK"
        ))
    };
    let options = WorkerOptions {
        taskmanager_address: text("THALWEG_TASKMANAGER")?,
        job_id: text("THALWEG_JOB_ID")?.parse().map_err(|error| wrong("THALWEG_JOB_ID", &error))?,
        worker_id: text("THALWEG_WORKER_ID")?.parse().map_err(|error| wrong("THALWEG_WORKER_ID", &error))?,
        token: decode_hex(&text("THALWEG_WORKER_TOKEN")?)
            .ok_or_else(|| wrong("THALWEG_WORKER_TOKEN", &"it is not hexadecimal"))?,
        data_host: text("THALWEG_DATA_HOST")?,
        local: false,
        managed_bytes_per_slot: Some(
            text("THALWEG_MANAGED_BYTES_PER_SLOT")?
                .parse()
                .map_err(|error| wrong("THALWEG_MANAGED_BYTES_PER_SLOT", &error))?,
        ),
        security: security(lookup("THALWEG_CONFIGURATION"))?,
        state_directory: text("THALWEG_STATE_DIRECTORY")?.into(),
    };
    let fingerprint = text("THALWEG_PLAN_FINGERPRINT")?
        .parse()
        .map_err(|error| wrong("THALWEG_PLAN_FINGERPRINT", &error))?;
    Ok((options, fingerprint))
}

/// TLS as the task manager has it, whose files these are.
fn security(configuration: Option<String>) -> Result<Security> {
    let configuration = match configuration {
        Some(json) => received_configuration(&json)?,
        None => Configuration::new(),
    };
    Ok(Security::load(&configuration, |_| None, Role::Worker, &SystemClock::shared())?)
}

fn check_fingerprint(program: &Program, expected: u64) -> Result<()> {
    let found = program.graph.fingerprint();
    if found == expected {
        return Ok(());
    }
    Err(Error::new(format!(
        "the topology declared here differs from the plan that the cluster has checked (fingerprint {found} instead of \
         {expected}); a topology may depend on the job's arguments only, not on time, chance, files or the machine"
    )))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.is_ascii() && text.len().is_multiple_of(2);
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if digits { (0..text.len()).step_by(2).map(byte).collect() } else { None }
}
