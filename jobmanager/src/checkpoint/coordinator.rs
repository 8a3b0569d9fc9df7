//! The checkpoint coordinator: when a checkpoint begins, when it is complete, when it is given up. Pure.
//!
//! On a command's way it stands between a running attempt and the Raft log: due -> `BeginCheckpoint` -> trigger at the
//! sources -> acknowledgements of all subtasks -> metadata file -> `CompleteCheckpoint` -> completion to all. One
//! coordinator serves one execution attempt. It is told what happened by [`Event`]s and answers with [`Effect`]s.
//!
//! A savepoint is a checkpoint of another kind: it is taken when somebody asks for it, alone, replaces nothing, and nobody hears of
//! its completion unless the job ends with it.
//!
//! Invariants: at most as many checkpoints at a time as configured, and a final one or a savepoint alone; behind a savepoint with
//! which the job stops none begins, unless it fails; nobody hears of a completion that
//! is not in the log; when a checkpoint completed, all older ones are over; after the final checkpoint completed none begins
//! any more; what belongs to a checkpoint that is over changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::Timestamp;
use thalweg_common::config::CheckpointConfig;
use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, SubtaskId};
use thalweg_proto::convert::{CheckpointPhases, SnapshotHandle};
use thalweg_proto::model::SavepointMode;

/// Least time before a failed final checkpoint is tried again.
const FINAL_RETRY_PAUSE_MS: u64 = 1_000;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time has passed; also sent whenever [`Coordinator::deadline`] is over.
    Tick,
    /// All tasks are drained: the final checkpoint is due at once.
    AllDrained,
    /// A checkpoint is wanted as soon as there may be one.
    Wanted,
    /// Somebody asks for a savepoint. To drain, sources are told to end their input beside this.
    Savepoint(SavepointMode),
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
        /// What it took.
        phases: CheckpointPhases,
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
        /// Whether it is a savepoint.
        is_savepoint: bool,
        /// Wall clock, milliseconds since the epoch.
        timestamp_ms: Timestamp,
    },
    /// The savepoint that was asked for cannot begin.
    SavepointRefused(String),
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
    },
    /// Tell all tasks that it will never complete, propose `AbortCheckpoint`, forget its files.
    Aborted {
        /// The checkpoint, with what was acknowledged.
        pending: Pending,
        /// Why.
        reason: String,
        /// Monotonic time from its trigger, in milliseconds.
        duration_ms: u64,
    },
    /// Too many failed one after the other: the job fails.
    Fail(Failure),
}

/// A checkpoint that has been triggered.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Its id.
    pub checkpoint_id: CheckpointId,
    /// Whether tasks finish when it completes.
    pub is_final: bool,
    /// Whether it is a savepoint.
    pub is_savepoint: bool,
    /// Wall clock at its trigger, milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// Monotonic time at its trigger.
    triggered_at_ms: u64,
    /// What was acknowledged.
    pub parts: BTreeMap<SubtaskId, Part>,
}

/// A subtask's part of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Where its snapshot is.
    pub snapshot: SnapshotHandle,
    /// What it took.
    pub phases: CheckpointPhases,
    /// From the trigger to the acknowledgement, in milliseconds.
    pub end_to_end_ms: u64,
}

impl Pending {
    /// From its trigger to its last acknowledgement, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.parts.values().map(|part| part.end_to_end_ms).max().unwrap_or(0)
    }

    /// The size of all its state, in bytes.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.parts.values().fold(0, |sum, part| sum.saturating_add(part.snapshot.state_bytes()))
    }
}

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Barriers are on their way.
    Collecting,
    /// All acknowledged; it is being verified, and the metadata file written.
    Writing,
    /// `CompleteCheckpoint` is on its way: only the log can decide now.
    Committing,
}

/// What kind of checkpoint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    is_final: bool,
    is_savepoint: bool,
}

/// Coordinates the checkpoints of one execution attempt.
#[derive(Debug, Clone)]
pub struct Coordinator {
    config: CheckpointConfig,
    subtasks: BTreeSet<SubtaskId>,
    /// Whether `BeginCheckpoint` is on its way, and for what.
    beginning: Option<Kind>,
    /// A savepoint that was asked for and has not begun.
    wish: Option<SavepointMode>,
    pending: BTreeMap<CheckpointId, (Stage, Pending)>,
    drained: bool,
    /// The final checkpoint completed.
    finished: bool,
    /// 0 before the first one.
    newest_completed: CheckpointId,
    /// Monotonic time from which the next one may begin, by the interval; nothing begins by itself when checkpointing is off.
    interval_due_ms: u64,
    /// The same by the pause after the last one that ended.
    pause_due_ms: u64,
    failures_in_a_row: u32,
}

impl Coordinator {
    /// For an attempt whose tasks all run since `now_ms` (monotonic).
    #[must_use]
    pub fn new(config: CheckpointConfig, subtasks: BTreeSet<SubtaskId>, now_ms: u64) -> Self {
        let interval_due_ms = now_ms.saturating_add(config.interval_ms.unwrap_or(0));
        Self {
            config,
            subtasks,
            beginning: None,
            wish: None,
            pending: BTreeMap::new(),
            drained: false,
            finished: false,
            newest_completed: 0,
            interval_due_ms,
            pause_due_ms: now_ms,
            failures_in_a_row: 0,
        }
    }

    /// For an attempt whose final checkpoint completed before.
    #[must_use]
    pub fn finished(config: CheckpointConfig, subtasks: BTreeSet<SubtaskId>) -> Self {
        Self { finished: true, drained: true, ..Self::new(config, subtasks, 0) }
    }

    /// Whether the final checkpoint completed: tasks may finish.
    #[cfg(test)]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The checkpoints that have begun and are not decided yet, the oldest first.
    pub fn in_progress(&self) -> impl Iterator<Item = &Pending> {
        self.pending.values().map(|(_, pending)| pending)
    }

    /// Whether a subtask's acknowledgement of the checkpoint is waited for.
    #[must_use]
    pub fn collects(&self, checkpoint_id: CheckpointId) -> bool {
        matches!(self.pending.get(&checkpoint_id), Some((Stage::Collecting, _)))
    }

    /// When [`Event::Tick`] is wanted at the latest, in monotonic milliseconds.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let timeouts = self.pending.values().filter(|(stage, _)| *stage != Stage::Committing);
        let timeouts = timeouts.map(|(_, pending)| self.times_out_at(pending));
        timeouts.chain(self.next().map(|(_, due_ms)| due_ms)).min()
    }

    fn times_out_at(&self, pending: &Pending) -> u64 {
        pending.triggered_at_ms.saturating_add(self.config.timeout_ms)
    }

    /// What begins next, and when, if it has to wait for nothing but its time.
    fn next(&self) -> Option<(Kind, u64)> {
        let has_savepoint = self.pending.values().any(|(_, pending)| pending.is_savepoint);
        if self.finished || self.beginning.is_some() || has_savepoint {
            return None;
        }
        let room = match self.wish {
            Some(mode) if self.drained || mode != SavepointMode::Drain => {
                let kind = Kind { is_final: mode != SavepointMode::Continue, is_savepoint: true };
                return self.pending.is_empty().then_some((kind, 0));
            }
            _ if self.drained => self.pending.is_empty(),
            _ => self.config.is_enabled() && self.pending.len() < self.config.concurrent(),
        };
        room.then(|| (Kind { is_final: self.drained, is_savepoint: false }, self.due_ms()))
    }

    fn due_ms(&self) -> u64 {
        if self.drained { self.pause_due_ms } else { self.interval_due_ms.max(self.pause_due_ms) }
    }

    /// Takes one step at monotonic time `now_ms` and wall-clock time `wall_ms`.
    pub fn step(&mut self, event: Event, now_ms: u64, wall_ms: Timestamp) -> Vec<Effect> {
        let mut effects = match event {
            Event::Tick => self.time_out(now_ms),
            Event::AllDrained => {
                if !self.drained {
                    self.drained = true;
                    self.pause_due_ms = now_ms;
                }
                vec![]
            }
            Event::Wanted => {
                (self.interval_due_ms, self.pause_due_ms) = (now_ms, now_ms);
                vec![]
            }
            Event::Savepoint(mode) => {
                self.wish = Some(mode);
                vec![]
            }
            Event::Begun(checkpoint_id) => self.begun(checkpoint_id, now_ms, wall_ms),
            Event::BeginRefused => match self.beginning.take() {
                Some(Kind { is_savepoint: true, .. }) => {
                    let reason = "the job is not RUNNING any more; ask again when it is".to_string();
                    vec![Effect::SavepointRefused(reason)]
                }
                Some(Kind { is_final, .. }) => {
                    self.interval_due_ms = now_ms.saturating_add(self.config.interval_ms.unwrap_or(0));
                    self.pause(is_final, now_ms);
                    vec![]
                }
                None => vec![],
            },
            Event::Acknowledged { checkpoint_id, subtask, snapshot, phases } => {
                self.acknowledged(checkpoint_id, subtask, snapshot, phases, now_ms)
            }
            Event::Declined { checkpoint_id, reason } => {
                if self.collects(checkpoint_id) {
                    self.fail(checkpoint_id, reason, now_ms)
                } else {
                    vec![]
                }
            }
            Event::Written(checkpoint_id, result) => self.written(checkpoint_id, result, now_ms),
            Event::Committed(checkpoint_id) => self.committed(checkpoint_id, now_ms),
            Event::CommitRefused(checkpoint_id, reason) => {
                if !self.is_at(checkpoint_id, Stage::Committing) {
                    vec![]
                } else if checkpoint_id < self.newest_completed {
                    self.abort(checkpoint_id, reason, now_ms).into_iter().collect()
                } else {
                    self.fail(checkpoint_id, reason, now_ms)
                }
            }
        };
        if let Some((kind, due_ms)) = self.next()
            && now_ms >= due_ms
            && !is_failing(&effects)
        {
            self.beginning = Some(kind);
            if kind.is_savepoint {
                self.wish = None;
            }
            effects.push(Effect::Begin);
        }
        effects
    }

    fn is_at(&self, checkpoint_id: CheckpointId, wanted: Stage) -> bool {
        self.pending.get(&checkpoint_id).is_some_and(|(stage, _)| *stage == wanted)
    }

    fn time_out(&mut self, now_ms: u64) -> Vec<Effect> {
        let late = |(stage, pending): &(Stage, Pending)| {
            *stage != Stage::Committing && now_ms >= self.times_out_at(pending)
        };
        let late: Vec<_> = self.pending.iter().filter(|(_, entry)| late(entry)).map(|(id, _)| *id).collect();
        let mut effects = Vec::new();
        for checkpoint_id in late {
            let Some((stage, pending)) = self.pending.get(&checkpoint_id) else { continue };
            let reason = match stage {
                Stage::Collecting => format!(
                    "it did not complete within {} ms: {} of {} subtasks did not acknowledge it; raise \
                     `execution.checkpointing.timeout` or relieve the slow ones",
                    self.config.timeout_ms,
                    self.subtasks.len() - pending.parts.len(),
                    self.subtasks.len()
                ),
                Stage::Writing | Stage::Committing => format!(
                    "its metadata file was not written within {} ms from its start; check the checkpoint directory",
                    self.config.timeout_ms
                ),
            };
            effects.extend(self.fail(checkpoint_id, reason, now_ms));
        }
        effects
    }

    fn begun(&mut self, checkpoint_id: CheckpointId, now_ms: u64, wall_ms: Timestamp) -> Vec<Effect> {
        let Some(Kind { is_final, is_savepoint }) = self.beginning.take() else { return vec![] };
        if !is_savepoint {
            self.interval_due_ms = now_ms.saturating_add(self.config.interval_ms.unwrap_or(0));
        }
        let pending = Pending {
            checkpoint_id,
            is_final,
            is_savepoint,
            triggered_ms: wall_ms,
            triggered_at_ms: now_ms,
            parts: BTreeMap::new(),
        };
        self.pending.insert(checkpoint_id, (Stage::Collecting, pending));
        vec![Effect::Trigger { checkpoint_id, is_final, is_savepoint, timestamp_ms: wall_ms }]
    }

    fn acknowledged(
        &mut self,
        checkpoint_id: CheckpointId,
        subtask: SubtaskId,
        snapshot: SnapshotHandle,
        phases: CheckpointPhases,
        now_ms: u64,
    ) -> Vec<Effect> {
        let Some((stage @ Stage::Collecting, pending)) = self.pending.get_mut(&checkpoint_id) else {
            return vec![];
        };
        if !self.subtasks.contains(&subtask) {
            return vec![];
        }
        let end_to_end_ms = now_ms.saturating_sub(pending.triggered_at_ms);
        pending.parts.entry(subtask).or_insert(Part { snapshot, phases, end_to_end_ms });
        if pending.parts.len() < self.subtasks.len() {
            return vec![];
        }
        let pending = pending.clone();
        if self.config.is_enabled() || pending.is_savepoint {
            *stage = Stage::Writing;
            vec![Effect::Write(pending)]
        } else {
            *stage = Stage::Committing;
            vec![Effect::Complete { pending, path: None }]
        }
    }

    fn written(
        &mut self,
        checkpoint_id: CheckpointId,
        result: Result<String, String>,
        now_ms: u64,
    ) -> Vec<Effect> {
        let Some((stage @ Stage::Writing, pending)) = self.pending.get_mut(&checkpoint_id) else {
            return vec![];
        };
        match result {
            Ok(path) => {
                *stage = Stage::Committing;
                vec![Effect::Complete { pending: pending.clone(), path: Some(path) }]
            }
            Err(reason) => self.fail(checkpoint_id, reason, now_ms),
        }
    }

    fn committed(&mut self, checkpoint_id: CheckpointId, now_ms: u64) -> Vec<Effect> {
        if !self.is_at(checkpoint_id, Stage::Committing) {
            return vec![];
        }
        let Some((_, pending)) = self.pending.remove(&checkpoint_id) else { return vec![] };
        self.finished = pending.is_final;
        self.pause(false, now_ms);
        if pending.is_savepoint {
            let completed = Effect::Completed { checkpoint_id, is_final: true };
            return if pending.is_final { vec![completed] } else { vec![] };
        }
        self.failures_in_a_row = 0;
        self.newest_completed = self.newest_completed.max(checkpoint_id);
        let mut effects = vec![Effect::Completed { checkpoint_id, is_final: pending.is_final }];
        // What the log has in its hands is refused by it, and ends then.
        let older = self.pending.range(..checkpoint_id).filter(|(_, (stage, _))| *stage != Stage::Committing);
        let older: Vec<_> = older.map(|(id, _)| *id).collect();
        for id in older {
            effects.extend(self.abort(id, format!("checkpoint {checkpoint_id} completed before it"), now_ms));
        }
        effects
    }

    /// A checkpoint failed, and the job too when too many did. Savepoints do not count: whoever asked for one is told.
    fn fail(&mut self, checkpoint_id: CheckpointId, reason: String, now_ms: u64) -> Vec<Effect> {
        if self.pending.get(&checkpoint_id).is_some_and(|(_, pending)| pending.is_savepoint) {
            return self.abort(checkpoint_id, reason, now_ms).into_iter().collect();
        }
        let mut effects: Vec<_> = self.abort(checkpoint_id, reason.clone(), now_ms).into_iter().collect();
        self.failures_in_a_row += 1;
        if self.failures_in_a_row > self.config.tolerable_failures {
            effects.push(Effect::Fail(Failure::external(format!(
                "checkpoint {checkpoint_id} failed, {} in a row where {} are tolerated \
                 (execution.checkpointing.tolerable-failed-checkpoints): {reason}",
                self.failures_in_a_row, self.config.tolerable_failures
            ))));
        }
        effects
    }

    /// Gives up a checkpoint.
    fn abort(&mut self, checkpoint_id: CheckpointId, reason: String, now_ms: u64) -> Option<Effect> {
        let (_, pending) = self.pending.remove(&checkpoint_id)?;
        self.pause(pending.is_final, now_ms);
        let duration_ms = now_ms.saturating_sub(pending.triggered_at_ms);
        Some(Effect::Aborted { pending, reason, duration_ms })
    }

    /// One has ended, now: the next one waits for the pause. A final one that failed is not repeated at once, and one that
    /// has been waiting for others waits no longer.
    fn pause(&mut self, was_final: bool, now_ms: u64) {
        let pause_ms = match (self.drained, was_final) {
            (false, _) => self.config.min_pause_ms,
            (true, true) => self.config.min_pause_ms.max(FINAL_RETRY_PAUSE_MS),
            (true, false) => 0,
        };
        self.pause_due_ms = now_ms.saturating_add(pause_ms);
    }
}

/// Whether the job is about to fail: then no checkpoint begins any more.
fn is_failing(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Fail(_)))
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
