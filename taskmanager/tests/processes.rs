//! Worker processes: how their ends are noticed and named, and that none outlives its launcher.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::{JOB, WorkerProcess, soon};
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};
use thalweg_common::failure::Fault;
use thalweg_common::id::WorkerId;
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::task_scope::TaskScope;
use thalweg_taskmanager::launcher::{Token, WorkerHandle, WorkerLauncher, WorkerSpec};
use thalweg_taskmanager::process::ProcessLauncher;

/// What the job reads as its runtime properties.
const PROPERTIES: &str = r#"[{"PropertyGroupId":"A","PropertyMap":{"secret":"x"}}]"#;

struct Fixture {
    launcher: ProcessLauncher,
    logs: tempfile::TempDir,
    scope: TaskScope,
}

fn fixture() -> Fixture {
    let scope = TaskScope::new("test");
    let launcher = ProcessLauncher::start(env!("CARGO_BIN_EXE_taskmanager"), &scope);
    Fixture { launcher, logs: tempfile::tempdir().unwrap(), scope }
}

impl Fixture {
    fn spec(&self, binary: impl AsRef<Path>, arguments: &[&str]) -> WorkerSpec {
        WorkerSpec {
            job_id: JOB,
            worker_id: WorkerId::random().unwrap(),
            token: Token::random().unwrap(),
            taskmanager_address: "127.0.0.1:1".into(),
            binary: Some(binary.as_ref().to_path_buf()),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            properties: RuntimeProperties::from_json(PROPERTIES).unwrap(),
            configuration: BTreeMap::from([("parallelism.default".into(), "3".into())]),
            plan_fingerprint: 18_446_744_073_709_551_615,
            data_host: "127.0.0.1".into(),
            log_directory: self.logs.path().to_path_buf(),
            state_directory: self.logs.path().join("state"),
            managed_bytes_per_slot: 1 << 20,
        }
    }

    async fn launch(&self, binary: &str, arguments: &[&str]) -> (WorkerSpec, Box<dyn WorkerHandle>) {
        let spec = self.spec(binary, arguments);
        let handle = soon(self.launcher.launch(spec.clone())).await.unwrap();
        (spec, handle)
    }

    /// A worker that does nothing, and its process.
    async fn sleeping(&self) -> (WorkerProcess, Box<dyn WorkerHandle>) {
        let (spec, handle) = self.launch("/bin/sleep", &["1000"]).await;
        (WorkerProcess::find(Some(spec.worker_id), std::process::id()).await, handle)
    }

    fn log(&self, worker: WorkerId, extension: &str) -> String {
        std::fs::read_to_string(self.logs.path().join(format!("{worker}.{extension}"))).unwrap()
    }
}

#[tokio::test]
async fn an_exit_status_is_reported_with_the_last_lines_of_stderr() {
    let fixture = fixture();
    let (_, mut handle) = fixture.launch("/bin/ls", &["/no/such/file"]).await;
    let failure = soon(handle.exited()).await;
    assert_eq!(failure.message, "the worker process exited with status 2");
    assert!(failure.details.contains("/no/such/file"), "{failure}");
    assert_eq!((failure.fault, failure.retryable), (Fault::User, true));
}

#[tokio::test]
async fn an_exit_without_an_error_is_a_failure_too() {
    let fixture = fixture();
    let (spec, mut handle) = fixture.launch("/bin/echo", &["--name", "a b"]).await;
    assert!(soon(handle.exited()).await.message.contains("status 0 although its tasks still had work to do"));
    assert_eq!(fixture.log(spec.worker_id, "out"), "--name a b\n", "arguments arrive as they are");
    assert_eq!(fixture.log(spec.worker_id, "err"), "");
}

#[tokio::test]
async fn a_worker_knows_what_it_has_to_know() {
    let fixture = fixture();
    let (spec, mut handle) = fixture.launch("/usr/bin/env", &[]).await;
    soon(handle.exited()).await;
    let output = fixture.log(spec.worker_id, "out");
    for line in [
        "THALWEG_MODE=worker".to_string(),
        "THALWEG_CONFIGURATION={\"parallelism.default\":\"3\"}".to_string(),
        format!("THALWEG_RUNTIME_PROPERTIES={PROPERTIES}"),
        "THALWEG_TASKMANAGER=127.0.0.1:1".to_string(),
        format!("THALWEG_JOB_ID={JOB}"),
        format!("THALWEG_WORKER_ID={}", spec.worker_id),
        format!("THALWEG_WORKER_TOKEN={}", spec.token.to_hex()),
        "THALWEG_PLAN_FINGERPRINT=18446744073709551615".to_string(),
        "THALWEG_DATA_HOST=127.0.0.1".to_string(),
        "MIMALLOC_PURGE_DELAY=10000".to_string(),
    ] {
        assert!(output.lines().any(|found| found == line), "{line} is not in\n{output}");
    }
}

#[tokio::test]
async fn a_binary_that_cannot_be_executed_says_why() {
    let fixture = fixture();
    let text = fixture.logs.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    for binary in [text, PathBuf::from("/no/such/binary")] {
        let spec = fixture.spec(&binary, &[]);
        let mut handle = soon(fixture.launcher.launch(spec)).await.unwrap();
        let failure = soon(handle.exited()).await;
        assert_eq!(failure.message, "the worker process exited with status 126");
        assert!(failure.details.contains(&format!("cannot execute {}", binary.display())), "{failure}");
    }
}

#[tokio::test]
async fn a_worker_is_killed_by_its_task_manager() {
    let fixture = fixture();
    let (process, mut handle) = fixture.sleeping().await;
    handle.kill();
    assert!(soon(handle.exited()).await.message.contains("killed by its task manager"));
    process.gone().await;
    handle.kill();
    assert!(
        soon(handle.exited()).await.message.contains("killed by its task manager"),
        "the end stays the same"
    );
}

#[tokio::test]
async fn a_kill_by_somebody_else_is_named_as_possibly_out_of_memory() {
    let fixture = fixture();
    let (process, mut handle) = fixture.sleeping().await;
    process.kill(Signal::KILL);
    let failure = soon(handle.exited()).await;
    assert!(failure.message.contains("possibly ran out of memory"), "{failure}");
    assert_eq!(failure.fault, Fault::External);
}

#[tokio::test]
async fn a_death_is_noticed_within_a_tenth_of_a_second() {
    let fixture = fixture();
    let clock: SharedClock = SystemClock::shared();
    let mut fastest = Duration::MAX;
    // The fastest of several: a busy machine may be late, a poll with an interval would always be.
    for _ in 0..5 {
        let (process, mut handle) = fixture.sleeping().await;
        let stopwatch = Stopwatch::start(&clock);
        process.kill(Signal::ABORT);
        let failure = soon(handle.exited()).await;
        fastest = fastest.min(stopwatch.elapsed());
        assert!(failure.message.contains("SIGABRT"), "{failure}");
    }
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test]
async fn a_dropped_handle_kills() {
    let fixture = fixture();
    let (process, handle) = fixture.sleeping().await;
    drop(handle);
    process.gone().await;
}

#[tokio::test]
async fn workers_die_with_the_thread_that_started_them() {
    let fixture = fixture();
    let (process, mut handle) = fixture.sleeping().await;
    fixture.scope.cancel();
    soon(handle.exited()).await;
    process.gone().await;
    let refused = soon(fixture.launcher.launch(fixture.spec("/bin/sleep", &["1"]))).await;
    assert!(refused.err().unwrap().message.contains("cannot start a worker process"));
}

#[tokio::test]
async fn a_child_whose_parent_is_not_the_expected_one_does_not_start() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_taskmanager"));
    let output = soon(command.args(["exec-worker", "--parent", "1", "--", "/bin/echo", "hello"]).output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(output.stdout, b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is gone"));
}
