//! The core of one job on the leader: its whole life as pure steps, `step(input, now) -> actions`.
//!
//! On a command's way it stands between the cluster state and the task managers: it asks for slots, starts attempts,
//! deploys tasks, coordinates checkpoints, and deals with failure, cancellation and the end. The `leader` actor feeds it
//! and executes what it asks for; it reads no clock, draws no random number and does no I/O.
//!
//! An attempt, of all of the job or of some of its [`regions`], goes through the [`Phase`]s:
//! ```text
//! Waiting -> Starting -> Deploying -> Running -> Ending -> Ended
//!    ^                                   |          ^
//!    |  (Delayed) <- Adopting (new leader) -> (Running)
//!    +------- Delayed <- Stopping <- any failure ---+
//! ```
//! Regions that are not restarted go on meanwhile. Invariants: tasks are deployed only for an attempt that is in the log; the first
//! failure of a region's attempt decides, later ones are ignored; reports of other attempts than the task's are refused; nothing is
//! told to be complete or deleted before the log says so; slots are held from the start of an attempt until its tasks have stopped
//! and its restart was due.

mod adaptive;
mod adopt;
pub(crate) mod alignment;
mod attempt;
mod checkpoints;
mod deploy;
mod files;
mod message;
mod regions;
mod requested;
mod rescale;
mod run;
mod savepoints;
mod spec;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, RegionId, SubtaskId, TaskManagerId};
use thalweg_common::status::{JobStatus, TaskStatus};

pub use message::{Action, Deployment, Input, Message, News, Now, Proposal, Report, Worker};
pub use requested::CheckpointNews;
pub use rescale::RescaleNews;
pub use savepoints::SavepointNews;
pub use spec::{JobSpec, Patience};

use crate::checkpoint::history::Standing;
use crate::checkpoint::{CheckpointMetadata, Coordinator, History, SharedFiles, Statistics};
use crate::cluster::{Base, Command, JobRecord, OtherLayouts, Placement};
use crate::cluster::{CompletedCheckpoint, FailureRecord, Outcome, RestartRecord, Slot, StatusChanged};
use crate::scheduler::adaptive::Adaptive;
use attempt::Execution;
use requested::Requested;
use rescale::Rescaling;
use savepoints::Asked;

/// Where the present attempt stands.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Needs slots; until then nothing runs.
    Waiting { deadline_ms: u64 },
    /// `StartAttempt` is on its way into the log.
    Starting,
    /// Workers are being started, and the checkpoint's metadata read; then tasks are deployed and start.
    Deploying { restore: Restore, deployed: bool },
    /// All tasks run.
    Running,
    /// A new leader waits for the task managers of what goes on to register; `suspect` is what does not run any more, of which the cause
    /// may follow in a moment.
    Adopting { deadline_ms: u64, suspect: Option<Suspect> },
    /// Tasks are being cancelled, on these task managers in these regions.
    Stopping { next: Next, waiting: BTreeMap<TaskManagerId, BTreeSet<RegionId>>, deadline_ms: u64 },
    /// Nothing runs until the restart strategy's delay is over.
    Delayed { until_ms: u64 },
    /// The last state is on its way into the log.
    Ending,
    /// There is nothing more to do.
    Ended,
}

/// What an attempt is restored from.
#[derive(Debug, Clone, PartialEq)]
enum Restore {
    /// Nothing: it starts from the beginning, or the metadata is there.
    Ready(Option<Arc<CheckpointMetadata>>),
    /// The metadata is being read; if it cannot be, these checkpoints are tried, in this order.
    Reading { older: VecDeque<CheckpointId> },
}

/// A checkpoint whose `CompleteCheckpoint` is on its way.
#[derive(Debug, Clone, PartialEq)]
struct Committing {
    checkpoint: CompletedCheckpoint,
    statistics: Statistics,
    is_savepoint: bool,
}

/// Something that a new leader finds missing.
#[derive(Debug, Clone, PartialEq)]
struct Suspect {
    failure: Failure,
    /// Whether this is the cause, and not what comes of it.
    is_cause: bool,
    subtask: Option<SubtaskId>,
    task_manager: String,
    /// All that do not run any more.
    lost: BTreeSet<RegionId>,
}

/// What follows when all tasks have stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Restart { until_ms: u64 },
    Fail,
    Cancel,
}

/// How a core comes to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was submitted to this leader.
    Submitted,
    /// An earlier leader had it.
    Adopted,
}

/// The core of one job.
#[derive(Debug, Clone)]
pub struct JobCore {
    spec: Arc<JobSpec>,
    /// As of the last proposal.
    status: JobStatus,
    /// Why a job that waits for slots still waits.
    shortage: String,
    phase: Phase,
    execution: Execution,
    /// The newest attempt that is in the log: no task manager has heard of a later one.
    logged: Attempt,
    /// The regions that do not run: those that the present attempt is to start. Empty when all run.
    restarting: BTreeSet<RegionId>,
    /// Whether sources were told to end since all tasks were started the last time, as far as this leader knows.
    is_told_to_end: bool,
    restarts: RestartRecord,
    /// Since when all tasks of the present attempt run, as far as this leader knows; in monotonic milliseconds.
    running_since_ms: Option<u64>,
    /// Where each subtask ran last: it returns there if it can.
    last_placement: Placement,
    /// Task managers that may have a worker of the job.
    workers: BTreeSet<TaskManagerId>,
    /// Of the attempt that runs.
    coordinator: Option<Coordinator>,
    /// The checkpoints in the log, the newest last.
    retained: VecDeque<CompletedCheckpoint>,
    /// What is restored, by the log, while no newer checkpoint can be.
    base: Option<Base>,
    /// The savepoints in the log, the newest last.
    savepoints: VecDeque<CompletedCheckpoint>,
    /// The savepoint that somebody waits for.
    asked: Option<Asked>,
    /// The checkpoint that somebody waits for.
    requested: Option<Requested>,
    /// Those whose `CompleteCheckpoint` is on its way: until that is decided no attempt may start.
    committing: BTreeMap<CheckpointId, Committing>,
    /// Begun by an earlier leader and undecided.
    orphaned: BTreeSet<CheckpointId>,
    /// Given up checkpoints whose files late tasks may still have written; bounded.
    garbage: BTreeSet<CheckpointId>,
    /// Who needs which shared file.
    shared: SharedFiles,
    /// Whether files that nobody knows of may be left by earlier attempts or leaders.
    may_have_orphans: bool,
    /// Checkpoints that the present attempt was to restore and could not, with the reasons.
    skipped: Vec<(CheckpointId, String)>,
    /// What `SkipCheckpoints`, which is on its way, says: the one that is restored, and the others.
    skipping: Option<(CheckpointId, Vec<(CheckpointId, String)>)>,
    /// A checkpoint whose restore has failed in a task: it is read as a whole the next time.
    suspicious: Option<CheckpointId>,
    /// A checkpoint that was read as a whole, and is sound.
    proven: Option<CheckpointId>,
    /// The last checkpoints, for people.
    history: History,
    /// What the job may run in beside what it runs in.
    layouts: OtherLayouts,
    /// Another layout that is not in the log yet.
    rescaling: Option<Rescaling>,
    /// Who waits for the job to run in its present layout.
    rescaled: Option<u64>,
    /// Present where the adaptive scheduler is in charge.
    adaptive: Option<Adaptive>,
}

impl JobCore {
    /// A core for a job that has not ended, and its first actions.
    #[must_use]
    pub fn new(spec: Arc<JobSpec>, record: &JobRecord, origin: Origin, now: Now) -> (Self, Vec<Action>) {
        let adaptive = Self::adaptive(&spec, record);
        let mut core = Self {
            spec,
            status: record.status,
            shortage: String::new(),
            phase: Phase::Ended,
            execution: Execution::of(record),
            logged: record.attempt,
            restarting: BTreeSet::new(),
            is_told_to_end: false,
            restarts: record.restarts.clone(),
            running_since_ms: None,
            last_placement: record.placement.clone(),
            workers: BTreeSet::new(),
            coordinator: None,
            retained: record.checkpoints.clone(),
            base: record.base.clone(),
            savepoints: record.savepoints.clone(),
            asked: None,
            requested: None,
            committing: BTreeMap::new(),
            orphaned: record.checkpoints_in_progress.clone(),
            garbage: BTreeSet::new(),
            shared: SharedFiles::of(with_file(&record.checkpoints)),
            may_have_orphans: false,
            skipped: Vec::new(),
            skipping: None,
            suspicious: None,
            proven: None,
            history: History::default(),
            layouts: record.layouts.clone(),
            rescaling: None,
            rescaled: None,
            adaptive,
        };
        core.restarting = core.not_running(record, origin);
        let mut out: Vec<_> = core.shared.unknown().map(Action::ReadShared).collect();
        if origin == Origin::Submitted {
            let line = rescale::parallelism_line(&core.spec.name, &core.spec.layout());
            out.extend(line.map(Action::Log));
        }
        match origin {
            Origin::Submitted => core.wait_for_slots(now, &mut out),
            Origin::Adopted => core.adopt(now, &mut out),
        }
        (core, out)
    }

    /// Takes one step.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Slots(offers) => self.slots_offered(&offers, now, &mut out),
            Input::Registered { task_manager, report } => {
                self.registered(task_manager, report, now, &mut out)
            }
            Input::Draining { task_manager } => self.draining(&task_manager, now, &mut out),
            Input::TaskManagerLost { task_manager, reason } => {
                self.task_manager_lost(&task_manager, &reason, now, &mut out);
            }
            Input::Reported { task_manager, attempt, news } => {
                if self.is_current(&task_manager, attempt, &news) {
                    self.reported(&task_manager, news, now, &mut out);
                } else {
                    out.push(Action::RefuseStale { task_manager, attempt });
                }
            }
            Input::Tick => self.tick(now, &mut out),
            Input::Cancel => self.cancel(now, &mut out),
            Input::Savepoint { request, directory, mode } => {
                self.savepoint_asked(request, directory, mode, now, &mut out);
            }
            Input::Checkpoint { request } => self.checkpoint_asked(request, now, &mut out),
            Input::Rescale { request, layout, offers } => {
                self.rescale_asked(request, layout, &offers, now, &mut out);
            }
            Input::Planned { parallelism, result } => self.planned(parallelism, result, &mut out),
            Input::Proposed { proposal, outcome } => self.proposed(proposal, outcome, now, &mut out),
            Input::MetadataWritten { attempt, checkpoint_id, result } => {
                self.metadata_written(attempt, checkpoint_id, result, now, &mut out);
            }
            Input::MetadataRead { attempt, checkpoint_id, result } => {
                self.metadata_read(attempt, checkpoint_id, result, now, &mut out);
            }
            Input::SharedRead { checkpoint_id, result } => self.shared_read(checkpoint_id, result, &mut out),
            Input::SharedDeleted { paths, are_gone } => self.shared.deleted(&paths, are_gone),
            Input::Listed(paths) => self.listed(paths, &mut out),
        }
        out
    }

    fn reported(&mut self, task_manager: &TaskManagerId, news: News, now: Now, out: &mut Vec<Action>) {
        match news {
            News::WorkerReady(worker) => self.worker_ready(task_manager, worker, out),
            News::WorkerLost { failure, .. } => self.worker_lost(task_manager, failure, now, out),
            News::Task { subtask, status, failure } => {
                self.task_status(task_manager, subtask, status, failure, now, out);
            }
            News::Acknowledged { checkpoint_id, subtask, snapshot, phases } => {
                self.acknowledged(checkpoint_id, subtask, snapshot, phases, now, out);
            }
            News::Declined { checkpoint_id, subtask, failure } => {
                self.declined(checkpoint_id, subtask, &failure, now, out);
            }
            News::TasksStopped(regions) => self.tasks_stopped(task_manager, &regions, now, out),
        }
    }

    fn proposed(&mut self, proposal: Proposal, outcome: Outcome, now: Now, out: &mut Vec<Action>) {
        match proposal {
            Proposal::StartAttempt(attempt) => self.attempt_started(attempt, outcome, now, out),
            Proposal::Status(to) => self.status_committed(to, outcome, out),
            Proposal::BeginCheckpoint(attempt) => self.checkpoint_begun(attempt, outcome, now, out),
            Proposal::CompleteCheckpoint(attempt, checkpoint_id) => {
                self.checkpoint_decided(attempt, checkpoint_id, outcome, now, out);
            }
            Proposal::SkipCheckpoints => self.checkpoints_skipped(&outcome),
            Proposal::Rescale => self.rescale_decided(&outcome, now, out),
            Proposal::Other => {}
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Waiting { deadline_ms } if now.elapsed_ms >= *deadline_ms => {
                self.slots_timed_out(now, out)
            }
            Phase::Adopting { deadline_ms, .. } if now.elapsed_ms >= *deadline_ms => {
                self.adoption_timed_out(now, out)
            }
            Phase::Stopping { deadline_ms, .. } if now.elapsed_ms >= *deadline_ms => {
                self.stop_timed_out(now, out)
            }
            Phase::Delayed { until_ms } if now.elapsed_ms >= *until_ms => self.wait_for_slots(now, out),
            Phase::Running => {
                self.checkpoint_tick(now, out);
                self.adaptive_tick(now, out);
            }
            Phase::Waiting { .. } => self.adaptive_tick(now, out),
            Phase::Starting
            | Phase::Deploying { .. }
            | Phase::Adopting { .. }
            | Phase::Stopping { .. }
            | Phase::Delayed { .. }
            | Phase::Ending
            | Phase::Ended => {}
        }
    }

    /// When [`Input::Tick`] is wanted at the latest, in monotonic milliseconds.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let adaptive = || self.adaptive.as_ref().and_then(Adaptive::due_ms);
        match &self.phase {
            Phase::Waiting { deadline_ms } => adaptive().into_iter().chain([*deadline_ms]).min(),
            Phase::Adopting { deadline_ms, .. } | Phase::Stopping { deadline_ms, .. } => Some(*deadline_ms),
            Phase::Delayed { until_ms } => Some(*until_ms),
            Phase::Running => {
                let coordinator = self.coordinator.as_ref().and_then(Coordinator::deadline);
                coordinator.into_iter().chain(adaptive()).min()
            }
            Phase::Starting | Phase::Deploying { .. } | Phase::Ending | Phase::Ended => None,
        }
    }

    /// What never changes about the job.
    #[must_use]
    pub fn spec(&self) -> &Arc<JobSpec> {
        &self.spec
    }

    /// The newest attempt; 0 before the first.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.execution.attempt
    }

    /// Whether slots should be offered to it.
    #[must_use]
    pub fn wants_slots(&self) -> bool {
        match self.phase {
            Phase::Waiting { .. } => self.committing.is_empty() && self.rescaling.is_none(),
            Phase::Running => self.may_scale_up(),
            _ => false,
        }
    }

    /// Whether all its tasks run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether there is nothing more to do.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// The slots that no other job may use.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        let holds = !matches!(self.phase, Phase::Ending | Phase::Ended);
        self.execution.tasks.values().filter(move |_| holds).map(|task| &task.slot)
    }

    /// Why the job waits; empty when it does not.
    #[must_use]
    pub fn waits_for(&self) -> &str {
        if matches!(self.phase, Phase::Waiting { .. }) { &self.shortage } else { "" }
    }

    /// The tasks that have slots: where each runs, and its state.
    pub fn tasks(&self) -> impl Iterator<Item = (SubtaskId, &TaskManagerId, TaskStatus)> {
        self.execution.tasks.iter().map(|(subtask, task)| (*subtask, &task.slot.task_manager, task.status))
    }

    /// Whether a checkpoint is in progress.
    #[must_use]
    pub fn checkpoint_in_progress(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| coordinator.in_progress().next().is_some())
    }

    /// The last checkpoints and those in progress, the oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Statistics> {
        let in_progress = self.coordinator.iter().flat_map(Coordinator::in_progress);
        let in_progress =
            in_progress.map(|pending| Statistics::of(pending, self.execution.attempt, Standing::InProgress));
        self.history.iter().cloned().chain(in_progress).collect()
    }

    /// How long a subtask has waited for barriers at most, in the last checkpoint that completed, as far as this leader knows.
    #[must_use]
    pub fn last_alignment_ms(&self) -> Option<u64> {
        let completed = self.history.iter().filter(|one| one.standing == Standing::Completed);
        completed.last()?.parts.values().map(|part| part.phases.alignment_us / 1_000).max()
    }

    /// Moves the job to another state: log line and proposal.
    fn switch(
        &mut self,
        to: JobStatus,
        reason: impl Into<String>,
        failure: Option<FailureRecord>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let going_on = match to {
            JobStatus::Restarting => &self.spec.regions.all() - &self.restarting,
            _ => BTreeSet::new(),
        };
        self.switch_beside(to, going_on, reason, failure, now, out);
    }

    /// The same while these regions go on.
    fn switch_beside(
        &mut self,
        to: JobStatus,
        going_on: BTreeSet<RegionId>,
        reason: impl Into<String>,
        failure: Option<FailureRecord>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let JobSpec { name, job_id, .. } = &*self.spec;
        out.push(Action::Log(format!("Job {name} ({job_id}) switched from {} to {to}.", self.status)));
        self.status = to;
        out.push(Action::Propose(Command::ChangeJobStatus(StatusChanged {
            job_id: *job_id,
            attempt: self.execution.attempt,
            to,
            reason: reason.into(),
            failure,
            going_on,
            restarts: (to == JobStatus::Restarting).then(|| self.restarts.clone()),
            time_ms: now.wall_ms,
        })));
    }

    /// Sends a message to every connected task manager of the attempt.
    fn send_to_all(&self, message: &Message, out: &mut Vec<Action>) {
        for task_manager in self.execution.connected() {
            out.push(Action::Send { task_manager: task_manager.clone(), message: message.clone() });
        }
    }
}

/// The checkpoints that can be restored, the oldest first.
fn with_file(checkpoints: &VecDeque<CompletedCheckpoint>) -> impl Iterator<Item = CheckpointId> {
    checkpoints.iter().filter(|checkpoint| checkpoint.path.is_some()).map(|checkpoint| checkpoint.id)
}
