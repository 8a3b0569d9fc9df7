//! A report: all metrics of a job at one moment, at one level and all that are coarser.
//!
//! Pure. At the levels of tasks and operators a metric has one sample for each subtask, so that the greatest of them finds the
//! hottest one. User code's metrics are reported at every level, with their own dimensions too.

use std::collections::BTreeMap;

use thalweg_common::Timestamp;
use thalweg_proto::model::{MetricValue, UserMetric};

use crate::connector;
use crate::sight::{JobSight, TaskSight};
use crate::table::{Level, METRICS, Metric, OperatorSight, Reading, Unit, operators};

/// The dimensions of values: names and what they are, in the order in which they are told.
pub type Dimensions = Vec<(String, String)>;

/// The values of one metric with the same dimensions, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// The metric.
    pub name: String,
    /// What its values count.
    pub unit: Unit,
    /// Of what they are.
    pub dimensions: Dimensions,
    /// One sample each.
    pub values: Vec<f64>,
    /// When, in milliseconds since the epoch.
    pub timestamp_ms: Timestamp,
}

/// All metrics of a job, at this level and all that are coarser. Snapshots are numbered, four to a minute.
#[must_use]
pub fn report(job: &JobSight, level: Level, snapshot: u64, now_ms: Timestamp) -> Vec<Datum> {
    let mut report = Report { job, now_ms, data: BTreeMap::new() };
    for metric in METRICS {
        report.add_metric(metric, level, snapshot);
    }
    for (metric, own, value) in connector::values(job, level >= Level::Parallelism) {
        let dimensions = whole(job).into_iter().chain(own).collect();
        report.add(metric.name, metric.unit, dimensions, Some(value));
    }
    for task in &job.tasks {
        report.add_user_metrics(task, level);
    }
    report.into_data()
}

struct Report<'a> {
    job: &'a JobSight,
    now_ms: Timestamp,
    data: BTreeMap<(String, Dimensions), (Unit, Vec<f64>)>,
}

impl Report<'_> {
    fn add(&mut self, name: &str, unit: Unit, dimensions: Dimensions, value: Option<f64>) {
        // What is no number cannot be told.
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let entry = self.data.entry((name.to_string(), dimensions));
            entry.or_insert_with(|| (unit, Vec::new())).1.push(value);
        }
    }

    fn add_metric(&mut self, metric: &Metric, level: Level, snapshot: u64) {
        let job = self.job;
        let whole = || whole(job);
        match metric.reading {
            Reading::Job(read) => self.add(metric.name, metric.unit, whole(), read(job, self.now_ms)),
            Reading::TaskManager(per_minute, read) => {
                for manager in job.task_managers.iter().filter(|_| per_minute.includes(snapshot)) {
                    self.add(metric.name, metric.unit, whole(), Some(read(&manager.process)));
                }
            }
            Reading::Subtask { task, operator, application } => {
                let of_all = application.and_then(|application| application(job));
                self.add(metric.name, metric.unit, whole(), of_all);
                for of in &job.tasks {
                    self.add_subtask(metric, of, level, task, operator);
                }
            }
        }
    }

    /// The samples of one subtask.
    fn add_subtask(
        &mut self,
        metric: &Metric,
        task: &TaskSight,
        level: Level,
        read_task: fn(&TaskSight) -> Option<f64>,
        read_operator: fn(OperatorSight<'_>) -> Option<f64>,
    ) {
        if level >= Level::Task {
            self.add(
                metric.name,
                metric.unit,
                dimensions(self.job, task, None, Level::Task),
                read_task(task),
            );
        }
        for level in [Level::Operator, Level::Parallelism].into_iter().filter(|of| *of <= level) {
            for operator in operators(task) {
                let dimensions = dimensions(self.job, task, Some(&operator.counters.name), level);
                self.add(metric.name, metric.unit, dimensions, read_operator(operator));
            }
        }
    }

    /// What the functions of a subtask have registered, as far as it is exported.
    fn add_user_metrics(&mut self, task: &TaskSight, finest: Level) {
        for operator in operators(task) {
            let metrics = operator.counters.metrics.iter().enumerate();
            for (index, metric) in metrics.filter(|(_, metric)| metric.is_exported()) {
                let (unit, value) = user_value(metric, operator.event_rate(index));
                for level in Level::ALL.into_iter().filter(|level| *level <= finest) {
                    let mut dimensions = dimensions(self.job, task, Some(&operator.counters.name), level);
                    let own = metric.dimensions().map(|(name, value)| (name.to_string(), value.to_string()));
                    dimensions.extend(own);
                    self.add(&metric.exported_name(), unit, dimensions, value);
                }
            }
        }
    }

    fn into_data(self) -> Vec<Datum> {
        let timestamp_ms = self.now_ms;
        let datum =
            |((name, dimensions), (unit, values))| Datum { name, unit, dimensions, values, timestamp_ms };
        self.data.into_iter().map(datum).collect()
    }
}

/// What a user's metric shows, if it is exported.
fn user_value(metric: &UserMetric, rate: Option<f64>) -> (Unit, Option<f64>) {
    match metric.value {
        MetricValue::Counter(count) => (Unit::Count, Some(count as f64)),
        MetricValue::Gauge(value) => (Unit::None, Some(value)),
        MetricValue::Meter(_) => (Unit::CountPerSecond, rate),
        MetricValue::Histogram(_) => (Unit::None, None),
    }
}

/// The dimension of everything.
fn whole(job: &JobSight) -> Dimensions {
    vec![("Application".to_string(), job.name.clone())]
}

/// The dimensions of a subtask at a level. A level adds its own to those of the coarser ones.
fn dimensions(job: &JobSight, task: &TaskSight, operator: Option<&str>, level: Level) -> Dimensions {
    let mut dimensions = whole(job);
    if level >= Level::Task {
        dimensions.push(("Task".to_string(), task.counters.name.clone()));
    }
    if let Some(operator) = operator.filter(|_| level >= Level::Operator) {
        dimensions.push(("Operator".to_string(), operator.to_string()));
    }
    if level >= Level::Parallelism {
        dimensions.push(("Parallelism".to_string(), task.counters.subtask.index.to_string()));
    }
    dimensions
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
