//! The checkpoints of a job: how many, what they took, which can be restored.
//!
//! Of those that went well lately and of those that failed the leader remembers what each subtask's part took; what can be restored is in
//! the log. What a new leader does not know of an older one is left out.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use thalweg_common::config::{CheckpointMode, CheckpointRetention};
use thalweg_common::id::{CheckpointId, SubtaskId, VertexId};
use thalweg_proto::convert::CheckpointPhases;

use super::error::{Answer, RestError};
use super::job::numbers;
use super::traffic::summary;
use super::{Rest, ids};
use crate::checkpoint::Statistics;
use crate::checkpoint::history::{PartStatistics, Standing};
use crate::cluster::{CompletedCheckpoint, JobRecord};

/// `GET /jobs/{jobid}/checkpoints`
pub(super) async fn list(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let (job, history) = known(&rest, &id).await?;
    let in_progress = history.iter().filter(|one| one.standing == Standing::InProgress).count() as u64;
    let ended = job.checkpoints_completed + job.checkpoints_failed;
    let newest_first = history.iter().rev().map(|one| of_history(&job, one, false));
    Ok(Json(json!({
        "counts": {
            "total": ended + in_progress,
            "in_progress": in_progress,
            "completed": job.checkpoints_completed,
            "failed": job.checkpoints_failed,
        },
        "summary": summary_of(&history),
        "latest": latest(&job, &history),
        "history": newest_first.collect::<Vec<_>>(),
    })))
}

/// `GET /jobs/{jobid}/checkpoints/config`
pub(super) async fn settings(State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let job = rest.jobs.record(ids::job(&id)?)?;
    let own = &job.graph.checkpointing;
    let mode = match own.mode {
        CheckpointMode::ExactlyOnce => "exactly_once",
        CheckpointMode::AtLeastOnce => "at_least_once",
    };
    Ok(Json(json!({
        "mode": mode,
        // Flink's word for never.
        "interval": own.interval_ms.unwrap_or(i64::MAX.unsigned_abs()),
        "timeout": own.timeout_ms,
        "min_pause": own.min_pause_ms,
        "max_concurrent": own.concurrent(),
        "externalization": {
            "enabled": own.retention != CheckpointRetention::NoExternalized,
            "delete_on_cancellation": own.retention != CheckpointRetention::RetainOnCancellation,
        },
        "unaligned_checkpoints": own.unaligned,
        "tolerable_failed_checkpoints": own.tolerable_failures,
        "aligned_checkpoint_timeout": own.aligned_timeout_ms,
        "checkpoints_after_tasks_finish": true,
        "state_changelog_enabled": false,
    })))
}

/// `GET /jobs/{jobid}/checkpoints/details/{checkpointid}`
pub(super) async fn details(
    State(rest): State<Rest>,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Answer {
    let (job, history) = known(&rest, &id).await?;
    let wanted = number(&checkpoint)?;
    if let Some(one) = history.iter().find(|one| one.checkpoint_id == wanted) {
        return Ok(Json(of_history(&job, one, true)));
    }
    let retained = job.checkpoints.iter().chain(&job.savepoints).find(|one| one.id == wanted);
    let retained = retained.ok_or_else(|| forgotten(wanted))?;
    Ok(Json(of_record(&job, retained)))
}

/// `GET /jobs/{jobid}/checkpoints/details/{checkpointid}/subtasks/{vertexid}`
pub(super) async fn subtasks(
    State(rest): State<Rest>,
    Path((id, checkpoint, vertex)): Path<(String, String, String)>,
) -> Answer {
    let (job, history) = known(&rest, &id).await?;
    let wanted = number(&checkpoint)?;
    let vertex = ids::vertex(&job.graph, &vertex)?;
    let one = history.iter().find(|one| one.checkpoint_id == wanted).ok_or_else(|| forgotten(wanted))?;
    let mut all = of_vertex(&job, one, vertex);
    let parts: Vec<_> = of_parts(one, vertex).collect();
    let figures =
        |of: fn(&PartStatistics) -> u64| summary(&parts.iter().map(|(_, part)| of(part)).collect::<Vec<_>>());
    all.insert(
        "summary".to_string(),
        json!({
            "checkpointed_size": figures(|part| part.phases.incremental_bytes),
            "state_size": figures(|part| part.state_bytes),
            "end_to_end_duration": figures(|part| part.end_to_end_ms),
            "checkpoint_duration": {
                "sync": figures(|part| ms(part.phases.sync_us)),
                "async": figures(|part| ms(part.phases.async_us)),
            },
            "alignment": {
                "processed": figures(|part| part.phases.aligned_bytes),
                "persisted": figures(|part| part.phases.persisted_bytes),
                "duration": figures(|part| ms(part.phases.alignment_us)),
            },
            "start_delay": figures(|part| ms(part.phases.start_delay_us)),
        }),
    );
    let parallelism = parallelism(&job, vertex);
    let subtask = |index: u32| subtask(&job, one, SubtaskId { vertex, index });
    all.insert("subtasks".to_string(), (0..parallelism).map(subtask).collect());
    Ok(Json(Value::Object(all)))
}

async fn known(rest: &Rest, id: &str) -> Result<(JobRecord, Vec<Statistics>), RestError> {
    let job_id = ids::job(id)?;
    let history = rest.jobs.checkpoints(job_id).await?;
    Ok((rest.jobs.record(job_id)?, history))
}

fn number(text: &str) -> Result<CheckpointId, RestError> {
    let number = text.parse();
    number.map_err(|_| RestError::bad_request(format!("`{text}` is no number of a checkpoint")))
}

fn forgotten(checkpoint: CheckpointId) -> RestError {
    RestError::not_found(format!(
        "checkpoint {checkpoint} is not known: it never was, or is too old, or another job manager led when it was taken"
    ))
}

fn ms(us: u64) -> u64 {
    us / 1_000
}

fn parallelism(job: &JobRecord, vertex: VertexId) -> u32 {
    job.graph.vertices.get(vertex as usize).map_or(0, |vertex| vertex.parallelism)
}

/// Over the completed ones that the leader remembers.
fn summary_of(history: &[Statistics]) -> Value {
    let completed: Vec<_> = history.iter().filter(|one| one.standing == Standing::Completed).collect();
    let figures =
        |of: fn(&Statistics) -> u64| summary(&completed.iter().map(|one| of(one)).collect::<Vec<_>>());
    json!({
        "checkpointed_size": figures(|one| total(one.parts.values(), |part| part.phases.incremental_bytes)),
        "state_size": figures(|one| total(one.parts.values(), |part| part.state_bytes)),
        "end_to_end_duration": figures(|one| one.duration_ms),
        "processed_data": figures(|one| total(one.parts.values(), |part| part.phases.aligned_bytes)),
        "persisted_data": figures(|one| total(one.parts.values(), |part| part.phases.persisted_bytes)),
    })
}

fn total<'a>(parts: impl Iterator<Item = &'a PartStatistics>, of: fn(&PartStatistics) -> u64) -> u64 {
    parts.map(of).sum()
}

fn latest(job: &JobRecord, history: &[Statistics]) -> Value {
    let of_id = |id| history.iter().find(|one| one.checkpoint_id == id);
    let kept = |kept: Option<&CompletedCheckpoint>| {
        kept.map(|kept| {
            of_id(kept.id).map_or_else(|| of_record(job, kept), |one| of_history(job, one, false))
        })
    };
    let failed = history.iter().rfind(|one| matches!(one.standing, Standing::Failed(_)));
    let restored = job.restored.map(|id| {
        let checkpoint = job.checkpoints.iter().find(|one| one.id == id);
        let path = checkpoint.and_then(|one| one.path.clone());
        let path =
            path.or_else(|| job.base.as_ref().filter(|base| base.id == id).map(|base| base.path.clone()));
        let mut restored = Map::from_iter([
            ("id".to_string(), id.into()),
            ("is_savepoint".to_string(), checkpoint.is_none().into()),
        ]);
        restored.extend(path.map(|path| ("external_path".to_string(), path.into())));
        Value::Object(restored)
    });
    json!({
        "completed": kept(job.latest_checkpoint()),
        "savepoint": kept(job.savepoints.back()),
        "failed": failed.map(|one| of_history(job, one, false)),
        "restored": restored,
    })
}

fn is_savepoint(job: &JobRecord, id: CheckpointId) -> bool {
    job.savepoints.iter().any(|savepoint| savepoint.id == id)
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::InProgress => "IN_PROGRESS",
        Standing::Completed => "COMPLETED",
        Standing::Failed(_) => "FAILED",
    }
}

/// One that the leader remembers.
fn of_history(job: &JobRecord, one: &Statistics, with_tasks: bool) -> Value {
    let parts = || one.parts.values();
    let savepoint = is_savepoint(job, one.checkpoint_id);
    let mut all = Map::from_iter([
        ("className".to_string(), word(&one.standing).to_lowercase().into()),
        ("is_savepoint".to_string(), savepoint.into()),
        ("trigger_timestamp".to_string(), one.triggered_ms.into()),
        ("checkpoint_type".to_string(), kind(job, one, savepoint).into()),
    ]);
    let subtasks: Vec<_> = job.graph.subtasks().collect();
    all.extend(figures(one, parts, subtasks.len()));
    match &one.standing {
        Standing::InProgress => {}
        Standing::Completed => {
            let kept =
                job.checkpoints.iter().chain(&job.savepoints).find(|kept| kept.id == one.checkpoint_id);
            all.insert("discarded".to_string(), kept.is_none().into());
            let path = kept.and_then(|kept| kept.path.clone());
            all.extend(path.map(|path| ("external_path".to_string(), path.into())));
        }
        Standing::Failed(reason) => {
            all.insert("failure_timestamp".to_string(), after(one, one.duration_ms).into());
            all.insert("failure_message".to_string(), reason.clone().into());
        }
    }
    let tasks: BTreeMap<_, _> = match with_tasks {
        true => numbers(&job.graph)
            .map(|vertex| (ids::of_vertex(&job.graph, vertex), Value::Object(of_vertex(job, one, vertex))))
            .collect(),
        false => BTreeMap::new(),
    };
    all.insert("tasks".to_string(), json!(tasks));
    Value::Object(all)
}

fn kind(job: &JobRecord, one: &Statistics, savepoint: bool) -> &'static str {
    let unaligned =
        job.graph.checkpointing.unaligned && one.parts.values().any(|part| part.phases.persisted_bytes > 0);
    match (savepoint, one.is_final, unaligned) {
        (true, true, _) => "SYNC_SAVEPOINT",
        (true, false, _) => "SAVEPOINT",
        (false, _, true) => "UNALIGNED_CHECKPOINT",
        (false, _, false) => "CHECKPOINT",
    }
}

/// What the log says of one that can be restored, and no more.
fn of_record(job: &JobRecord, kept: &CompletedCheckpoint) -> Value {
    let savepoint = is_savepoint(job, kept.id);
    let mut all = Map::from_iter([
        ("className".to_string(), "completed".into()),
        ("id".to_string(), kept.id.into()),
        ("status".to_string(), "COMPLETED".into()),
        ("is_savepoint".to_string(), savepoint.into()),
        ("trigger_timestamp".to_string(), kept.triggered_ms.into()),
        ("latest_ack_timestamp".to_string(), kept.completed_ms.into()),
        ("state_size".to_string(), kept.size_bytes.into()),
        ("end_to_end_duration".to_string(), (kept.completed_ms - kept.triggered_ms).max(0).into()),
        ("checkpoint_type".to_string(), if savepoint { "SAVEPOINT" } else { "CHECKPOINT" }.into()),
        ("discarded".to_string(), false.into()),
        ("tasks".to_string(), Value::Object(Map::new())),
    ]);
    all.extend(kept.path.clone().map(|path| ("external_path".to_string(), path.into())));
    Value::Object(all)
}

fn after(one: &Statistics, duration_ms: u64) -> i64 {
    one.triggered_ms.saturating_add(i64::try_from(duration_ms).unwrap_or(i64::MAX))
}

/// What a whole checkpoint and a vertex's part of it have in common.
fn figures<'a, I: Iterator<Item = &'a PartStatistics>>(
    one: &Statistics,
    parts: impl Fn() -> I,
    subtasks: usize,
) -> Map<String, Value> {
    let acknowledged = parts().count();
    let slowest_ms = parts().map(|part| part.end_to_end_ms).max();
    let figures = [
        ("id", one.checkpoint_id.into()),
        ("status", word(&one.standing).into()),
        ("latest_ack_timestamp", slowest_ms.map_or(-1, |slowest_ms| after(one, slowest_ms)).into()),
        ("checkpointed_size", total(parts(), |part| part.phases.incremental_bytes).into()),
        ("state_size", total(parts(), |part| part.state_bytes).into()),
        ("end_to_end_duration", slowest_ms.unwrap_or(0).into()),
        ("processed_data", total(parts(), |part| part.phases.aligned_bytes).into()),
        ("persisted_data", total(parts(), |part| part.phases.persisted_bytes).into()),
        ("num_subtasks", subtasks.into()),
        ("num_acknowledged_subtasks", acknowledged.into()),
    ];
    figures.into_iter().map(|(name, figure): (&str, Value)| (name.to_string(), figure)).collect()
}

fn of_parts(one: &Statistics, vertex: VertexId) -> impl Iterator<Item = (&SubtaskId, &PartStatistics)> {
    one.parts.iter().filter(move |(subtask, _)| subtask.vertex == vertex)
}

fn of_vertex(job: &JobRecord, one: &Statistics, vertex: VertexId) -> Map<String, Value> {
    figures(one, || of_parts(one, vertex).map(|(_, part)| part), parallelism(job, vertex) as usize)
}

fn subtask(job: &JobRecord, one: &Statistics, subtask: SubtaskId) -> Value {
    let Some(part) = one.parts.get(&subtask) else {
        return json!({ "className": "pending", "index": subtask.index, "status": "pending_or_failed" });
    };
    let CheckpointPhases { start_delay_us, alignment_us, sync_us, async_us, .. } = part.phases;
    json!({
        "className": "completed",
        "index": subtask.index,
        "status": "completed",
        "ack_timestamp": after(one, part.end_to_end_ms),
        "end_to_end_duration": part.end_to_end_ms,
        "checkpointed_size": part.phases.incremental_bytes,
        "state_size": part.state_bytes,
        "checkpoint": { "sync": ms(sync_us), "async": ms(async_us) },
        "alignment": {
            "processed": part.phases.aligned_bytes,
            "persisted": part.phases.persisted_bytes,
            "duration": ms(alignment_us),
        },
        "start_delay": ms(start_delay_us),
        "unaligned_checkpoint": job.graph.checkpointing.unaligned && part.phases.persisted_bytes > 0,
        "aborted": false,
    })
}
