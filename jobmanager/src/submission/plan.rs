//! Runs a binary's plan mode in a short-lived process with limits, and reads the job graph that it prints.
//!
//! The binary is foreign code, so it never runs inside a job manager: this program starts itself as `exec-plan`, which
//! limits its own memory, CPU time and life, and then becomes the binary. What it prints is bounded.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use thalweg_common::failure::Failure;
use thalweg_common::graph::{JobGraph, PLAN_PREFIX};
use thalweg_common::limits::{MAX_PLAN_BYTES, PLAN_STDERR_TAIL_BYTES};
use thalweg_common::properties::{RUNTIME_PROPERTIES_VARIABLE, RuntimeProperties};
use thalweg_common::security::TOKEN_VARIABLE;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Files that a plan may have open.
const OPEN_FILES: u64 = 256;

/// How a plan is run.
#[derive(Debug, Clone)]
pub(crate) struct PlanRunner {
    /// The program whose `exec-plan` sets the limits; tests run the binary as it is.
    program: Option<PathBuf>,
    /// Wall-clock time; CPU time has the same limit.
    timeout: Duration,
    /// Address space in bytes.
    memory_bytes: u64,
}

/// What a plan depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlanRequest {
    /// For the binary.
    pub(crate) arguments: Vec<String>,
    /// Settings that win over those in the program.
    pub(crate) configuration: BTreeMap<String, String>,
    /// What the program reads as its runtime properties.
    pub(crate) properties: RuntimeProperties,
}

impl PlanRunner {
    /// Runs plans through `program exec-plan`.
    pub(crate) fn new(program: PathBuf, timeout: Duration, memory_bytes: u64) -> Self {
        Self { program: Some(program), timeout, memory_bytes }
    }

    /// Runs the binary in plan mode.
    ///
    /// # Errors
    /// A permanent failure of the user when there is no usable plan, an external one when no process can be started.
    pub(super) async fn run(&self, binary: &Path, request: PlanRequest) -> Result<JobGraph, Failure> {
        let configuration = serde_json::to_string(&request.configuration).map_err(|error| {
            Failure::internal(format!("cannot write the configuration for the plan: {error}"))
        })?;
        let properties = request.properties.to_json().map_err(|error| {
            Failure::internal(format!("cannot write the runtime properties for the plan: {error}"))
        })?;
        let mut command = self.command(binary);
        command
            .args(request.arguments)
            .env_remove(TOKEN_VARIABLE)
            .env("THALWEG_MODE", "plan")
            .env("THALWEG_CONFIGURATION", configuration)
            .env(RUNTIME_PROPERTIES_VARIABLE, properties)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            refused(format!("it cannot be executed: {error}; is it built for this system?"))
        })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let finished = tokio::time::timeout(self.timeout, collect(&mut child)).await;
        // Whatever it started goes too; when all of it has ended already there is nothing to kill.
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        match finished {
            Ok(Ok((status, stdout, stderr))) => self.read(status, &stdout, &stderr),
            Ok(Err(error)) => Err(Failure::external(format!("cannot run the job's plan: {error}"))),
            Err(_) => Err(refused(format!(
                "it printed no plan within {} s; main must build the topology only and do its work inside operators \
                 (jobmanager.plan.timeout sets the limit)",
                self.timeout.as_secs_f64()
            ))),
        }
    }

    fn command(&self, binary: &Path) -> Command {
        let Some(program) = &self.program else { return Command::new(binary) };
        let mut command = Command::new(program);
        let cpu_seconds = self.timeout.as_secs().max(1);
        command.args(["exec-plan", "--memory-bytes", &self.memory_bytes.to_string()]);
        command.args(["--cpu-seconds", &cpu_seconds.to_string(), "--"]).arg(binary);
        command
    }

    /// Judges what the process printed and how it ended.
    fn read(&self, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Result<JobGraph, Failure> {
        let said = String::from_utf8_lossy(stderr).trim().to_string();
        if stdout.len() > MAX_PLAN_BYTES {
            return Err(
                refused(format!("it printed more than {} MiB", MAX_PLAN_BYTES >> 20)).with_details(said)
            );
        }
        if !status.success() {
            return Err(refused(self.ending(status, &said)).with_details(said));
        }
        let text = String::from_utf8_lossy(stdout);
        let Some(plan) = text.lines().find_map(|line| line.strip_prefix(PLAN_PREFIX)) else {
            let reason =
                "it printed no plan; is `thalweg::run` called in main, and is the binary a Thalweg job?";
            return Err(refused(reason.to_string()).with_details(said));
        };
        let graph: JobGraph = serde_json::from_str(plan).map_err(|error| {
            let beginning: String = plan.chars().take(80).collect();
            refused(format!(
                "its plan is damaged ({error}): `{beginning}`; build it again with the SDK version of the cluster"
            ))
        })?;
        graph.validate().map_err(|error| refused(error.to_string()))?;
        Ok(graph)
    }

    fn ending(&self, status: ExitStatus, stderr: &str) -> String {
        let memory = format!(
            "perhaps it needs more than {} MiB of memory for its plan (jobmanager.plan.memory)",
            self.memory_bytes >> 20
        );
        match (status.code(), status.signal()) {
            (Some(_), _) if !stderr.is_empty() => stderr.lines().last().unwrap_or_default().to_string(),
            (Some(code), _) => format!("it ended with exit status {code} and printed no plan"),
            (None, Some(signal)) => format!("it was ended by signal {signal} and printed no plan; {memory}"),
            (None, None) => "it ended and printed no plan".to_string(),
        }
    }
}

fn refused(reason: String) -> Failure {
    Failure::user(reason).context("the job's plan was refused").permanent()
}

/// Reads both outputs to their ends, bounded, and waits for the process.
async fn collect(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) =
        tokio::try_join!(beginning(stdout, MAX_PLAN_BYTES + 1), end(stderr, PLAN_STDERR_TAIL_BYTES))?;
    let status = child.wait().await?;
    Ok((status, stdout, stderr))
}

/// The first bytes; the rest is not read, so that its writer is stopped.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit as u64).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The last bytes.
async fn end(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(bytes) };
    let mut buffer = vec![0; limit];
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
        bytes.drain(..bytes.len().saturating_sub(limit));
    }
}

/// The body of `jobmanager exec-plan`: limits this process, then becomes the binary. Returns only on failure.
///
/// # Errors
/// When a limit cannot be set or the binary cannot be executed.
pub fn exec_plan(
    memory_bytes: u64,
    cpu_seconds: u64,
    binary: &Path,
    arguments: &[OsString],
) -> std::io::Result<Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    for (resource, wanted) in [
        (Resource::As, memory_bytes),
        (Resource::Cpu, cpu_seconds),
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
    ] {
        // Never above what this process may have itself.
        let allowed = getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted));
        setrlimit(resource, Rlimit { current: Some(allowed), maximum: Some(allowed) })?;
    }
    Err(std::process::Command::new(binary).args(arguments).exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlimited(timeout: Duration) -> PlanRunner {
        PlanRunner { program: None, timeout, memory_bytes: 1 << 30 }
    }

    async fn refusal(binary: &str, arguments: &[&str], timeout: Duration) -> String {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let request = PlanRequest { arguments, ..PlanRequest::default() };
        let failure = unlimited(timeout).run(Path::new(binary), request).await.unwrap_err();
        assert!(!failure.retryable, "a refusal is permanent");
        failure.to_string()
    }

    const AMPLE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn every_refusal_says_why() {
        let table: [(&str, &[&str], &str); 5] = [
            ("/bin/true", &[], "thalweg::run"),
            ("/bin/false", &[], "exit status 1"),
            ("/bin/ls", &["/nonexistent"], "nonexistent"),
            ("/bin/echo", &["THALWEG-PLAN {\"vertices\": 12"], "damaged"),
            ("/nonexistent", &[], "cannot be executed"),
        ];
        for (binary, arguments, expected) in table {
            let message = refusal(binary, arguments, AMPLE).await;
            assert!(message.contains(expected), "{binary}: {message}");
        }
    }

    #[tokio::test]
    async fn a_plan_that_takes_too_long_is_killed() {
        let message = refusal("/bin/sleep", &["1000"], Duration::from_millis(50)).await;
        assert!(message.contains("jobmanager.plan.timeout"), "{message}");
    }

    #[tokio::test]
    async fn a_plan_that_prints_without_end_is_stopped() {
        let message = refusal("/usr/bin/yes", &[], AMPLE).await;
        assert!(message.contains("more than"), "{message}");
    }

    #[tokio::test]
    async fn other_lines_are_the_users_own() {
        let graph = crate::testing::checkpointed_graph();
        let text = format!("hello\nTHALWEG-PLAN {}", serde_json::to_string(&graph).unwrap());
        let request = PlanRequest { arguments: vec![text], ..PlanRequest::default() };
        assert_eq!(unlimited(AMPLE).run(Path::new("/bin/echo"), request).await, Ok(graph));
    }
}
