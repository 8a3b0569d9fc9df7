//! What clients are told of a job's checkpoints: those in the log, and how the last ones went.

use thalweg_proto::v1;

use crate::checkpoint::Statistics;
use crate::checkpoint::history::Standing;
use crate::cluster::{CompletedCheckpoint, JobRecord};

/// Everything about the checkpoints of a job.
pub(super) fn answer(job: &JobRecord, history: &[Statistics]) -> v1::ListCheckpointsResponse {
    let in_progress = history.iter().any(|one| one.standing == Standing::InProgress);
    let subtasks = u32::try_from(job.graph.subtasks().count()).unwrap_or(u32::MAX);
    v1::ListCheckpointsResponse {
        summary: Some(summary(job, in_progress)),
        retained: job.checkpoints.iter().map(retained).collect(),
        history: history.iter().map(|one| statistics(one, subtasks)).collect(),
    }
}

/// How many checkpoints there were, and the latest.
pub(super) fn summary(job: &JobRecord, in_progress: bool) -> v1::CheckpointSummary {
    let base = v1::CheckpointSummary {
        completed: job.checkpoints_completed,
        failed: job.checkpoints_failed,
        in_progress,
        restored_id: job.restored.unwrap_or(0),
        ..v1::CheckpointSummary::default()
    };
    let Some(latest) = job.latest_checkpoint() else { return base };
    v1::CheckpointSummary {
        latest_id: latest.id,
        latest_time_ms: latest.completed_ms,
        latest_duration_ms: u64::try_from(latest.completed_ms.saturating_sub(latest.triggered_ms))
            .unwrap_or(0),
        latest_bytes: latest.size_bytes,
        latest_path: latest.path.clone().unwrap_or_default(),
        ..base
    }
}

fn retained(checkpoint: &CompletedCheckpoint) -> v1::RetainedCheckpoint {
    v1::RetainedCheckpoint {
        checkpoint_id: checkpoint.id,
        attempt: checkpoint.attempt,
        triggered_ms: checkpoint.triggered_ms,
        completed_ms: checkpoint.completed_ms,
        size_bytes: checkpoint.size_bytes,
        path: checkpoint.path.clone().unwrap_or_default(),
        r#final: checkpoint.is_final,
        unreadable: checkpoint.unreadable.clone().unwrap_or_default(),
    }
}

fn statistics(one: &Statistics, subtasks_total: u32) -> v1::CheckpointStatistics {
    let (status, failure) = match &one.standing {
        Standing::InProgress => (v1::CheckpointStatus::InProgress, String::new()),
        Standing::Completed => (v1::CheckpointStatus::Completed, String::new()),
        Standing::Failed(reason) => (v1::CheckpointStatus::Failed, reason.clone()),
    };
    let subtasks = one.parts.iter().map(|(subtask, part)| v1::SubtaskCheckpoint {
        subtask: Some((*subtask).into()),
        end_to_end_ms: part.end_to_end_ms,
        state_bytes: part.state_bytes,
        phases: Some(part.phases.into()),
    });
    v1::CheckpointStatistics {
        checkpoint_id: one.checkpoint_id,
        attempt: one.attempt,
        status: status.into(),
        r#final: one.is_final,
        triggered_ms: one.triggered_ms,
        duration_ms: one.duration_ms,
        failure,
        subtasks_total,
        subtasks: subtasks.collect(),
    }
}
