//! How the tasks of a job keep time at one moment, as they told it.

use serde::{Serialize, Serializer};
use thalweg_common::Timestamp;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{Attempt, EdgeId, OperatorId, SubtaskId};

use super::{JobSummary, all};
use crate::convert::{Malformed, required, subtask};
use crate::v1;

fn as_id<S: Serializer>(id: &OperatorId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// How a job keeps time. [`why`](crate::why::why) says what that means for its windows and timers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobTime {
    /// The job.
    pub job: JobSummary,
    /// Its plan.
    #[serde(skip)]
    pub graph: JobGraph,
    /// What its tasks have told, in their order.
    pub tasks: Vec<TaskTime>,
    /// Tasks that run and have not answered.
    pub missing: Vec<SubtaskId>,
}

impl TryFrom<v1::JobTime> for JobTime {
    type Error = Malformed;

    fn try_from(time: v1::JobTime) -> Result<Self, Malformed> {
        let mut tasks: Vec<TaskTime> = all(time.tasks)?;
        tasks.sort_unstable_by_key(|task| task.subtask);
        let missing = time.missing.into_iter().map(|missing| subtask("job_time.missing", Some(missing)));
        Ok(Self {
            job: required("job_time.summary", time.summary)?.try_into()?,
            graph: plan("job_time.graph", &time.graph)?,
            tasks,
            missing: missing.collect::<Result<_, _>>()?,
        })
    }
}

/// Reads a job graph.
pub(super) fn plan(field: &'static str, json: &str) -> Result<JobGraph, Malformed> {
    serde_json::from_str(json).map_err(|error| Malformed::new(field, format!("is no job graph: {error}")))
}

/// How a task keeps time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskTime {
    /// The task.
    pub subtask: SubtaskId,
    /// The attempt that started it.
    pub attempt: Attempt,
    /// The clock of its machine when it answered.
    pub now_ms: Timestamp,
    /// The watermark of all its inputs together; nothing before the first, and for a source.
    pub watermark: Option<Timestamp>,
    /// Its channels.
    pub inputs: Vec<InputTime>,
    /// What has watermarks of its own behind a strategy in this task.
    pub origins: Vec<OriginTime>,
    /// Its operators that may have timers.
    pub operators: Vec<OperatorTime>,
}

impl TryFrom<v1::TaskTime> for TaskTime {
    type Error = Malformed;

    fn try_from(time: v1::TaskTime) -> Result<Self, Malformed> {
        Ok(Self {
            subtask: subtask("task_time.subtask", time.subtask)?,
            attempt: time.attempt,
            now_ms: time.now_ms,
            watermark: time.watermark,
            inputs: all(time.inputs)?,
            origins: time.origins.into_iter().map(OriginTime::from).collect(),
            operators: time.operators.into_iter().map(OperatorTime::from).collect(),
        })
    }
}

/// How far one channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InputTime {
    /// Who sends.
    pub sender: SubtaskId,
    /// The edge of the plan.
    pub edge: EdgeId,
    /// Its last watermark.
    pub watermark: Option<Timestamp>,
    /// Whether it is idle, so that nobody waits for it.
    pub idle: bool,
    /// Since when.
    pub idle_since_ms: Option<Timestamp>,
    /// Whether it has ended.
    pub ended: bool,
}

impl TryFrom<v1::InputTime> for InputTime {
    type Error = Malformed;

    fn try_from(time: v1::InputTime) -> Result<Self, Malformed> {
        Ok(Self {
            sender: subtask("input_time.sender", time.sender)?,
            edge: time.edge,
            watermark: time.watermark,
            idle: time.idle,
            idle_since_ms: time.idle_since_ms,
            ended: time.ended,
        })
    }
}

/// What has a watermark of its own behind a strategy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OriginTime {
    /// The operator that makes its watermarks.
    #[serde(serialize_with = "as_id")]
    pub operator_id: OperatorId,
    /// The split of the source; nothing where time is kept for all of the subtask.
    pub split: Option<String>,
    /// Its last watermark.
    pub watermark: Option<Timestamp>,
    /// Whether it is idle.
    pub idle: bool,
    /// When its last record came, or when it began.
    pub last_record_ms: Timestamp,
    /// Behind which time without records it is idle, if ever.
    pub idleness_ms: Option<u64>,
    /// Whether it is not read because it is ahead of the sources that it is aligned with.
    pub waits_for_others: bool,
}

impl From<v1::OriginTime> for OriginTime {
    fn from(time: v1::OriginTime) -> Self {
        Self {
            operator_id: OperatorId(time.operator_id),
            split: Some(time.split).filter(|split| !split.is_empty()),
            watermark: time.watermark,
            idle: time.idle,
            last_record_ms: time.last_record_ms,
            idleness_ms: time.idleness_ms,
            waits_for_others: time.aligned_wait,
        }
    }
}

/// An operator that may have timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OperatorTime {
    /// The operator.
    #[serde(serialize_with = "as_id")]
    pub operator_id: OperatorId,
    /// Its earliest timer of event time that has not fired; windows fire by timers.
    pub earliest_timer_ms: Option<Timestamp>,
}

impl From<v1::OperatorTime> for OperatorTime {
    fn from(time: v1::OperatorTime) -> Self {
        Self { operator_id: OperatorId(time.operator_id), earliest_timer_ms: time.earliest_timer_ms }
    }
}
