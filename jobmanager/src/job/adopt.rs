//! A new leader takes over a job: what runs goes on, what was being stopped is stopped, what waited is started.
//!
//! While some regions of a job are being restarted the others go on, as the log knows, and are adopted first. Of what shall go on a region
//! goes on if all its tasks are found running; if something is missing, the others are waited for, a second at most, and only what was not
//! found by then is restarted.

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;
use thalweg_common::id::{RegionId, SubtaskId, TaskManagerId};
use thalweg_common::status::{JobStatus, TaskStatus};

use super::message::{Action, Message, Now, Report};
use super::{JobCore, JobSpec, Next, Phase, Suspect};
use crate::cluster::{Command, CompletedCheckpoint};
use crate::scheduler::restart;

/// How long a new leader waits for task managers to register before it places jobs that have no tasks, so that the first
/// one to come back does not get them all.
const SETTLE_MS: u64 = 1_000;

/// How long a task manager that has registered may take to tell why something does not run any more.
const CAUSE_MS: u64 = 200;

impl JobCore {
    pub(super) fn adopt(&mut self, now: Now, out: &mut Vec<Action>) {
        let patience = self.spec.patience.adoption_ms;
        let deadline_ms = now.elapsed_ms.saturating_add(patience);
        match self.status {
            JobStatus::Created => {
                self.phase = Phase::Delayed { until_ms: now.elapsed_ms.saturating_add(SETTLE_MS) };
            }
            JobStatus::Restarting if !self.is_partial() => {
                self.phase = Phase::Delayed { until_ms: self.resume_ms(now) };
            }
            JobStatus::Restarting | JobStatus::Running => {
                self.phase = Phase::Adopting { deadline_ms, suspect: None }
            }
            JobStatus::Failing => self.carry_on(Next::Fail, deadline_ms),
            JobStatus::Cancelling => self.carry_on(Next::Cancel, deadline_ms),
            JobStatus::Failed | JobStatus::Canceled | JobStatus::Finished => self.phase = Phase::Ended,
        }
        // Without any task manager there is nobody to wait for.
        self.stopped_when_all_stopped(now, out);
    }

    /// When what is being restarted may start.
    fn resume_ms(&self, now: Now) -> u64 {
        let longest_ms = restart::longest_delay_ms(&self.spec.graph.restart_strategy);
        let left = self.restarts.resume_at_ms.saturating_sub(now.wall_ms);
        // The clocks of two leaders may differ, so no more than the strategy can ever ask for.
        let left_ms = u64::try_from(left).unwrap_or(0).min(longest_ms).max(SETTLE_MS);
        now.elapsed_ms.saturating_add(left_ms)
    }

    /// Carries on what an earlier leader began: tasks are stopped as their task managers register.
    fn carry_on(&mut self, next: Next, deadline_ms: u64) {
        let regions = self.spec.regions.all();
        let waiting = self.execution.members.keys().map(|name| (name.clone(), regions.clone())).collect();
        self.phase = Phase::Stopping { next, waiting, deadline_ms };
    }

    /// A task manager has registered with this leader.
    pub(super) fn registered(
        &mut self,
        task_manager: TaskManagerId,
        report: Option<Report>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if report.is_some() {
            self.workers.insert(task_manager.clone());
        }
        let live = report.as_ref().is_some_and(Report::is_live);
        let is_member = self.execution.members.contains_key(&task_manager);
        match &mut self.phase {
            Phase::Adopting { .. } if is_member => self.adopt_tasks(task_manager, report, now, out),
            Phase::Stopping { waiting, .. } if live => {
                waiting.insert(task_manager.clone(), self.spec.regions.all());
                self.execution.members.entry(task_manager.clone()).or_default().connected = true;
                let deadline = self.stop_deadline(now);
                if let Phase::Stopping { deadline_ms, .. } = &mut self.phase {
                    *deadline_ms = deadline.max(*deadline_ms);
                }
                out.push(self.cancel_all_on(task_manager));
            }
            Phase::Stopping { waiting, .. } => {
                waiting.remove(&task_manager);
                if let Some(member) = self.execution.members.get_mut(&task_manager) {
                    member.connected = true;
                }
                self.stopped_when_all_stopped(now, out);
            }
            Phase::Ended => {
                if report.is_some() {
                    out.push(Action::Send { task_manager, message: Message::StopWorker });
                }
            }
            // Tasks that no present attempt knows.
            _ => {
                if live {
                    out.push(self.cancel_all_on(task_manager));
                }
            }
        }
    }

    /// Ends tasks of which some may not be known: of whatever attempt, in all regions.
    fn cancel_all_on(&self, task_manager: TaskManagerId) -> Action {
        let message = Message::CancelTasks { attempt: self.logged, regions: BTreeSet::new() };
        Action::Send { task_manager, message }
    }

    /// Takes over the tasks of one task manager that go on, and ends what is left there of those that do not.
    fn adopt_tasks(
        &mut self,
        task_manager: TaskManagerId,
        report: Option<Report>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let running = report.as_ref().map(|report| &report.tasks).into_iter().flatten();
        let mut is_left =
            running.filter(|(subtask, (_, status))| self.is_restarting(**subtask) && !status.is_terminal());
        if is_left.next().is_some() {
            let message = Message::CancelTasks { attempt: self.logged, regions: self.restarting.clone() };
            out.push(Action::Send { task_manager: task_manager.clone(), message });
        }
        if let Some(member) = self.execution.members.get_mut(&task_manager) {
            member.connected = true;
            member.worker = report.as_ref().map(|report| report.worker.clone());
        }
        let expected: Vec<_> =
            self.execution.tasks_on(&task_manager).filter(|subtask| !self.is_restarting(*subtask)).collect();
        // Of older attempts nothing counts.
        let of_present = |subtask: &SubtaskId| {
            let (attempt, status) = *report.as_ref()?.tasks.get(subtask)?;
            (attempt == self.execution.attempt_of(*subtask)).then_some(status)
        };
        let found: Vec<_> = expected.iter().map(|subtask| (*subtask, of_present(subtask))).collect();
        let runs_nothing = found.iter().all(|(_, status)| status.is_none());
        let (mut missing, mut lost) = (None, BTreeSet::new());
        for (subtask, status) in found {
            if let Some((status, task)) = status.zip(self.execution.tasks.get_mut(&subtask)) {
                task.status = status;
            }
            if !status.is_some_and(|status| self.may_go_on(status)) {
                missing.get_or_insert((subtask, status));
                lost.insert(self.region(subtask));
            }
        }
        if let Some((subtask, status)) = missing {
            let state = status.map_or("gone", TaskStatus::name);
            let (subtask, text) = match runs_nothing {
                true => (None, format!("task manager {task_manager} does not run its tasks any more")),
                false => (Some(subtask), format!("the task was {state} when the new leader took over")),
            };
            let (failure, task_manager) = (Failure::external(text), task_manager.0);
            return self.suspect(Suspect { failure, is_cause: false, subtask, task_manager, lost }, now, out);
        }
        self.adoption_went_on(now, out);
    }

    /// Whether a task in this state goes on under a new leader.
    fn may_go_on(&self, status: TaskStatus) -> bool {
        match status {
            TaskStatus::Running | TaskStatus::Drained => true,
            TaskStatus::Finished => self.may_finish(),
            _ => false,
        }
    }

    /// The regions that shall go on and of which not all tasks were found running, or which have failed since.
    fn not_found(&self, lost: &BTreeSet<RegionId>) -> BTreeSet<RegionId> {
        let is_found = |subtask: SubtaskId| {
            let task = self.execution.tasks.get(&subtask);
            task.is_some_and(|task| {
                let member = self.execution.members.get(&task.slot.task_manager);
                member.is_some_and(|member| member.connected && member.worker.is_some())
                    && self.may_go_on(task.status)
            })
        };
        let subtasks = self.spec.subtasks.iter().copied();
        let missing = subtasks.filter(|subtask| lost.contains(&self.region(*subtask)) || !is_found(*subtask));
        &self.spec.regions.regions(missing) - &self.restarting
    }

    /// Something does not run any more. Its task manager is about to say why, if it knows; others may still be on their way here.
    pub(super) fn suspect(&mut self, found: Suspect, now: Now, out: &mut Vec<Action>) {
        let Phase::Adopting { deadline_ms, suspect } = &mut self.phase else { return };
        match suspect {
            None => {
                *deadline_ms = now.elapsed_ms.saturating_add(SETTLE_MS).min(*deadline_ms);
                *suspect = Some(found);
            }
            Some(known) => {
                let lost = &known.lost | &found.lost;
                if found.is_cause && !known.is_cause {
                    *known = found;
                }
                known.lost = lost;
            }
        }
        self.adoption_went_on(now, out);
    }

    /// Decides, if there is nothing more to wait for.
    fn adoption_went_on(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Adopting { suspect, .. } = &self.phase else { return };
        let lost = suspect.as_ref().map(|suspect| suspect.lost.clone()).unwrap_or_default();
        let is_cause = suspect.as_ref().map(|suspect| suspect.is_cause);
        let not_found = self.not_found(&lost);
        match is_cause {
            None if not_found.is_empty() => self.adopted(now, out),
            Some(true) if not_found == lost => self.adoption_timed_out(now, out),
            Some(false) if not_found == lost => {
                if let Phase::Adopting { deadline_ms, .. } = &mut self.phase {
                    *deadline_ms = now.elapsed_ms.saturating_add(CAUSE_MS).min(*deadline_ms);
                }
            }
            _ => {}
        }
    }

    /// All that shall go on does so under this leader.
    fn adopted(&mut self, now: Now, out: &mut Vec<Action>) {
        let attempt = self.execution.attempt;
        let JobSpec { name, job_id, .. } = &*self.spec;
        let regions = if self.is_partial() { "but for the regions that are being restarted " } else { "" };
        out.push(Action::Log(format!("Job {name} ({job_id}) goes on {regions}in attempt {attempt}.")));
        if self.is_partial() {
            self.greet(out);
            self.phase = Phase::Delayed { until_ms: self.resume_ms(now) };
            return;
        }
        self.phase = Phase::Running;
        self.running_since_ms = Some(now.elapsed_ms);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.began(now.elapsed_ms);
            out.push(Action::AllocateSlots);
        }
        self.start_coordinator(now);
        self.greet(out);
        self.end_when_all_end(now, out);
    }

    /// Tells those that go on what an earlier leader may not have told them any more.
    fn greet(&mut self, out: &mut Vec<Action>) {
        let (job_id, attempt) = (self.spec.job_id, self.execution.attempt);
        if let Some(latest) = self.retained.back() {
            // Regions that were restarted since have restored it, or an older one.
            let CompletedCheckpoint { id: checkpoint_id, is_final, attempt: taken_in, .. } = *latest;
            let took_part =
                |it: SubtaskId| !self.is_restarting(it) && self.execution.attempt_of(it) <= taken_in;
            for task_manager in self.execution.connected() {
                if self.execution.tasks_on(task_manager).any(took_part) {
                    let message = Message::CheckpointCompleted { attempt: taken_in, checkpoint_id, is_final };
                    out.push(Action::Send { task_manager: task_manager.clone(), message });
                }
            }
        }
        if let Some(checkpoint_id) = self.stopped_with_savepoint() {
            let message = Message::CheckpointCompleted { attempt, checkpoint_id, is_final: true };
            self.send_to_all(&message, out);
        }
        for checkpoint_id in std::mem::take(&mut self.orphaned) {
            self.add_garbage(checkpoint_id);
            out.push(Action::Propose(Command::AbortCheckpoint { job_id, attempt, checkpoint_id }));
            self.send_to_all(&Message::CheckpointAborted { attempt, checkpoint_id }, out);
        }
    }

    /// While tasks are being adopted these regions have to stop. Gives them together with all that were not found yet; the others go on.
    pub(super) fn adopt_beside(
        &mut self,
        regions: &BTreeSet<RegionId>,
        out: &mut Vec<Action>,
    ) -> BTreeSet<RegionId> {
        let Phase::Adopting { suspect, .. } = &self.phase else { return regions.clone() };
        let suspected = suspect.iter().flat_map(|suspect| &suspect.lost);
        let lost = self.not_found(&regions.iter().chain(suspected).copied().collect());
        // From here on it is a running job of which some regions have failed.
        self.phase = Phase::Running;
        if self.to_restart(&lost) != self.spec.regions.all() {
            self.restarting.extend(&lost);
            self.greet(out);
        }
        lost
    }

    /// Nobody else is waited for: what was not found is restarted.
    pub(super) fn adoption_timed_out(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Adopting { suspect, .. } = &mut self.phase else { return };
        let suspect = suspect.take().unwrap_or_else(|| self.absent());
        let lost = self.adopt_beside(&suspect.lost, out);
        let Suspect { failure, subtask, task_manager, .. } = suspect;
        self.fail(failure, subtask, &task_manager, lost, now, out);
    }

    /// The task managers that have not registered.
    fn absent(&self) -> Suspect {
        let absent =
            self.execution.members.iter().filter(|(name, member)| {
                !member.connected && !self.regions_on(name).is_subset(&self.restarting)
            });
        let missing: Vec<_> = absent.map(|(name, _)| name.to_string()).collect();
        let failure = Failure::external(format!(
            "lost task manager {}: it did not register with the new leader within {} ms",
            missing.join(", "),
            self.spec.patience.adoption_ms
        ));
        let task_manager = missing.first().cloned().unwrap_or_default();
        Suspect { failure, is_cause: true, subtask: None, task_manager, lost: BTreeSet::new() }
    }
}
