//! What a worker does with commands and with the reports of its tasks. Pure: it gives actions and executes none.
//!
//! Commands are divided among the regions that they concern, each of which is on its own: its tasks may be of another attempt than
//! those of others, and are deployed, cancelled and replaced while others run. Invariant: nothing that happens to one region
//! does anything to another.

use std::collections::BTreeMap;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, RegionId, SubtaskId};
use thalweg_common::status::TaskStatus;

use super::messages::{Command, Deployment};
use super::region::Region;
use crate::event::Barrier;
use crate::task::mailbox::Mail;
use crate::task::{News, Report, Role, TakenSnapshot};
use crate::time::inquiry::TaskTime;

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Start the tasks of the deployment.
    Start(Deployment),
    /// Ask all tasks of a region to end.
    CancelTasks(RegionId),
    /// All tasks of a region have ended: close the attempt's channels.
    EndAttempt(RegionId, Attempt),
    /// Put mail into a task's box.
    Tell(SubtaskId, Mail),
    /// Tell the task manager that a task is in another state.
    ReportStatus(SubtaskId, TaskStatus, Option<Failure>),
    /// Tell the task manager that no task of this attempt or an older one is left in these regions.
    ReportStopped(Attempt, Vec<RegionId>),
    /// Store a task's snapshot, then acknowledge or decline.
    Store(SubtaskId, TakenSnapshot),
    /// Write a task's part of a savepoint into this directory, then acknowledge or decline.
    WriteSavepoint(SubtaskId, TakenSnapshot, String),
    /// A task's part of a savepoint that was given up before its directory was known.
    GiveUp(SubtaskId, TakenSnapshot),
    /// Tell how a task keeps time, as was asked.
    ReportTime(SubtaskId, TaskTime),
    /// Tell the task manager that a task cannot take part in the checkpoint.
    Decline(SubtaskId, CheckpointId, Failure),
    /// A command that comes too late; worth a line in the log.
    Ignore(String),
    /// The worker cannot be used for this job.
    Fail(Failure),
    /// End.
    Shutdown,
}

/// The state of a worker.
#[derive(Debug)]
pub(crate) struct WorkerCore {
    plan_fingerprint: u64,
    regions: BTreeMap<RegionId, Region>,
    /// The region of each task that has been here.
    by_subtask: BTreeMap<SubtaskId, RegionId>,
}

impl WorkerCore {
    pub(crate) fn new(plan_fingerprint: u64) -> Self {
        Self { plan_fingerprint, regions: BTreeMap::new(), by_subtask: BTreeMap::new() }
    }

    /// The attempt of a task; 0 if it was never here.
    pub(crate) fn attempt(&self, subtask: SubtaskId) -> Attempt {
        let region = self.region_of(subtask).and_then(|region| self.regions.get(&region));
        region.map_or(0, Region::attempt)
    }

    /// The region of a task that has been here.
    pub(crate) fn region_of(&self, subtask: SubtaskId) -> Option<RegionId> {
        self.by_subtask.get(&subtask).copied()
    }

    /// The tasks that are here, each with its attempt, those that have ended among them.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (Attempt, SubtaskId, TaskStatus)> {
        let of = |region: &Region| {
            let attempt = region.attempt();
            let statuses: Vec<_> = region.statuses().collect();
            statuses.into_iter().map(move |(subtask, status)| (attempt, subtask, status))
        };
        self.regions.values().flat_map(of)
    }

    /// Obeys a command.
    pub(crate) fn on_command(&mut self, command: Command) -> Vec<Action> {
        match command {
            Command::Deploy { plan_fingerprint, deployments } => {
                self.on_deploy(plan_fingerprint, deployments)
            }
            Command::Cancel { attempt, regions } => self.on_cancel(attempt, regions),
            Command::Trigger { attempt, barrier, savepoint_directory } => {
                self.on_all(|region| region.on_trigger(attempt, barrier, savepoint_directory.clone()))
            }
            Command::EndInput { attempt } => self.on_all(|region| region.tell(attempt, Mail::EndInput)),
            Command::Completed { attempt, checkpoint, is_final } => {
                self.on_all(|region| region.tell(attempt, Mail::Completed { checkpoint, is_final }))
            }
            Command::TellTime { attempt, request_id } => {
                self.on_all(|region| region.tell(attempt, Mail::TellTime { request_id }))
            }
            // Of no concern to regions: what it says is for those who read.
            Command::Align { .. } => Vec::new(),
            Command::Aborted { attempt, checkpoint } => {
                self.on_all(|region| region.on_aborted(attempt, checkpoint))
            }
            Command::Shutdown => vec![Action::Shutdown],
        }
    }

    fn on_deploy(&mut self, plan_fingerprint: u64, deployments: Vec<Deployment>) -> Vec<Action> {
        if plan_fingerprint != self.plan_fingerprint {
            return vec![Action::Fail(
                Failure::user(format!(
                    "the plan of this worker has the fingerprint {}, that of the job {plan_fingerprint}: the topology came out \
                     differently; it may depend on the job's arguments only, not on time, chance, files or the machine",
                    self.plan_fingerprint
                ))
                .permanent(),
            )];
        }
        let deploy = |deployment: Deployment| self.region(deployment.region).on_deploy(deployment);
        deployments.into_iter().flat_map(deploy).collect()
    }

    fn on_cancel(&mut self, attempt: Attempt, regions: Vec<RegionId>) -> Vec<Action> {
        if regions.is_empty() && self.regions.is_empty() {
            return vec![Action::ReportStopped(attempt, regions)];
        }
        let all = || self.regions.keys().copied().collect();
        let regions: Vec<_> = if regions.is_empty() { all() } else { regions };
        regions.into_iter().flat_map(|region| self.region(region).on_cancel(attempt)).collect()
    }

    fn on_all(&mut self, act: impl FnMut(&mut Region) -> Vec<Action>) -> Vec<Action> {
        self.regions.values_mut().flat_map(act).collect()
    }

    fn region(&mut self, region: RegionId) -> &mut Region {
        self.regions.entry(region).or_insert_with(|| Region::new(region))
    }

    /// The tasks of the deployment are being started: they are known from now on. `role` says what each has to do with the input.
    pub(crate) fn started(&mut self, deployment: &Deployment, role: impl Fn(SubtaskId) -> Role) {
        self.by_subtask.extend(deployment.tasks.keys().map(|subtask| (*subtask, deployment.region)));
        self.region(deployment.region).started(deployment, role);
    }

    /// Takes note of what a task says.
    pub(crate) fn on_report(&mut self, report: Report) -> Vec<Action> {
        match self.region_of(report.subtask) {
            Some(region) => self.region(region).on_report(report),
            None => {
                vec![Action::Ignore(format!("a report of task {}, which was never here", report.subtask))]
            }
        }
    }

    /// A task does not read its mail.
    pub(crate) fn on_mailbox_full(
        &mut self,
        subtask: SubtaskId,
        mail: Mail,
        failure: Failure,
    ) -> Vec<Action> {
        match mail {
            Mail::Trigger(Barrier { id, .. }) => vec![Action::Decline(subtask, id, failure)],
            // Whoever asked sees that it does not answer.
            Mail::TellTime { .. } => Vec::new(),
            // What it misses cannot be made up for later.
            Mail::EndInput | Mail::Completed { .. } | Mail::Aborted { .. } => {
                let attempt = self.attempt(subtask);
                self.on_report(Report { attempt, subtask, news: News::Failed(failure) })
            }
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
