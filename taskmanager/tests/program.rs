//! The `taskmanager` program as a process: what it prints, how it stops, and that it leaves no orphan.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::{JobManager, LaunchedWorker, Role, Session, WorkerProcess, soon, status};
use thalweg_proto::blob::BlobHash;
use thalweg_proto::v1;
use thalweg_proto::v1::task_manager_message::Message as News;
use thalweg_proto::v1::worker_command::Message as Command;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// A program that does nothing for long stands in for a job.
const JOB_BINARY: &str = "/bin/sleep";

struct Program {
    child: Child,
    process: Pid,
    output: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    _data: tempfile::TempDir,
}

fn start(arguments: &[&str]) -> Program {
    let data = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_taskmanager"))
        .args(["--id", "tm-9", "--slots", "2", "--data-dir"])
        .arg(data.path())
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let process = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    Program { child, process, output, _data: data }
}

impl Program {
    fn signal(&self, signal: Signal) {
        kill_process(self.process, signal).unwrap();
    }

    async fn exit_status(&mut self) -> Option<i32> {
        soon(self.child.wait()).await.unwrap().code()
    }
}

/// A leader that has the job's binary.
fn leader() -> (JobManager, (BlobHash, u64)) {
    let bytes = std::fs::read(JOB_BINARY).unwrap();
    let blob = (BlobHash::of(&bytes), bytes.len() as u64);
    (JobManager::start(Role { blobs: BTreeMap::from([(blob.0, bytes)]), ..Role::default() }), blob)
}

/// A program that is registered and has started a worker.
async fn with_worker() -> (JobManager, Program, Session, WorkerProcess) {
    let (mut leader, blob) = leader();
    let program = start(&["--jobmanagers", &leader.address]);
    let (session, register) = leader.register(1).await;
    assert_eq!((register.task_manager_id.as_str(), register.slots), ("tm-9", 2));
    session.start_worker(1, 1, Some(blob)).await;
    let worker = WorkerProcess::find(None, program.process.as_raw_nonzero().get().cast_unsigned()).await;
    (leader, program, session, worker)
}

#[tokio::test]
async fn a_worker_dies_with_its_killed_task_manager() {
    let (_leader, mut program, _session, worker) = with_worker().await;
    program.signal(Signal::KILL);
    assert_eq!(program.exit_status().await, None);
    worker.gone().await;
}

#[tokio::test]
async fn ready_is_said_once_registered_and_an_idle_one_stops_at_once() {
    let (mut leader, _) = leader();
    let mut program = start(&["--jobmanagers", &leader.address]);
    let (mut session, _) = leader.register(1).await;
    assert_eq!(soon(program.output.next_line()).await.unwrap().unwrap(), "taskmanager ready tm-9");
    let resident = status(program.process, "VmRSS:").unwrap();
    let kilobytes: u64 = resident.trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 40 * 1024, "{resident} resident when idle");
    program.signal(Signal::TERM);
    assert_eq!(program.exit_status().await, Some(0));
    assert!(matches!(session.next().await, Some(News::Draining(_))));
    assert_eq!(session.next().await, None);
}

#[tokio::test]
async fn a_terminated_one_waits_until_its_tasks_are_gone_and_takes_its_workers_with_it() {
    let (_leader, mut program, mut session, worker) = with_worker().await;
    let mut attached = LaunchedWorker::of_process(&worker).attach().await;
    session.worker_ready().await;
    session.deploy(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::DeployTasks(_))));
    attached.say_status(1, v1::TaskStatus::Running).await;
    assert!(matches!(session.next().await, Some(News::TaskStatusChanged(_))));

    program.signal(Signal::TERM);
    assert!(matches!(session.next().await, Some(News::Draining(_))));
    assert_eq!(program.child.try_wait().unwrap(), None, "its task still runs");
    session.cancel(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::CancelTasks(_))));
    attached.say_stopped(1).await;
    assert_eq!(session.tasks_stopped().await, 1);
    assert!(matches!(attached.command().await, Some(Command::Shutdown(_))));
    // The stand-in does not listen, so it is killed.
    assert_eq!(program.exit_status().await, Some(0));
    worker.gone().await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (_leader, mut program, mut session, worker) = with_worker().await;
    let mut attached = LaunchedWorker::of_process(&worker).attach().await;
    session.worker_ready().await;
    session.deploy(1, 1).await;
    assert!(matches!(attached.command().await, Some(Command::DeployTasks(_))));
    attached.say_status(1, v1::TaskStatus::Running).await;
    assert!(matches!(session.next().await, Some(News::TaskStatusChanged(_))));
    program.signal(Signal::TERM);
    assert!(matches!(session.next().await, Some(News::Draining(_))));
    program.signal(Signal::TERM);
    assert_eq!(program.exit_status().await, Some(0));
    worker.gone().await;
}

#[tokio::test]
async fn a_killed_worker_is_reported() {
    let (_leader, _program, mut session, worker) = with_worker().await;
    worker.kill(Signal::KILL);
    assert!(session.worker_lost().await.message.contains("possibly ran out of memory"));
}

#[tokio::test]
async fn wrong_settings_end_it_with_a_message() {
    let mut program = start(&[]);
    assert_eq!(program.exit_status().await, Some(1), "no job manager is named");
    let mut program = start(&["--slots", "many"]);
    assert_eq!(program.exit_status().await, Some(2));
}
