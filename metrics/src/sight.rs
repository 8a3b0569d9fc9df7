//! What is known of a job at one moment: what reports are made of.

use thalweg_common::Timestamp;
use thalweg_common::id::{Attempt, JobId};
use thalweg_common::status::JobStatus;
use thalweg_proto::metrics::TaskRates;
use thalweg_proto::model::{ProcessMetrics, TaskCounters};

use crate::window::MinuteRates;

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSight {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: JobId,
    /// Its state.
    pub status: JobStatus,
    /// Since when it is in this state, in milliseconds since the epoch.
    pub status_since_ms: Timestamp,
    /// When it was running last, if it has ever run and does not run now.
    pub stopped_running_ms: Option<Timestamp>,
    /// How often it was restarted, as a whole or in part.
    pub restarts: u64,
    /// How often as a whole.
    pub full_restarts: u64,
    /// Checkpoints that began and did not complete.
    pub failed_checkpoints: u64,
    /// The last one that completed.
    pub last_checkpoint: Option<CheckpointSight>,
    /// Its subtasks, as far as they have reported.
    pub tasks: Vec<TaskSight>,
    /// The task managers that run some of them and have measured themselves.
    pub task_managers: Vec<TaskManagerSight>,
}

/// A completed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSight {
    /// Of all snapshots together.
    pub size_bytes: u64,
    /// From the trigger to the last acknowledgement.
    pub duration_ms: u64,
    /// The longest alignment of a subtask. Unknown to a leader that has not seen it.
    pub alignment_ms: Option<u64>,
}

/// A subtask.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSight {
    /// Its task manager.
    pub task_manager: String,
    /// Its execution attempt.
    pub attempt: Attempt,
    /// Whether it reads from outside.
    pub is_source: bool,
    /// Places in its chain of operators without output.
    pub sinks: Vec<u32>,
    /// Its totals.
    pub counters: TaskCounters,
    /// How it has spent its time lately. Absent for one that has not run in the meantime, or has ended.
    pub rates: Option<TaskRates>,
    /// Its rates over the last minute.
    pub minute: MinuteRates,
}

/// A task manager.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskManagerSight {
    /// Its name.
    pub id: String,
    /// Its host.
    pub host: String,
    /// What it takes of its machine.
    pub process: ProcessMetrics,
}

/// Sights for tests.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use thalweg_common::id::SubtaskId;
    use thalweg_common::status::TaskStatus;
    use thalweg_proto::model::{MetricScope, MetricValue, UserMetric};

    /// A task that has done nothing.
    pub(crate) fn counters() -> TaskCounters {
        TaskCounters {
            subtask: SubtaskId { vertex: 0, index: 0 },
            status: TaskStatus::Running,
            records_in: 0,
            records_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            late_records_dropped: 0,
            records_in_errors: 0,
            state_bytes: 0,
            unassigned_splits: None,
            restored_local_bytes: 0,
            restored_remote_bytes: 0,
            busy_ns: 0,
            idle_ns: 0,
            back_pressured_ns: 0,
            input_queue_length: 0,
            output_queue_length: 0,
            available_credit_bytes: 0,
            current_input_watermark: None,
            current_output_watermark: None,
            watermark_alignment_drift_ms: None,
            operators: Vec::new(),
            name: String::new(),
        }
    }

    pub(crate) fn meter(events: u64) -> UserMetric {
        user("Marks", MetricValue::Meter(events))
    }

    /// A metric that is exported, with a dimension.
    pub(crate) fn user(name: &str, value: MetricValue) -> UserMetric {
        let scope = |name: &str, value: Option<&str>| MetricScope {
            name: name.into(),
            value: value.map(str::to_string),
        };
        let scope = vec![scope("KinesisAnalytics", None), scope("Program", Some("Words"))];
        UserMetric { scope, name: name.into(), value }
    }

    /// What a Kinesis source tells of a shard.
    pub(crate) fn shard(stream: &str, id: &str, name: &str, value: f64) -> UserMetric {
        let group = |name: &str, value: Option<&str>| MetricScope {
            name: name.into(),
            value: value.map(str::to_string),
        };
        let scope =
            vec![group("KinesisConsumer", None), group("stream", Some(stream)), group("shardId", Some(id))];
        UserMetric { scope, name: name.into(), value: MetricValue::Gauge(value) }
    }

    /// A job that runs since a second and has no tasks.
    pub(crate) fn job() -> JobSight {
        JobSight {
            name: "words".into(),
            id: JobId(1),
            status: JobStatus::Running,
            status_since_ms: 9_000,
            stopped_running_ms: None,
            restarts: 0,
            full_restarts: 0,
            failed_checkpoints: 0,
            last_checkpoint: None,
            tasks: Vec::new(),
            task_managers: Vec::new(),
        }
    }
}
