//! From what the log and the leader know of a job to what reports are made of. Pure.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::Timestamp;
use thalweg_common::graph::{JobGraph, Partitioning};
use thalweg_common::id::{Attempt, JobId, SubtaskId, VertexId};
use thalweg_common::status::JobStatus;
use thalweg_metrics::sight::{CheckpointSight, JobSight, TaskManagerSight, TaskSight};
use thalweg_metrics::window::RateWindow;
use thalweg_proto::metrics::TaskRates;
use thalweg_proto::model::TaskCounters;

use crate::cluster::JobRecord;
use crate::leader::{LiveJob, LiveTask, TaskManagerView};

/// How long a job is reported behind its end: long enough for a report of each kind to say that it has ended.
const REPORTED_AFTER_END_MS: i64 = 60_000;

/// The last minute of all subtasks.
#[derive(Default)]
pub(super) struct Windows {
    of: BTreeMap<(JobId, SubtaskId), (Attempt, RateWindow)>,
}

impl Windows {
    /// Forgets the subtasks of jobs that are not reported any more, and of those that they have no more.
    pub(super) fn retain(&mut self, jobs: &[JobSight]) {
        let known: BTreeSet<_> = jobs
            .iter()
            .flat_map(|job| job.tasks.iter().map(|task| (job.id, task.counters.subtask)))
            .collect();
        self.of.retain(|key, _| known.contains(key));
    }

    fn add(&mut self, job: JobId, attempt: Attempt, counters: &TaskCounters) -> &RateWindow {
        let (known, window) = self.of.entry((job, counters.subtask)).or_default();
        if std::mem::replace(known, attempt) != attempt {
            *window = RateWindow::default();
        }
        window.add(counters);
        window
    }
}

/// Whether a job is reported at all.
pub(super) fn is_reported(job: &JobRecord, now_ms: Timestamp) -> bool {
    job.ended_ms.is_none_or(|ended_ms| now_ms - ended_ms < REPORTED_AFTER_END_MS)
}

/// A job at this moment.
pub(super) fn of(
    job: &JobRecord,
    live: &LiveJob,
    managers: &[TaskManagerView],
    windows: &mut Windows,
) -> JobSight {
    let last_change = job.history.back().filter(|change| change.to == job.status);
    let left_running = job.history.iter().rfind(|change| change.from == JobStatus::Running);
    let last_checkpoint = job.latest_checkpoint().map(|checkpoint| CheckpointSight {
        size_bytes: checkpoint.size_bytes,
        duration_ms: u64::try_from(checkpoint.completed_ms - checkpoint.triggered_ms).unwrap_or(0),
        alignment_ms: live.last_alignment_ms,
    });
    let tasks: Vec<_> =
        live.tasks.iter().filter_map(|(subtask, task)| of_task(job, *subtask, task, windows)).collect();
    let hosts: BTreeSet<_> = tasks.iter().map(|task: &TaskSight| task.task_manager.as_str()).collect();
    let manager = |view: &TaskManagerView| {
        let process = view.process.filter(|_| hosts.contains(view.id.0.as_str()))?;
        Some(TaskManagerSight { id: view.id.to_string(), host: view.host.clone(), process })
    };
    JobSight {
        name: job.name.clone(),
        id: job.id,
        status: job.status,
        status_since_ms: last_change.map_or(job.submitted_ms, |change| change.time_ms),
        stopped_running_ms: left_running.map(|change| change.time_ms),
        restarts: u64::from(job.attempt.saturating_sub(1)),
        full_restarts: job.full_restarts,
        failed_checkpoints: job.checkpoints_failed,
        last_checkpoint,
        task_managers: managers.iter().filter_map(manager).collect(),
        tasks,
    }
}

/// A subtask; nothing if what was told of it cannot be read.
fn of_task(job: &JobRecord, subtask: SubtaskId, task: &LiveTask, windows: &mut Windows) -> Option<TaskSight> {
    let mut counters = TaskCounters::try_from(task.counters.clone()).ok()?;
    counters.name.clone_from(&job.graph.vertices.get(subtask.vertex as usize)?.name);
    let earlier = task.earlier.clone().map(TaskCounters::try_from).transpose().ok()?;
    let minute = windows.add(job.id, task.attempt, &counters).rates(&counters);
    Some(TaskSight {
        task_manager: task.task_manager.to_string(),
        attempt: task.attempt,
        is_source: is_source(&job.graph, subtask.vertex),
        sinks: sinks(&job.graph, subtask.vertex),
        rates: TaskRates::between(earlier.as_ref(), &counters).filter(|_| !counters.status.is_terminal()),
        minute,
        counters,
    })
}

/// Whether a vertex reads from outside: not from others, and not only what there is to read, as an enumerator.
fn is_source(graph: &JobGraph, vertex: VertexId) -> bool {
    let is_splits = |partitioning| partitioning == Partitioning::Splits;
    graph.inputs(vertex).all(|(_, edge)| is_splits(edge.partitioning))
        && !graph.outputs(vertex).any(|(_, edge)| is_splits(edge.partitioning))
}

/// The operators of a vertex whose output nobody reads.
fn sinks(graph: &JobGraph, vertex: VertexId) -> Vec<u32> {
    let Some(operators) = graph.vertices.get(vertex as usize).map(|vertex| &vertex.operators) else {
        return Vec::new();
    };
    let is_read = |position: &u32| {
        operators.iter().skip(1).any(|operator| operator.inputs.contains(position))
            || graph.outputs(vertex).any(|(_, edge)| edge.source_operator == *position)
    };
    (0..operators.len() as u32).filter(|position| !is_read(position)).collect()
}
