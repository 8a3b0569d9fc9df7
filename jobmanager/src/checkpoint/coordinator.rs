//! The checkpoint coordinator: when a checkpoint begins, when it is complete, when it is given up. Pure.
//!
//! On a command's way it stands between a running attempt and the Raft log: due -> `BeginCheckpoint` -> trigger at the
//! sources -> acknowledgements of all subtasks -> metadata file -> `CompleteCheckpoint` -> completion to all. One
//! coordinator serves one execution attempt. It is told what happened by [`Event`]s and answers with [`Effect`]s.
//!
//! Invariants: at most one checkpoint at a time; nobody hears of a completion that is not in the log; after the final
//! checkpoint completed none begins any more; what belongs to an older checkpoint changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::Timestamp;
use thalweg_common::config::CheckpointConfig;
use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, SubtaskId};
use thalweg_proto::convert::SnapshotHandle;

/// Least time before a failed final checkpoint is tried again.
const FINAL_RETRY_PAUSE_MS: u64 = 1_000;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time has passed; also sent whenever [`Coordinator::deadline`] is over.
    Tick,
    /// All tasks are drained: the final checkpoint is due at once.
    AllDrained,
    /// `BeginCheckpoint` is in the log.
    Begun(CheckpointId),
    /// `BeginCheckpoint` was refused.
    BeginRefused,
    /// A subtask's snapshot is durable.
    Acknowledged {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Who.
        subtask: SubtaskId,
        /// Where its snapshot is.
        snapshot: SnapshotHandle,
    },
    /// A subtask cannot take part.
    Declined {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Why, with the task's name.
        reason: String,
    },
    /// The metadata file is durable at this URI, or could not be written.
    Written(CheckpointId, Result<String, String>),
    /// `CompleteCheckpoint` is in the log.
    Committed(CheckpointId),
    /// `CompleteCheckpoint` was refused.
    CommitRefused(CheckpointId, String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Propose `BeginCheckpoint`.
    Begin,
    /// Tell the sources.
    Trigger {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Whether tasks finish when it completes.
        is_final: bool,
        /// Wall clock, milliseconds since the epoch.
        timestamp_ms: Timestamp,
    },
    /// Write the metadata file of these snapshots.
    Write(Pending),
    /// Propose `CompleteCheckpoint`.
    Complete {
        /// The checkpoint.
        pending: Pending,
        /// URI of the metadata file; absent when checkpointing is off.
        path: Option<String>,
    },
    /// Tell all tasks that it is durable.
    Completed {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Whether tasks finish now.
        is_final: bool,
        /// Milliseconds from its trigger.
        duration_ms: u64,
        /// Of all snapshots together.
        size_bytes: u64,
    },
    /// Tell all tasks that it will never complete, propose `AbortCheckpoint`, forget its files.
    Aborted {
        /// The checkpoint.
        checkpoint_id: CheckpointId,
        /// Why.
        reason: String,
    },
    /// Too many failed one after the other: the job fails.
    Fail(Failure),
}

/// A checkpoint that has been triggered.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Its id.
    pub checkpoint_id: CheckpointId,
    /// Whether all tasks were drained.
    pub is_final: bool,
    /// Wall clock at its trigger, milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// Monotonic time at its trigger.
    triggered_at_ms: u64,
    /// What was acknowledged.
    pub snapshots: BTreeMap<SubtaskId, SnapshotHandle>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// None in progress.
    Idle,
    /// `BeginCheckpoint` is on its way.
    Beginning { is_final: bool },
    /// Barriers are on their way.
    Collecting(Pending),
    /// All acknowledged; the metadata file is being written.
    Writing(Pending),
    /// `CompleteCheckpoint` is on its way: only the log can decide now.
    Committing(Pending),
    /// The final checkpoint completed.
    Finished,
}

/// Coordinates the checkpoints of one execution attempt.
#[derive(Debug, Clone)]
pub struct Coordinator {
    config: CheckpointConfig,
    subtasks: BTreeSet<SubtaskId>,
    state: State,
    drained: bool,
    /// Monotonic time from which the next one may begin; nothing begins by itself when checkpointing is off.
    due_ms: u64,
    failures_in_a_row: u32,
}

impl Coordinator {
    /// For an attempt whose tasks all run since `now_ms` (monotonic).
    #[must_use]
    pub fn new(config: CheckpointConfig, subtasks: BTreeSet<SubtaskId>, now_ms: u64) -> Self {
        let due_ms = now_ms.saturating_add(config.interval_ms.unwrap_or(0));
        Self { config, subtasks, state: State::Idle, drained: false, due_ms, failures_in_a_row: 0 }
    }

    /// For an attempt whose final checkpoint completed before.
    #[must_use]
    pub fn finished(config: CheckpointConfig, subtasks: BTreeSet<SubtaskId>) -> Self {
        Self { state: State::Finished, drained: true, ..Self::new(config, subtasks, 0) }
    }

    /// Whether the final checkpoint completed: tasks may finish.
    #[cfg(test)]
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// The checkpoint that has begun and is not decided yet.
    #[must_use]
    pub fn in_progress(&self) -> Option<CheckpointId> {
        match &self.state {
            State::Collecting(pending) | State::Writing(pending) | State::Committing(pending) => {
                Some(pending.checkpoint_id)
            }
            State::Idle | State::Beginning { .. } | State::Finished => None,
        }
    }

    /// When [`Event::Tick`] is wanted at the latest, in monotonic milliseconds.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        match &self.state {
            State::Idle if self.drained || self.config.is_enabled() => Some(self.due_ms),
            State::Collecting(pending) | State::Writing(pending) => Some(self.times_out_at(pending)),
            State::Idle | State::Beginning { .. } | State::Committing(_) | State::Finished => None,
        }
    }

    fn times_out_at(&self, pending: &Pending) -> u64 {
        pending.triggered_at_ms.saturating_add(self.config.timeout_ms)
    }

    /// Takes one step at monotonic time `now_ms` and wall-clock time `wall_ms`.
    pub fn step(&mut self, event: Event, now_ms: u64, wall_ms: Timestamp) -> Vec<Effect> {
        match event {
            Event::Tick => self.tick(now_ms),
            Event::AllDrained => {
                if !self.drained {
                    self.drained = true;
                    self.due_ms = now_ms;
                }
                self.tick(now_ms)
            }
            Event::Begun(checkpoint_id) => self.begun(checkpoint_id, now_ms, wall_ms),
            Event::BeginRefused => {
                if let State::Beginning { is_final } = self.state {
                    self.state = State::Idle;
                    self.schedule(is_final, now_ms, now_ms);
                }
                vec![]
            }
            Event::Acknowledged { checkpoint_id, subtask, snapshot } => {
                self.acknowledged(checkpoint_id, subtask, snapshot)
            }
            Event::Declined { checkpoint_id, reason } => match &self.state {
                State::Collecting(pending) if pending.checkpoint_id == checkpoint_id => {
                    self.abort(reason, now_ms)
                }
                _ => vec![],
            },
            Event::Written(checkpoint_id, result) => self.written(checkpoint_id, result, now_ms),
            Event::Committed(checkpoint_id) => self.committed(checkpoint_id, now_ms),
            Event::CommitRefused(checkpoint_id, reason) => match &self.state {
                State::Committing(pending) if pending.checkpoint_id == checkpoint_id => {
                    self.abort(reason, now_ms)
                }
                _ => vec![],
            },
        }
    }

    fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        match &self.state {
            State::Idle if (self.drained || self.config.is_enabled()) && now_ms >= self.due_ms => {
                self.state = State::Beginning { is_final: self.drained };
                vec![Effect::Begin]
            }
            State::Collecting(pending) if now_ms >= self.times_out_at(pending) => {
                let missing = self.subtasks.len() - pending.snapshots.len();
                let reason = format!(
                    "it did not complete within {} ms: {missing} of {} subtasks did not acknowledge it; raise \
                     `execution.checkpointing.timeout` or relieve the slow ones",
                    self.config.timeout_ms,
                    self.subtasks.len()
                );
                self.abort(reason, now_ms)
            }
            State::Writing(pending) if now_ms >= self.times_out_at(pending) => {
                let reason = format!(
                    "its metadata file was not written within {} ms from its start; check the checkpoint directory",
                    self.config.timeout_ms
                );
                self.abort(reason, now_ms)
            }
            _ => vec![],
        }
    }

    fn begun(&mut self, checkpoint_id: CheckpointId, now_ms: u64, wall_ms: Timestamp) -> Vec<Effect> {
        let State::Beginning { is_final } = self.state else { return vec![] };
        self.state = State::Collecting(Pending {
            checkpoint_id,
            is_final,
            triggered_ms: wall_ms,
            triggered_at_ms: now_ms,
            snapshots: BTreeMap::new(),
        });
        vec![Effect::Trigger { checkpoint_id, is_final, timestamp_ms: wall_ms }]
    }

    fn acknowledged(
        &mut self,
        checkpoint_id: CheckpointId,
        subtask: SubtaskId,
        snapshot: SnapshotHandle,
    ) -> Vec<Effect> {
        let State::Collecting(pending) = &mut self.state else { return vec![] };
        if pending.checkpoint_id != checkpoint_id || !self.subtasks.contains(&subtask) {
            return vec![];
        }
        pending.snapshots.entry(subtask).or_insert(snapshot);
        if pending.snapshots.len() < self.subtasks.len() {
            return vec![];
        }
        let pending = pending.clone();
        if self.config.is_enabled() {
            self.state = State::Writing(pending.clone());
            vec![Effect::Write(pending)]
        } else {
            self.state = State::Committing(pending.clone());
            vec![Effect::Complete { pending, path: None }]
        }
    }

    fn written(
        &mut self,
        checkpoint_id: CheckpointId,
        result: Result<String, String>,
        now_ms: u64,
    ) -> Vec<Effect> {
        match &self.state {
            State::Writing(pending) if pending.checkpoint_id == checkpoint_id => match result {
                Ok(path) => {
                    let pending = pending.clone();
                    self.state = State::Committing(pending.clone());
                    vec![Effect::Complete { pending, path: Some(path) }]
                }
                Err(reason) => self.abort(format!("its metadata could not be written: {reason}"), now_ms),
            },
            _ => vec![],
        }
    }

    fn committed(&mut self, checkpoint_id: CheckpointId, now_ms: u64) -> Vec<Effect> {
        let State::Committing(pending) = &self.state else { return vec![] };
        if pending.checkpoint_id != checkpoint_id {
            return vec![];
        }
        let (is_final, started_ms) = (pending.is_final, pending.triggered_at_ms);
        let completed = Effect::Completed {
            checkpoint_id,
            is_final,
            duration_ms: now_ms.saturating_sub(started_ms),
            size_bytes: pending.snapshots.values().map(|snapshot| snapshot.size_bytes).sum(),
        };
        self.failures_in_a_row = 0;
        self.state = if is_final { State::Finished } else { State::Idle };
        self.schedule(is_final, started_ms, now_ms);
        let mut effects = vec![completed];
        effects.extend(self.tick(now_ms));
        effects
    }

    /// Gives up the checkpoint in progress, and the job when too many failed.
    fn abort(&mut self, reason: String, now_ms: u64) -> Vec<Effect> {
        let (State::Collecting(pending) | State::Writing(pending) | State::Committing(pending)) = &self.state
        else {
            return vec![];
        };
        let (checkpoint_id, is_final, started_ms) =
            (pending.checkpoint_id, pending.is_final, pending.triggered_at_ms);
        self.state = State::Idle;
        self.schedule(is_final, started_ms, now_ms);
        self.failures_in_a_row += 1;
        let mut effects = vec![Effect::Aborted { checkpoint_id, reason: reason.clone() }];
        if self.failures_in_a_row > self.config.tolerable_failures {
            effects.push(Effect::Fail(Failure::external(format!(
                "checkpoint {checkpoint_id} failed, {} in a row where {} are tolerated \
                 (execution.checkpointing.tolerable-failed-checkpoints): {reason}",
                self.failures_in_a_row, self.config.tolerable_failures
            ))));
        }
        effects
    }

    /// Sets when the next one may begin, after one that started and ended at these times.
    fn schedule(&mut self, was_final: bool, started_ms: u64, ended_ms: u64) {
        self.due_ms = if !self.drained {
            let by_interval = started_ms.saturating_add(self.config.interval_ms.unwrap_or(0));
            by_interval.max(ended_ms.saturating_add(self.config.min_pause_ms))
        } else if was_final {
            ended_ms.saturating_add(self.config.min_pause_ms.max(FINAL_RETRY_PAUSE_MS))
        } else {
            // The final one has been waiting for this one to end.
            ended_ms
        };
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
