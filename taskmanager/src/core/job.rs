//! One job on this task manager and its worker: a part of the [core](super).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, JobId, RegionId, SubtaskId, WorkerId};
use thalweg_common::status::TaskStatus;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use thalweg_proto::v1::task_manager_message::Message as ToLeader;
use thalweg_proto::v1::worker_command::Message as Command;

use super::{Action, Fresh, Timer, stopped};
use crate::messages::{Hello, Report, StartRequest, Token};

/// A job that has, or had, a worker here.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// The highest attempt that the leader has spoken of.
    pub(super) attempt: Attempt,
    /// The highest attempt that was cancelled as a whole: nothing of it is deployed any more.
    cancelled: Attempt,
    /// The same of single regions.
    cancelled_regions: BTreeMap<RegionId, Attempt>,
    pub(super) worker: Option<Worker>,
    /// To be launched when the present worker is gone.
    next: Option<(StartRequest, Fresh)>,
    /// The last worker's end, to be told to a leader that may have missed it.
    lost: Option<v1::WorkerLost>,
    /// The leader has said that the job has ended.
    pub(super) ended: bool,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its binary is fetched, its process started.
    Launching,
    /// Its process runs and has to attach.
    Starting,
    /// It is attached.
    Ready,
    /// It was told to exit, has closed its stream, or was killed; its process may still be there.
    Ending,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    token: Token,
    pub(super) request: StartRequest,
    pub(super) phase: Phase,
    /// `host:port` of its channels; empty until it is attached.
    data_address: String,
    /// As it says with its counters.
    pub(super) job_name: String,
    /// Of its process; 0 until it is attached.
    pub(super) process_id: u32,
    /// What it was given, until it has been cancelled.
    pub(super) tasks: BTreeMap<SubtaskId, Task>,
    /// What the leader waits for.
    cancellations: Vec<Cancellation>,
    /// How many cancellations there were.
    cancelled: u64,
    /// Why it ends, if that is known better than by its exit status.
    reason: Option<Failure>,
}

/// Tasks that are to end.
#[derive(Debug)]
struct Cancellation {
    number: u64,
    attempt: Attempt,
    /// As the leader has named them.
    regions: BTreeSet<RegionId>,
    /// Those whose tasks have not ended.
    left: BTreeSet<RegionId>,
}

/// The latest of a task.
#[derive(Debug)]
pub(super) struct Task {
    attempt: Attempt,
    region: RegionId,
    pub(super) status: TaskStatus,
    counters: v1::TaskCounters,
    failure: Option<v1::Failure>,
}

impl Task {
    fn deployed(subtask: SubtaskId, attempt: Attempt, region: RegionId) -> Self {
        let status = TaskStatus::Deploying;
        let counters = v1::TaskCounters {
            subtask: Some(subtask.into()),
            status: v1::TaskStatus::from(status).into(),
            ..Default::default()
        };
        Self { attempt, region, status, counters, failure: None }
    }
}

impl Job {
    /// The leader wants a worker for an attempt.
    pub(super) fn start(
        &mut self,
        request: StartRequest,
        fresh: Fresh,
        exit: Duration,
        actions: &mut Vec<Action>,
    ) {
        if request.attempt < self.attempt {
            actions.push(Action::Warn(format!(
                "refused to start a worker for attempt {} of job {}: attempt {} was seen already",
                request.attempt, request.job, self.attempt
            )));
            return;
        }
        self.attempt = request.attempt;
        self.ended = false;
        self.lost = None;
        let Some(worker) = &mut self.worker else {
            self.worker = Some(Worker::new(&request, &fresh));
            actions.push(Action::Launch { fresh, request });
            return;
        };
        if worker.phase != Phase::Ending && worker.request.program == request.program {
            // A worker that is not attached yet is announced when it is.
            if worker.phase == Phase::Ready {
                actions.push(worker.ready(request.job, request.attempt));
            }
            worker.request = request;
        } else {
            worker.shut_down(exit, actions);
            self.next = Some((request, fresh));
        }
    }

    /// The leader wants tasks to run. The reason of a refusal is returned.
    pub(super) fn deploy(
        &mut self,
        attempt: Attempt,
        tasks: BTreeMap<SubtaskId, RegionId>,
        relay: v1::DeployTasks,
    ) -> Result<Action, String> {
        if attempt != self.attempt {
            return Err(format!("the attempt is {}", self.attempt));
        }
        let is_cancelled = |region| self.cancelled_regions.get(region).is_some_and(|last| attempt <= *last);
        if attempt <= self.cancelled || tasks.values().any(is_cancelled) {
            return Err("it was cancelled already".to_string());
        }
        let worker = self
            .worker
            .as_mut()
            .filter(|worker| worker.phase == Phase::Ready)
            .ok_or("its worker is not ready")?;
        let regions: BTreeSet<_> = tasks.values().copied().collect();
        if worker.tasks.values().any(|task| task.attempt >= attempt && regions.contains(&task.region)) {
            return Err("they were deployed already".to_string());
        }
        // What is still there of older attempts is ended by the worker first.
        worker.tasks.retain(|_, task| !regions.contains(&task.region));
        let task = |(subtask, region)| (subtask, Task::deployed(subtask, attempt, region));
        worker.tasks.extend(tasks.into_iter().map(task));
        Ok(Action::Tell { worker: worker.id, command: Command::DeployTasks(relay) })
    }

    /// The leader wants tasks to end.
    pub(super) fn cancel(
        &mut self,
        id: JobId,
        attempt: Attempt,
        regions: BTreeSet<RegionId>,
        actions: &mut Vec<Action>,
    ) {
        if attempt < self.attempt {
            actions.push(Action::Warn(format!(
                "refused to cancel attempt {attempt} of job {id}: attempt {} was seen already",
                self.attempt
            )));
            return;
        }
        self.attempt = attempt;
        if regions.is_empty() {
            self.cancelled = attempt;
        }
        self.cancelled_regions.extend(regions.iter().map(|region| (*region, attempt)));
        match &mut self.worker {
            Some(worker) => worker.cancel(id, attempt, regions, actions),
            None => actions.push(stopped(id, attempt, &regions)),
        }
    }

    /// The worker that was awaited is here.
    pub(super) fn attach(&mut self, hello: &Hello, host: &str, actions: &mut Vec<Action>) {
        let Some(worker) = &mut self.worker else { return };
        let planned = worker.request.program.plan_fingerprint;
        if hello.plan_fingerprint != planned {
            let failure = Failure::user(format!(
                "the job's program made another plan in its worker (fingerprint {}) than when it was submitted \
                 ({planned}); let the topology depend on the job's arguments and settings alone, not on time, chance \
                 or the machine",
                hello.plan_fingerprint
            ));
            actions.push(Action::Refuse(failure.message.clone()));
            worker.kill(failure.permanent(), actions);
            return;
        }
        worker.phase = Phase::Ready;
        worker.process_id = hello.process_id;
        worker.data_address = address(host, hello.data_port);
        actions.push(Action::Accept);
        actions.push(Action::Note(format!(
            "worker {} of job {} is ready (process {}, channels at {})",
            worker.id, hello.job, hello.process_id, worker.data_address
        )));
        actions.push(worker.ready(hello.job, self.attempt));
    }

    /// The worker is gone.
    pub(super) fn exited(&mut self, id: JobId, exit: Failure, actions: &mut Vec<Action>) {
        let Some(worker) = self.worker.take() else { return };
        let failure = worker.reason.clone().map_or(exit.clone(), |reason| told_by(reason, exit));
        let expected = self.ended || self.next.is_some();
        actions.push(if expected {
            Action::Note(format!("worker {} of job {id} has ended", worker.id))
        } else {
            Action::Warn(format!("worker {} of job {id} is lost: {failure}", worker.id))
        });
        if !expected {
            let lost = v1::WorkerLost {
                job_id: id.to_wire(),
                attempt: self.attempt,
                worker_id: worker.id.to_wire(),
                failure: Some(failure.into()),
            };
            self.lost = Some(lost.clone());
            actions.push(Action::Send(ToLeader::WorkerLost(lost)));
        }
        let cancellations = worker.cancellations.iter();
        actions.extend(cancellations.map(|one| stopped(id, one.attempt, &one.regions)));
        if let Some((request, fresh)) = self.next.take() {
            self.worker = Some(Worker::new(&request, &fresh));
            actions.push(Action::Launch { fresh, request });
        }
    }

    /// The job has ended, or everything does.
    pub(super) fn end(&mut self, exit: Duration, actions: &mut Vec<Action>) {
        self.ended = true;
        self.next = None;
        if let Some(worker) = &mut self.worker {
            worker.shut_down(exit, actions);
        }
    }

    /// What a new leader is told of the worker: its tasks, attempt by attempt, or that it has none.
    pub(super) fn running(&self, id: JobId) -> Vec<v1::RunningTasks> {
        let Some(worker) = self.worker.as_ref().filter(|worker| !worker.data_address.is_empty()) else {
            return Vec::new();
        };
        let running = |(attempt, tasks)| v1::RunningTasks {
            job_id: id.to_wire(),
            attempt,
            worker_id: worker.id.to_wire(),
            data_address: worker.data_address.clone(),
            tasks,
        };
        let counters = worker.counters();
        match counters.is_empty() {
            true => vec![running((self.attempt, Vec::new()))],
            false => counters.into_iter().map(running).collect(),
        }
    }

    /// News that a leader may have missed: they are told again, because nothing else would tell the cause.
    pub(super) fn missed(&self, id: JobId) -> impl Iterator<Item = ToLeader> + '_ {
        let failed = self.worker.iter().flat_map(move |worker| {
            worker.tasks.iter().filter(|(_, task)| task.status == TaskStatus::Failed).map(
                move |(subtask, task)| {
                    ToLeader::TaskStatusChanged(v1::TaskStatusChanged {
                        job_id: id.to_wire(),
                        attempt: task.attempt,
                        subtask: Some((*subtask).into()),
                        status: v1::TaskStatus::Failed.into(),
                        failure: task.failure.clone(),
                        counters: Some(Box::new(task.counters.clone())),
                    })
                },
            )
        });
        self.lost.iter().cloned().map(ToLeader::WorkerLost).chain(failed)
    }
}

impl Worker {
    fn new(request: &StartRequest, fresh: &Fresh) -> Self {
        Self {
            id: fresh.worker,
            token: fresh.token.clone(),
            request: request.clone(),
            phase: Phase::Launching,
            data_address: String::new(),
            job_name: String::new(),
            process_id: 0,
            tasks: BTreeMap::new(),
            cancellations: Vec::new(),
            cancelled: 0,
            reason: None,
        }
    }

    /// Its process runs. Whether it still has to attach.
    pub(super) fn launched(&mut self) -> bool {
        let awaited = self.phase == Phase::Launching;
        if awaited {
            self.phase = Phase::Starting;
        }
        awaited
    }

    /// Its stream has ended. Whether that is news: then its process has to end too.
    pub(super) fn detached(&mut self) -> bool {
        let news = self.phase != Phase::Ending;
        self.phase = Phase::Ending;
        news
    }

    /// Whether this is the worker that says hello, and it has not attached before.
    pub(super) fn awaits(&self, hello: &Hello) -> bool {
        matches!(self.phase, Phase::Launching | Phase::Starting)
            && self.id == hello.worker
            && self.token.matches(&hello.token)
    }

    fn ready(&self, job: JobId, attempt: Attempt) -> Action {
        Action::Send(ToLeader::WorkerReady(v1::WorkerReady {
            job_id: job.to_wire(),
            attempt,
            worker_id: self.id.to_wire(),
            data_address: self.data_address.clone(),
        }))
    }

    /// The counters of its tasks, by attempt.
    pub(super) fn counters(&self) -> BTreeMap<Attempt, Vec<v1::TaskCounters>> {
        let mut counters = BTreeMap::<_, Vec<_>>::new();
        for task in self.tasks.values() {
            counters.entry(task.attempt).or_default().push(task.counters.clone());
        }
        counters
    }

    /// Whether it has tasks of this attempt of the job, or of regions that were not restarted since.
    pub(super) fn has_tasks(&self, attempt: Attempt) -> bool {
        self.tasks.values().any(|task| task.attempt <= attempt)
    }

    /// Whether the tasks of a cancellation have not ended.
    pub(super) fn is_cancelling(&self, number: u64) -> bool {
        self.cancellations.iter().any(|one| one.number == number)
    }

    fn cancel(
        &mut self,
        job: JobId,
        attempt: Attempt,
        regions: BTreeSet<RegionId>,
        actions: &mut Vec<Action>,
    ) {
        // Told once: a leader that repeats itself does not give the tasks more time.
        if self.cancellations.iter().any(|one| one.attempt == attempt && one.regions == regions) {
            return;
        }
        let here = self.tasks.values().map(|task| task.region);
        let left: BTreeSet<_> =
            here.filter(|region| regions.is_empty() || regions.contains(region)).collect();
        if left.is_empty() {
            actions.push(stopped(job, attempt, &regions));
            return;
        }
        self.cancelled += 1;
        let number = self.cancelled;
        if self.phase == Phase::Ready {
            let regions = left.iter().copied().collect();
            let command = Command::CancelTasks(v1::CancelTasks { job_id: job.to_wire(), attempt, regions });
            actions.push(Action::Tell { worker: self.id, command });
            let timer = Timer::Cancellation(self.id, number);
            actions.push(Action::StartTimer { timer, after: self.request.cancellation_timeout });
        }
        self.cancellations.push(Cancellation { number, attempt, regions, left });
    }

    /// Asks it to exit, if it can be asked.
    fn shut_down(&mut self, exit: Duration, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Ready => {
                actions.push(Action::Tell { worker: self.id, command: Command::Shutdown(v1::Shutdown {}) });
                actions.push(Action::StartTimer { timer: Timer::Exit(self.id), after: exit });
            }
            Phase::Launching | Phase::Starting => actions.push(Action::Kill { worker: self.id }),
            Phase::Ending => {}
        }
        self.phase = Phase::Ending;
    }

    pub(super) fn kill(&mut self, reason: Failure, actions: &mut Vec<Action>) {
        self.phase = Phase::Ending;
        self.reason.get_or_insert(reason);
        actions.push(Action::Kill { worker: self.id });
    }

    /// It said something.
    pub(super) fn report(&mut self, job: JobId, report: Report, exit: Duration, actions: &mut Vec<Action>) {
        let stale = |what: &str, attempt: Attempt| {
            Action::Warn(format!(
                "refused {what} of attempt {attempt} of job {job}: it has no such tasks here"
            ))
        };
        match report {
            Report::Status { attempt, subtask, status, relay } => {
                match self.tasks.get_mut(&subtask).filter(|task| task.attempt == attempt) {
                    Some(task) => {
                        task.status = status;
                        if let Some(counters) = &relay.counters {
                            task.counters = counters.as_ref().clone();
                        }
                        task.counters.status = relay.status;
                        task.failure = relay.failure.clone();
                        actions.push(Action::Send(ToLeader::TaskStatusChanged(relay)));
                    }
                    None => actions.push(stale(&format!("the state of task {subtask}"), attempt)),
                }
            }
            Report::Checkpoint { attempt, .. }
                if !self.tasks.values().any(|task| task.attempt == attempt) =>
            {
                actions.push(stale("a checkpoint message", attempt));
            }
            Report::Checkpoint { relay, .. } => actions.push(Action::Send(relay)),
            Report::Time { attempt, relay } => {
                if self.tasks.values().any(|task| task.attempt == attempt) {
                    actions.push(Action::Send(relay));
                }
            }
            Report::Stopped { attempt, regions } => self.stopped(job, attempt, &regions, actions),
            Report::Counters { attempt, job_name, tasks } => {
                self.job_name = job_name;
                self.count(attempt, tasks);
            }
            Report::Failed(failure) => {
                self.reason.get_or_insert(failure);
                self.phase = Phase::Ending;
                actions.push(Action::StartTimer { timer: Timer::Exit(self.id), after: exit });
            }
        }
    }

    /// The tasks of these regions up to this attempt have ended.
    fn stopped(
        &mut self,
        job: JobId,
        attempt: Attempt,
        regions: &BTreeSet<RegionId>,
        actions: &mut Vec<Action>,
    ) {
        let is_meant = |region: &RegionId| regions.is_empty() || regions.contains(region);
        if !self.cancellations.iter().any(|one| one.attempt <= attempt && one.left.iter().any(is_meant)) {
            return;
        }
        self.tasks.retain(|_, task| task.attempt > attempt || !is_meant(&task.region));
        for one in self.cancellations.iter_mut().filter(|one| one.attempt <= attempt) {
            one.left.retain(|region| !is_meant(region));
        }
        for done in self.cancellations.extract_if(.., |one| one.left.is_empty()) {
            actions.push(stopped(job, done.attempt, &done.regions));
        }
    }

    fn count(&mut self, attempt: Attempt, counters: BTreeMap<SubtaskId, v1::TaskCounters>) {
        for (subtask, counters) in counters {
            if let Some(task) = self.tasks.get_mut(&subtask).filter(|task| task.attempt == attempt) {
                // The state comes by a message of its own, in order with everything else.
                task.counters = v1::TaskCounters { status: task.counters.status, ..counters };
            }
        }
    }
}

/// What the worker or its task manager knows of its end, with what its exit adds.
fn told_by(reason: Failure, exit: Failure) -> Failure {
    let details = [&reason.details, &exit.message, &exit.details];
    let details = details.into_iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("\n");
    reason.with_details(details)
}

/// `host:port`, also for an IPv6 host.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
