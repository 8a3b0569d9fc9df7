//! The job's side of its checkpoints: the coordinator's wishes become messages, files and commands.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId, TaskManagerId};
use thalweg_proto::convert::SnapshotHandle;

use super::message::{Action, Message, Now};
use super::{JobCore, Phase};
use crate::checkpoint::coordinator::Pending;
use crate::checkpoint::{CheckpointMetadata, Effect, Event};
use crate::cluster::{Command, CompletedCheckpoint, Outcome};

/// Most given up checkpoints whose files are remembered for deletion.
const MAX_GARBAGE: usize = 64;

impl JobCore {
    /// Hands an event to the coordinator of the running attempt and does what it wants.
    pub(super) fn coordinate(&mut self, event: Event, now: Now, out: &mut Vec<Action>) {
        let Some(coordinator) = self.coordinator.as_mut() else { return };
        for effect in coordinator.step(event, now.elapsed_ms, now.wall_ms) {
            self.effect(effect, now, out);
        }
    }

    pub(super) fn checkpoint_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.coordinate(Event::Tick, now, out);
    }

    pub(super) fn acknowledged(
        &mut self,
        checkpoint_id: CheckpointId,
        subtask: SubtaskId,
        snapshot: SnapshotHandle,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.coordinate(Event::Acknowledged { checkpoint_id, subtask, snapshot }, now, out);
    }

    pub(super) fn declined(
        &mut self,
        checkpoint_id: CheckpointId,
        subtask: SubtaskId,
        failure: &Failure,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let task = self.spec.task_name(subtask, self.execution.attempt);
        self.coordinate(
            Event::Declined { checkpoint_id, reason: format!("{task} declined it: {}", failure.message) },
            now,
            out,
        );
    }

    pub(super) fn metadata_written(
        &mut self,
        attempt: Attempt,
        checkpoint_id: CheckpointId,
        result: Result<String, String>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if attempt == self.execution.attempt {
            self.coordinate(Event::Written(checkpoint_id, result), now, out);
        }
    }

    pub(super) fn checkpoint_begun(
        &mut self,
        attempt: Attempt,
        outcome: Outcome,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if attempt != self.execution.attempt {
            return;
        }
        let event = match outcome {
            Outcome::CheckpointBegun { checkpoint_id } => Event::Begun(checkpoint_id),
            Outcome::Ok | Outcome::Submitted { .. } | Outcome::Refused { .. } => Event::BeginRefused,
        };
        self.coordinate(event, now, out);
    }

    /// The log has decided about a checkpoint, which counts even when its attempt has failed meanwhile.
    pub(super) fn checkpoint_decided(
        &mut self,
        attempt: Attempt,
        checkpoint_id: CheckpointId,
        outcome: Outcome,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(checkpoint) = self.committing.take_if(|checkpoint| checkpoint.id == checkpoint_id) else {
            return;
        };
        match outcome {
            Outcome::Refused { reason } => {
                self.add_garbage(checkpoint_id);
                if attempt == self.execution.attempt {
                    self.coordinate(Event::CommitRefused(checkpoint_id, reason.to_string()), now, out);
                }
            }
            Outcome::Ok | Outcome::Submitted { .. } | Outcome::CheckpointBegun { .. } => {
                let previous = self.latest.replace(checkpoint);
                out.extend(
                    previous
                        .filter(|previous| previous.path.is_some())
                        .map(|previous| Action::DeleteCheckpoint(previous.id)),
                );
                // Whatever was given up before this one is not written to any more.
                let newer = self.garbage.split_off(&checkpoint_id);
                out.extend(
                    std::mem::replace(&mut self.garbage, newer).into_iter().map(Action::DeleteCheckpoint),
                );
                if attempt == self.execution.attempt {
                    self.coordinate(Event::Committed(checkpoint_id), now, out);
                }
            }
        }
        if self.wants_slots() {
            out.push(Action::AllocateSlots);
        }
    }

    /// The attempt ends: its checkpoint in progress will never complete, unless that is in the log's hands already.
    pub(super) fn stop_coordinator(&mut self) {
        let in_progress = self.coordinator.take().and_then(|coordinator| coordinator.in_progress());
        let committing = self.committing.as_ref().map(|checkpoint| checkpoint.id);
        if let Some(checkpoint_id) = in_progress.filter(|id| Some(*id) != committing) {
            self.add_garbage(checkpoint_id);
        }
    }

    /// Remembers a checkpoint whose files have to go, once late tasks cannot write them any more.
    pub(super) fn add_garbage(&mut self, checkpoint_id: CheckpointId) {
        if self.spec.checkpoint_directory.is_some() {
            self.garbage.insert(checkpoint_id);
        }
        while self.garbage.len() > MAX_GARBAGE {
            self.garbage.pop_first();
        }
    }

    fn effect(&mut self, effect: Effect, now: Now, out: &mut Vec<Action>) {
        let (job_id, attempt) = (self.spec.job_id, self.execution.attempt);
        match effect {
            Effect::Begin => {
                out.push(Action::Propose(Command::BeginCheckpoint { job_id, attempt, time_ms: now.wall_ms }));
            }
            Effect::Trigger { checkpoint_id, is_final, timestamp_ms } => {
                let message = Message::TriggerCheckpoint { attempt, checkpoint_id, timestamp_ms, is_final };
                for task_manager in self.source_task_managers() {
                    out.push(Action::Send { task_manager, message: message.clone() });
                }
            }
            Effect::Write(pending) => out.push(Action::WriteMetadata(Arc::new(self.metadata(pending)))),
            Effect::Complete { pending, path } => {
                let checkpoint = CompletedCheckpoint {
                    id: pending.checkpoint_id,
                    attempt,
                    is_final: pending.is_final,
                    triggered_ms: pending.triggered_ms,
                    completed_ms: now.wall_ms,
                    size_bytes: pending.snapshots.values().map(|snapshot| snapshot.size_bytes).sum(),
                    path,
                };
                self.committing = Some(checkpoint.clone());
                out.push(Action::Propose(Command::CompleteCheckpoint { job_id, attempt, checkpoint }));
            }
            Effect::Completed { checkpoint_id, is_final, duration_ms, size_bytes } => {
                out.push(Action::Log(format!(
                    "Completed checkpoint {checkpoint_id} for job {job_id} ({size_bytes} bytes, {duration_ms} ms)."
                )));
                self.send_to_all(&Message::CheckpointCompleted { attempt, checkpoint_id, is_final }, out);
            }
            Effect::Aborted { checkpoint_id, reason } => {
                out.push(Action::Warn(format!(
                    "Checkpoint {checkpoint_id} of job {job_id} failed: {reason}."
                )));
                self.add_garbage(checkpoint_id);
                out.push(Action::Propose(Command::AbortCheckpoint { job_id, attempt, checkpoint_id }));
                self.send_to_all(&Message::CheckpointAborted { attempt, checkpoint_id }, out);
            }
            Effect::Fail(failure) => {
                if self.phase == Phase::Running {
                    self.fail(failure, None, "", now, out);
                }
            }
        }
    }

    fn metadata(&self, pending: Pending) -> CheckpointMetadata {
        CheckpointMetadata {
            job_id: self.spec.job_id,
            checkpoint_id: pending.checkpoint_id,
            attempt: self.execution.attempt,
            is_final: pending.is_final,
            graph_fingerprint: self.spec.fingerprint,
            triggered_ms: pending.triggered_ms,
            snapshots: pending.snapshots,
        }
    }

    /// Connected task managers that run sources.
    fn source_task_managers(&self) -> Vec<TaskManagerId> {
        let is_source = |subtask: SubtaskId| self.spec.graph.is_source(subtask.vertex);
        self.execution
            .connected()
            .filter(|task_manager| self.execution.tasks_on(task_manager).any(is_source))
            .cloned()
            .collect()
    }
}
