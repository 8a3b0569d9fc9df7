//! What a cluster tells about its jobs and machines, as clients see it.
//!
//! The checked counterparts of the answers in `job.proto`. Their serde form is the JSON which `thalweg --output json`
//! prints: field names are stable, ids are text, times are milliseconds since the epoch.

mod checkpoints;
mod counters;
mod regions;
mod savepoints;
pub mod time;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, CheckpointId, JobId, Term, VertexId};
use thalweg_common::manifest::Report;
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::status::JobStatus;

use crate::blob::BlobHash;
use crate::convert::{Malformed, WireId, failure, job_status, properties_from_wire, required};
use crate::metrics::TaskMetrics;
use crate::v1;

pub use checkpoints::{
    CheckpointStatistics, CheckpointStatus, Checkpoints, RetainedCheckpoint, SubtaskCheckpoint,
};
pub use counters::{
    HistogramStatistics, MetricScope, MetricValue, OperatorCounters, ProcessMetrics, TaskCounters, UserMetric,
};
pub use regions::RegionDetails;
pub use savepoints::{SavepointMode, SavepointProgress, SavepointSummary};

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// 0 stands for "not yet" on the wire.
fn some_time(time_ms: Timestamp) -> Option<Timestamp> {
    (time_ms != 0).then_some(time_ms)
}

fn all<W, T: TryFrom<W>>(values: Vec<W>) -> Result<Vec<T>, T::Error> {
    values.into_iter().map(T::try_from).collect()
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubmitResult {
    /// The job that was made.
    #[serde(serialize_with = "as_text")]
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Whether this submission id had been accepted before.
    pub repeated: bool,
    /// For the author, each naming file and line.
    pub warnings: Vec<String>,
    /// What becomes of the state, for a job that begins with a savepoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

impl TryFrom<v1::SubmitResult> for SubmitResult {
    type Error = Malformed;

    fn try_from(result: v1::SubmitResult) -> Result<Self, Malformed> {
        let report = Some(result.report).filter(|report| !report.is_empty());
        let report = report.map(|report| {
            serde_json::from_str(&report).map_err(|error| Malformed::new("result.report", error.to_string()))
        });
        Ok(Self {
            job_id: JobId::from_wire("result.job_id", &result.job_id)?,
            name: result.name,
            repeated: result.repeated,
            warnings: result.warnings,
            report: report.transpose()?,
        })
    }
}

/// A job in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobSummary {
    /// The job.
    #[serde(serialize_with = "as_text")]
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: JobStatus,
    /// The present execution attempt; 0 before the first.
    pub attempt: Attempt,
    /// When it was accepted.
    pub start_time_ms: Timestamp,
    /// When it ended, if it has.
    pub end_time_ms: Option<Timestamp>,
    /// How many tasks it has.
    pub tasks_total: u32,
    /// How many of them run.
    pub tasks_running: u32,
    /// Why it is in its state. May be empty.
    pub reason: String,
}

impl TryFrom<v1::JobSummary> for JobSummary {
    type Error = Malformed;

    fn try_from(summary: v1::JobSummary) -> Result<Self, Malformed> {
        Ok(Self {
            job_id: JobId::from_wire("summary.job_id", &summary.job_id)?,
            name: summary.name,
            status: job_status("summary.status", summary.status)?,
            attempt: summary.attempt,
            start_time_ms: summary.start_time_ms,
            end_time_ms: some_time(summary.end_time_ms),
            tasks_total: summary.tasks_total,
            tasks_running: summary.tasks_running,
            reason: summary.reason,
        })
    }
}

/// Everything about a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobDetails {
    /// The job in one line.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// Its vertices, sources first.
    pub vertices: Vec<VertexDetails>,
    /// Its checkpoints.
    pub checkpoints: CheckpointSummary,
    /// Its failures, the newest last.
    pub failures: Vec<FailureRecord>,
    /// Its changes of state, the newest last.
    pub history: Vec<StatusChange>,
    /// Its binary. Absent for a job that was built inside the cluster's own process.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_text")]
    pub sha256: Option<BlobHash>,
    /// What was given to the binary.
    pub arguments: Vec<String>,
    /// Settings that win over those in the program.
    pub configuration: BTreeMap<String, String>,
    /// What its program reads as runtime properties. Values of keys that look like secrets are hidden.
    pub properties: RuntimeProperties,
    /// For the author, from the plan.
    pub warnings: Vec<String>,
    /// The size of its binary.
    pub size_bytes: u64,
    /// What is restarted together when a task fails.
    pub regions: Vec<RegionDetails>,
    /// Its plan, if the cluster tells it.
    #[serde(skip)]
    pub graph: Option<JobGraph>,
}

fn as_optional_text<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl TryFrom<v1::JobDetails> for JobDetails {
    type Error = Malformed;

    fn try_from(details: v1::JobDetails) -> Result<Self, Malformed> {
        let sha256 = if details.sha256.is_empty() {
            None
        } else {
            Some(BlobHash::from_wire("details.sha256", &details.sha256)?)
        };
        let graph = Some(details.graph).filter(|graph| !graph.is_empty());
        let graph = graph.map(|graph| time::plan("details.graph", &graph)).transpose()?;
        Ok(Self {
            summary: required("details.summary", details.summary)?.try_into()?,
            vertices: all(details.vertices)?,
            checkpoints: details.checkpoints.unwrap_or_default().into(),
            failures: all(details.failures)?,
            history: all(details.history)?,
            sha256,
            arguments: details.arguments,
            configuration: details.configuration,
            properties: properties_from_wire(details.properties)
                .map_err(|error| Malformed::new("details.properties", error.to_string()))?,
            warnings: details.warnings,
            size_bytes: details.size_bytes,
            regions: graph.as_ref().map(regions::of).unwrap_or_default(),
            graph,
        })
    }
}

/// A vertex of the job graph and its tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VertexDetails {
    /// Its number.
    pub vertex: VertexId,
    /// The names of its operators, joined by ` -> `.
    pub name: String,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// How many it may ever have.
    pub max_parallelism: u32,
    /// Its subtasks.
    pub subtasks: Vec<SubtaskDetails>,
}

impl TryFrom<v1::VertexDetails> for VertexDetails {
    type Error = Malformed;

    fn try_from(vertex: v1::VertexDetails) -> Result<Self, Malformed> {
        Ok(Self {
            vertex: vertex.vertex,
            name: vertex.name,
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            subtasks: all(vertex.subtasks)?,
        })
    }
}

/// One subtask and where it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubtaskDetails {
    /// What it has done so far.
    #[serde(flatten)]
    pub counters: TaskCounters,
    /// The same as metrics, with rates over the time between the last two reports of it.
    pub metrics: TaskMetrics,
    /// Where it runs; empty without a slot.
    pub task_manager: String,
    /// Its execution attempt.
    pub attempt: Attempt,
}

impl TryFrom<v1::SubtaskDetails> for SubtaskDetails {
    type Error = Malformed;

    fn try_from(details: v1::SubtaskDetails) -> Result<Self, Malformed> {
        let counters = required("subtask.counters", details.counters)?.try_into()?;
        let earlier = details.earlier.map(TaskCounters::try_from).transpose()?;
        Ok(Self {
            metrics: TaskMetrics::between(earlier.as_ref(), &counters),
            counters,
            task_manager: details.task_manager,
            attempt: details.attempt,
        })
    }
}

/// A job's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointSummary {
    /// How many completed.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// The latest completed one, if there is one.
    pub latest: Option<CompletedCheckpoint>,
    /// Whether one is being taken.
    pub in_progress: bool,
    /// The one that the present attempt was restored from.
    pub restored_id: Option<CheckpointId>,
}

/// A completed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompletedCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// When it completed.
    pub time_ms: Timestamp,
    /// From its trigger to its completion.
    pub duration_ms: u64,
    /// The size of all its snapshots.
    pub bytes: u64,
    /// Where its metadata is; empty when it was kept in the cluster's memory.
    pub path: String,
}

impl From<v1::CheckpointSummary> for CheckpointSummary {
    fn from(summary: v1::CheckpointSummary) -> Self {
        let latest = (summary.latest_id != 0).then_some(CompletedCheckpoint {
            id: summary.latest_id,
            time_ms: summary.latest_time_ms,
            duration_ms: summary.latest_duration_ms,
            bytes: summary.latest_bytes,
            path: summary.latest_path,
        });
        Self {
            completed: summary.completed,
            failed: summary.failed,
            latest,
            in_progress: summary.in_progress,
            restored_id: (summary.restored_id != 0).then_some(summary.restored_id),
        }
    }
}

/// A failure of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureRecord {
    /// When.
    pub time_ms: Timestamp,
    /// In which attempt.
    pub attempt: Attempt,
    /// The task that failed; empty when it was none in particular.
    pub task: String,
    /// Where; empty when it was nowhere in particular.
    pub task_manager: String,
    /// What.
    pub failure: Failure,
}

impl TryFrom<v1::FailureRecord> for FailureRecord {
    type Error = Malformed;

    fn try_from(record: v1::FailureRecord) -> Result<Self, Malformed> {
        Ok(Self {
            time_ms: record.time_ms,
            attempt: record.attempt,
            task: record.task,
            task_manager: record.task_manager,
            failure: failure("failures.failure", record.failure)?,
        })
    }
}

/// A job's change from one state to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// When.
    pub time_ms: Timestamp,
    /// From this state.
    pub from: JobStatus,
    /// To this one.
    pub to: JobStatus,
    /// In which attempt.
    pub attempt: Attempt,
    /// Why. May be empty.
    pub reason: String,
}

impl TryFrom<v1::StatusChange> for StatusChange {
    type Error = Malformed;

    fn try_from(change: v1::StatusChange) -> Result<Self, Malformed> {
        Ok(Self {
            time_ms: change.time_ms,
            from: job_status("change.from", change.from)?,
            to: job_status("change.to", change.to)?,
            attempt: change.attempt,
            reason: change.reason,
        })
    }
}

/// News of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobEvent {
    /// The job after the change.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// The change; absent when the event tells the present state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<StatusChange>,
    /// The failure that caused it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl TryFrom<v1::JobEvent> for JobEvent {
    type Error = Malformed;

    fn try_from(event: v1::JobEvent) -> Result<Self, Malformed> {
        Ok(Self {
            summary: required("event.summary", event.summary)?.try_into()?,
            change: event.change.map(StatusChange::try_from).transpose()?,
            failure: event.failure.map(Failure::try_from).transpose()?,
        })
    }
}

/// A task manager as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskManagerSummary {
    /// Its name.
    pub id: String,
    /// Its host.
    pub host: String,
    /// How many slots it has.
    pub slots_total: u32,
    /// How many of them are free.
    pub slots_free: u32,
    /// What its operator said about it.
    pub labels: Vec<String>,
    /// Since when it is connected to the present leader.
    pub connected_since_ms: Timestamp,
    /// When it was last heard of.
    pub last_heartbeat_ms: Timestamp,
}

impl From<v1::TaskManagerSummary> for TaskManagerSummary {
    fn from(summary: v1::TaskManagerSummary) -> Self {
        Self {
            id: summary.id,
            host: summary.host,
            slots_total: summary.slots_total,
            slots_free: summary.slots_free,
            labels: summary.labels,
            connected_since_ms: summary.connected_since_ms,
            last_heartbeat_ms: summary.last_heartbeat_ms,
        }
    }
}

/// The job managers of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobManagers {
    /// The leader's term.
    pub term: Term,
    /// All of them.
    pub job_managers: Vec<JobManagerSummary>,
}

/// One job manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobManagerSummary {
    /// Its number in the cluster.
    pub id: u64,
    /// Where it serves.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes, or only follows until it has caught up.
    pub voter: bool,
}

impl From<v1::ListJobManagersResponse> for JobManagers {
    fn from(response: v1::ListJobManagersResponse) -> Self {
        let convert = |manager: v1::JobManagerSummary| JobManagerSummary {
            id: manager.id,
            address: manager.address,
            leader: manager.leader,
            voter: manager.voter,
        };
        Self { term: response.term, job_managers: response.job_managers.into_iter().map(convert).collect() }
    }
}

/// The end of one log of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// Where the worker ran.
    pub task_manager: String,
    /// `stdout` or `stderr`, with the worker it came from.
    pub source: String,
    /// As the worker wrote them.
    pub data: Vec<u8>,
}
