//! The job's side of its checkpoints: the coordinator's wishes become messages, files and commands.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId, TaskManagerId};
use thalweg_proto::convert::{CheckpointPhases, SnapshotHandle};

use super::message::{Action, Message, Now};
use super::{Committing, JobCore, Phase};
use crate::checkpoint::coordinator::Pending;
use crate::checkpoint::history::Standing;
use crate::checkpoint::{CheckpointMetadata, Effect, Event, Shape, Statistics};
use crate::cluster::{Command, CompletedCheckpoint, Outcome};

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
        phases: CheckpointPhases,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if !self.coordinator.as_ref().is_some_and(|coordinator| coordinator.collects(checkpoint_id)) {
            self.shared.late(snapshot.shared.iter());
            return;
        }
        let event = match self.shared.announce(checkpoint_id, snapshot.shared.iter()) {
            Ok(()) => Event::Acknowledged { checkpoint_id, subtask, snapshot, phases },
            Err(condemned) => {
                self.shared.late(snapshot.shared.iter());
                let task = self.spec.task_name(subtask, self.execution.attempt_of(subtask));
                Event::Declined { checkpoint_id, reason: format!("{task} cannot take part: {condemned}") }
            }
        };
        self.coordinate(event, now, out);
        self.savepoint_progressed(checkpoint_id, out);
    }

    pub(super) fn declined(
        &mut self,
        checkpoint_id: CheckpointId,
        subtask: SubtaskId,
        failure: &Failure,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let task = self.spec.task_name(subtask, self.execution.attempt_of(subtask));
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
        let Some(committing) = self.committing.remove(&checkpoint_id) else { return };
        let Committing { checkpoint, statistics, is_savepoint } = committing;
        let is_present = attempt == self.execution.attempt && self.coordinator.is_some();
        match outcome {
            Outcome::Refused { reason } if is_present => {
                self.coordinate(Event::CommitRefused(checkpoint_id, reason.to_string()), now, out);
            }
            Outcome::Refused { reason } if is_savepoint => {
                let reason = reason.to_string();
                self.savepoint_failed(&reason, out);
                self.history.add(Statistics { standing: Standing::Failed(reason), ..statistics });
            }
            Outcome::Refused { reason } => {
                let standing = Standing::Failed(reason.to_string());
                self.request_aborted(checkpoint_id, &reason.to_string(), out);
                self.give_up(Statistics { standing, ..statistics }, out);
                self.send_to_running(&Message::CheckpointAborted { attempt, checkpoint_id }, out);
            }
            Outcome::Ok | Outcome::Submitted { .. } | Outcome::CheckpointBegun { .. } => {
                let what = if is_savepoint { "savepoint" } else { "checkpoint" };
                out.push(Action::Log(format!(
                    "Completed {what} {checkpoint_id} for job {} ({} bytes, {} ms).",
                    self.spec.job_id, checkpoint.size_bytes, statistics.duration_ms
                )));
                self.history.add(Statistics { standing: Standing::Completed, ..statistics });
                if is_savepoint {
                    self.savepoint_completed(checkpoint.clone(), out);
                }
                if is_present {
                    self.coordinate(Event::Committed(checkpoint_id), now, out);
                }
                if !is_savepoint {
                    self.request_completed(checkpoint_id, out);
                    let is_final = checkpoint.is_final;
                    self.retain(checkpoint, out);
                    if is_present {
                        self.rescale_with(checkpoint_id, is_final, now, out);
                    } else {
                        // Others failed meanwhile; who goes on has taken part.
                        let completed = Message::CheckpointCompleted { attempt, checkpoint_id, is_final };
                        self.send_to_running(&completed, out);
                    }
                }
            }
        }
        if matches!(self.phase, Phase::Waiting { .. }) && self.wants_slots() {
            out.push(Action::AllocateSlots);
        }
    }

    /// The attempt ends: its checkpoints in progress will never complete, unless that is in the log's hands already.
    pub(super) fn stop_coordinator(&mut self, now: Now, out: &mut Vec<Action>) {
        self.savepoint_interrupted(out);
        self.request_interrupted(out);
        self.rescale_failed("it failed or was cancelled meanwhile", now, out);
        let Some(coordinator) = self.coordinator.take() else { return };
        let attempt = self.execution.attempt;
        for pending in coordinator.in_progress() {
            let checkpoint_id = pending.checkpoint_id;
            if !self.committing.contains_key(&checkpoint_id) {
                let standing = Standing::Failed("its attempt ended".to_string());
                self.give_up(Statistics::of(pending, attempt, standing), out);
                self.send_to_running(&Message::CheckpointAborted { attempt, checkpoint_id }, out);
            }
        }
    }

    /// A checkpoint never completes.
    fn give_up(&mut self, statistics: Statistics, out: &mut Vec<Action>) {
        self.discard(statistics.checkpoint_id, out);
        self.history.add(statistics);
    }

    fn effect(&mut self, effect: Effect, now: Now, out: &mut Vec<Action>) {
        let (job_id, attempt) = (self.spec.job_id, self.execution.attempt);
        match effect {
            Effect::Begin => {
                out.push(Action::Propose(Command::BeginCheckpoint { job_id, attempt, time_ms: now.wall_ms }));
            }
            Effect::SavepointRefused(reason) => self.savepoint_failed(&reason, out),
            Effect::Trigger { checkpoint_id, is_final, is_savepoint: true, timestamp_ms } => {
                self.trigger_savepoint(checkpoint_id, is_final, timestamp_ms, out);
            }
            Effect::Trigger { checkpoint_id, is_final, is_savepoint: false, timestamp_ms } => {
                self.rescale_triggered(checkpoint_id);
                self.request_triggered(checkpoint_id);
                let message = Message::TriggerCheckpoint { attempt, checkpoint_id, timestamp_ms, is_final };
                for task_manager in self.source_task_managers() {
                    out.push(Action::Send { task_manager, message: message.clone() });
                }
            }
            Effect::Write(pending) if pending.is_savepoint => self.write_savepoint(pending, now, out),
            Effect::Write(pending) => {
                let metadata = self.metadata(pending);
                let known = metadata.shared_files();
                let known: BTreeSet<_> =
                    known.into_iter().filter(|path| self.shared.is_retained(path)).collect();
                out.push(Action::WriteMetadata { metadata: Arc::new(metadata), known });
            }
            Effect::Complete { pending, path } => {
                let checkpoint = CompletedCheckpoint {
                    id: pending.checkpoint_id,
                    attempt,
                    is_final: pending.is_final,
                    triggered_ms: pending.triggered_ms,
                    completed_ms: now.wall_ms,
                    size_bytes: pending.state_bytes(),
                    path,
                    unreadable: None,
                };
                let statistics = Statistics::of(&pending, attempt, Standing::InProgress);
                let is_savepoint = pending.is_savepoint;
                let committing = Committing { checkpoint: checkpoint.clone(), statistics, is_savepoint };
                self.committing.insert(checkpoint.id, committing);
                out.push(Action::Propose(match is_savepoint {
                    true => Command::CompleteSavepoint { job_id, attempt, savepoint: checkpoint },
                    false => Command::CompleteCheckpoint { job_id, attempt, checkpoint },
                }));
            }
            Effect::Completed { checkpoint_id, is_final } => {
                self.send_to_all(&Message::CheckpointCompleted { attempt, checkpoint_id, is_final }, out);
            }
            Effect::Aborted { pending, reason, duration_ms } => {
                let checkpoint_id = pending.checkpoint_id;
                let what = if pending.is_savepoint { "Savepoint" } else { "Checkpoint" };
                out.push(Action::Warn(format!("{what} {checkpoint_id} of job {job_id} failed: {reason}.")));
                if pending.is_savepoint {
                    self.savepoint_failed(&reason, out);
                } else {
                    self.rescale_aborted(checkpoint_id, &reason, now, out);
                    self.request_aborted(checkpoint_id, &reason, out);
                }
                let statistics = Statistics::of(&pending, attempt, Standing::Failed(reason));
                self.give_up(Statistics { duration_ms, ..statistics }, out);
                out.push(Action::Propose(Command::AbortCheckpoint { job_id, attempt, checkpoint_id }));
                self.send_to_all(&Message::CheckpointAborted { attempt, checkpoint_id }, out);
            }
            Effect::Fail(failure) => {
                if self.phase == Phase::Running {
                    self.fail(failure, None, "", self.spec.regions.all(), now, out);
                }
            }
        }
    }

    fn metadata(&self, pending: Pending) -> CheckpointMetadata {
        let manifest = self.manifest();
        let in_flight_bytes = pending.parts.values().map(|part| part.phases.persisted_bytes);
        CheckpointMetadata {
            in_flight_bytes: in_flight_bytes.fold(0, u64::saturating_add),
            job_id: self.spec.job_id,
            checkpoint_id: pending.checkpoint_id,
            attempt: self.execution.attempt,
            is_final: pending.is_final,
            shape: Shape::of(&self.spec.graph),
            triggered_ms: pending.triggered_ms,
            snapshots: pending.parts.into_iter().map(|(subtask, part)| (subtask, part.snapshot)).collect(),
            manifest,
        }
    }

    /// Connected task managers that run sources.
    pub(super) fn source_task_managers(&self) -> Vec<TaskManagerId> {
        let is_source = |subtask: SubtaskId| self.spec.graph.is_source(subtask.vertex);
        self.execution
            .connected()
            .filter(|task_manager| self.execution.tasks_on(task_manager).any(is_source))
            .cloned()
            .collect()
    }
}
