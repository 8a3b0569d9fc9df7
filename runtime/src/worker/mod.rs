//! A worker: runs the tasks of one job that its task manager gives it.
//!
//! On a command's way this is its end: `connection` attaches to the task manager, `messages` reads what it orders, `core` and for each
//! region of the job `region` decide what that means, and the actor here executes the core's actions with the help of `deploy` and `wiring`.
//! Invariants: the worker lives as long as its stream to the task manager; a task that fails does not take it down;
//! every task of a region's attempt has ended before that is reported as stopped.

mod connection;
mod core;
mod deploy;
mod messages;
mod region;
mod time;
mod wiring;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::{Stopwatch, SystemClock};
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, JobId, RegionId, SubtaskId, WorkerId};
use thalweg_common::limits::ACTOR_MAILBOX;
use thalweg_common::security::Security;
use thalweg_common::status::TaskStatus;
use thalweg_common::task_scope::{ErrorPolicy, TaskScope};
use thalweg_proto::convert::CheckpointPhases;
use thalweg_proto::transport::Dialer;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};

use self::connection::{Connection, Outgoing};
use self::core::{Action, WorkerCore};
use self::deploy::{Deployer, Running, RunningTask};
use self::messages::{Acknowledgement, Command, Origin};
use self::time::Lease;
use crate::exchange::{ExchangeClient, ExchangeServer};
use crate::program::Program;
use crate::stores::TaskStores;
use crate::task::mailbox::Mail;
use crate::task::savepoint;
use crate::task::upload::{self, Directory, Owner, Stored};
use crate::task::{self, Report, TakenSnapshot};
use crate::task::{copies, files};

/// How often the task manager is told the counters.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);

/// How long tasks may take to end when the worker ends. What still runs then is left to the end of the process.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// What a worker needs to know.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Where its task manager's WorkerService listens: `host:port`.
    pub taskmanager_address: String,
    /// The job that it works for.
    pub job_id: JobId,
    /// Its own id.
    pub worker_id: WorkerId,
    /// What it shows to prove that it is the worker that was started.
    pub token: Vec<u8>,
    /// The host on which it serves its channels to other workers.
    pub data_host: String,
    /// Whether it runs in the author's own process, without a cluster.
    pub local: bool,
    /// Managed memory of each slot in bytes. Without it the worker has all that is configured.
    pub managed_bytes_per_slot: Option<u64>,
    /// TLS of its channels, and of its way to the task manager.
    pub security: Security,
    /// A directory of its own for state, which is made when it is needed and removed by whoever started the worker.
    pub state_directory: PathBuf,
}

/// Runs a worker until its task manager shuts it down or is gone, or until `scope` is cancelled. Dropping the future asks
/// its tasks to end, too.
///
/// # Errors
/// When the task manager cannot be reached, is gone, or orders what this worker cannot do.
pub async fn run(program: Arc<Program>, options: WorkerOptions, scope: TaskScope) -> Result<(), Failure> {
    let plan_fingerprint = program.graph.fingerprint();
    let settings = program.exchange;
    let tls = options.security.tls.clone();
    let server = ExchangeServer::start(&options.data_host, plan_fingerprint, settings, tls, &scope).await?;
    let client = ExchangeClient::new(settings, Dialer::new(options.security.clone()), &scope);
    let data_port = server.address().port();
    let connection = tokio::select! {
        biased;
        () = scope.cancelled() => return Ok(()),
        connection = Connection::attach(&options, data_port, plan_fingerprint) => connection?,
    };
    let (reports_sender, reports) = mpsc::channel(ACTOR_MAILBOX);
    let deployer = Deployer {
        program,
        job_id: options.job_id,
        is_local: options.local,
        managed_bytes_per_slot: options.managed_bytes_per_slot,
        state_directory: options.state_directory,
        plan_fingerprint,
        clock: SystemClock::shared(),
        server,
        client,
        reports: reports_sender,
        scope: scope.child_with_policy("tasks", ErrorPolicy::LogOnly),
    };
    let lease = Lease::of(&deployer.program.graph);
    let worker = Worker {
        job_id: options.job_id,
        worker_id: options.worker_id,
        core: WorkerCore::new(plan_fingerprint),
        lease,
        deployer,
        running: BTreeMap::new(),
        outgoing: connection.outgoing.clone(),
        scope,
    };
    worker.run(connection, reports).await
}

/// What happens to a worker.
enum Event {
    Cancelled,
    /// The next command, or why there are no more.
    Command(Result<Command, Failure>),
    Report(Report),
    CountersDue,
    AlignmentDue,
}

/// Where a task's part goes.
enum Target {
    /// Among the snapshots of the job's checkpoints.
    Checkpoint(Directory),
    /// Into the directory of a savepoint, by its URI.
    Savepoint(String),
}

/// Whether the worker goes on.
enum Flow {
    Continue,
    Shutdown,
    Failed(Failure),
}

struct Worker {
    job_id: JobId,
    worker_id: WorkerId,
    core: WorkerCore,
    /// How long aligned sources go by what the leader said of them.
    lease: Lease,
    deployer: Deployer,
    /// The tasks of each region, until they have been cancelled.
    running: BTreeMap<RegionId, Running>,
    outgoing: Outgoing,
    scope: TaskScope,
}

impl Worker {
    async fn run(
        mut self,
        mut connection: Connection,
        mut reports: mpsc::Receiver<Report>,
    ) -> Result<(), Failure> {
        let mut counters_due = tokio::time::interval(COUNTERS_INTERVAL);
        counters_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alignment_due = self.lease.ticks();
        let result = loop {
            let event = tokio::select! {
                biased;
                () = self.scope.cancelled() => Event::Cancelled,
                command = connection.command(self.job_id, self.worker_id) => Event::Command(command),
                Some(report) = reports.recv() => Event::Report(report),
                _ = counters_due.tick() => Event::CountersDue,
                () = time::tick(&mut alignment_due) => Event::AlignmentDue,
            };
            match self.on_event(event).await {
                Flow::Continue => {}
                Flow::Shutdown => break Ok(()),
                Flow::Failed(failure) => break Err(failure),
            }
        };
        self.stop(&mut reports).await;
        drop(self);
        if result.is_err() {
            // The task manager is to learn why, if it is still there.
            connection.close().await;
        }
        result
    }

    async fn on_event(&mut self, event: Event) -> Flow {
        let actions = match event {
            Event::Cancelled => return Flow::Shutdown,
            Event::Command(Ok(Command::Align { attempt, groups })) => {
                self.align(attempt, &groups);
                Vec::new()
            }
            Event::Command(Ok(command)) => self.core.on_command(command),
            Event::Command(Err(failure)) => return Flow::Failed(failure),
            Event::Report(report) => self.core.on_report(report),
            Event::CountersDue => {
                self.report_counters();
                Vec::new()
            }
            Event::AlignmentDue => {
                self.report_alignment();
                Vec::new()
            }
        };
        self.execute(actions).await
    }

    async fn execute(&mut self, actions: Vec<Action>) -> Flow {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Start(deployment) => {
                    let program = &self.deployer.program;
                    self.core.started(&deployment, |subtask| task::role(program, subtask));
                    self.running.insert(deployment.region, self.deployer.start(deployment));
                }
                Action::CancelTasks(region) => {
                    if let Some(running) = self.running.get(&region) {
                        running.cancel();
                    }
                }
                Action::EndAttempt(region, attempt) => self.end_attempt(region, attempt),
                Action::Tell(subtask, mail) => {
                    let task = self.task(subtask);
                    if let Some(task) = task
                        && note(&task.stores, mail)
                    {
                        let pruned = copies::prune(task.stores.clone());
                        self.deployer.scope.spawn(&format!("remove copies of task {subtask}"), pruned);
                    }
                    if let Some(Err(full)) = task.map(|task| task.mailbox.send(mail)) {
                        let failure = Failure::user(full.to_string());
                        actions.extend(self.core.on_mailbox_full(subtask, mail, failure));
                    }
                }
                Action::ReportStatus(subtask, status, failure) => {
                    self.report_status(subtask, status, failure).await
                }
                Action::ReportStopped(attempt, regions) => {
                    self.send(messages::stopped(self.job_id, attempt, regions)).await;
                }
                Action::Store(subtask, taken) => {
                    let directory = self.running_with(subtask).and_then(|running| running.directory.clone());
                    self.store(subtask, taken, Target::Checkpoint(directory));
                }
                Action::WriteSavepoint(subtask, taken, directory) => {
                    self.store(subtask, taken, Target::Savepoint(directory));
                }
                Action::GiveUp(subtask, taken) => {
                    // What has changed is written all the same: the stores count on it.
                    let given_up = async move {
                        if let Err(failure) = files::give_up(taken.frozen).await {
                            warn!("task {subtask} cannot write what a savepoint has frozen: {failure}");
                        }
                    };
                    self.deployer.scope.spawn(&format!("given up savepoint of task {subtask}"), given_up);
                }
                Action::ReportTime(subtask, told) => {
                    let graph = &self.deployer.program.graph;
                    let now_ms = self.deployer.clock.now_ms();
                    for told in messages::task_time(self.origin(subtask), graph, now_ms, &told) {
                        self.outgoing.try_send(told);
                    }
                }
                Action::Decline(subtask, checkpoint, failure) => {
                    self.send(messages::declined(self.origin(subtask), checkpoint, failure)).await;
                }
                Action::Ignore(what) => debug!("ignored: {what}"),
                Action::Fail(failure) => {
                    self.send(messages::failed(failure.clone())).await;
                    return Flow::Failed(failure);
                }
                Action::Shutdown => return Flow::Shutdown,
            }
        }
        Flow::Continue
    }

    async fn report_status(&self, subtask: SubtaskId, status: TaskStatus, failure: Option<Failure>) {
        match &failure {
            // Here, because a worker's log is where the author of the code looks.
            Some(failure) => error!("task {subtask} ({}) failed: {failure}", self.vertex_name(subtask)),
            None => debug!("task {subtask} ({}) is {status}", self.vertex_name(subtask)),
        }
        // The job may end before the next time that counters are due.
        let is_done = status == TaskStatus::Drained || status.is_terminal();
        let counters = self.counters(subtask, status).filter(|_| is_done);
        self.send(messages::status_changed(self.origin(subtask), status, failure, counters)).await;
    }

    /// The tasks of a task's region.
    fn running_with(&self, subtask: SubtaskId) -> Option<&Running> {
        self.core.region_of(subtask).and_then(|region| self.running.get(&region))
    }

    fn task(&self, subtask: SubtaskId) -> Option<&RunningTask> {
        self.running_with(subtask).and_then(|running| running.tasks.get(&subtask))
    }

    /// Nothing of a region's attempt is needed any more.
    fn end_attempt(&mut self, region: RegionId, attempt: Attempt) {
        self.deployer.server.end_attempt(self.job_id, region, attempt);
        let ended = self.running.remove(&region);
        if let Some(directory) = ended.as_ref().and_then(|running| running.stores.directory()) {
            let removed = files::remove(directory.to_path_buf());
            self.deployer.scope.spawn(&format!("remove the state of attempt {attempt}"), removed);
        }
    }

    /// Stores a snapshot and acknowledges it, while the worker goes on.
    fn store(&self, subtask: SubtaskId, taken: TakenSnapshot, target: Target) {
        let storages = self.deployer.program.storages.clone();
        let stores = self.task(subtask).map(|task| task.stores.clone()).unwrap_or_default();
        let (origin, outgoing) = (self.origin(subtask), self.outgoing.clone());
        let stopwatch = Stopwatch::start(&self.deployer.clock);
        let store = async move {
            let TakenSnapshot { barrier, snapshot, frozen, in_flight, start_delay, alignment, sync } = taken;
            let owner = Owner { subtask, attempt: origin.attempt };
            let stored = match target {
                Target::Checkpoint(directory) => {
                    upload::store(barrier, snapshot, frozen, in_flight, owner, directory, &stores).await
                }
                Target::Savepoint(uri) => match storages.open(&uri) {
                    Ok(directory) => {
                        let written =
                            savepoint::write(barrier.id, snapshot, frozen, owner, directory, &stores).await;
                        written.map(Stored::whole)
                    }
                    Err(error) => files::give_up(frozen).await.and(Err(Failure::from(&error))),
                },
            };
            let message = match stored {
                Ok(Stored { handle: snapshot, incremental_bytes, persisted_bytes }) => {
                    let phases = CheckpointPhases {
                        start_delay_us: microseconds(start_delay),
                        alignment_us: microseconds(alignment.duration),
                        sync_us: microseconds(sync),
                        async_us: microseconds(stopwatch.elapsed()),
                        aligned_bytes: alignment.bytes,
                        persisted_bytes,
                        incremental_bytes,
                    };
                    let acknowledgement = Acknowledgement { checkpoint: barrier.id, snapshot, phases };
                    messages::acknowledged(origin, acknowledgement)
                }
                Err(failure) => {
                    warn!("task {subtask} cannot store its snapshot of checkpoint {}: {failure}", barrier.id);
                    messages::declined(origin, barrier.id, failure)
                }
            };
            outgoing.send(message).await;
        };
        self.deployer.scope.spawn(&format!("snapshot of task {subtask}"), store);
    }

    fn report_counters(&self) {
        let mut attempts = BTreeMap::<_, Vec<_>>::new();
        for (attempt, subtask, status) in self.core.statuses() {
            attempts.entry(attempt).or_default().extend(self.counters(subtask, status));
        }
        for (attempt, tasks) in attempts {
            // A task manager that does not keep up gets the next ones.
            let job_name = &self.deployer.program.graph.name;
            self.outgoing.try_send(messages::counters(self.job_id, job_name, attempt, tasks));
        }
    }

    /// What a task has counted, if it is here.
    fn counters(&self, subtask: SubtaskId, status: TaskStatus) -> Option<thalweg_proto::v1::TaskCounters> {
        let counted = self.task(subtask)?.counters.read();
        Some(messages::task_counters(subtask, self.vertex_name(subtask), status, counted))
    }

    /// Asks all tasks to end and waits a little. Their reports are read meanwhile, so that none waits in vain.
    async fn stop(&mut self, reports: &mut mpsc::Receiver<Report>) {
        self.running.values().for_each(Running::cancel);
        reports.close();
        while reports.try_recv().is_ok() {}
        if let Err(error) = self.deployer.scope.shutdown(SHUTDOWN_GRACE).await {
            warn!("the worker ends although {error}");
        }
    }

    async fn send(&self, message: thalweg_proto::v1::WorkerMessage) {
        tokio::select! {
            biased;
            () = self.scope.cancelled() => {}
            () = self.outgoing.send(message) => {}
        }
    }

    fn origin(&self, subtask: SubtaskId) -> Origin {
        Origin { job_id: self.job_id, attempt: self.core.attempt(subtask), subtask }
    }

    fn vertex_name(&self, subtask: SubtaskId) -> &str {
        let vertex = self.deployer.program.graph.vertices.get(subtask.vertex as usize);
        vertex.map_or("?", |vertex| vertex.name.as_str())
    }
}

/// Takes note of what becomes of the files that a task has uploaded. Whether copies of some are not needed any more.
fn note(stores: &TaskStores, mail: Mail) -> bool {
    match mail {
        Mail::Completed { checkpoint, .. } => stores.uploads().completed(checkpoint),
        Mail::Aborted { checkpoint } => stores.uploads().aborted(checkpoint),
        Mail::Trigger(_) | Mail::EndInput | Mail::TellTime { .. } => return false,
    }
    stores.local().is_some()
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod metrics_tests;
#[cfg(test)]
mod splits_tests;
#[cfg(test)]
mod test_manager;
#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
#[cfg(test)]
mod time_tests;
