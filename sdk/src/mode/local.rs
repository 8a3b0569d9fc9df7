//! Local mode: a job manager, a task manager and a worker inside the job's own process.
//!
//! The same parts as in a cluster, with three differences: the job manager's log is in memory, the worker is a scope of
//! tasks in this process, which already has the program, and everything they keep is in a directory that is removed
//! afterwards. They speak gRPC over loopback; records between tasks never leave the process.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use thalweg_common::clock::SystemClock;
use thalweg_common::config::Configuration;
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{JobId, TaskManagerId};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::security::Security;
use thalweg_common::status::JobStatus;
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use thalweg_common::telemetry;
use thalweg_jobmanager::consensus::local::LocalLog;
use thalweg_jobmanager::{JobEvent, JobManager, JobManagerHandle, JobManagerOptions};
use thalweg_proto::model::JobDetails;
use thalweg_runtime::program::Program;
use thalweg_runtime::worker::{self, WorkerOptions};
use thalweg_taskmanager::launcher::{WorkerHandle, WorkerLauncher, WorkerSpec};
use thalweg_taskmanager::{TaskManager, TaskManagerHandle, TaskManagerOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::arguments::Arguments;
use crate::environment::Environment;
use crate::error::{Error, Result};

use super::{declare, program_name};

/// Where the parts meet.
const HOST: &str = "127.0.0.1";

/// The number of the only job manager.
const JOB_MANAGER_ID: u64 = 1;

/// Threads for network and control; the tasks of a slot have a thread of their own.
const CONTROL_THREADS: usize = 2;

/// How long the parts may take to end after the job.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What is logged unless `THALWEG_LOG` says otherwise: the terminal belongs to the job's own output. Restarts are logged
/// here, failures are the result, and that job manager and task manager lose each other at the end is no news.
const LOG_FILTER: &str =
    "warn,thalweg_jobmanager=error,thalweg_taskmanager=error,thalweg_runtime::worker=off";

/// The exit code after a second Ctrl-C, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs the job of this process until it has ended; Ctrl-C cancels it.
pub(super) fn run(
    topology: impl FnOnce(&mut Environment) -> Result<()>,
    arguments: &Arguments,
) -> Result<()> {
    telemetry::init_with_default("job", LOG_FILTER);
    let properties = arguments.runtime_properties()?;
    let environment = Environment::new(&arguments.job, true).with_properties(properties.clone());
    let program = declare(topology, environment, &arguments.configuration, &program_name())?;
    for warning in &program.graph.warnings {
        eprintln!("Warning: {warning}");
    }
    let result = block_on(|scope| async move {
        let (sender, interrupted) = watch::channel(0);
        scope.spawn_fallible("interrupts", count_interrupts(sender, scope.token()));
        let given = (arguments.job.as_slice(), &properties);
        run_job(program, given, &arguments.configuration, interrupted, &scope).await.map(drop)
    });
    telemetry::flush();
    result
}

/// Tells of each Ctrl-C or SIGTERM until the job has ended. The second one does not wait for that.
async fn count_interrupts(sender: watch::Sender<u32>, ended: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return Ok(()),
            Some(()) = interrupt.recv() => {}
            Some(()) = terminate.recv() => {}
            else => return Ok(()),
        }
        if *sender.borrow() > 0 {
            telemetry::flush();
            std::process::exit(EXIT_INTERRUPTED);
        }
        sender.send_modify(|interrupts| *interrupts += 1);
        eprintln!("Canceling the job; Ctrl-C again stops at once.");
    }
}

/// Runs a program until its job has ended, and tells what became of it.
pub(crate) fn execute(
    program: Program,
    arguments: &[String],
    properties: &RuntimeProperties,
    configuration: &Configuration,
) -> Result<JobDetails> {
    block_on(|scope| async move {
        let (_never, interrupted) = watch::channel(0);
        run_job(program, (arguments, properties), configuration, interrupted, &scope).await
    })
}

/// Runs `work` on a runtime of its own and ends everything that it started.
fn block_on<T, W: Future<Output = Result<T>>>(work: impl FnOnce(TaskScope) -> W) -> Result<T> {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(Error::new(
            "a job cannot run inside an async runtime, which it would block; call it from a plain `fn main` or `#[test]`",
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("thalweg-control")
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let scope = TaskScope::with_policy("local", ErrorPolicy::LogOnly);
        let result = work(scope.child("cluster")).await;
        if let Err(error) = scope.shutdown(SHUTDOWN_GRACE).await {
            warn!("{error}");
        }
        result
    });
    // User code that does not return must not keep the program from ending.
    runtime.shutdown_background();
    result
}

/// What the program was given: its arguments and its runtime properties.
type Given<'a> = (&'a [String], &'a RuntimeProperties);

async fn run_job(
    program: Program,
    given: Given<'_>,
    configuration: &Configuration,
    interrupted: watch::Receiver<u32>,
    scope: &TaskScope,
) -> Result<JobDetails> {
    let running = Running::start(program, given, configuration, scope).await?;
    let result = follow(&running.job_manager, running.job_id, interrupted).await;
    let details = running.job_manager.describe(running.job_id).await;
    running.end().await;
    result?;
    Ok(details?)
}

/// A job, with everything that it needs.
struct Running {
    job_manager: JobManagerHandle,
    task_manager: TaskManagerHandle,
    job_id: JobId,
    /// Of all that they keep; removed at the end.
    _directory: TempDir,
}

impl Running {
    /// Starts a job manager and a task manager, and submits the job.
    async fn start(
        program: Program,
        (arguments, properties): Given<'_>,
        configuration: &Configuration,
        scope: &TaskScope,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("thalweg-local-").tempdir().map_err(|error| {
            Error::from(error)
                .context("cannot create a temporary directory; set TMPDIR to one that can be written")
        })?;
        let graph = program.graph.clone();
        let job_manager =
            start_job_manager(&directory.path().join("jobmanager"), configuration, scope).await?;
        let launcher = InProcess { program: Arc::new(program), scope: scope.child("worker") };
        let job_managers = vec![job_manager.address.clone()];
        let (id, data_directory) = (TaskManagerId("local".to_string()), directory.path().join("taskmanager"));
        let options = TaskManagerOptions {
            slots: slots_of(&graph),
            ..TaskManagerOptions::new(id, job_managers, data_directory)
        };
        let task_manager = TaskManager::start(options, Arc::new(launcher), scope).await?;
        // A job that finds its slots ready starts at once.
        tokio::select! {
            biased;
            reason = job_manager.failure() => return Err(part_failed("job manager", &reason)),
            reason = task_manager.failed() => return Err(part_failed("task manager", &reason)),
            () = task_manager.registered() => {}
        }
        let settings =
            configuration.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let job_id =
            job_manager.submit_embedded(graph, (arguments.to_vec(), properties.clone()), settings).await?;
        Ok(Self { job_manager, task_manager, job_id, _directory: directory })
    }

    /// Ends what is left when the job has ended.
    async fn end(self) {
        if tokio::time::timeout(SHUTDOWN_GRACE, self.task_manager.stop()).await.is_err() {
            warn!("the worker does not end; user code that does not return is left behind");
        }
    }
}

async fn start_job_manager(
    directory: &Path,
    configuration: &Configuration,
    scope: &TaskScope,
) -> Result<JobManagerHandle> {
    let listener = TcpListener::bind((HOST, 0)).await?;
    let address = listener.local_addr()?.to_string();
    let options = JobManagerOptions {
        id: JOB_MANAGER_ID,
        listener,
        address: address.clone(),
        configuration: configuration.clone(),
        data_directory: directory.to_path_buf(),
        plan_program: None,
        clock: SystemClock::shared(),
        security: Security::default(),
        routes: Default::default(),
        rest: None,
    };
    Ok(JobManager::start(options, Arc::new(LocalLog::new(address)), scope).await?)
}

/// As many slots as the job needs: the widest vertex of each slot sharing group has a subtask in every slot.
fn slots_of(graph: &JobGraph) -> u32 {
    let mut groups: BTreeMap<&str, u32> = BTreeMap::new();
    for vertex in &graph.vertices {
        let slots = groups.entry(&vertex.slot_sharing_group).or_default();
        *slots = (*slots).max(vertex.parallelism);
    }
    groups.values().fold(0, |sum, slots| sum.saturating_add(*slots))
}

/// Waits for the job's end and turns it into a result.
async fn follow(
    job_manager: &JobManagerHandle,
    job_id: JobId,
    mut interrupted: watch::Receiver<u32>,
) -> Result<()> {
    let mut events = job_manager.watch(job_id);
    let mut failure = None;
    loop {
        let event = tokio::select! {
            biased;
            Ok(()) = interrupted.changed() => {
                job_manager.cancel(job_id).await?;
                continue;
            }
            reason = job_manager.failure() => return Err(part_failed("job manager", &reason)),
            event = events.next() => event,
        };
        let Some(event) = event else {
            return Err(Error::new(
                "the job manager in this process stopped before the job; please report this",
            ));
        };
        report(&event);
        failure = event.failure.or(failure);
        match event.status {
            JobStatus::Finished => return Ok(()),
            JobStatus::Canceled => return Err(Error::new("the job was canceled")),
            JobStatus::Failed => {
                return Err(failure
                    .map_or_else(|| Error::new(format!("the job failed: {}", event.reason)), Error::from));
            }
            _ => {}
        }
    }
}

fn part_failed(part: &str, reason: &str) -> Error {
    Error::new(format!("the {part} in this process failed: {reason}"))
}

/// Logs what a user at the terminal should know: a restart is a warning.
fn report(event: &JobEvent) {
    let Some(change) = &event.change else { return };
    match (change.to, &event.failure) {
        (JobStatus::Restarting, Some(failure)) => {
            warn!("the job restarts after a failure: {}", failure.message)
        }
        _ => info!("the job switched from {} to {}: {}", change.from, change.to, change.reason),
    }
}

/// Runs workers inside this process.
struct InProcess {
    program: Arc<Program>,
    scope: TaskScope,
}

#[async_trait]
impl WorkerLauncher for InProcess {
    async fn launch(&self, spec: WorkerSpec) -> std::result::Result<Box<dyn WorkerHandle>, Failure> {
        let options = WorkerOptions {
            taskmanager_address: spec.taskmanager_address,
            job_id: spec.job_id,
            worker_id: spec.worker_id,
            token: spec.token.as_bytes().to_vec(),
            data_host: spec.data_host,
            local: true,
            managed_bytes_per_slot: None,
            security: Security::default(),
            state_directory: spec.state_directory,
        };
        let scope = self.scope.child(spec.worker_id.to_string());
        let work = worker::run(Arc::clone(&self.program), options, scope.child("tasks"));
        let (end, ended) = watch::channel(None);
        let killed = scope.token();
        self.scope.spawn("run", async move {
            let result = tokio::select! {
                biased;
                () = killed.cancelled() => Err(Failure::external("the worker was stopped")),
                result = work => result,
            };
            end.send_replace(Some(result.err().unwrap_or_else(|| Failure::external("the worker has ended"))));
        });
        Ok(Box::new(InProcessWorker { scope, ended }))
    }
}

/// A worker inside this process.
struct InProcessWorker {
    scope: TaskScope,
    ended: watch::Receiver<Option<Failure>>,
}

#[async_trait]
impl WorkerHandle for InProcessWorker {
    async fn exited(&mut self) -> Failure {
        let ended = self.ended.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        ended.unwrap_or_else(|| Failure::internal("the worker ended without a word"))
    }

    /// Asks its tasks to end. User code that does not return cannot be ended without this process.
    fn kill(&mut self) {
        self.scope.cancel();
    }
}

#[cfg(test)]
mod stop_tests;

#[cfg(test)]
mod tests {
    use thalweg_common::config::{CheckpointConfig, RestartStrategy};
    use thalweg_common::graph::{PROTOCOL_VERSION, Vertex};

    use super::*;

    #[test]
    fn there_are_slots_for_the_widest_vertex_of_each_group() {
        let vertex = |group: &str, parallelism| Vertex {
            name: String::new(),
            parallelism,
            max_parallelism: 128,
            slot_sharing_group: group.to_string(),
            operators: Vec::new(),
        };
        let graph = JobGraph {
            protocol_version: PROTOCOL_VERSION,
            name: String::new(),
            vertices: vec![
                vertex("default", 1),
                vertex("default", 4),
                vertex("heavy", 2),
                vertex("default", 3),
            ],
            edges: Vec::new(),
            checkpointing: CheckpointConfig::default(),
            restart_strategy: RestartStrategy::None,
            warnings: Vec::new(),
        };
        assert_eq!(slots_of(&graph), 6);
    }
}
