//! From waiting for slots to deployed tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, TaskManagerId};
use thalweg_common::status::{JobStatus, TaskStatus};

use super::attempt::Execution;
use super::message::{Action, Deployment, Message, Now, Worker};
use super::{JobCore, Phase, Restore};
use crate::checkpoint::CheckpointMetadata;
use crate::cluster::{Command, Outcome};
use crate::scheduler::place::{Offer, place};

impl JobCore {
    /// Nothing runs; slots are wanted.
    pub(super) fn wait_for_slots(&mut self, now: Now, out: &mut Vec<Action>) {
        self.phase =
            Phase::Waiting { deadline_ms: now.elapsed_ms.saturating_add(self.spec.patience.slot_request_ms) };
        self.shortage.clear();
        self.execution.release();
        out.push(Action::AllocateSlots);
    }

    pub(super) fn slots_offered(&mut self, offers: &[Offer], now: Now, out: &mut Vec<Action>) {
        if !self.wants_slots() {
            return;
        }
        match place(&self.spec.graph, offers) {
            Err(shortage) => {
                let shortage = shortage.to_string();
                if shortage != self.shortage {
                    out.push(Action::Log(format!(
                        "Job {} ({}) is {shortage}.",
                        self.spec.name, self.spec.job_id
                    )));
                    self.shortage = shortage;
                }
            }
            Ok(placement) => {
                let attempt = self.execution.attempt.saturating_add(1);
                let restored =
                    self.latest.as_ref().filter(|latest| latest.path.is_some()).map(|latest| latest.id);
                self.execution = Execution::new(attempt, restored, &placement, true);
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

    pub(super) fn slots_timed_out(&mut self, now: Now, out: &mut Vec<Action>) {
        let failure = Failure::external(format!(
            "no slots within {} ms (slot.request.timeout): {}",
            self.spec.patience.slot_request_ms,
            if self.shortage.is_empty() { "no task manager is registered" } else { &self.shortage }
        ));
        self.fail(failure, None, "", now, out);
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
            self.fail(Failure::internal(format!("the attempt was refused: {reason}")), None, "", now, out);
            return;
        }
        let restore = match self.execution.restored {
            None => Restore::Ready(None),
            Some(checkpoint_id) => {
                out.push(Action::ReadMetadata { attempt, checkpoint_id });
                Restore::Reading
            }
        };
        self.phase = Phase::Deploying { restore, deployed: false };
        let members: BTreeSet<_> = self.execution.members.keys().cloned().collect();
        for task_manager in self.workers.difference(&members) {
            out.push(Action::Send { task_manager: task_manager.clone(), message: Message::StopWorker });
        }
        self.workers = members;
        self.send_to_all(&Message::StartWorker { attempt }, out);
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
            member.worker = Some(worker);
        }
        self.deploy_when_ready(out);
    }

    pub(super) fn metadata_read(
        &mut self,
        attempt: Attempt,
        result: Result<Arc<CheckpointMetadata>, Failure>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Phase::Deploying { restore, deployed: false } = &mut self.phase else { return };
        if attempt != self.execution.attempt {
            return;
        }
        match result {
            Ok(metadata) => {
                *restore = Restore::Ready(Some(metadata));
                self.deploy_when_ready(out);
            }
            Err(failure) => {
                self.fail(failure.context("cannot restore the latest checkpoint"), None, "", now, out)
            }
        }
    }

    /// Deploys all tasks once every worker is ready and the snapshots to restore are known.
    fn deploy_when_ready(&mut self, out: &mut Vec<Action>) {
        let Phase::Deploying { restore: Restore::Ready(metadata), deployed: false } = &self.phase else {
            return;
        };
        let Some(locations) = self.execution.locations() else { return };
        let (locations, metadata) = (Arc::new(locations), metadata.clone());
        let attempt = self.execution.attempt;
        for task_manager in self.execution.connected() {
            let snapshots =
                |subtask| metadata.as_ref().and_then(|metadata| metadata.snapshots.get(&subtask).cloned());
            let tasks: Vec<_> = self
                .execution
                .tasks_on(task_manager)
                .map(|subtask| (subtask, snapshots(subtask).into_iter().collect()))
                .collect();
            for (subtask, _) in &tasks {
                let task = self.spec.task_name(*subtask, attempt);
                out.push(Action::Log(format!("Deploying {task} to {task_manager}")));
            }
            let message = Message::DeployTasks(Deployment {
                attempt,
                tasks,
                locations: Arc::clone(&locations),
                restored: self.execution.restored,
            });
            out.push(Action::Send { task_manager: task_manager.clone(), message });
        }
        for task in self.execution.tasks.values_mut() {
            task.status = TaskStatus::Deploying;
        }
        self.phase = Phase::Deploying { restore: Restore::Ready(None), deployed: true };
    }

    /// All tasks run: so does the job.
    pub(super) fn run_when_all_run(&mut self, now: Now, out: &mut Vec<Action>) {
        let runs = |status| matches!(status, TaskStatus::Running | TaskStatus::Drained);
        if matches!(self.phase, Phase::Deploying { deployed: true, .. }) && self.execution.all_tasks(runs) {
            self.phase = Phase::Running;
            let reason = match self.execution.restored {
                Some(checkpoint) => format!("restored from checkpoint {checkpoint}"),
                None => String::new(),
            };
            self.switch(JobStatus::Running, reason, None, now, out);
            self.start_coordinator(now);
        }
    }
}
