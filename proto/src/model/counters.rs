//! What tasks and their operators have counted, and the metrics that user code has registered.
//!
//! These are totals and present values, as workers tell them once per second; rates come into being where they are shown.

use std::fmt;

use serde::{Serialize, Serializer};
use thalweg_common::id::SubtaskId;
use thalweg_common::status::TaskStatus;

use super::all;
use crate::convert::{Malformed, required, subtask, task_status};
use crate::v1;

/// The group below which a user's metrics are exported, as in the managed service for Apache Flink.
const EXPORTED: &str = "KinesisAnalytics";

/// What one execution of a subtask has done so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskCounters {
    /// The subtask.
    pub subtask: SubtaskId,
    /// Its state.
    pub status: TaskStatus,
    /// Records that came over channels or from the source.
    pub records_in: u64,
    /// Records that went out.
    pub records_out: u64,
    /// Bytes that came over remote channels.
    pub bytes_in: u64,
    /// Bytes that went out over remote channels.
    pub bytes_out: u64,
    /// Records that were dropped because they came too late.
    pub late_records_dropped: u64,
    /// Records that could not be read, and were left out or sent to a side output.
    pub records_in_errors: u64,
    /// Size of its state.
    pub state_bytes: u64,
    /// Of an enumerator: splits that were found and no reader has.
    pub unassigned_splits: Option<u64>,
    /// Bytes of a checkpoint that it read from copies on its machine before it began.
    pub restored_local_bytes: u64,
    /// The same from the checkpoint's storage.
    pub restored_remote_bytes: u64,
    /// Time in which it had something to do. The three times add up to the time since it began to run.
    pub busy_ns: u64,
    /// Time in which there was nothing to read.
    pub idle_ns: u64,
    /// Time in which an output was full.
    pub back_pressured_ns: u64,
    /// Batches that wait to be read.
    pub input_queue_length: u64,
    /// Batches that wait because their channel is full.
    pub output_queue_length: u64,
    /// Bytes that the receivers of its remote channels together have room for.
    pub available_credit_bytes: u64,
    /// The last watermark that came to it, in milliseconds since the epoch. Absent before the first, and for a source.
    pub current_input_watermark: Option<i64>,
    /// The last watermark that it emitted. Absent before the first.
    pub current_output_watermark: Option<i64>,
    /// Of a source that is aligned with others: how far it is ahead of the least watermark of its group.
    pub watermark_alignment_drift_ms: Option<i64>,
    /// The same of its operators, in the order of the chain.
    pub operators: Vec<OperatorCounters>,
    /// The name of its vertex.
    #[serde(skip)]
    pub name: String,
}

impl TryFrom<v1::TaskCounters> for TaskCounters {
    type Error = Malformed;

    fn try_from(counters: v1::TaskCounters) -> Result<Self, Malformed> {
        Ok(Self {
            subtask: subtask("counters.subtask", counters.subtask)?,
            status: task_status("counters.status", counters.status)?,
            records_in: counters.records_in,
            records_out: counters.records_out,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            late_records_dropped: counters.late_records_dropped,
            records_in_errors: counters.records_in_errors,
            state_bytes: counters.state_bytes,
            unassigned_splits: counters.unassigned_splits,
            restored_local_bytes: counters.restored_local_bytes,
            restored_remote_bytes: counters.restored_remote_bytes,
            busy_ns: counters.busy_ns,
            idle_ns: counters.idle_ns,
            back_pressured_ns: counters.back_pressured_ns,
            input_queue_length: counters.input_queue_length,
            output_queue_length: counters.output_queue_length,
            available_credit_bytes: counters.available_credit_bytes,
            current_input_watermark: counters.current_input_watermark,
            current_output_watermark: counters.current_output_watermark,
            watermark_alignment_drift_ms: counters.watermark_alignment_drift_ms,
            operators: all(counters.operators)?,
            name: counters.name,
        })
    }
}

/// What one operator of a subtask has done so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OperatorCounters {
    /// Its place in the vertex, from 0.
    pub position: u32,
    /// Its name.
    pub name: String,
    /// Records that it received.
    pub records_in: u64,
    /// Records that it emitted, to side outputs too.
    pub records_out: u64,
    /// Records that it dropped because they came too late.
    pub late_records_dropped: u64,
    /// Records that it could not read, and left out or sent to a side output.
    pub records_in_errors: u64,
    /// The last watermark that came to it, in milliseconds since the epoch.
    pub current_input_watermark: Option<i64>,
    /// The last watermark that it emitted.
    pub current_output_watermark: Option<i64>,
    /// Memory that its state on disk takes of the managed memory.
    pub managed_memory_used_bytes: u64,
    /// Memory that it may take.
    pub managed_memory_total_bytes: u64,
    /// How often it has stood still so that memory could be freed.
    pub memory_stalls: u64,
    /// How long.
    pub memory_stall_ns: u64,
    /// What its functions count themselves.
    pub metrics: Vec<UserMetric>,
}

impl From<OperatorCounters> for v1::OperatorCounters {
    fn from(counters: OperatorCounters) -> Self {
        Self {
            position: counters.position,
            name: counters.name,
            records_in: counters.records_in,
            records_out: counters.records_out,
            late_records_dropped: counters.late_records_dropped,
            records_in_errors: counters.records_in_errors,
            current_input_watermark: counters.current_input_watermark,
            current_output_watermark: counters.current_output_watermark,
            managed_memory_used_bytes: counters.managed_memory_used_bytes,
            managed_memory_total_bytes: counters.managed_memory_total_bytes,
            memory_stalls: counters.memory_stalls,
            memory_stall_ns: counters.memory_stall_ns,
            metrics: counters.metrics.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::OperatorCounters> for OperatorCounters {
    type Error = Malformed;

    fn try_from(counters: v1::OperatorCounters) -> Result<Self, Malformed> {
        Ok(Self {
            position: counters.position,
            name: counters.name,
            records_in: counters.records_in,
            records_out: counters.records_out,
            late_records_dropped: counters.late_records_dropped,
            records_in_errors: counters.records_in_errors,
            current_input_watermark: counters.current_input_watermark,
            current_output_watermark: counters.current_output_watermark,
            managed_memory_used_bytes: counters.managed_memory_used_bytes,
            managed_memory_total_bytes: counters.managed_memory_total_bytes,
            memory_stalls: counters.memory_stalls,
            memory_stall_ns: counters.memory_stall_ns,
            metrics: all(counters.metrics)?,
        })
    }
}

/// A metric that user code has registered in its function's metric group.
#[derive(Debug, Clone, PartialEq)]
pub struct UserMetric {
    /// The groups around it, the outermost first.
    pub scope: Vec<MetricScope>,
    /// Its name.
    pub name: String,
    /// What it shows.
    pub value: MetricValue,
}

impl UserMetric {
    /// Whether it leaves the cluster: it does if it is below the group `KinesisAnalytics` and no histogram.
    #[must_use]
    pub fn is_exported(&self) -> bool {
        self.scope.iter().any(MetricScope::exports) && !matches!(self.value, MetricValue::Histogram(_))
    }

    /// The name under which it is exported: its groups, without those that are dimensions, and its own name.
    #[must_use]
    pub fn exported_name(&self) -> String {
        let groups = self.scope.iter().filter(|scope| scope.value.is_none() && !scope.exports());
        let names = groups.map(|scope| scope.name.as_str()).chain([self.name.as_str()]);
        names.collect::<Vec<_>>().join(".")
    }

    /// Its own dimensions: the groups that have a key and a value.
    pub fn dimensions(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.scope.iter().filter(|scope| !scope.exports());
        pairs.filter_map(|scope| Some((scope.name.as_str(), scope.value.as_deref()?)))
    }
}

/// All groups and the name, with dots between them, as Flink's identifiers.
impl fmt::Display for UserMetric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for scope in &self.scope {
            write!(formatter, "{}.", scope.name)?;
            if let Some(value) = &scope.value {
                write!(formatter, "{value}.")?;
            }
        }
        formatter.write_str(&self.name)
    }
}

/// For people and programs that read JSON: the identifier and, of an exported one, its name and dimensions there.
impl Serialize for UserMetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            identifier: String,
            name: String,
            dimensions: std::collections::BTreeMap<&'a str, &'a str>,
            exported: bool,
            #[serde(flatten)]
            value: MetricValue,
        }
        let dimensions = self.dimensions().collect();
        let (identifier, name, exported) = (self.to_string(), self.exported_name(), self.is_exported());
        Shown { identifier, name, dimensions, exported, value: self.value }.serialize(serializer)
    }
}

impl From<UserMetric> for v1::UserMetric {
    fn from(metric: UserMetric) -> Self {
        use v1::user_metric::Value;
        let scope = |scope: MetricScope| v1::MetricScope { name: scope.name, value: scope.value };
        let value = match metric.value {
            MetricValue::Counter(value) => Value::Counter(value),
            MetricValue::Gauge(value) => Value::Gauge(value),
            MetricValue::Meter(value) => Value::Meter(value),
            MetricValue::Histogram(statistics) => Value::Histogram(statistics.into()),
        };
        let scope = metric.scope.into_iter().map(scope).collect();
        Self { scope, name: metric.name, value: Some(value) }
    }
}

impl TryFrom<v1::UserMetric> for UserMetric {
    type Error = Malformed;

    fn try_from(metric: v1::UserMetric) -> Result<Self, Malformed> {
        use v1::user_metric::Value;
        let scope = |scope: v1::MetricScope| MetricScope { name: scope.name, value: scope.value };
        let value = match required("metrics.value", metric.value)? {
            Value::Counter(value) => MetricValue::Counter(value),
            Value::Gauge(value) => MetricValue::Gauge(value),
            Value::Meter(value) => MetricValue::Meter(value),
            Value::Histogram(statistics) => MetricValue::Histogram(statistics.into()),
        };
        Ok(Self { scope: metric.scope.into_iter().map(scope).collect(), name: metric.name, value })
    }
}

/// A group of metrics: a name, or a key with a value, which is a dimension of all metrics in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricScope {
    /// The name or the key.
    pub name: String,
    /// The value of a key.
    pub value: Option<String>,
}

impl MetricScope {
    fn exports(&self) -> bool {
        self.name == EXPORTED
    }
}

/// What a user's metric shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum MetricValue {
    /// A count, which may fall too.
    Counter(i64),
    /// A present value.
    Gauge(f64),
    /// How many events there were; what is shown of it is their rate.
    Meter(u64),
    /// What the last values were like.
    Histogram(HistogramStatistics),
}

/// What a process, or a task manager with its workers, takes of its machine or container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ProcessMetrics {
    /// CPU time in percent of the cores that it may use.
    pub cpu_percent: f64,
    /// The same of all processes of the container.
    pub container_cpu_percent: f64,
    /// Memory of the container in percent of its limit, without what the system can take back at once.
    pub container_memory_percent: f64,
    /// The file system on which it keeps its data, in percent of its size.
    pub container_disk_percent: f64,
    /// General memory in use, without managed memory.
    pub heap_used_bytes: u64,
    /// How much there is of it.
    pub heap_total_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// How many values there were, and what the last of them were like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct HistogramStatistics {
    /// How many there were.
    pub count: u64,
    /// The smallest of the last.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// What 95 of 100 do not exceed.
    pub p95: f64,
    /// What 99 of 100 do not exceed.
    pub p99: f64,
}

/// Between a message and a type with the same fields.
macro_rules! same_fields {
    ($name:ident: $($field:ident),*) => {
        impl From<$name> for v1::$name {
            fn from(value: $name) -> Self {
                Self { $($field: value.$field),* }
            }
        }

        impl From<v1::$name> for $name {
            fn from(value: v1::$name) -> Self {
                Self { $($field: value.$field),* }
            }
        }
    };
}

same_fields!(HistogramStatistics: count, min, max, mean, p50, p95, p99);
same_fields!(
    ProcessMetrics: cpu_percent,
    container_cpu_percent,
    container_memory_percent,
    container_disk_percent,
    heap_used_bytes,
    heap_total_bytes,
    threads
);

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(scope: &[(&str, Option<&str>)], value: MetricValue) -> UserMetric {
        let scope = scope
            .iter()
            .map(|(name, value)| MetricScope { name: (*name).to_string(), value: value.map(str::to_string) });
        UserMetric { scope: scope.collect(), name: "TotalWords".into(), value }
    }

    #[test]
    fn groups_say_whether_and_how_a_metric_is_exported() {
        let service = ("Service", Some("WordCountApplication"));
        for (scope, value, exported, name, dimensions) in [
            (
                &[("KinesisAnalytics", None), service, ("Tokenizer", None)][..],
                MetricValue::Counter(6),
                true,
                "Tokenizer.TotalWords",
                &[("Service", "WordCountApplication")][..],
            ),
            (&[("KinesisAnalytics", None)], MetricValue::Gauge(0.5), true, "TotalWords", &[]),
            (&[("Tokenizer", None)], MetricValue::Counter(6), false, "Tokenizer.TotalWords", &[]),
            (&[], MetricValue::Meter(6), false, "TotalWords", &[]),
            (
                &[("KinesisAnalytics", None)],
                MetricValue::Histogram(HistogramStatistics::default()),
                false,
                "TotalWords",
                &[],
            ),
        ] {
            let metric = metric(scope, value);
            assert_eq!(metric.is_exported(), exported, "{metric}");
            assert_eq!(metric.exported_name(), name);
            assert_eq!(metric.dimensions().collect::<Vec<_>>(), dimensions);
            assert_eq!(UserMetric::try_from(v1::UserMetric::from(metric.clone())), Ok(metric));
        }
    }

    #[test]
    fn json_has_what_a_dashboard_needs() {
        let words = metric(
            &[("KinesisAnalytics", None), ("Service", Some("Words")), ("Tokenizer", None)],
            MetricValue::Counter(-6),
        );
        let expected = serde_json::json!({
            "identifier": "KinesisAnalytics.Service.Words.Tokenizer.TotalWords",
            "name": "Tokenizer.TotalWords",
            "dimensions": {"Service": "Words"},
            "exported": true,
            "type": "counter",
            "value": -6,
        });
        assert_eq!(serde_json::to_value(words).expect("it has a form as JSON"), expected);
    }
}
