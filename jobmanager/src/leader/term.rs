//! One term of leadership: the job cores, the task managers, and the actions of the one on the other.
//!
//! Everything here is synchronous; what takes time goes into `work`. A core's step may cause steps of others (slots that
//! are freed, a task manager that is lost), so inputs are queued and worked off one after the other.

mod actions;
mod requests;
mod standby;
mod time;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use thalweg_common::id::{JobId, SubtaskId, TaskManagerId, Term as TermNumber};
use thalweg_common::limits::{MAX_TASK_MANAGERS, MAX_TASK_SLOTS};
use thalweg_proto::convert::{Malformed, WireId, subtask};
use thalweg_proto::v1;
use thalweg_proto::v1::job_manager_message::Message as ToTaskManager;
use tokio::sync::mpsc;
use tonic::Status;
use tracing::{debug, error, info, warn};

use super::connections::{Connections, TaskManager};
use super::logs::LogRequests;
use super::requests::Requests;
use super::samples::Samples;
use super::time_requests::TimeRequests;
use super::views::{LiveJob, LogPiece, TaskManagerView};
use super::wire::{self, Said};
use super::work::{self, Done, Work};
use super::{ConnectionId, Context, Outbound};
use crate::checkpoint::Statistics;
use crate::cluster::{Command, Slot};
use crate::job::alignment::AlignmentGroups;
use crate::job::{CheckpointNews, Input, JobCore, JobSpec, Now, Origin, Report, RescaleNews, SavepointNews};

/// Ended jobs whose last counters are remembered.
const REMEMBERED_VIEWS: usize = 100;

/// A job that has not ended.
struct Job {
    core: JobCore,
    /// When it was submitted: older jobs get slots first.
    submitted_ms: i64,
    /// Commands that are not in the log yet; the first is being proposed.
    proposals: VecDeque<Command>,
    /// What was reported of the tasks that run, or ran last.
    counters: BTreeMap<SubtaskId, Samples>,
    /// Sources that are aligned with each other.
    alignment: AlignmentGroups,
    /// Reports that were refused because they belong to another attempt.
    refused: u64,
    /// Task managers without tasks of the job that have fetched its binary, or were told to.
    standby: BTreeSet<TaskManagerId>,
}

/// One term of this node's leadership.
pub(super) struct Term {
    number: TermNumber,
    context: Arc<Context>,
    connections: Connections,
    jobs: BTreeMap<JobId, Job>,
    ended: VecDeque<(JobId, LiveJob, Vec<Statistics>)>,
    submitted: u64,
    inputs: VecDeque<(JobId, Input)>,
    allocate: bool,
    logs: LogRequests,
    times: TimeRequests,
    savepoints: Requests<SavepointNews>,
    requested: Requests<CheckpointNews>,
    rescalings: Requests<RescaleNews>,
    pub(super) work: FuturesUnordered<Work>,
}

impl Term {
    /// Takes over all jobs.
    pub(super) fn begin(number: TermNumber, context: Arc<Context>) -> Self {
        let mut term = Self {
            number,
            context,
            connections: Connections::default(),
            jobs: BTreeMap::new(),
            ended: VecDeque::new(),
            submitted: 0,
            inputs: VecDeque::new(),
            allocate: false,
            logs: LogRequests::default(),
            times: TimeRequests::default(),
            savepoints: Requests::default(),
            requested: Requests::default(),
            rescalings: Requests::default(),
            work: FuturesUnordered::new(),
        };
        term.take_jobs(Origin::Adopted);
        info!("This job manager leads in term {number}, with {} jobs that have not ended.", term.jobs.len());
        term
    }

    pub(super) fn number(&self) -> TermNumber {
        self.number
    }

    /// Takes the jobs that were submitted since the last look.
    pub(super) fn take_new_jobs(&mut self) {
        if self.context.consensus.state().read().submitted() != self.submitted {
            self.take_jobs(Origin::Submitted);
        }
    }

    fn take_jobs(&mut self, origin: Origin) {
        let context = Arc::clone(&self.context);
        let state = context.consensus.state().read();
        self.submitted = state.submitted();
        let now = self.now();
        let mut first = Vec::new();
        for record in state.jobs() {
            if record.status.is_terminal() || self.jobs.contains_key(&record.id) {
                continue;
            }
            let spec = Arc::new(JobSpec::new(record, context.settings.patience(record)));
            let (core, actions) = JobCore::new(spec, record, origin, now);
            let job = Job {
                core,
                submitted_ms: record.submitted_ms,
                proposals: VecDeque::new(),
                counters: BTreeMap::new(),
                alignment: AlignmentGroups::default(),
                refused: 0,
                standby: BTreeSet::new(),
            };
            self.jobs.insert(record.id, job);
            first.push((record.id, actions));
        }
        drop(state);
        for (job_id, actions) in first {
            self.execute(job_id, actions);
        }
        self.settle();
    }

    fn now(&self) -> Now {
        let clock = &self.context.clock;
        let mut random = [0; 4];
        // Without random bytes all restarts are on the dot, which harms nobody.
        let jitter = getrandom::fill(&mut random)
            .map_or(0.0, |()| f64::from(i32::from_le_bytes(random)) / f64::from(i32::MAX));
        Now { elapsed_ms: milliseconds(clock.monotonic()), wall_ms: clock.now_ms(), jitter }
    }

    /// Feeds one job and does all that follows.
    fn feed(&mut self, job_id: JobId, input: Input) {
        self.inputs.push_back((job_id, input));
        self.settle();
    }

    /// Works off the inputs, and offers slots when that is wanted.
    fn settle(&mut self) {
        loop {
            while let Some((job_id, input)) = self.inputs.pop_front() {
                let now = self.now();
                if let Some(job) = self.jobs.get_mut(&job_id) {
                    let actions = job.core.step(input, now);
                    self.execute(job_id, actions);
                }
            }
            if !std::mem::take(&mut self.allocate) {
                break;
            }
            self.offer_slots();
        }
        self.forget_ended();
    }

    /// Offers free slots to the jobs that wait, the oldest first, then to those that run and could use more.
    fn offer_slots(&mut self) {
        let mut waiting: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.core.wants_slots())
            .map(|(job_id, job)| (job.core.is_running(), job.submitted_ms, *job_id))
            .collect();
        waiting.sort_unstable();
        for (.., job_id) in waiting {
            let offers = self.connections.offers(&self.slots_of_others(job_id));
            let now = self.now();
            if let Some(job) = self.jobs.get_mut(&job_id) {
                let actions = job.core.step(Input::Slots(offers), now);
                self.execute(job_id, actions);
            }
        }
    }

    fn slots_of_others(&self, job_id: JobId) -> BTreeSet<&Slot> {
        let others = self.jobs.iter().filter(|(other, _)| **other != job_id);
        others.flat_map(|(_, job)| job.core.slots()).collect()
    }

    fn held_slots(&self) -> BTreeSet<&Slot> {
        self.jobs.values().flat_map(|job| job.core.slots()).collect()
    }

    /// Something that took time is done.
    pub(super) fn done(&mut self, done: Done) {
        let Some(input) = done.input else { return };
        if let (Some(job), Input::Proposed { .. }) = (self.jobs.get_mut(&done.job_id), &input) {
            job.proposals.pop_front();
            if let Some(next) = job.proposals.front() {
                let consensus = Arc::clone(&self.context.consensus);
                self.work.push(work::propose(consensus, done.job_id, next.clone()));
            }
        }
        self.feed(done.job_id, input);
    }

    fn forget_ended(&mut self) {
        let ended: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.core.is_ended() && job.proposals.is_empty())
            .map(|(job_id, _)| *job_id)
            .collect();
        for job_id in ended {
            if let Some(job) = self.jobs.remove(&job_id) {
                let live = LiveJob::new(&job.core, &job.counters);
                self.ended.push_back((job_id, live, job.core.checkpoints()));
            }
        }
        while self.ended.len() > REMEMBERED_VIEWS {
            self.ended.pop_front();
        }
    }

    /// Registers a task manager: from now on it belongs to this term.
    pub(super) fn connect(
        &mut self,
        connection: ConnectionId,
        register: v1::Register,
        outbound: Outbound,
    ) -> Result<(), Status> {
        let name = check_registration(&register)?;
        if self.connections.contains(&name) {
            self.lose(&name, "it has connected again");
        } else if self.connections.len() >= MAX_TASK_MANAGERS {
            return Err(Status::resource_exhausted(format!(
                "the cluster has {MAX_TASK_MANAGERS} task managers, which is its limit"
            )));
        }
        let reports = wire::reports(register.running)?;
        let now = self.now();
        info!("Task manager {name} has registered with {} slots at {}.", register.slots, register.host);
        let task_manager = TaskManager {
            connection,
            host: register.host,
            slots: register.slots,
            labels: register.labels,
            draining: false,
            connected_since_ms: now.wall_ms,
            last_heartbeat_ms: now.wall_ms,
            process: None,
            last_heard_ms: now.elapsed_ms,
            outbound,
        };
        self.connections.insert(name.clone(), task_manager);
        self.send(&name, wire::envelope(self.number, ToTaskManager::Registered(self.registered())));
        self.tell_jobs(&name, reports);
        self.allocate = true;
        self.settle();
        Ok(())
    }

    fn registered(&self) -> v1::Registered {
        v1::Registered {
            heartbeat_interval_ms: self.context.settings.heartbeat_interval_ms,
            heartbeat_timeout_ms: self.context.settings.heartbeat_timeout_ms,
            job_managers: self.context.consensus.members().into_values().map(|node| node.address).collect(),
        }
    }

    /// Tells every job what a task manager runs of it, and the task manager what is not needed any more.
    fn tell_jobs(&mut self, name: &TaskManagerId, mut reports: BTreeMap<JobId, Report>) {
        for job_id in self.jobs.keys() {
            let report = reports.remove(job_id);
            self.inputs.push_back((*job_id, Input::Registered { task_manager: name.clone(), report }));
        }
        for job_id in reports.into_keys() {
            self.send(name, wire::stop_worker(self.number, job_id));
        }
        self.stand_by_for_all(name);
    }

    /// A task manager's connection is gone, or is to be: its tasks are lost.
    fn lose(&mut self, name: &TaskManagerId, reason: &str) {
        if self.connections.remove(name).is_none() {
            return;
        }
        warn!("Lost task manager {name}: {reason}.");
        for (job_id, job) in &mut self.jobs {
            job.standby.remove(name);
            let lost = Input::TaskManagerLost { task_manager: name.clone(), reason: reason.to_string() };
            self.inputs.push_back((*job_id, lost));
        }
        self.logs.lost(name);
        self.allocate = true;
    }

    pub(super) fn closed(&mut self, connection: ConnectionId, reason: &str) {
        if let Some(name) = self.connections.name(connection) {
            self.lose(&name, reason);
            self.settle();
        }
    }

    /// A task manager says something. Connections of earlier terms have no say.
    pub(super) fn received(&mut self, connection: ConnectionId, message: v1::TaskManagerMessage) {
        let Some(name) = self.connections.name(connection) else { return };
        let now = self.now();
        if let Some(task_manager) = self.connections.get_mut(&name) {
            task_manager.last_heard_ms = now.elapsed_ms;
        }
        match wire::read(message) {
            Err(malformed) => error!("Refused a message of task manager {name}: {malformed}."),
            Ok(Said::Heartbeat(v1::Heartbeat { jobs, process })) => {
                if let Some(task_manager) = self.connections.get_mut(&name) {
                    task_manager.last_heartbeat_ms = now.wall_ms;
                    task_manager.process = process.map(Into::into).or(task_manager.process);
                }
                self.count(jobs);
                self.send(
                    &name,
                    wire::envelope(self.number, ToTaskManager::HeartbeatAnswer(v1::HeartbeatAnswer {})),
                );
                self.settle();
            }
            Ok(Said::TaskChanged { counters, job_id, attempt, news }) => {
                self.count(counters.into_iter().collect());
                self.feed(job_id, Input::Reported { task_manager: name, attempt, news });
            }
            Ok(Said::News { job_id, attempt, news }) => {
                if !self.jobs.contains_key(&job_id) {
                    debug!("Refused a report of task manager {name} about job {job_id}, which does not run.");
                }
                self.feed(job_id, Input::Reported { task_manager: name, attempt, news });
            }
            Ok(Said::Logs(logs)) => self.logs.arrived(&name, logs),
            Ok(Said::SourceWatermarks(watermarks)) => self.align(&name, watermarks),
            Ok(Said::TaskTime(time)) => self.time_told(time),
            Ok(Said::Draining) => self.draining(&name),
        }
    }

    fn draining(&mut self, name: &TaskManagerId) {
        info!("Task manager {name} is stopping: it gets no more tasks.");
        if let Some(task_manager) = self.connections.get_mut(name) {
            task_manager.draining = true;
        }
        for job_id in self.jobs.keys() {
            self.inputs.push_back((*job_id, Input::Draining { task_manager: name.clone() }));
        }
        self.allocate = true;
        self.settle();
    }

    /// Remembers what tasks have done so far.
    fn count(&mut self, jobs: Vec<v1::JobCounters>) {
        for counters in jobs {
            let Ok(job_id) = JobId::from_wire("job_id", &counters.job_id) else { continue };
            let Some(job) = self.jobs.get_mut(&job_id) else { continue };
            for task in counters.tasks {
                if let Ok(id) = subtask("subtask", task.subtask)
                    && job.core.task_attempt(id) == Some(counters.attempt)
                {
                    job.counters.entry(id).or_default().add(task);
                }
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        let timeout_ms = self.context.settings.heartbeat_timeout_ms;
        if let Some(since_ms) = now.elapsed_ms.checked_sub(timeout_ms) {
            for name in self.connections.silent_since(since_ms) {
                let reason = format!(
                    "The heartbeat of TaskManager with id {name} timed out: nothing was heard of it for {timeout_ms} ms (heartbeat.timeout)"
                );
                self.lose(&name, &reason);
            }
        }
        for (job_id, job) in &self.jobs {
            if job.core.deadline().is_some_and(|deadline_ms| deadline_ms <= now.elapsed_ms) {
                self.inputs.push_back((*job_id, Input::Tick));
            }
        }
        self.settle();
    }

    /// Time until [`Term::tick`] has something to do.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let now_ms = milliseconds(self.context.clock.monotonic());
        let silence = self.connections.longest_silent_ms();
        let silence = silence.map(|heard_ms| heard_ms + self.context.settings.heartbeat_timeout_ms);
        let deadlines = self.jobs.values().filter_map(|job| job.core.deadline()).chain(silence);
        // One more, because deadlines are whole milliseconds and the clock is finer.
        deadlines.min().map(|at_ms| Duration::from_millis((at_ms + 1).saturating_sub(now_ms)))
    }

    pub(super) fn views(&self, wanted: Option<JobId>) -> BTreeMap<JobId, LiveJob> {
        let is_wanted = |job_id: &JobId| wanted.is_none_or(|wanted| wanted == *job_id);
        let ended = self.ended.iter().filter(|(job_id, ..)| is_wanted(job_id));
        let ended = ended.map(|(job_id, live, _)| (*job_id, live.clone()));
        let live = self.jobs.iter().filter(|(job_id, _)| is_wanted(job_id));
        ended.chain(live.map(|(job_id, job)| (*job_id, LiveJob::new(&job.core, &job.counters)))).collect()
    }

    /// The last checkpoints of a job, the oldest first.
    pub(super) fn checkpoints(&self, wanted: JobId) -> Vec<Statistics> {
        let ended = || self.ended.iter().find(|(job_id, ..)| *job_id == wanted);
        match self.jobs.get(&wanted) {
            Some(job) => job.core.checkpoints(),
            None => ended().map(|(.., checkpoints)| checkpoints.clone()).unwrap_or_default(),
        }
    }

    pub(super) fn task_managers(&self) -> Vec<TaskManagerView> {
        self.connections.views(&self.held_slots())
    }

    /// Why jobs wait.
    pub(super) fn reasons(&self) -> BTreeMap<JobId, String> {
        let waiting = self.jobs.iter().filter(|(_, job)| !job.core.waits_for().is_empty());
        waiting.map(|(job_id, job)| (*job_id, job.core.waits_for().to_string())).collect()
    }

    /// Asks all task managers for their logs of a job.
    pub(super) fn ask_logs(&mut self, job_id: JobId, tail_bytes: u64, sink: mpsc::Sender<LogPiece>) {
        let task_managers: BTreeSet<_> = self.connections.names().cloned().collect();
        let request_id = self.logs.begin(task_managers.clone(), sink);
        let request = v1::LogsRequest { request_id, job_id: job_id.to_wire(), tail_bytes };
        for name in task_managers {
            self.send(&name, wire::envelope(self.number, ToTaskManager::LogsRequest(request.clone())));
        }
        self.settle();
    }

    /// This node leads no more: task managers are told, and everything else is left to the next leader.
    pub(super) fn end(self, refusal: &Status) {
        info!("This job manager does not lead any more (term {}).", self.number);
        for outbound in self.connections.outbounds() {
            if outbound.try_send(Err(refusal.clone())).is_err() {
                debug!("A task manager could not be told; it notices by the end of its connection.");
            }
        }
    }
}

fn check_registration(register: &v1::Register) -> Result<TaskManagerId, Malformed> {
    if register.task_manager_id.is_empty() || register.task_manager_id.len() > 256 {
        return Err(Malformed::new("register.task_manager_id", "must have from 1 to 256 bytes"));
    }
    if register.slots == 0 || register.slots > MAX_TASK_SLOTS {
        let problem = format!("is {}, but must be from 1 to {MAX_TASK_SLOTS}", register.slots);
        return Err(Malformed::new("register.slots", problem));
    }
    Ok(TaskManagerId(register.task_manager_id.clone()))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
