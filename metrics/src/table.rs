//! Every metric that a cluster reports: name, unit, levels, and how it is read from a [sight](crate::sight).
//!
//! Names, units and levels are those of Amazon Managed Service for Apache Flink, and Flink's where both have one. What a figure of a
//! Java virtual machine is in a cluster without one, its row says.

use thalweg_common::Timestamp;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::{OperatorCounters, ProcessMetrics, TaskCounters};

use crate::sight::{CheckpointSight, JobSight, TaskSight};
use crate::window::OperatorRates;

/// What a value counts. The words are CloudWatch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things per second.
    CountPerSecond,
    /// Thousandths of a second: also for times since the epoch.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Parts of a hundred.
    Percent,
    /// None.
    None,
}

impl Unit {
    /// CloudWatch's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::CountPerSecond => "Count/Second",
            Self::Milliseconds => "Milliseconds",
            Self::Bytes => "Bytes",
            Self::Percent => "Percent",
            Self::None => "None",
        }
    }
}

/// For what a value is told. An application that reports one level reports all that are coarser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The whole job.
    Application,
    /// A vertex.
    Task,
    /// An operator.
    Operator,
    /// A subtask of a vertex or operator.
    Parallelism,
}

impl Level {
    /// All of them, the coarsest first.
    pub const ALL: [Self; 4] = [Self::Application, Self::Task, Self::Operator, Self::Parallelism];

    /// The level with this name in a configuration, as `TASK`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "APPLICATION",
            Self::Task => "TASK",
            Self::Operator => "OPERATOR",
            Self::Parallelism => "PARALLELISM",
        }
    }
}

/// How often in a minute a value of a machine is told. All others are told in each of the four snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerMinute {
    /// In the first snapshot of each minute.
    One,
    /// In the first and the third.
    Two,
    /// In all four.
    Four,
}

impl PerMinute {
    /// Whether it is told in this snapshot; they are numbered without end.
    #[must_use]
    pub fn includes(self, snapshot: u64) -> bool {
        match self {
            Self::One => snapshot.is_multiple_of(4),
            Self::Two => snapshot.is_multiple_of(2),
            Self::Four => true,
        }
    }
}

/// One operator of a subtask.
#[derive(Debug, Clone, Copy)]
pub struct OperatorSight<'a> {
    /// Its subtask.
    pub task: &'a TaskSight,
    /// Its totals.
    pub counters: &'a OperatorCounters,
    /// Its rates.
    pub rates: Option<&'a OperatorRates>,
}

impl OperatorSight<'_> {
    /// How many events per second the user's metric in this place marks, if it is a meter.
    pub(crate) fn event_rate(&self, index: usize) -> Option<f64> {
        self.rates?.meters.get(index).copied().flatten()
    }
}

/// Where a metric's values come from.
#[derive(Clone, Copy)]
pub enum Reading {
    /// One value for the job.
    Job(fn(&JobSight, Timestamp) -> Option<f64>),
    /// One sample of each task manager, for the job.
    TaskManager(PerMinute, fn(&ProcessMetrics) -> f64),
    /// One sample of each subtask, for its vertex, its operators and itself; put together for the job.
    Subtask {
        /// Of a subtask.
        task: fn(&TaskSight) -> Option<f64>,
        /// Of one of its operators.
        operator: fn(OperatorSight<'_>) -> Option<f64>,
        /// Of all of them together, where that makes sense.
        application: Option<fn(&JobSight) -> Option<f64>>,
    },
}

/// A metric.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its exact name.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Whether it only grows in an execution, so that a rate of it makes sense.
    pub is_total: bool,
    /// Where it comes from.
    pub reading: Reading,
    /// What it means, in a sentence.
    pub help: &'static str,
}

impl Metric {
    /// Whether it has values at a level.
    #[must_use]
    pub fn has(&self, level: Level) -> bool {
        match self.reading {
            Reading::Job(_) | Reading::TaskManager(..) => level == Level::Application,
            Reading::Subtask { application: None, .. } => level != Level::Application,
            Reading::Subtask { .. } => true,
        }
    }
}

const fn value(name: &'static str, unit: Unit, reading: Reading, help: &'static str) -> Metric {
    Metric { name, unit, is_total: false, reading, help }
}

const fn total(name: &'static str, reading: Reading, help: &'static str) -> Metric {
    Metric { name, unit: Unit::Count, is_total: true, reading, help }
}

/// A share of a subtask's time, which is that of each of its operators: they run in turn.
macro_rules! time_share {
    ($field:ident) => {
        Reading::Subtask {
            task: |task| task.rates.map(|rates| rates.$field as f64),
            operator: |operator| operator.task.rates.map(|rates| rates.$field as f64),
            application: None,
        }
    };
}

/// A count that subtasks and operators both have.
macro_rules! count {
    ($field:ident, $application:expr) => {
        Reading::Subtask {
            task: |task| Some(task.counters.$field as f64),
            operator: |operator| Some(operator.counters.$field as f64),
            application: Some($application),
        }
    };
}

/// A rate over the last minute.
macro_rules! minute_rate {
    ($field:ident, $application:expr) => {
        Reading::Subtask {
            task: |task| task.rates.map(|_| task.minute.$field),
            operator: |operator| {
                operator.rates.filter(|_| operator.task.rates.is_some()).map(|rates| rates.$field)
            },
            application: Some($application),
        }
    };
}

/// A watermark. The whole job is where the last of its subtasks is.
macro_rules! watermark {
    ($field:ident) => {
        Reading::Subtask {
            task: |task| task.counters.$field.map(|watermark| watermark as f64),
            operator: |operator| operator.counters.$field.map(|watermark| watermark as f64),
            application: Some(|job| {
                let watermarks = job.tasks.iter().filter_map(|task| task.counters.$field);
                watermarks.min().map(|watermark| watermark as f64)
            }),
        }
    };
}

/// Something of the managed memory, of its use and its total.
macro_rules! memory {
    ($of:expr) => {
        Reading::Subtask {
            task: |task| managed(&task.counters.operators).map($of),
            operator: |operator| managed([operator.counters]).map($of),
            application: Some(|job| {
                managed(job.tasks.iter().flat_map(|task| &task.counters.operators)).map($of)
            }),
        }
    };
}

/// A figure of the last checkpoint, if there was one.
macro_rules! checkpoint {
    ($value:expr) => {
        Reading::Job(|job, _| job.last_checkpoint.and_then($value))
    };
}

/// All metrics.
pub const METRICS: &[Metric] = &[
    value(
        "backPressuredTimeMsPerSecond",
        Unit::Milliseconds,
        time_share!(back_pressured_time_ms_per_second),
        "Milliseconds of a second in which the task could not go on because an output was full",
    ),
    value(
        "busyTimeMsPerSecond",
        Unit::Milliseconds,
        time_share!(busy_time_ms_per_second),
        "Milliseconds of a second in which the task had something to do",
    ),
    value(
        "idleTimeMsPerSecond",
        Unit::Milliseconds,
        time_share!(idle_time_ms_per_second),
        "Milliseconds of a second in which the task had nothing to read",
    ),
    value(
        "cpuUtilization",
        Unit::Percent,
        Reading::TaskManager(PerMinute::One, |process| process.cpu_percent),
        "CPU time of the task manager and its workers, of the cores that they may use",
    ),
    value(
        "containerCPUUtilization",
        Unit::Percent,
        Reading::TaskManager(PerMinute::Two, |process| process.container_cpu_percent),
        "CPU time of all processes of the container or machine, of its cores",
    ),
    value(
        "containerMemoryUtilization",
        Unit::Percent,
        Reading::TaskManager(PerMinute::Two, |process| process.container_memory_percent),
        "Memory of the container or machine that is in use and cannot be taken back at once",
    ),
    value(
        "containerDiskUtilization",
        Unit::Percent,
        Reading::TaskManager(PerMinute::Two, |process| process.container_disk_percent),
        "The file system of the task manager's data, as far as it is full",
    ),
    value(
        "heapMemoryUtilization",
        Unit::Percent,
        Reading::TaskManager(PerMinute::One, |process| {
            percent(process.heap_used_bytes, process.heap_total_bytes)
        }),
        "Memory of the task manager and its workers without managed memory, of what the machine leaves for it",
    ),
    value(
        "threadCount",
        Unit::Count,
        Reading::Job(|job, _| {
            let threads = job.task_managers.iter().map(|manager| manager.process.threads);
            (!job.task_managers.is_empty()).then(|| threads.sum::<u64>() as f64)
        }),
        "Threads of the task managers and their workers",
    ),
    value(
        "currentInputWatermark",
        Unit::Milliseconds,
        watermark!(current_input_watermark),
        "The last watermark received",
    ),
    value(
        "currentOutputWatermark",
        Unit::Milliseconds,
        watermark!(current_output_watermark),
        "The last watermark emitted",
    ),
    value(
        "uptime",
        Unit::Milliseconds,
        Reading::Job(uptime),
        "Time for which the job has run without interruption; -1 behind its end",
    ),
    value(
        "downtime",
        Unit::Milliseconds,
        Reading::Job(downtime),
        "Time for which the job has not run; 0 while it runs, -1 behind its end",
    ),
    total(
        "fullRestarts",
        Reading::Job(|job, _| Some(job.full_restarts as f64)),
        "Restarts of the whole job since its submission",
    ),
    total(
        "numRestarts",
        Reading::Job(|job, _| Some(job.restarts as f64)),
        "Restarts of the job, or of regions of it, since its submission",
    ),
    total(
        "oldGenerationGCCount",
        Reading::Job(|job, _| Some(job_sum(job, |operator| operator.memory_stalls))),
        "How often a task has stood still so that memory of its state could be freed",
    ),
    Metric {
        unit: Unit::Milliseconds,
        ..total(
            "oldGenerationGCTime",
            Reading::Job(|job, _| Some((job_sum(job, |operator| operator.memory_stall_ns) / 1e6).floor())),
            "How long tasks have stood still so that memory of their state could be freed",
        )
    },
    value(
        "managedMemoryUsed",
        Unit::Bytes,
        memory!(|(used, _)| used as f64),
        "Managed memory that state on disk takes",
    ),
    value(
        "managedMemoryTotal",
        Unit::Bytes,
        memory!(|(_, total)| total as f64),
        "Managed memory that state on disk may take",
    ),
    value(
        "managedMemoryUtilization",
        Unit::Percent,
        memory!(|(used, total)| percent(used, total)),
        "The one of the other",
    ),
    value(
        "lastCheckpointSize",
        Unit::Bytes,
        checkpoint!(|last: CheckpointSight| Some(last.size_bytes as f64)),
        "Size of all snapshots of the last checkpoint that completed",
    ),
    value(
        "lastCheckpointDuration",
        Unit::Milliseconds,
        checkpoint!(|last: CheckpointSight| Some(last.duration_ms as f64)),
        "Time from its trigger to its last acknowledgement",
    ),
    value(
        "lastCheckpointAlignmentDuration",
        Unit::Milliseconds,
        checkpoint!(|last: CheckpointSight| last.alignment_ms.map(|alignment_ms| alignment_ms as f64)),
        "Longest time that one of its subtasks has waited for barriers",
    ),
    total(
        "numberOfFailedCheckpoints",
        Reading::Job(|job, _| Some(job.failed_checkpoints as f64)),
        "Checkpoints that began and did not complete",
    ),
    total(
        "numRecordsIn",
        count!(records_in, |job| of_sources(job, |task| task.counters.records_in as f64)),
        "Records received",
    ),
    total(
        "numRecordsOut",
        count!(records_out, |job| of_sinks(job, |sink| sink.counters.records_in as f64)),
        "Records emitted",
    ),
    value(
        "numRecordsInPerSecond",
        Unit::CountPerSecond,
        minute_rate!(records_in, |job| of_sources(job, |task| task.minute.records_in)),
        "Records received per second, over the last minute",
    ),
    value(
        "numRecordsOutPerSecond",
        Unit::CountPerSecond,
        minute_rate!(records_out, |job| of_sinks(job, |sink| sink
            .rates
            .map_or(0.0, |rates| rates.records_in))),
        "Records emitted per second, over the last minute",
    ),
    total(
        "numLateRecordsDropped",
        count!(late_records_dropped, |job| of_all(job, |task| task.late_records_dropped)),
        "Records dropped because they came too late",
    ),
    total(
        "numRecordsInErrors",
        count!(records_in_errors, |job| of_all(job, |task| task.records_in_errors)),
        "Records that could not be read, and were left out or sent to a side output",
    ),
];

/// How long the job has run without interruption, as Flink's `UpTimeGauge`.
fn uptime(job: &JobSight, now_ms: Timestamp) -> Option<f64> {
    Some(match job.status {
        JobStatus::Running => (now_ms - job.status_since_ms).max(0) as f64,
        status if status.is_terminal() => -1.0,
        _ => 0.0,
    })
}

/// How long the job has not run, as Flink's `DownTimeGauge`: 0 if it never ran yet.
fn downtime(job: &JobSight, now_ms: Timestamp) -> Option<f64> {
    Some(match (job.status, job.stopped_running_ms) {
        (status, _) if status.is_terminal() => -1.0,
        (JobStatus::Running, _) | (_, None) => 0.0,
        (_, Some(stopped_ms)) => (now_ms - stopped_ms).max(0) as f64,
    })
}

/// What the whole job receives: what its sources read.
fn of_sources(job: &JobSight, read: fn(&TaskSight) -> f64) -> Option<f64> {
    let mut values = job.tasks.iter().filter(|task| task.is_source).map(read).peekable();
    values.peek().is_some().then(|| values.sum())
}

/// What the whole job emits: what comes to its sinks.
fn of_sinks(job: &JobSight, read: fn(OperatorSight<'_>) -> f64) -> Option<f64> {
    let sinks_of = |task| {
        let operators = operators(task);
        operators.filter(|operator| operator.task.sinks.contains(&operator.counters.position))
    };
    let mut values = job.tasks.iter().flat_map(sinks_of).map(read).peekable();
    values.peek().is_some().then(|| values.sum())
}

/// What all subtasks have counted together.
fn of_all(job: &JobSight, count: fn(&TaskCounters) -> u64) -> Option<f64> {
    let counts = job.tasks.iter().map(|task| count(&task.counters) as f64);
    (!job.tasks.is_empty()).then(|| counts.sum())
}

/// The operators of a subtask, in the order of the chain.
pub(crate) fn operators(task: &TaskSight) -> impl Iterator<Item = OperatorSight<'_>> {
    task.counters.operators.iter().enumerate().map(move |(number, counters)| OperatorSight {
        task,
        counters,
        rates: task.minute.operators.get(number),
    })
}

/// How much managed memory some operators use, and may use; nothing if none has any.
fn managed<'a>(operators: impl IntoIterator<Item = &'a OperatorCounters>) -> Option<(u64, u64)> {
    let memory = |of: &OperatorCounters| (of.managed_memory_used_bytes, of.managed_memory_total_bytes);
    let add = |sum: (u64, u64), more: (u64, u64)| (sum.0 + more.0, sum.1 + more.1);
    operators.into_iter().map(memory).reduce(add).filter(|(_, total)| *total > 0)
}

fn job_sum(job: &JobSight, of: fn(&OperatorCounters) -> u64) -> f64 {
    job.tasks.iter().flat_map(|task| &task.counters.operators).map(of).sum::<u64>() as f64
}

fn percent(used: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { used as f64 * 100.0 / total as f64 }
}
