//! What the leader knows beside the replicated state, for those who ask.

use std::collections::BTreeMap;

use thalweg_common::Timestamp;
use thalweg_common::id::{Attempt, SubtaskId, TaskManagerId};
use thalweg_common::status::TaskStatus;
use thalweg_proto::model::ProcessMetrics;
use thalweg_proto::v1;

use super::samples::Samples;
use crate::job::JobCore;

/// The live side of a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveJob {
    /// What it waits for; may be empty.
    pub(crate) waits_for: String,
    pub(crate) tasks: BTreeMap<SubtaskId, LiveTask>,
    pub(crate) checkpoint_in_progress: bool,
    /// Of the last checkpoint: how long a subtask has waited for barriers at most.
    pub(crate) last_alignment_ms: Option<u64>,
}

/// A task that has a slot.
#[derive(Debug, Clone)]
pub(crate) struct LiveTask {
    /// The attempt that started it.
    pub(crate) attempt: Attempt,
    pub(crate) task_manager: TaskManagerId,
    pub(crate) status: TaskStatus,
    /// As last reported.
    pub(crate) counters: v1::TaskCounters,
    /// As reported before that.
    pub(crate) earlier: Option<v1::TaskCounters>,
}

impl LiveJob {
    pub(super) fn new(core: &JobCore, samples: &BTreeMap<SubtaskId, Samples>) -> Self {
        let task = |(subtask, task_manager, status): (SubtaskId, &TaskManagerId, TaskStatus)| {
            let Samples { latest: mut counters, earlier } =
                samples.get(&subtask).cloned().unwrap_or_default();
            counters.subtask = Some(subtask.into());
            counters.set_status(status.into());
            let attempt = core.task_attempt(subtask).unwrap_or_else(|| core.attempt());
            (subtask, LiveTask { attempt, task_manager: task_manager.clone(), status, counters, earlier })
        };
        Self {
            waits_for: core.waits_for().to_string(),
            tasks: core.tasks().map(task).collect(),
            checkpoint_in_progress: core.checkpoint_in_progress(),
            last_alignment_ms: core.last_alignment_ms(),
        }
    }
}

/// A registered task manager.
#[derive(Debug, Clone)]
pub(crate) struct TaskManagerView {
    pub(crate) id: TaskManagerId,
    pub(crate) host: String,
    pub(crate) slots_total: u32,
    pub(crate) slots_free: u32,
    pub(crate) labels: Vec<String>,
    pub(crate) connected_since_ms: Timestamp,
    pub(crate) last_heartbeat_ms: Timestamp,
    /// What it takes of its machine, as it said last.
    pub(crate) process: Option<ProcessMetrics>,
}

/// The end of one log of one worker.
#[derive(Debug, Clone)]
pub(crate) struct LogPiece {
    pub(crate) task_manager: TaskManagerId,
    pub(crate) part: v1::LogPart,
}
