//! The task manager's actor: takes in mail, asks the [core](crate::core) what to do, and does it.
//!
//! It never waits for a receiver: what it sends goes into bounded queues, and a receiver whose queue is full counts as
//! gone. Whatever takes time (a fetch, a launch, a file) runs in a task of its own and comes back as mail.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use thalweg_common::config::keys;
use thalweg_common::failure::Failure;
use thalweg_common::id::{JobId, WorkerId};
use thalweg_common::task_scope::{TaskScope, blocking};
use thalweg_metrics::process::ProcessSampler;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::v1;
use thalweg_proto::v1::task_manager_message::Message as ToLeader;
use thalweg_proto::v1::worker_command::Message as Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::blobs::BlobCache;
use crate::core::{Action, Core, Fresh, Input, Timer};
use crate::launcher::{Token, WorkerHandle, WorkerLauncher, WorkerSpec};
use crate::local_state::LocalState;
use crate::logs;
use crate::messages::{Hello, LeaderMessage, Report, StartRequest};
use crate::outbox::{self, Outbox};

type Commands = mpsc::Sender<Result<v1::WorkerCommand, Status>>;

/// What the actor is told.
pub(crate) enum Mail {
    /// A connection to a job manager is being made; it sends what comes out of the queue behind `outbound`.
    Connecting {
        connection: u64,
        outbound: mpsc::Sender<v1::TaskManagerMessage>,
        broken: CancellationToken,
    },
    /// That connection has ended.
    Disconnected {
        connection: u64,
        reason: String,
    },
    FromLeader(LeaderMessage),
    HeartbeatDue,
    /// What its processes take of the machine, for the next heartbeat.
    Measured(v1::ProcessMetrics),
    /// Someone wants to see the metrics of everything that runs here.
    #[cfg(feature = "prometheus")]
    Metrics(oneshot::Sender<v1::Heartbeat>),
    /// A process says it is a worker; it is to be told its commands, or why not.
    Attach {
        hello: Hello,
        commands: Commands,
        reply: oneshot::Sender<Result<(), String>>,
    },
    FromWorker {
        worker: WorkerId,
        report: Report,
    },
    Detached(WorkerId),
    Launched(WorkerId),
    Exited {
        worker: WorkerId,
        failure: Failure,
    },
    TimeCame(Timer),
    /// Take no more tasks; answered when none runs here.
    Drain(oneshot::Sender<()>),
    /// End all workers; answered when there is none.
    Stop(oneshot::Sender<()>),
}

/// What the actor's work needs.
pub(crate) struct Environment {
    pub(crate) launcher: Arc<dyn WorkerLauncher>,
    pub(crate) blobs: BlobCache,
    pub(crate) logs: PathBuf,
    /// Where workers keep state, each in a directory of its own.
    pub(crate) state: PathBuf,
    /// Where they keep copies of checkpoints.
    pub(crate) local_state: LocalState,
    /// Managed memory of each slot.
    pub(crate) managed_bytes_per_slot: u64,
    /// Managed memory of all of them.
    pub(crate) managed_bytes: u64,
    /// Measures what the processes take of the machine.
    pub(crate) sampler: Arc<Mutex<ProcessSampler>>,
    pub(crate) data_host: String,
    /// Settings of workers for jobs that were submitted without them.
    pub(crate) worker_configuration: BTreeMap<String, String>,
    /// `host:port` of the WorkerService.
    pub(crate) worker_service: String,
}

pub(crate) struct Actor {
    core: Core,
    environment: Arc<Environment>,
    mailbox: mpsc::Sender<Mail>,
    registered: watch::Sender<bool>,
    connection: Option<Connection>,
    workers: BTreeMap<WorkerId, Worker>,
    drained: Vec<oneshot::Sender<()>>,
    stopped: Vec<oneshot::Sender<()>>,
    /// What its processes take of the machine, as measured last.
    process: Option<v1::ProcessMetrics>,
    /// Holds launches, timers and reads; the actor itself runs above it.
    tasks: TaskScope,
}

struct Connection {
    number: u64,
    outbox: Outbox,
    broken: CancellationToken,
    registered: bool,
}

#[derive(Default)]
struct Worker {
    kill: CancellationToken,
    /// Absent until it has attached.
    commands: Option<Commands>,
}

impl Actor {
    pub(crate) fn new(
        core: Core,
        environment: Environment,
        mailbox: mpsc::Sender<Mail>,
        registered: watch::Sender<bool>,
        tasks: TaskScope,
    ) -> Self {
        Self {
            core,
            environment: Arc::new(environment),
            mailbox,
            registered,
            connection: None,
            workers: BTreeMap::new(),
            drained: Vec::new(),
            stopped: Vec::new(),
            process: None,
            tasks,
        }
    }

    /// Works until `token` is cancelled.
    pub(crate) async fn run(mut self, mut mail: mpsc::Receiver<Mail>, token: CancellationToken) {
        loop {
            let room = self.connection.as_ref().and_then(|connection| connection.outbox.wants_room());
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                permit = outbox::room(room) => self.flush(permit),
                next = mail.recv() => match next {
                    Some(next) => self.handle(next),
                    None => return,
                },
            }
            if !self.core.runs_tasks() {
                answer(&mut self.drained);
            }
            if !self.core.has_workers() {
                answer(&mut self.stopped);
            }
        }
    }

    fn handle(&mut self, mail: Mail) {
        match mail {
            Mail::Connecting { connection, outbound, broken } => {
                let outbox = Outbox::new(outbound);
                self.connection = Some(Connection { number: connection, outbox, broken, registered: false });
                self.step(Input::Connecting);
            }
            Mail::Disconnected { connection, reason } => {
                if let Some(lost) = self.connection.take_if(|current| current.number == connection)
                    && lost.registered
                {
                    tracing::warn!("lost the leading job manager ({reason}); everything here goes on");
                }
            }
            Mail::FromLeader(message) => match fresh() {
                Ok(fresh) => self.step(Input::Leader { message, fresh }),
                Err(error) => tracing::error!("refused a message of the leader: no random bytes ({error})"),
            },
            Mail::HeartbeatDue => {
                self.send(ToLeader::Heartbeat(v1::Heartbeat {
                    process: self.process,
                    ..self.core.heartbeat()
                }));
                self.measure();
            }
            Mail::Measured(process) => self.process = Some(process),
            #[cfg(feature = "prometheus")]
            // Whoever asked may be gone.
            Mail::Metrics(reply) => {
                let metrics = v1::Heartbeat { process: self.process, ..self.core.heartbeat() };
                drop(reply.send(metrics));
            }
            Mail::Attach { hello, commands, reply } => self.attach(hello, commands, reply),
            Mail::FromWorker { worker, report } => self.step(Input::Report { worker, report }),
            Mail::Detached(worker) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.commands = None;
                }
                self.step(Input::Detached(worker));
            }
            Mail::Launched(worker) => self.step(Input::Launched(worker)),
            Mail::Exited { worker, failure } => {
                self.workers.remove(&worker);
                self.step(Input::Exited { worker, failure });
            }
            Mail::TimeCame(timer) => self.step(Input::Timer(timer)),
            Mail::Drain(done) => {
                self.drained.push(done);
                self.step(Input::Drain);
            }
            Mail::Stop(done) => {
                self.stopped.push(done);
                self.step(Input::Stop);
            }
        }
    }

    fn attach(&mut self, hello: Hello, commands: Commands, reply: oneshot::Sender<Result<(), String>>) {
        let worker = hello.worker;
        let actions = self.core.step(Input::Attach(hello));
        let verdict = actions.iter().find_map(|action| match action {
            Action::Accept => Some(Ok(())),
            Action::Refuse(reason) => Some(Err(reason.clone())),
            _ => None,
        });
        let verdict = verdict.unwrap_or_else(|| Err("this task manager does not know the worker".into()));
        match &verdict {
            Ok(()) => self.workers.entry(worker).or_default().commands = Some(commands),
            Err(reason) => tracing::warn!("refused worker {worker}: {reason}"),
        }
        // A process that has gone away meanwhile is noticed by its exit.
        let _ = reply.send(verdict);
        self.execute(actions);
    }

    fn step(&mut self, input: Input) {
        let actions = self.core.step(input);
        self.execute(actions);
    }

    /// Does what the core says. Doing so may bring news that the core has to hear first of all.
    fn execute(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            if let Some(news) = self.act(action) {
                actions.extend(self.core.step(news));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send(message) => self.send(message),
            Action::Launch { fresh, request } => self.launch(fresh, request),
            Action::Prefetch { binary, size_bytes } => self.prefetch(binary, size_bytes),
            Action::Tell { worker, command } => return self.tell(worker, command),
            Action::Kill { worker } => {
                if let Some(worker) = self.workers.get(&worker) {
                    worker.kill.cancel();
                }
            }
            Action::StartTimer { timer, after } => {
                self.spawn_mail("timer", async move {
                    tokio::time::sleep(after).await;
                    Some(Mail::TimeCame(timer))
                });
            }
            Action::ReadLogs { request_id, job, tail_bytes } => self.read_logs(request_id, job, tail_bytes),
            Action::Registered => {
                if let Some(connection) = &mut self.connection {
                    connection.registered = true;
                    tracing::info!("registered with the leading job manager");
                    self.registered.send_replace(true);
                }
            }
            Action::Leave => self.disconnect(),
            Action::Warn(text) => tracing::warn!("{text}"),
            Action::Note(text) => tracing::info!("{text}"),
            // Done by who asked for the attachment.
            Action::Accept | Action::Refuse(_) => {}
        }
        None
    }

    /// Tells the leader, if there is one. One that does not read loses its connection, and is told everything when it is
    /// there again.
    fn send(&mut self, message: ToLeader) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.outbox.send(v1::TaskManagerMessage { message: Some(message) })
        {
            tracing::warn!("left the job manager: {error}");
            self.disconnect();
        }
    }

    /// Sends what had to wait for room.
    fn flush(&mut self, permit: Option<outbox::Permit>) {
        match (permit, &mut self.connection) {
            (Some(permit), Some(connection)) => connection.outbox.flush(permit),
            (None, _) => {
                tracing::warn!(
                    "lost the leading job manager (its stream has ended); everything here goes on"
                );
                self.disconnect();
            }
            (Some(_), None) => {}
        }
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.broken.cancel();
        }
    }

    /// Tells a worker. One that does not read its commands counts as detached.
    fn tell(&mut self, id: WorkerId, command: Command) -> Option<Input> {
        let worker = self.workers.get_mut(&id)?;
        let commands = worker.commands.as_ref()?;
        let command = v1::WorkerCommand { message: Some(command) };
        if let Err(error) = commands.try_send(Ok(command)) {
            tracing::warn!("gave up worker {id}: its queue is {error}");
            worker.commands = None;
            return Some(Input::Detached(id));
        }
        None
    }

    fn launch(&mut self, fresh: Fresh, request: StartRequest) {
        let kill = CancellationToken::new();
        self.workers.insert(fresh.worker, Worker { kill: kill.clone(), commands: None });
        let (environment, mailbox, worker) =
            (Arc::clone(&self.environment), self.mailbox.clone(), fresh.worker);
        self.spawn_mail(&format!("worker {worker}"), async move {
            let launched = kill.run_until_cancelled(launch(&environment, fresh, request)).await;
            let failure = match launched {
                None => Failure::external("the worker was not needed any more before it had started"),
                Some(Err(failure)) => failure,
                Some(Ok(handle)) => {
                    mailbox.send(Mail::Launched(worker)).await.ok()?;
                    until_exit(handle, &kill).await
                }
            };
            remove_state(state_directory(&environment, worker)).await;
            environment.local_state.worker_ended();
            Some(Mail::Exited { worker, failure })
        });
    }

    /// Measures what this process and its workers take of the machine.
    fn measure(&self) {
        let mut processes = self.core.process_ids();
        processes.push(std::process::id());
        processes.sort_unstable();
        // In local mode the worker is in this process.
        processes.dedup();
        let managed = (self.core.managed_used_bytes(), self.environment.managed_bytes);
        let sampler = Arc::clone(&self.environment.sampler);
        self.spawn_mail("measure", async move {
            let sample = move || {
                let mut sampler = sampler.lock().unwrap_or_else(PoisonError::into_inner);
                v1::ProcessMetrics::from(sampler.sample(&processes, managed))
            };
            blocking("measure", sample).await.ok().map(Mail::Measured)
        });
    }

    /// Fetches and hashes a binary beside everything else. Who launches a worker with it shares the fetch.
    fn prefetch(&self, binary: BlobHash, size_bytes: u64) {
        let environment = Arc::clone(&self.environment);
        self.spawn_mail("prefetch", async move {
            if let Err(failure) = environment.blobs.get(binary, size_bytes).await {
                tracing::warn!("the binary {binary} is not here in advance: {failure}");
            }
            None
        });
    }

    fn read_logs(&self, request_id: u64, job: JobId, tail_bytes: u64) {
        let Some(connection) = &self.connection else { return };
        let outbound = connection.outbox.sender();
        let directory = logs::directory(&self.environment.logs, job);
        self.spawn_mail("read logs", async move {
            let parts = blocking("read logs", move || logs::tails(&directory, tail_bytes)).await;
            let parts = match parts {
                Ok(Ok(parts)) => parts,
                Ok(Err(error)) => vec![unreadable(&error)],
                Err(error) => vec![unreadable(&error)],
            };
            let message =
                v1::TaskManagerMessage { message: Some(ToLeader::Logs(v1::Logs { request_id, parts })) };
            // A leader that is gone has nobody to show them to.
            let _ = outbound.send(message).await;
            None
        });
    }

    /// Runs something beside the actor that may end in mail for it.
    fn spawn_mail(&self, name: &str, work: impl Future<Output = Option<Mail>> + Send + 'static) {
        let (mailbox, token) = (self.mailbox.clone(), self.tasks.token());
        self.tasks.spawn(name, async move {
            if let Some(Some(mail)) = token.run_until_cancelled(work).await {
                // Without an actor there is nobody to tell.
                let _ = mailbox.send(mail).await;
            }
        });
    }
}

fn answer(waiting: &mut Vec<oneshot::Sender<()>>) {
    for done in waiting.drain(..) {
        // Who asked may have stopped waiting.
        let _ = done.send(());
    }
}

fn fresh() -> std::io::Result<Fresh> {
    Ok(Fresh { worker: WorkerId::random()?, token: Token::random()? })
}

/// Gets the binary and starts the worker.
async fn launch(
    environment: &Environment,
    fresh: Fresh,
    request: StartRequest,
) -> Result<Box<dyn WorkerHandle>, Failure> {
    let binary = match request.program.binary {
        Some((hash, size_bytes)) => Some(environment.blobs.get(hash, size_bytes).await?),
        None => None,
    };
    let log_directory = logs::directory(&environment.logs, request.job);
    tokio::fs::create_dir_all(&log_directory).await.map_err(|error| {
        Failure::external(format!(
            "cannot create {}: {error}; free disk space or check the permissions of the data directory",
            log_directory.display()
        ))
    })?;
    let mut configuration = environment.worker_configuration.clone();
    configuration.extend(request.program.configuration);
    for key in keys::SSL_INTERNAL {
        // Not the job's to choose: its workers speak with those of other machines as all nodes do.
        match environment.worker_configuration.get(key.name) {
            Some(value) => configuration.insert(key.name.to_string(), value.clone()),
            None => configuration.remove(key.name),
        };
    }
    // Neither is this: who removes the copies must find them.
    configuration.insert(keys::LOCAL_STATE_DIRECTORIES.name.to_string(), environment.local_state.setting());
    let spec = WorkerSpec {
        job_id: request.job,
        worker_id: fresh.worker,
        token: fresh.token,
        taskmanager_address: environment.worker_service.clone(),
        binary,
        arguments: request.program.arguments,
        configuration,
        properties: request.program.properties,
        plan_fingerprint: request.program.plan_fingerprint,
        data_host: environment.data_host.clone(),
        log_directory,
        state_directory: state_directory(environment, fresh.worker),
        managed_bytes_per_slot: environment.managed_bytes_per_slot,
    };
    environment.launcher.launch(spec).await
}

/// Where a worker keeps state.
fn state_directory(environment: &Environment, worker: WorkerId) -> PathBuf {
    environment.state.join(worker.to_string())
}

/// Removes the state of a worker that is gone. What cannot be removed goes when the task manager starts again.
async fn remove_state(directory: PathBuf) {
    let removed = tokio::fs::remove_dir_all(&directory).await;
    if let Some(error) = removed.err().filter(|error| error.kind() != std::io::ErrorKind::NotFound) {
        tracing::warn!("cannot remove {}: {error}", directory.display());
    }
}

/// Waits for a worker's end, and brings it about when told to.
async fn until_exit(mut handle: Box<dyn WorkerHandle>, kill: &CancellationToken) -> Failure {
    tokio::select! {
        biased;
        failure = handle.exited() => return failure,
        () = kill.cancelled() => {}
    }
    handle.kill();
    handle.exited().await
}

fn unreadable(error: &dyn std::error::Error) -> v1::LogPart {
    v1::LogPart { source: "stderr".into(), data: format!("(the logs cannot be read: {error})\n").into() }
}
