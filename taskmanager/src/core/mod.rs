//! The decisions of a task manager: which worker runs, which attempt counts, what the leader is told.
//!
//! Pure: [`Core::step`] takes what happened and says what to do; the [actor](crate::actor) does it. It knows no clock, no
//! randomness and no I/O. Invariants:
//! - a job has at most one worker at any time: the next one is launched when the last one is gone;
//! - an order of a lower term, or of a lower attempt than the job has seen, changes nothing;
//! - tasks of several attempts run side by side, those of a region are of one;
//! - every `CancelTasks` that is not stale is answered by `TasksStopped`, whatever becomes of the worker;
//! - a worker that goes without having been told to is reported by `WorkerLost`;
//! - losing the leader changes nothing that runs: a new one is told the present state.

mod job;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, JobId, RegionId, TaskManagerId, Term, WorkerId};
use thalweg_proto::blob::BlobHash;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use thalweg_proto::v1::task_manager_message::Message as ToLeader;
use thalweg_proto::v1::worker_command::Message as Command;

use crate::messages::{Hello, LeaderMessage, Order, Report, StartRequest, Token};
use job::{Job, Phase, Worker};

/// Who this task manager is, as the leader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: TaskManagerId,
    pub(crate) host: String,
    pub(crate) slots: u32,
    pub(crate) labels: Vec<String>,
}

/// How long a worker may take for what it has to do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From its start until it attaches.
    pub(crate) attach: Duration,
    /// From being told to exit, or having closed its stream, until its process is gone.
    pub(crate) exit: Duration,
}

/// Names for a worker that may have to be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) worker: WorkerId,
    pub(crate) token: Token,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// A connection to a job manager is being made: it will read what is sent from now on.
    Connecting,
    /// The leader wants something.
    Leader { message: LeaderMessage, fresh: Fresh },
    /// A process says it is a worker.
    Attach(Hello),
    /// A worker's process runs.
    Launched(WorkerId),
    /// A worker said something.
    Report { worker: WorkerId, report: Report },
    /// A worker's stream ended.
    Detached(WorkerId),
    /// A worker is gone, or could not be launched. The last input about it.
    Exited { worker: WorkerId, failure: Failure },
    /// A time that was asked for has come.
    Timer(Timer),
    /// Take no more tasks.
    Drain,
    /// End all workers.
    Stop,
}

/// What a time was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The worker should have attached.
    Attach(WorkerId),
    /// The worker should be gone.
    Exit(WorkerId),
    /// The worker should have stopped the tasks of its cancellation with this number.
    Cancellation(WorkerId, u64),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Tell the leader, if there is one: who registers later is told the state that counts then.
    Send(ToLeader),
    /// Launch a worker.
    Launch { fresh: Fresh, request: StartRequest },
    /// Have a binary ready.
    Prefetch { binary: BlobHash, size_bytes: u64 },
    /// Tell a worker.
    Tell { worker: WorkerId, command: Command },
    /// End a worker at once.
    Kill { worker: WorkerId },
    /// Come back when the time has come.
    StartTimer { timer: Timer, after: Duration },
    /// The process that asked is attached.
    Accept,
    /// The process that asked is not attached.
    Refuse(String),
    /// Send the ends of a job's logs.
    ReadLogs { request_id: u64, job: JobId, tail_bytes: u64 },
    /// This task manager is a member of the leader's cluster.
    Registered,
    /// Leave a job manager that leads no more.
    Leave,
    /// A message was refused.
    Warn(String),
    /// Something worth telling people.
    Note(String),
}

/// The state that decisions depend on.
#[derive(Debug)]
pub(crate) struct Core {
    identity: Identity,
    patience: Patience,
    term: Term,
    draining: bool,
    jobs: BTreeMap<JobId, Job>,
}

impl Core {
    pub(crate) fn new(identity: Identity, patience: Patience) -> Self {
        Self { identity, patience, term: 0, draining: false, jobs: BTreeMap::new() }
    }

    /// Takes in what happened and says what to do, in this order.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Connecting => self.introduce(&mut actions),
            Input::Leader { message, fresh } => self.lead(message, fresh, &mut actions),
            Input::Attach(hello) => self.attach(&hello, &mut actions),
            Input::Launched(worker) => {
                let after = self.patience.attach;
                if self.worker(worker).is_some_and(|(_, worker)| worker.launched()) {
                    actions.push(Action::StartTimer { timer: Timer::Attach(worker), after });
                }
            }
            Input::Report { worker, report } => self.report(worker, report, &mut actions),
            Input::Detached(worker) => {
                let after = self.patience.exit;
                if self.worker(worker).is_some_and(|(_, worker)| worker.detached()) {
                    actions.push(Action::StartTimer { timer: Timer::Exit(worker), after });
                }
            }
            Input::Exited { worker, failure } => self.exited(worker, failure, &mut actions),
            Input::Timer(timer) => self.timer(timer, &mut actions),
            Input::Drain => {
                self.draining = true;
                actions.push(Action::Send(ToLeader::Draining(v1::Draining {})));
            }
            Input::Stop => self.stop(&mut actions),
        }
        actions
    }

    /// What its tasks have done so far, for the leader.
    pub(crate) fn heartbeat(&self) -> v1::Heartbeat {
        let counters = |(id, job): (&JobId, &Job)| {
            let (job_id, worker) = (id.to_wire(), job.worker.as_ref());
            let counters = worker.map(Worker::counters).unwrap_or_default();
            let job_name = worker.map(|worker| worker.job_name.clone()).unwrap_or_default();
            let of_attempt = move |(attempt, tasks)| {
                let (job_id, job_name) = (job_id.clone(), job_name.clone());
                v1::JobCounters { job_id, attempt, tasks, job_name }
            };
            counters.into_iter().map(of_attempt)
        };
        v1::Heartbeat { jobs: self.jobs.iter().flat_map(counters).collect(), process: None }
    }

    /// The processes of its workers.
    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.workers().map(|worker| worker.process_id).filter(|id| *id != 0).collect()
    }

    /// Managed memory that state takes here.
    pub(crate) fn managed_used_bytes(&self) -> u64 {
        let counters = self.workers().flat_map(Worker::counters).flat_map(|(_, tasks)| tasks);
        let operators = counters.flat_map(|task| task.operators);
        operators.map(|operator| operator.managed_memory_used_bytes).sum()
    }

    /// Whether any task runs here.
    pub(crate) fn runs_tasks(&self) -> bool {
        self.workers().any(|worker| worker.tasks.values().any(|task| !task.status.is_terminal()))
    }

    /// Whether any worker lives here.
    pub(crate) fn has_workers(&self) -> bool {
        self.workers().next().is_some()
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.jobs.values().filter_map(|job| job.worker.as_ref())
    }

    fn worker(&mut self, id: WorkerId) -> Option<(JobId, &mut Worker)> {
        self.jobs
            .iter_mut()
            .filter_map(|(job, state)| state.worker.as_mut().map(|worker| (*job, worker)))
            .find(|(_, worker)| worker.id == id)
    }

    /// The first words on a connection: who this is and everything that runs, and what a leader may have missed.
    fn introduce(&self, actions: &mut Vec<Action>) {
        let identity = self.identity.clone();
        actions.push(Action::Send(ToLeader::Register(v1::Register {
            task_manager_id: identity.id.0,
            host: identity.host,
            slots: identity.slots,
            labels: identity.labels,
            running: self.jobs.iter().flat_map(|(id, job)| job.running(*id)).collect(),
        })));
        if self.draining {
            actions.push(Action::Send(ToLeader::Draining(v1::Draining {})));
        }
        for (id, job) in &self.jobs {
            actions.extend(job.missed(*id).map(Action::Send));
        }
    }

    fn lead(&mut self, message: LeaderMessage, fresh: Fresh, actions: &mut Vec<Action>) {
        if message.term < self.term {
            actions.push(Action::Warn(format!(
                "refused a message of term {}: term {} was seen already, so its sender leads no more",
                message.term, self.term
            )));
            if message.order == Order::Registered {
                actions.push(Action::Leave);
            }
            return;
        }
        self.term = message.term;
        match message.order {
            Order::Registered => {
                // Who leads now was told everything when the connection was made, so nothing but workers is left to keep.
                self.jobs.retain(|_, job| job.worker.is_some());
                actions.push(Action::Registered);
            }
            Order::HeartbeatAnswer => {}
            Order::StartWorker(request) => self.start_worker(request, fresh, actions),
            Order::Prefetch { binary, size_bytes } if !self.draining => {
                actions.push(Action::Prefetch { binary, size_bytes });
            }
            Order::Prefetch { .. } => {}
            Order::Deploy { job, attempt, tasks, relay } => {
                let outcome = match self.jobs.get_mut(&job) {
                    Some(job) => job.deploy(attempt, tasks, relay),
                    None => Err("it has no worker here".to_string()),
                };
                actions.push(outcome.unwrap_or_else(|reason| {
                    Action::Warn(format!(
                        "refused to deploy tasks of attempt {attempt} of job {job}: {reason}"
                    ))
                }));
            }
            Order::Cancel { job, attempt, regions } => self.cancel(job, attempt, regions, actions),
            Order::Checkpoint { job, attempt, relay } => {
                let receiver = self.jobs.get(&job).and_then(|job| job.worker.as_ref());
                match receiver.filter(|worker| worker.phase == Phase::Ready && worker.has_tasks(attempt)) {
                    Some(worker) => actions.push(Action::Tell { worker: worker.id, command: relay }),
                    None => actions.push(Action::Warn(format!(
                        "refused a checkpoint message of attempt {attempt} of job {job}: no tasks of it run here"
                    ))),
                }
            }
            Order::Time { job, attempt, relay } => {
                let receiver = self.jobs.get(&job).and_then(|job| job.worker.as_ref());
                let receiver =
                    receiver.filter(|worker| worker.phase == Phase::Ready && worker.has_tasks(attempt));
                // Tasks that have just ended need no time, and nobody waits for them for long.
                let tell = |worker: &Worker| Action::Tell { worker: worker.id, command: relay };
                actions.extend(receiver.map(tell));
            }
            Order::StopWorker { job } => {
                let exit = self.patience.exit;
                if let Some(state) = self.jobs.get_mut(&job) {
                    state.end(exit, actions);
                }
                self.jobs.retain(|_, job| job.worker.is_some() || !job.ended);
            }
            Order::Logs { request_id, job, tail_bytes } => {
                actions.push(Action::ReadLogs { request_id, job, tail_bytes });
            }
        }
    }

    fn start_worker(&mut self, request: StartRequest, fresh: Fresh, actions: &mut Vec<Action>) {
        if self.draining {
            let failure = Failure::external(format!(
                "task manager {} is being stopped and takes no more tasks; start another one or wait for it to return",
                self.identity.id
            ));
            actions.push(Action::Send(ToLeader::WorkerLost(v1::WorkerLost {
                job_id: request.job.to_wire(),
                attempt: request.attempt,
                worker_id: fresh.worker.to_wire(),
                failure: Some(failure.into()),
            })));
            return;
        }
        self.jobs.entry(request.job).or_default().start(request, fresh, self.patience.exit, actions);
    }

    fn cancel(
        &mut self,
        id: JobId,
        attempt: Attempt,
        regions: BTreeSet<RegionId>,
        actions: &mut Vec<Action>,
    ) {
        match self.jobs.get_mut(&id) {
            Some(job) => job.cancel(id, attempt, regions, actions),
            None => actions.push(stopped(id, attempt, &regions)),
        }
    }

    fn attach(&mut self, hello: &Hello, actions: &mut Vec<Action>) {
        let host = self.identity.host.clone();
        let job = self.jobs.get_mut(&hello.job);
        let expected = job.filter(|job| job.worker.as_ref().is_some_and(|worker| worker.awaits(hello)));
        match expected {
            Some(job) => job.attach(hello, &host, actions),
            None => actions.push(Action::Refuse(format!(
                "no worker {} of job {} with this token is awaited here",
                hello.worker, hello.job
            ))),
        }
    }

    fn report(&mut self, id: WorkerId, report: Report, actions: &mut Vec<Action>) {
        let exit = self.patience.exit;
        if let Some((job, worker)) = self.worker(id) {
            worker.report(job, report, exit, actions);
        }
    }

    fn exited(&mut self, id: WorkerId, failure: Failure, actions: &mut Vec<Action>) {
        let Some((job_id, _)) = self.worker(id) else { return };
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.exited(job_id, failure, actions);
            if job.ended && job.worker.is_none() {
                self.jobs.remove(&job_id);
            }
        }
    }

    fn timer(&mut self, timer: Timer, actions: &mut Vec<Action>) {
        let (Timer::Attach(id) | Timer::Exit(id) | Timer::Cancellation(id, _)) = timer;
        let patience = self.patience;
        let Some((_, worker)) = self.worker(id) else { return };
        let reason = match timer {
            Timer::Attach(_) if worker.phase == Phase::Starting => Failure::user(format!(
                "the worker did not report to its task manager within {} s; its program has to call `thalweg::run` \
                 at once and do nothing lengthy before",
                patience.attach.as_secs_f32()
            )),
            Timer::Exit(_) => Failure::user(format!(
                "the worker closed its connection but its process did not end within {} s, so it was killed",
                patience.exit.as_secs_f32()
            )),
            Timer::Cancellation(_, number) if worker.is_cancelling(number) => Failure::user(format!(
                "tasks did not stop within {} s after their cancellation, so their worker was killed; user code must \
                 not block for that long, or raise `task.cancellation.timeout`",
                worker.request.cancellation_timeout.as_secs_f32()
            )),
            Timer::Attach(_) | Timer::Cancellation(..) => return,
        };
        worker.kill(reason, actions);
    }

    fn stop(&mut self, actions: &mut Vec<Action>) {
        self.draining = true;
        let exit = self.patience.exit;
        for job in self.jobs.values_mut() {
            job.end(exit, actions);
        }
        self.jobs.retain(|_, job| job.worker.is_some());
    }
}

fn stopped(job: JobId, attempt: Attempt, regions: &BTreeSet<RegionId>) -> Action {
    let (job_id, regions) = (job.to_wire(), regions.iter().copied().collect());
    Action::Send(ToLeader::TasksStopped(v1::TasksStopped { job_id, attempt, regions }))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
