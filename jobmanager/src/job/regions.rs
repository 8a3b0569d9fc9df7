//! Which regions of a job a failure restarts, and which go on meanwhile.
//!
//! As Flink's pipelined-region failover: a failure restarts the regions that it concerns, from the newest checkpoint, as a new attempt;
//! all others go on with their tasks, channels and state, in the attempt that started them. The job is RESTARTING until all run; checkpoints in
//! progress are given up, because each is one of all regions. A failure elsewhere meanwhile widens the restart by its regions, which
//! gives the union yet another attempt. Where that would not be right, all is restarted:
//! - `jobmanager.execution.failover-strategy` is `full`, or the adaptive scheduler is in charge, which may change the whole layout;
//! - the job was just rescaled and goes back to the layout before;
//! - tasks end, or were told to: a final checkpoint or savepoint is in progress or complete;
//! - the newest checkpoint cannot be read: who goes on would name files of it that are damaged or gone.
//!
//! The log has the regions that go on with each change to RESTARTING, so that a new leader adopts them as it adopts those of a running job.
//! What it does not find of them is restarted, too, and nothing else.
//!
//! Invariant: `restarting` is empty while the job runs, and while it does not, regions that are not in it have all their tasks.

use std::collections::BTreeSet;

use thalweg_common::id::{Attempt, RegionId, SubtaskId, TaskManagerId, WorkerId};
use thalweg_common::status::JobStatus;

use super::message::{Action, Message, News, Now};
use super::{JobCore, Next, Origin, Phase};
use crate::checkpoint::Coordinator;
use crate::cluster::JobRecord;

impl JobCore {
    /// The region of a task.
    pub(super) fn region(&self, subtask: SubtaskId) -> RegionId {
        self.spec.regions.region(subtask)
    }

    /// The regions that have tasks on a task manager.
    pub(super) fn regions_on(&self, task_manager: &TaskManagerId) -> BTreeSet<RegionId> {
        self.spec.regions.regions(self.execution.tasks_on(task_manager))
    }

    /// Whether a task is of a region that does not run at the moment.
    pub(super) fn is_restarting(&self, subtask: SubtaskId) -> bool {
        self.restarting.contains(&self.region(subtask))
    }

    /// Whether some regions go on while others are restarted.
    pub(super) fn is_partial(&self) -> bool {
        !self.restarting.is_empty() && self.restarting != self.spec.regions.all()
    }

    /// Whether the failure of these regions is news: they run, or are about to.
    pub(super) fn is_news(&self, regions: &BTreeSet<RegionId>) -> bool {
        match self.phase {
            Phase::Starting | Phase::Deploying { .. } => true,
            Phase::Ending | Phase::Ended => false,
            Phase::Running
            | Phase::Adopting { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping { .. }
            | Phase::Delayed { .. } => !regions.is_subset(&self.restarting),
        }
    }

    /// Whether what a task says of itself counts: it was deployed and is not being stopped.
    pub(super) fn counts(&self, subtask: SubtaskId) -> bool {
        match self.phase {
            Phase::Ending | Phase::Ended => false,
            Phase::Deploying { deployed: true, .. } => true,
            _ => !self.is_restarting(subtask),
        }
    }

    /// Whether a report is of what runs, or ran last, and not of an older attempt.
    pub(super) fn is_current(&self, task_manager: &TaskManagerId, attempt: Attempt, news: &News) -> bool {
        let newest = self.logged;
        let is_current = match news {
            News::Task { subtask, .. }
            | News::Acknowledged { subtask, .. }
            | News::Declined { subtask, .. } => attempt == self.execution.attempt_of(*subtask),
            News::WorkerReady(_) | News::TasksStopped(_) => attempt == newest,
            News::WorkerLost { id, .. } => self.runs_here(task_manager, *id, attempt),
        };
        is_current && self.execution.members.contains_key(task_manager)
    }

    /// Whether this is the worker that a task manager has for the job, or was to start. It may be lost while an attempt is being started that
    /// its task manager has not heard of, and others run in it: so it is known by its id.
    fn runs_here(&self, task_manager: &TaskManagerId, id: WorkerId, attempt: Attempt) -> bool {
        let Some(member) = self.execution.members.get(task_manager) else { return false };
        let is_known = member.worker.as_ref().map(|worker| worker.id == id);
        // What it tells is of the newest attempt that it has heard of.
        let is_recent = attempt <= self.logged && attempt >= self.execution.newest_on(task_manager);
        match is_known {
            Some(is_known) => is_known || (member.is_awaited && is_recent),
            None => is_recent,
        }
    }

    /// The regions that do not run when a core comes to its job.
    pub(super) fn not_running(&self, record: &JobRecord, origin: Origin) -> BTreeSet<RegionId> {
        match record.status {
            JobStatus::Running if origin == Origin::Adopted => BTreeSet::new(),
            // With the adaptive scheduler, which changes the whole layout, nothing goes on.
            JobStatus::Restarting if self.adaptive.is_none() => &self.spec.regions.all() - &record.going_on,
            _ => self.spec.regions.all(),
        }
    }

    /// What a failure of these regions restarts, together with what is being restarted.
    pub(super) fn to_restart(&self, failed: &BTreeSet<RegionId>) -> BTreeSet<RegionId> {
        let is_regional = self.spec.patience.restarts_regions
            && self.adaptive.is_none()
            && self.layouts.previous.is_none()
            && !self.is_ending();
        match is_regional {
            true => failed.union(&self.restarting).copied().collect(),
            false => self.spec.regions.all(),
        }
    }

    /// Whether tasks end, or were told to: what some have finished others cannot go back behind.
    fn is_ending(&self) -> bool {
        let mut in_progress = self.coordinator.iter().flat_map(Coordinator::in_progress);
        self.is_told_to_end
            || self.may_finish()
            || in_progress.any(|pending| pending.is_final)
            || self.committing.values().any(|committing| committing.checkpoint.is_final)
    }

    /// The newest checkpoint cannot be read, and some regions go on that may name its files: all go back together.
    pub(super) fn restart_all(&mut self, reason: &str, now: Now, out: &mut Vec<Action>) {
        out.push(Action::Warn(format!(
            "Job {} ({}): the newest checkpoint cannot be restored, so all tasks are restarted: {reason}.",
            self.spec.name, self.spec.job_id
        )));
        self.stop_tasks(Next::Restart { until_ms: now.elapsed_ms }, self.spec.regions.all(), now, out);
    }

    /// Sends a message to the connected task managers with tasks of regions that go on.
    pub(super) fn send_to_running(&self, message: &Message, out: &mut Vec<Action>) {
        for task_manager in self.execution.connected() {
            if !self.regions_on(task_manager).is_subset(&self.restarting) {
                out.push(Action::Send { task_manager: task_manager.clone(), message: message.clone() });
            }
        }
    }

    /// Sends a message to the connected task managers with tasks of regions that are being restarted.
    pub(super) fn send_to_restarting(&self, message: &Message, out: &mut Vec<Action>) {
        for task_manager in self.execution.connected() {
            if !self.regions_on(task_manager).is_disjoint(&self.restarting) {
                out.push(Action::Send { task_manager: task_manager.clone(), message: message.clone() });
            }
        }
    }

    /// The attempt of a task that has a slot.
    #[must_use]
    pub fn task_attempt(&self, subtask: SubtaskId) -> Option<Attempt> {
        self.execution.tasks.get(&subtask).map(|task| task.attempt)
    }
}
