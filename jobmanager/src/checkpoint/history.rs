//! The last checkpoints of a job for people: how each went and what every subtask's part took.
//!
//! Kept by the leader beside the replicated state, which has only what a restore needs: a new leader begins with none.
//! Invariant: at most [`CHECKPOINT_HISTORY`] are remembered, and each once, with its last news.

use std::collections::{BTreeMap, VecDeque};

use thalweg_common::Timestamp;
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId};
use thalweg_common::limits::CHECKPOINT_HISTORY;
use thalweg_proto::convert::CheckpointPhases;

use super::coordinator::Pending;

/// How far a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Not decided yet.
    InProgress,
    /// It is in the log.
    Completed,
    /// It will never complete: why.
    Failed(String),
}

/// How a checkpoint went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Its id.
    pub checkpoint_id: CheckpointId,
    /// The attempt that took it.
    pub attempt: Attempt,
    /// Whether all tasks were drained when it was triggered.
    pub is_final: bool,
    /// Wall clock at its trigger, milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// From its trigger to its end, or to the last acknowledgement.
    pub duration_ms: u64,
    /// How far it is.
    pub standing: Standing,
    /// What was acknowledged.
    pub parts: BTreeMap<SubtaskId, PartStatistics>,
}

/// How a subtask's part of a checkpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartStatistics {
    /// From the trigger to the acknowledgement.
    pub end_to_end_ms: u64,
    /// Of all its state.
    pub state_bytes: u64,
    /// What it took.
    pub phases: CheckpointPhases,
}

impl Statistics {
    /// Of a checkpoint that has been triggered.
    #[must_use]
    pub fn of(pending: &Pending, attempt: Attempt, standing: Standing) -> Self {
        let part = |part: &super::coordinator::Part| PartStatistics {
            end_to_end_ms: part.end_to_end_ms,
            state_bytes: part.snapshot.state_bytes(),
            phases: part.phases,
        };
        Self {
            checkpoint_id: pending.checkpoint_id,
            attempt,
            is_final: pending.is_final,
            triggered_ms: pending.triggered_ms,
            duration_ms: pending.duration_ms(),
            standing,
            parts: pending
                .parts
                .iter()
                .map(|(subtask, acknowledged)| (*subtask, part(acknowledged)))
                .collect(),
        }
    }
}

/// The last checkpoints that have ended, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    ended: VecDeque<Statistics>,
}

impl History {
    /// Remembers one that has ended, and forgets the oldest beyond the limit.
    pub fn add(&mut self, statistics: Statistics) {
        self.ended.retain(|known| known.checkpoint_id != statistics.checkpoint_id);
        let behind = self.ended.iter().rposition(|known| known.checkpoint_id < statistics.checkpoint_id);
        self.ended.insert(behind.map_or(0, |at| at + 1), statistics);
        while self.ended.len() > CHECKPOINT_HISTORY {
            self.ended.pop_front();
        }
    }

    /// Those that are remembered, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Statistics> {
        self.ended.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(checkpoint_id: CheckpointId, standing: Standing) -> Statistics {
        Statistics {
            checkpoint_id,
            attempt: 1,
            is_final: false,
            triggered_ms: 1,
            duration_ms: 2,
            standing,
            parts: BTreeMap::new(),
        }
    }

    #[test]
    fn the_last_ones_are_remembered_in_order_and_each_once() {
        let mut history = History::default();
        for id in [2, 1, 3] {
            history.add(statistics(id, Standing::Failed("late".into())));
        }
        history.add(statistics(2, Standing::Completed));
        let ids: Vec<_> = history.iter().map(|one| one.checkpoint_id).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert!(history.iter().any(|one| one.checkpoint_id == 2 && one.standing == Standing::Completed));
        for id in 4..40 {
            history.add(statistics(id, Standing::Completed));
        }
        assert_eq!(history.iter().count(), CHECKPOINT_HISTORY);
        assert_eq!(history.iter().last().map(|one| one.checkpoint_id), Some(39));
    }
}
