//! What the tests of the exchange over sockets share: two ends on loopback, and tasks on plain threads.

use std::sync::mpsc;
use std::time::Duration;

use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, ChannelId, JobId};
use thalweg_common::record::Record;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::transport::Dialer;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::exchange::{
    ExchangeClient, ExchangeServer, ExchangeSettings, Input, InputGate, OpenChannel, Receiver, Sender, Sent,
    TaskParker,
};

pub const JOB: JobId = JobId(0xcafe);
pub const PLAN: u64 = 77;
pub const ATTEMPT: Attempt = 5;

/// Far longer than anything here takes: only a hanging test sees its end.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A worker that sends and one that receives, in this process, joined by loopback.
pub struct Pair {
    pub scope: TaskScope,
    pub server: ExchangeServer,
    pub client: ExchangeClient,
}

impl Pair {
    pub async fn start(settings: ExchangeSettings) -> Self {
        let scope = TaskScope::new("test");
        let server = ExchangeServer::start("127.0.0.1", PLAN, settings, None, &scope).await.unwrap();
        server.start_attempt(JOB, 0, ATTEMPT).unwrap();
        let client = ExchangeClient::new(settings, Dialer::default(), &scope);
        Self { scope, server, client }
    }

    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// An open channel to subtask `to`.
    pub async fn channel<T: Record>(&self, to: u32) -> (Sender<T>, Receiver<T>) {
        let receiver = self.server.register(0, channel(to)).unwrap();
        let sender = self.client.open(&self.address(), open(to)).await.unwrap();
        (sender, receiver)
    }

    pub async fn shutdown(self) {
        let Self { scope, server, client } = self;
        drop((server, client));
        scope.shutdown(DEADLINE).await.unwrap();
    }
}

pub fn channel(to: u32) -> ChannelId {
    ChannelId { edge: 1, from: 2, to }
}

pub fn open(to: u32) -> OpenChannel {
    OpenChannel { job_id: JOB, region: 0, attempt: ATTEMPT, channel: channel(to), plan_fingerprint: PLAN }
}

/// Runs `work` on a thread of its own, as a task does, and waits for its result.
pub async fn on_thread<R: Send + 'static>(scope: &TaskScope, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (result, results) = mpsc::sync_channel(1);
    let thread = scope.spawn_thread("task", move || result.send(work()).unwrap());
    tokio::time::timeout(DEADLINE, thread.join()).await.expect("the task ends in time").unwrap();
    results.recv().unwrap()
}

/// Sends a batch as a task does: parks while there is no room.
pub fn send<T: Record>(
    sender: &mut Sender<T>,
    parker: &mut TaskParker,
    batch: impl Into<Batch<T>>,
) -> Result<(), Failure> {
    let mut batch = batch.into();
    while let Sent::Full(rest) = sender.try_send(batch)? {
        assert!(parker.park(DEADLINE), "room or a failure wakes the task");
        batch = rest;
    }
    Ok(())
}

/// Sends until it fails.
pub fn send_until_failure(mut sender: Sender<u64>) -> Failure {
    let mut parker = TaskParker::new();
    sender.set_waker(parker.waker());
    loop {
        if let Err(failure) = send(&mut sender, &mut parker, vec![1; 100]) {
            return failure;
        }
    }
}

/// A gate over one channel, and the parker of its task.
pub fn gate<T: Record>(receiver: Receiver<T>) -> (InputGate<T>, TaskParker) {
    let parker = TaskParker::new();
    let waker = parker.waker();
    (InputGate::new(vec![receiver], CheckpointMode::ExactlyOnce, waker), parker)
}

/// The next input that is none of idle.
pub fn next<T: Record>(gate: &mut InputGate<T>, parker: &mut TaskParker) -> Result<Input<T>, Failure> {
    loop {
        match gate.poll()? {
            Input::Idle => assert!(parker.park(DEADLINE), "input or a failure wakes the task"),
            input => return Ok(input),
        }
    }
}

/// All records until the end of input.
pub fn receive_all<T: Record>(receiver: Receiver<T>) -> Result<Vec<T>, Failure> {
    let (mut gate, mut parker) = gate(receiver);
    let mut records = Vec::new();
    loop {
        match next(&mut gate, &mut parker)? {
            Input::Batch(mut batch) => records.extend(batch.drain()),
            Input::EndOfInput => return Ok(records),
            other => drop(other),
        }
    }
}
