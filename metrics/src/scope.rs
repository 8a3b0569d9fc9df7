//! Metrics under the names and labels that Flink's reporter for Prometheus gives them, so that dashboards made for Flink go on
//! working: `flink_taskmanager_job_task_operator_numRecordsIn{job_name="...",operator_name="..."}`.
//!
//! Pure. A sample is one value of one subtask, task manager or job; whoever reads them adds them up.

use thalweg_proto::model::{MetricValue, ProcessMetrics, TaskCounters, UserMetric};

use crate::connector;
use crate::sight::{JobSight, TaskSight};
use crate::table::{METRICS, OperatorSight, Reading, operators};

/// Names and values of what a sample belongs to.
pub type Labels = Vec<(&'static str, String)>;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its whole name.
    pub name: String,
    /// What it means. Empty for metrics of users.
    pub help: &'static str,
    /// What it belongs to.
    pub labels: Labels,
    /// Keys and values of a user's groups.
    pub own_labels: Vec<(String, String)>,
    /// Whether it only grows.
    pub is_total: bool,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// A present value without labels of its own.
    #[must_use]
    pub fn gauge(name: impl Into<String>, help: &'static str, labels: &Labels, value: f64) -> Self {
        Self {
            name: name.into(),
            help,
            labels: labels.clone(),
            own_labels: Vec::new(),
            is_total: false,
            value,
        }
    }
}

/// What a task manager, or a job manager, takes of its machine; `scope` is `taskmanager` or `jobmanager`.
#[must_use]
pub fn of_process(scope: &str, process: &ProcessMetrics, labels: &Labels) -> Vec<Sample> {
    let name = |name: &str| format!("flink_{scope}_{name}");
    let read = METRICS.iter().filter_map(|metric| match metric.reading {
        Reading::TaskManager(_, read) => {
            Some(Sample::gauge(name(metric.name), metric.help, labels, read(process)))
        }
        _ => None,
    });
    let threads = Sample::gauge(name("threadCount"), "Threads", labels, process.threads as f64);
    read.chain([threads]).collect()
}

/// What is known of a job as a whole.
#[must_use]
pub fn of_job(job: &JobSight, now_ms: i64, labels: &Labels) -> Vec<Sample> {
    let mut labels = labels.clone();
    labels.extend([("job_id", job.id.to_string()), ("job_name", job.name.clone())]);
    let read = METRICS.iter().filter_map(|metric| {
        let Reading::Job(read) = metric.reading else { return None };
        let sample = Sample::gauge(
            format!("flink_jobmanager_job_{}", metric.name),
            metric.help,
            &labels,
            read(job, now_ms)?,
        );
        Some(Sample { is_total: metric.is_total, ..sample })
    });
    read.collect()
}

/// What a subtask and its operators have done. `labels` are those of its task manager and its job.
#[must_use]
pub fn of_task(task: &TaskSight, labels: &Labels) -> Vec<Sample> {
    let mut labels = labels.clone();
    let subtask = task.counters.subtask;
    labels.extend([
        ("task_id", subtask.vertex.to_string()),
        ("task_name", task.counters.name.clone()),
        ("task_attempt_num", task.attempt.to_string()),
        ("subtask_index", subtask.index.to_string()),
    ]);
    let mut samples = traffic(&task.counters, &labels);
    for metric in METRICS {
        let Reading::Subtask { task: read, .. } = metric.reading else { continue };
        let name = format!("flink_taskmanager_job_task_{}", metric.name);
        let sample = read(task).map(|value| Sample::gauge(name, metric.help, &labels, value));
        samples.extend(sample.map(|sample| Sample { is_total: metric.is_total, ..sample }));
    }
    for operator in operators(task) {
        samples.extend(of_operator(operator, &labels));
    }
    samples
}

/// What only Flink's own reporters know of a task.
fn traffic(counters: &TaskCounters, labels: &Labels) -> Vec<Sample> {
    let sample = |name: &str, help, value: u64, is_total| {
        let name = format!("flink_taskmanager_job_task_{name}");
        Sample { is_total, ..Sample::gauge(name, help, labels, value as f64) }
    };
    vec![
        sample("numBytesIn", "Bytes received from other processes", counters.bytes_in, true),
        sample("numBytesOut", "Bytes sent to other processes", counters.bytes_out, true),
        sample("inputQueueLength", "Batches that wait to be read", counters.input_queue_length, false),
        sample(
            "outputQueueLength",
            "Batches that wait because their channel is full",
            counters.output_queue_length,
            false,
        ),
        sample("stateBytes", "Size of the state", counters.state_bytes, false),
    ]
}

fn of_operator(operator: OperatorSight<'_>, labels: &Labels) -> Vec<Sample> {
    let mut labels = labels.clone();
    labels.push(("operator_name", operator.counters.name.clone()));
    let metrics = METRICS.iter().filter_map(|metric| {
        let Reading::Subtask { operator: read, .. } = metric.reading else { return None };
        let name = format!("flink_taskmanager_job_task_operator_{}", metric.name);
        let sample = Sample::gauge(name, metric.help, &labels, read(operator)?);
        Some(Sample { is_total: metric.is_total, ..sample })
    });
    let own = operator.counters.metrics.iter().enumerate();
    let own = own.flat_map(|(index, metric)| of_user(metric, operator.event_rate(index), &labels));
    metrics.chain(own).collect()
}

/// What user code or a connector has registered, whatever its groups: of a meter the rate, of a histogram a sample for each statistic.
fn of_user(metric: &UserMetric, rate: Option<f64>, labels: &Labels) -> Vec<Sample> {
    let groups = metric.scope.iter().map(|scope| scope.name.as_str()).chain([metric.name.as_str()]);
    let name = format!("flink_taskmanager_job_task_operator_{}", groups.collect::<Vec<_>>().join("_"));
    let own_labels: Vec<_> =
        metric.dimensions().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let help = connector::of(metric).map_or("", |(row, ..)| row.help);
    let sample = |suffix: &str, value: f64| Sample {
        own_labels: own_labels.clone(),
        ..Sample::gauge(format!("{name}{suffix}"), help, labels, value)
    };
    match metric.value {
        MetricValue::Counter(count) => vec![sample("", count as f64)],
        MetricValue::Gauge(value) => vec![sample("", value)],
        MetricValue::Meter(_) => rate.map(|rate| sample("", rate)).into_iter().collect(),
        MetricValue::Histogram(of) => [
            ("_count", of.count as f64),
            ("_min", of.min),
            ("_max", of.max),
            ("_mean", of.mean),
            ("_p50", of.p50),
            ("_p95", of.p95),
            ("_p99", of.p99),
        ]
        .map(|(suffix, value)| sample(suffix, value))
        .to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sight::fixtures::{counters, job, shard, user};
    use crate::window::MinuteRates;
    use thalweg_proto::model::{HistogramStatistics, OperatorCounters};

    #[test]
    fn names_and_labels_are_those_of_flink() {
        let operator = OperatorCounters {
            name: "map".into(),
            records_in: 7,
            metrics: vec![
                user("TotalWords", MetricValue::Counter(6)),
                user("Sizes", MetricValue::Histogram(HistogramStatistics { p99: 9.0, ..Default::default() })),
            ],
            ..OperatorCounters::default()
        };
        let task = TaskSight {
            task_manager: "tm-1".into(),
            attempt: 3,
            is_source: false,
            sinks: Vec::new(),
            counters: TaskCounters { name: "map".into(), operators: vec![operator], ..counters() },
            rates: None,
            minute: MinuteRates::default(),
        };
        let samples = of_task(&task, &vec![("job_name", "words".into())]);
        let of_name = |name: &str| samples.iter().find(|sample| sample.name == name);
        let records = of_name("flink_taskmanager_job_task_operator_numRecordsIn").expect("is there");
        assert_eq!((records.value, records.is_total), (7.0, true));
        let labels: Vec<_> = records.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected =
            ["job_name=words", "task_id=0", "task_name=map", "task_attempt_num=3", "subtask_index=0"];
        assert_eq!(labels, [&expected[..], &["operator_name=map"]].concat());
        let words = "flink_taskmanager_job_task_operator_KinesisAnalytics_Program_TotalWords";
        let words = of_name(words).expect("is there");
        assert_eq!((words.value, words.is_total), (6.0, false));
        assert_eq!(words.own_labels, [("Program".to_string(), "Words".to_string())]);
        let largest = "flink_taskmanager_job_task_operator_KinesisAnalytics_Program_Sizes_p99";
        assert_eq!(of_name(largest).map(|sample| sample.value), Some(9.0));
        assert!(of_name("flink_taskmanager_job_task_busyTimeMsPerSecond").is_none(), "it has no rates");
    }

    #[test]
    fn what_connectors_tell_has_the_names_and_labels_of_flink() {
        let metric = shard("orders", "shardId-000000000007", "millisBehindLatest", 250.0);
        let samples = of_user(&metric, None, &Labels::new());
        let sample = &samples[0];
        let name = "flink_taskmanager_job_task_operator_KinesisConsumer_stream_shardId_millisBehindLatest";
        assert_eq!((sample.name.as_str(), sample.value), (name, 250.0));
        let own: Vec<_> = sample.own_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(own, ["stream=orders", "shardId=shardId-000000000007"]);
        assert!(sample.help.starts_with("How far behind"));
    }

    #[test]
    fn jobs_and_processes_have_their_own() {
        let process = ProcessMetrics { cpu_percent: 12.5, threads: 4, ..ProcessMetrics::default() };
        let samples = of_process("taskmanager", &process, &vec![("tm_id", "a".into())]);
        let of_name = |name: &str| samples.iter().find(|sample| sample.name == name).map(|one| one.value);
        assert_eq!(of_name("flink_taskmanager_cpuUtilization"), Some(12.5));
        assert_eq!(of_name("flink_taskmanager_threadCount"), Some(4.0));
        let samples = of_job(&job(), 10_000, &Labels::new());
        let uptime = samples.iter().find(|sample| sample.name == "flink_jobmanager_job_uptime");
        let uptime = uptime.expect("is there");
        assert_eq!((uptime.value, uptime.labels[1].1.as_str()), (1_000.0, "words"));
    }
}
