//! From waiting for slots to deployed tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_common::failure::{Failure, Fault};
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId, TaskManagerId};
use thalweg_common::status::{JobStatus, TaskStatus};

use super::message::{Action, Deployment, Message, Now, Worker};
use super::{JobCore, JobSpec, Phase, Restore};
use crate::checkpoint::CheckpointMetadata;
use crate::checkpoint::verify::RestoreError;
use crate::cluster::{self, Command, Outcome};
use crate::scheduler::place::{Offer, place};

impl JobCore {
    /// Nothing runs; slots are wanted.
    pub(super) fn wait_for_slots(&mut self, now: Now, out: &mut Vec<Action>) {
        let deadline_ms = now.elapsed_ms.saturating_add(self.slots_patience_ms());
        self.phase = Phase::Waiting { deadline_ms };
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.began(now.elapsed_ms);
        }
        self.shortage.clear();
        let (is_partial, regions, restarting) = (self.is_partial(), &self.spec.regions, &self.restarting);
        self.execution.release(|subtask| !is_partial || restarting.contains(&regions.region(subtask)));
        self.is_told_to_end &= is_partial;
        out.push(Action::AllocateSlots);
    }

    pub(super) fn slots_offered(&mut self, offers: &[Offer], now: Now, out: &mut Vec<Action>) {
        if !self.wants_slots() || !self.adapt(offers, now, out) {
            return;
        }
        let kept = self.execution.placement();
        match place(&self.spec.graph, offers, &self.last_placement, &kept) {
            Err(shortage) => {
                self.lacks(shortage.to_string(), out);
            }
            Ok(placement) => {
                let attempt = self.execution.attempt.saturating_add(1);
                let restored = self.candidates().front().copied();
                self.last_placement.clone_from(&placement);
                let mut placement = placement;
                placement.retain(|subtask, _| !kept.contains_key(subtask));
                self.execution.start(attempt, restored, &placement);
                self.phase = Phase::Starting;
                self.shortage.clear();
                out.push(Action::Propose(Command::StartAttempt {
                    job_id: self.spec.job_id,
                    attempt,
                    placement,
                    restored,
                    time_ms: now.wall_ms,
                }));
            }
        }
    }

    /// The job waits for this.
    pub(super) fn lacks(&mut self, shortage: String, out: &mut Vec<Action>) {
        if shortage != self.shortage {
            out.push(Action::Log(format!("Job {} ({}) is {shortage}.", self.spec.name, self.spec.job_id)));
            self.shortage = shortage;
        }
    }

    pub(super) fn slots_timed_out(&mut self, now: Now, out: &mut Vec<Action>) {
        let setting = match self.adaptive {
            Some(_) => "jobmanager.adaptive-scheduler.resource-wait-timeout",
            None => "slot.request.timeout",
        };
        let patience_ms = self.slots_patience_ms();
        out.push(Action::Warn(format!(
            "Flink job did not start within a total timeout of {} for application: {}",
            span_text(patience_ms),
            self.spec.name
        )));
        let failure = Failure::external(format!(
            "no slots within {patience_ms} ms ({setting}): {}",
            if self.shortage.is_empty() { "no task manager is registered" } else { &self.shortage }
        ));
        self.fail(failure, None, "", self.restarting.clone(), now, out);
    }

    /// The attempt is in the log: workers may be started.
    pub(super) fn attempt_started(
        &mut self,
        attempt: Attempt,
        outcome: Outcome,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if self.phase != Phase::Starting || attempt != self.execution.attempt {
            return;
        }
        if let Outcome::Refused { reason } = outcome {
            let failure = Failure::internal(format!("the attempt was refused: {reason}"));
            self.fail(failure, None, "", self.restarting.clone(), now, out);
            return;
        }
        self.logged = attempt;
        self.skipped.clear();
        let restore = self.restore(self.candidates().into_iter().skip(1).collect(), out);
        self.phase = Phase::Deploying { restore, deployed: false };
        let members: BTreeSet<_> = self.execution.members.keys().cloned().collect();
        for task_manager in self.workers.difference(&members) {
            out.push(Action::Send { task_manager: task_manager.clone(), message: Message::StopWorker });
        }
        self.workers = members;
        self.send_to_restarting(&Message::StartWorker { attempt }, out);
    }

    pub(super) fn worker_ready(
        &mut self,
        task_manager: &TaskManagerId,
        worker: Worker,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Deploying { deployed: false, .. }) {
            return;
        }
        if let Some(member) = self.execution.members.get_mut(task_manager) {
            (member.worker, member.is_awaited) = (Some(worker), false);
        }
        self.deploy_when_ready(out);
    }

    /// What was suspected or found damaged before is read as a whole: by its listing alone it may look sound.
    pub(super) fn read_metadata(&self, checkpoint_id: CheckpointId) -> Action {
        let as_a_whole = self.was_unreadable(checkpoint_id) || self.suspicious == Some(checkpoint_id);
        let (attempt, base) = (self.execution.attempt, self.restored_base().cloned());
        Action::ReadMetadata { attempt, checkpoint_id, base, as_a_whole }
    }

    /// Whether the log says of a checkpoint that it could not be read.
    fn was_unreadable(&self, checkpoint_id: CheckpointId) -> bool {
        self.retained.iter().any(|one| one.id == checkpoint_id && one.unreadable.is_some())
    }

    pub(super) fn metadata_read(
        &mut self,
        attempt: Attempt,
        checkpoint_id: CheckpointId,
        result: Result<Arc<CheckpointMetadata>, RestoreError>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let is_present = attempt == self.execution.attempt && self.execution.restored == Some(checkpoint_id);
        let is_partial = self.is_partial();
        let Phase::Deploying { restore, deployed: false } = &mut self.phase else { return };
        let Restore::Reading { older } = restore else { return };
        if !is_present {
            return;
        }
        match result {
            Ok(metadata) => {
                self.shared.known(checkpoint_id, metadata.shared_files());
                *restore = Restore::Ready(Some(metadata));
                if self.suspicious.take_if(|suspicious| *suspicious == checkpoint_id).is_some() {
                    self.proven = Some(checkpoint_id);
                }
                self.tell_skipped(checkpoint_id, out);
                self.deploy_when_ready(out);
            }
            Err(RestoreError::Failed(failure)) => {
                let failure = failure.context(format_args!("cannot restore checkpoint {checkpoint_id}"));
                self.fail(failure, None, "", self.restarting.clone(), now, out);
            }
            Err(RestoreError::Unreadable(reason)) if is_partial => {
                self.restart_all(&format!("checkpoint {checkpoint_id}: {reason}"), now, out);
            }
            Err(RestoreError::Unreadable(reason)) => {
                let next = older.pop_front();
                self.skipped.push((checkpoint_id, reason));
                match next {
                    Some(next) => {
                        self.execution.restored = Some(next);
                        let older = std::mem::take(older);
                        let restore = self.restore(older, out);
                        let is_ready = matches!(restore, Restore::Ready(_));
                        self.phase = Phase::Deploying { restore, deployed: false };
                        if is_ready {
                            self.tell_skipped(next, out);
                            self.deploy_when_ready(out);
                        }
                    }
                    None => {
                        let failure = self.nothing_to_restore();
                        self.fail(failure, None, "", self.restarting.clone(), now, out);
                    }
                }
            }
        }
    }

    /// Every retained checkpoint was tried in vain. The job never starts over without its state by itself.
    fn nothing_to_restore(&self) -> Failure {
        Failure::external(format!(
            "none of the retained checkpoints can be restored: {}; bring the files back, or submit the job again to start it \
             without its state",
            self.skipped_text()
        ))
    }

    fn skipped_text(&self) -> String {
        let one = |(checkpoint_id, reason): &(_, _)| format!("checkpoint {checkpoint_id}: {reason}");
        self.skipped.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// An older checkpoint is restored than there is one, or one that could not be read before: people and the next leader are
    /// told.
    fn tell_skipped(&mut self, restored: CheckpointId, out: &mut Vec<Action>) {
        if !self.skipped.is_empty() {
            out.push(Action::Warn(format!(
                "Job {} ({}) goes back to checkpoint {restored}; what it has written to the outside since then may be written \
                 again. Not restored: {}.",
                self.spec.name,
                self.spec.job_id,
                self.skipped_text()
            )));
        } else if !self.was_unreadable(restored) {
            return;
        }
        self.skipping = Some((restored, self.skipped.clone()));
        out.push(Action::Propose(Command::SkipCheckpoints {
            job_id: self.spec.job_id,
            attempt: self.execution.attempt,
            restored,
            skipped: self.skipped.clone(),
        }));
    }

    /// The log has taken note, or not: what is kept here is what is kept there.
    pub(super) fn checkpoints_skipped(&mut self, outcome: &Outcome) {
        if let Some((restored, skipped)) = self.skipping.take()
            && *outcome == Outcome::Ok
        {
            cluster::skip(&mut self.retained, restored, skipped);
        }
    }

    /// A task failed while it restored a checkpoint: perhaps a file of it is damaged in a way that no listing shows.
    pub(super) fn suspect_checkpoint(&mut self, failure: &Failure, subtask: Option<SubtaskId>) {
        let restores = matches!(self.phase, Phase::Deploying { deployed: true, .. });
        if restores
            && subtask.is_some_and(|subtask| self.is_restarting(subtask))
            && failure.fault != Fault::User
            && self.proven != self.execution.restored
        {
            self.suspicious = self.execution.restored;
        }
    }

    /// Deploys the tasks of the attempt once every worker is ready and the snapshots to restore are known.
    fn deploy_when_ready(&mut self, out: &mut Vec<Action>) {
        let Phase::Deploying { restore: Restore::Ready(metadata), deployed: false } = &self.phase else {
            return;
        };
        let Some(locations) = self.execution.locations(|subtask| self.is_restarting(subtask)) else { return };
        let (locations, metadata) = (Arc::new(locations), metadata.clone());
        let attempt = self.execution.attempt;
        for task_manager in self.execution.connected() {
            let JobSpec { graph, fingerprint, .. } = &*self.spec;
            let snapshots = |subtask| {
                let of = |from: &Arc<CheckpointMetadata>| from.snapshots_for(graph, *fingerprint, subtask);
                metadata.as_ref().map(of).unwrap_or_default()
            };
            let tasks = self.execution.tasks_on(task_manager).filter(|subtask| self.is_restarting(*subtask));
            let tasks: Vec<_> = tasks.map(|subtask| (subtask, snapshots(subtask))).collect();
            if tasks.is_empty() {
                continue;
            }
            for (subtask, _) in &tasks {
                let task = self.spec.task_name(*subtask, attempt);
                // Queries count these lines by what stands behind the last blank: nothing may follow.
                out.push(Action::Log(format!("Deploying {task} to flink-taskmanager-{task_manager}")));
            }
            let message = Message::DeployTasks(Deployment {
                attempt,
                tasks,
                locations: Arc::clone(&locations),
                restored: self.execution.restored,
                base: self.restored_base().cloned(),
            });
            out.push(Action::Send { task_manager: task_manager.clone(), message });
        }
        for task in self.execution.tasks.values_mut().filter(|task| task.attempt == attempt) {
            task.status = TaskStatus::Deploying;
        }
        self.phase = Phase::Deploying { restore: Restore::Ready(None), deployed: true };
    }

    /// All tasks run: so does the job.
    pub(super) fn run_when_all_run(&mut self, now: Now, out: &mut Vec<Action>) {
        let runs = |status| matches!(status, TaskStatus::Running | TaskStatus::Drained);
        if matches!(self.phase, Phase::Deploying { deployed: true, .. }) && self.execution.all_tasks(runs) {
            self.phase = Phase::Running;
            self.restarting.clear();
            self.running_since_ms = Some(now.elapsed_ms);
            if let Some(adaptive) = &mut self.adaptive {
                adaptive.began(now.elapsed_ms);
            }
            let reason = match self.execution.restored {
                Some(checkpoint) if self.skipped.is_empty() => self.restored_text(checkpoint),
                Some(checkpoint) => {
                    format!("{}; skipped {}", self.restored_text(checkpoint), self.skipped_text())
                }
                None => String::new(),
            };
            self.switch(JobStatus::Running, reason, None, now, out);
            self.start_coordinator(now);
            if self.may_scale_up() {
                out.push(Action::AllocateSlots);
            }
        }
    }
}

/// A span as people say it: in minutes if it is whole ones.
fn span_text(ms: u64) -> String {
    match ms {
        60_000 => "1 minute".to_string(),
        _ if ms.is_multiple_of(60_000) && ms > 0 => format!("{} minutes", ms / 60_000),
        _ => format!("{ms} ms"),
    }
}
