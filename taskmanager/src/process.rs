//! Workers as processes: one child process per worker, which cannot outlive its task manager.
//!
//! A child is started by way of [`exec-worker`](crate::exec_worker), in a process group of its own, with its output in
//! files. Invariants: the kernel kills a child when the thread that started it ends, so that one thread starts them all and
//! lives as long as the launcher; a handle that is dropped kills its child; a child's death is noticed through its process
//! descriptor at once, not by polling.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use thalweg_common::failure::Failure;
use thalweg_common::limits::FREED_MEMORY_KEPT_MS;
use thalweg_common::properties::RUNTIME_PROPERTIES_VARIABLE;
use thalweg_common::security::TOKEN_VARIABLE;
use thalweg_common::task_scope::{TaskScope, blocking};
use thalweg_common::telemetry;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::launcher::{WorkerHandle, WorkerLauncher, WorkerSpec};
use crate::logs;

/// Launches that wait for the thread.
const LAUNCHES_AHEAD: usize = 16;

/// How long mimalloc keeps freed memory, in milliseconds. Whoever sets it for the task manager sets it for the workers.
const PURGE_DELAY_VARIABLE: &str = "MIMALLOC_PURGE_DELAY";

/// What this program is called by its children, whatever became of its file.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Launches workers as child processes.
#[derive(Debug)]
pub struct ProcessLauncher {
    program: PathBuf,
    launches: mpsc::Sender<Launch>,
    /// Whether workers log as JSON, whatever the environment says.
    logs_json: bool,
    /// Ends the thread, and so the workers, when the launcher goes.
    _scope: TaskScope,
}

struct Launch {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

impl ProcessLauncher {
    /// A launcher whose workers go through `program exec-worker`; the task manager's own program is [`OWN_PROGRAM`].
    /// When it is
    /// dropped or `scope` is cancelled, all its workers are killed.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn start(program: impl Into<PathBuf>, scope: &TaskScope) -> Self {
        let (launches, queue) = mpsc::channel(LAUNCHES_AHEAD);
        let scope = scope.child("process launcher");
        let (runtime, token) = (Handle::current(), scope.token());
        scope.spawn_thread("worker launcher", move || {
            runtime.block_on(token.run_until_cancelled(serve(queue)));
        });
        Self { program: program.into(), launches, logs_json: false, _scope: scope }
    }

    /// Lets workers log as JSON if this is so, because queries read it.
    #[must_use]
    pub fn with_json_logs(self, logs_json: bool) -> Self {
        Self { logs_json, ..self }
    }

    async fn spawn(&self, command: Command) -> io::Result<Child> {
        let ended = |()| io::Error::other("the launcher has ended");
        let (reply, child) = oneshot::channel();
        self.launches.send(Launch { command, reply }).await.map_err(|_| ended(()))?;
        child.await.map_err(|_| ended(()))?
    }

    fn command(&self, spec: &WorkerSpec, binary: &Path) -> io::Result<Command> {
        let configuration = serde_json::to_string(&spec.configuration)?;
        let properties = spec.properties.to_json()?;
        let mut command = Command::new(&self.program);
        command
            .arg0("thalweg-worker")
            .args(["exec-worker", "--parent", &std::process::id().to_string(), "--"])
            .arg(binary)
            .args(&spec.arguments)
            // A job's code is not to have what opens the cluster to clients.
            .env_remove(TOKEN_VARIABLE)
            .env("THALWEG_MODE", "worker")
            .env("THALWEG_CONFIGURATION", configuration)
            .env(RUNTIME_PROPERTIES_VARIABLE, properties)
            .env("THALWEG_TASKMANAGER", &spec.taskmanager_address)
            .env("THALWEG_JOB_ID", spec.job_id.to_string())
            .env("THALWEG_WORKER_ID", spec.worker_id.to_string())
            .env("THALWEG_WORKER_TOKEN", spec.token.to_hex())
            .env("THALWEG_PLAN_FINGERPRINT", spec.plan_fingerprint.to_string())
            .env("THALWEG_DATA_HOST", &spec.data_host)
            .env("THALWEG_STATE_DIRECTORY", &spec.state_directory)
            .env("THALWEG_MANAGED_BYTES_PER_SLOT", spec.managed_bytes_per_slot.to_string())
            .stdin(Stdio::null())
            .stdout(appending(&logs::stdout(&spec.log_directory, spec.worker_id))?)
            .stderr(appending(&logs::stderr(&spec.log_directory, spec.worker_id))?)
            // A terminal's Ctrl-C is for the task manager alone, and what the worker starts can be killed with it.
            .process_group(0)
            .kill_on_drop(true);
        if self.logs_json {
            command.env(telemetry::FORMAT_VARIABLE, "json");
        }
        if std::env::var_os(PURGE_DELAY_VARIABLE).is_none() {
            command.env(PURGE_DELAY_VARIABLE, FREED_MEMORY_KEPT_MS.to_string());
        }
        Ok(command)
    }
}

/// A log, which may be emptied while its writer goes on.
fn appending(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Starts children one after the other, all on the thread that runs this.
async fn serve(mut queue: mpsc::Receiver<Launch>) {
    while let Some(Launch { mut command, reply }) = queue.recv().await {
        // A child that nobody waits for any more is dropped, and so killed.
        let _ = reply.send(command.spawn());
    }
}

#[async_trait]
impl WorkerLauncher for ProcessLauncher {
    async fn launch(&self, spec: WorkerSpec) -> Result<Box<dyn WorkerHandle>, Failure> {
        let Some(binary) = &spec.binary else {
            return Err(Failure::internal(
                "a worker process needs a binary, but the job was submitted without one",
            ));
        };
        let launched = async { self.spawn(self.command(&spec, binary)?).await }.await;
        let child = launched.map_err(|error| {
            Failure::external(format!(
                "cannot start a worker process: {error}; check the limits of processes and memory on this machine"
            ))
        })?;
        let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        tracing::info!(
            "started worker {} of job {} as process {:?}",
            spec.worker_id,
            spec.job_id,
            child.id()
        );
        let stderr = logs::stderr(&spec.log_directory, spec.worker_id);
        Ok(Box::new(ProcessHandle { child, process, stderr, killed: false }))
    }
}

/// A worker process.
struct ProcessHandle {
    child: Child,
    process: Option<Pid>,
    stderr: PathBuf,
    killed: bool,
}

#[async_trait]
impl WorkerHandle for ProcessHandle {
    async fn exited(&mut self) -> Failure {
        let status = self.child.wait().await;
        let stderr = self.stderr.clone();
        let details = blocking("read a worker's stderr", move || logs::last_lines(&stderr)).await;
        let failure = match status {
            Ok(status) => describe(status, self.killed),
            Err(error) => Failure::external(format!("a worker process cannot be waited for: {error}")),
        };
        failure.with_details(details.unwrap_or_else(|error| error.to_string()))
    }

    fn kill(&mut self) {
        self.killed = true;
        // Not after it was reaped: its number could belong to somebody else by then.
        let (Some(process), Some(_)) = (self.process, self.child.id()) else { return };
        if let Err(error) = kill_process_group(process, Signal::KILL) {
            tracing::warn!("cannot kill worker process {process:?}: {error}");
        }
    }
}

/// How a worker process ended, in a sentence.
fn describe(status: ExitStatus, killed: bool) -> Failure {
    if let Some(code) = status.code() {
        let comment = if code == 0 {
            " although its tasks still had work to do; the program must not exit by itself"
        } else {
            ""
        };
        return Failure::user(format!("the worker process exited with status {code}{comment}"));
    }
    match status.signal().unwrap_or_default() {
        signal if killed && signal == Signal::KILL.as_raw() => {
            Failure::user("the worker process was killed by its task manager")
        }
        signal if signal == Signal::KILL.as_raw() => Failure::external(
            "the worker process was killed by signal SIGKILL, not by its task manager: the machine or its control group \
             possibly ran out of memory (the kernel's log tells); give it more memory or the job less state",
        ),
        signal => Failure::user(format!("the worker process was killed by signal {}", signal_name(signal))),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL (illegal instruction)",
        6 => "SIGABRT (abort)",
        7 => "SIGBUS (bad memory access)",
        8 => "SIGFPE (arithmetic error)",
        11 => "SIGSEGV (bad memory access, possibly a stack overflow)",
        15 => "SIGTERM",
        31 => "SIGSYS (forbidden system call)",
        number => return number.to_string(),
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named() {
        // As the kernel encodes them: an exit status in the second byte, a signal in the first.
        for (raw, killed, expected) in [
            (3 << 8, false, "exited with status 3"),
            (0, false, "must not exit by itself"),
            (6, false, "SIGABRT"),
            (11, false, "stack overflow"),
            (9, false, "possibly ran out of memory"),
            (9, true, "killed by its task manager"),
            (34, false, "signal 34"),
            (11 | 0x80, false, "SIGSEGV"),
        ] {
            let failure = describe(ExitStatus::from_raw(raw), killed);
            assert!(failure.message.contains(expected), "{raw}: {failure}");
        }
    }
}
