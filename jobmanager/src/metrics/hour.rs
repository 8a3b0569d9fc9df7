//! The last hour of each job, for whoever looks at it: a point every ten seconds, in the leader's memory. Pure.
//!
//! Nothing of it is replicated: a new leader begins with an empty hour. Bounded in points, jobs and vertices. A point says what was so
//! between the one before and itself: rates are differences of totals, measured by the tasks' own clocks.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use thalweg_common::Timestamp;
use thalweg_common::id::{Attempt, JobId, SubtaskId, VertexId};
use thalweg_common::limits::{CHARTED_JOBS, CHARTED_POINTS, CHARTED_VERTICES};
use thalweg_metrics::sight::{JobSight, TaskSight};
use thalweg_proto::metrics::TaskRates;
use thalweg_proto::model::TaskCounters;

/// The time between two points.
pub(crate) const STEP_MS: u64 = 10_000;

/// Event time before this is none of the calendar, so its distance from the clock says nothing: a year behind the epoch.
const LEAST_CALENDAR_MS: Timestamp = 365 * 86_400_000;

/// What is told of a job at one moment. What is not known is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct JobFigures {
    /// Records that its sources have read, per second.
    pub(crate) records_in: Option<f32>,
    /// Records that came to its sinks, per second.
    pub(crate) records_out: Option<f32>,
    /// Of the subtask that was busy longest, in milliseconds per second.
    pub(crate) busy: Option<f32>,
    /// Of the one that was back-pressured longest.
    pub(crate) back_pressured: Option<f32>,
    watermark_lag_ms: Option<f32>,
    checkpoint_ms: Option<f32>,
    checkpoint_bytes: Option<f32>,
    cpu_percent: Option<f32>,
    memory_percent: Option<f32>,
    restarts: Option<f32>,
}

/// The same of a vertex.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct VertexFigures {
    records_in: Option<f32>,
    records_out: Option<f32>,
    busy: Option<f32>,
    back_pressured: Option<f32>,
}

/// A curve's name (that of the metric), its unit, and where its values come from.
type Series<T> = (&'static str, &'static str, fn(&T) -> Option<f32>);

const OF_JOB: [Series<JobFigures>; 10] = [
    ("numRecordsInPerSecond", "count_per_second", |job| job.records_in),
    ("numRecordsOutPerSecond", "count_per_second", |job| job.records_out),
    ("busyTimeMsPerSecond", "milliseconds_per_second", |job| job.busy),
    ("backPressuredTimeMsPerSecond", "milliseconds_per_second", |job| job.back_pressured),
    ("watermarkLag", "milliseconds", |job| job.watermark_lag_ms),
    ("lastCheckpointDuration", "milliseconds", |job| job.checkpoint_ms),
    ("lastCheckpointSize", "bytes", |job| job.checkpoint_bytes),
    ("cpuUtilization", "percent", |job| job.cpu_percent),
    ("heapMemoryUtilization", "percent", |job| job.memory_percent),
    ("numRestarts", "count", |job| job.restarts),
];

const OF_VERTEX: [Series<VertexFigures>; 4] = [
    ("numRecordsInPerSecond", "count_per_second", |vertex| vertex.records_in),
    ("numRecordsOutPerSecond", "count_per_second", |vertex| vertex.records_out),
    ("busyTimeMsPerSecond", "milliseconds_per_second", |vertex| vertex.busy),
    ("backPressuredTimeMsPerSecond", "milliseconds_per_second", |vertex| vertex.back_pressured),
];

/// The last hours of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Hours {
    jobs: BTreeMap<JobId, Hour>,
}

#[derive(Debug, Default)]
struct Hour {
    /// The newest last, [`STEP_MS`] apart: moments that were missed have points without figures.
    points: VecDeque<Point>,
    /// What each subtask had counted at the newest point, in which attempt.
    counted: BTreeMap<SubtaskId, (Attempt, TaskCounters)>,
    /// By number.
    vertices: BTreeMap<VertexId, String>,
}

#[derive(Debug, Clone, Default)]
struct Point {
    at_ms: Timestamp,
    job: JobFigures,
    vertices: Vec<VertexFigures>,
}

/// The curves of a job.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Curves {
    step_ms: u64,
    /// How many points an hour has.
    length: usize,
    /// How many there are.
    samples: usize,
    /// When the first was noted; nothing while there is none.
    begins_ms: Option<Timestamp>,
    end_ms: Option<Timestamp>,
    series: Vec<Curve>,
    vertices: Vec<VertexCurves>,
}

#[derive(Debug, Serialize, PartialEq)]
struct VertexCurves {
    vertex: VertexId,
    name: String,
    series: Vec<Curve>,
}

#[derive(Debug, Serialize, PartialEq)]
struct Curve {
    name: &'static str,
    unit: &'static str,
    /// The oldest first.
    values: Vec<Option<f32>>,
}

impl Hours {
    /// Takes a sight of all jobs that go on. Beyond [`CHARTED_JOBS`] no more jobs are followed.
    pub(crate) fn add(&mut self, now_ms: Timestamp, jobs: &[JobSight]) {
        for job in jobs.iter().filter(|job| !job.status.is_terminal()) {
            if self.jobs.len() < CHARTED_JOBS || self.jobs.contains_key(&job.id) {
                self.jobs.entry(job.id).or_default().add(now_ms, job);
            }
        }
        let hour_ms = STEP_MS as Timestamp * CHARTED_POINTS as Timestamp;
        self.jobs.retain(|_, hour| hour.points.back().is_some_and(|last| now_ms - last.at_ms < hour_ms));
    }

    /// Forgets everything: this job manager does not lead any more.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
    }

    /// All curves of a job.
    pub(crate) fn curves(&self, job: JobId) -> Curves {
        let none = Hour::default();
        let hour = self.jobs.get(&job).unwrap_or(&none);
        let of_vertex = |(vertex, name): (&VertexId, &String)| VertexCurves {
            vertex: *vertex,
            name: name.clone(),
            series: curves(&OF_VERTEX, hour, |point| point.vertices.get(*vertex as usize)),
        };
        Curves {
            step_ms: STEP_MS,
            length: CHARTED_POINTS,
            samples: hour.points.len(),
            begins_ms: hour.points.front().map(|point| point.at_ms),
            end_ms: hour.points.back().map(|point| point.at_ms),
            series: curves(&OF_JOB, hour, |point| Some(&point.job)),
            vertices: hour.vertices.iter().map(of_vertex).collect(),
        }
    }

    /// Records that the sources of a job have read per second at the last `points` points, the oldest first.
    pub(crate) fn recent(&self, job: JobId, points: usize) -> Vec<Option<f32>> {
        let Some(hour) = self.jobs.get(&job) else { return Vec::new() };
        let skipped = hour.points.len().saturating_sub(points);
        hour.points.iter().skip(skipped).map(|point| point.job.records_in).collect()
    }
}

fn curves<T>(series: &[Series<T>], hour: &Hour, of: impl Fn(&Point) -> Option<&T>) -> Vec<Curve> {
    let curve = |(name, unit, value): &Series<T>| Curve {
        name,
        unit,
        values: hour.points.iter().map(|point| of(point).and_then(value)).collect(),
    };
    series.iter().map(curve).collect()
}

impl Hour {
    fn add(&mut self, now_ms: Timestamp, job: &JobSight) {
        let step_ms = STEP_MS as Timestamp;
        if let Some(last_ms) = self.points.back().map(|last| last.at_ms) {
            // A clock that was set back: the curve goes on where it is.
            if now_ms <= last_ms {
                return;
            }
            let missed = ((now_ms - last_ms + step_ms / 2) / step_ms - 1).clamp(0, CHARTED_POINTS as i64);
            let missed =
                (1..=missed).map(|step| Point { at_ms: last_ms + step * step_ms, ..Point::default() });
            self.points.extend(missed);
        }
        let known = |task: &TaskSight| {
            let (attempt, counters) = self.counted.get(&task.counters.subtask)?;
            (*attempt == task.attempt).then_some(counters)
        };
        let tasks: Vec<Lately> = job.tasks.iter().map(|task| lately(task, known(task))).collect();
        let vertices = vertices(&tasks);
        self.points.push_back(Point { at_ms: now_ms, job: of_job(now_ms, job, &tasks), vertices });
        while self.points.len() > CHARTED_POINTS {
            self.points.pop_front();
        }
        self.counted.clear();
        self.vertices.clear();
        for task in &job.tasks {
            let SubtaskId { vertex, .. } = task.counters.subtask;
            if (vertex as usize) < CHARTED_VERTICES {
                self.vertices.entry(vertex).or_insert_with(|| task.counters.name.clone());
            }
            let mut counters = task.counters.clone();
            counters.operators.iter_mut().for_each(|operator| operator.metrics.clear());
            self.counted.insert(counters.subtask, (task.attempt, counters));
        }
    }
}

/// What a task has done since it was looked at before.
struct Lately<'a> {
    task: &'a TaskSight,
    rates: Option<TaskRates>,
    /// Records that came to its sinks, per second.
    to_sinks: Option<f64>,
}

/// Of a task that had counted `earlier` in the same attempt; without that, what its own last two reports say.
fn lately<'a>(task: &'a TaskSight, earlier: Option<&TaskCounters>) -> Lately<'a> {
    let later = &task.counters;
    if later.status.is_terminal() {
        return Lately { task, rates: None, to_sinks: None };
    }
    let Some(earlier) = earlier else { return Lately { task, rates: task.rates, to_sinks: None } };
    let received = |counters: &TaskCounters, place: u32| {
        counters.operators.get(place as usize).map_or(0, |operator| operator.records_in)
    };
    let to_sinks =
        task.sinks.iter().map(|place| received(later, *place).saturating_sub(received(earlier, *place)));
    let to_sinks: u64 = to_sinks.sum();
    let time_ns = time_ns(later).saturating_sub(time_ns(earlier));
    Lately {
        task,
        rates: TaskRates::between(Some(earlier), later),
        to_sinks: (time_ns > 0).then(|| to_sinks as f64 * 1e9 / time_ns as f64),
    }
}

fn time_ns(counters: &TaskCounters) -> u64 {
    counters.busy_ns.saturating_add(counters.idle_ns).saturating_add(counters.back_pressured_ns)
}

/// What a job does at this moment; `earlier` is what a task told before its last report.
pub(crate) fn now(
    now_ms: Timestamp,
    job: &JobSight,
    earlier: impl Fn(&TaskSight) -> Option<TaskCounters>,
) -> JobFigures {
    let tasks: Vec<Lately> = job.tasks.iter().map(|task| lately(task, earlier(task).as_ref())).collect();
    of_job(now_ms, job, &tasks)
}

fn of_job(now_ms: Timestamp, job: &JobSight, tasks: &[Lately]) -> JobFigures {
    let sources = tasks.iter().filter(|lately| lately.task.is_source);
    let sinks = tasks.iter().filter(|lately| !lately.task.sinks.is_empty());
    let watermarks = tasks.iter().filter_map(|lately| lately.task.counters.current_output_watermark);
    let watermark = watermarks.min().filter(|watermark| (LEAST_CALENDAR_MS..i64::MAX).contains(watermark));
    let machine = |of: fn(&thalweg_proto::model::ProcessMetrics) -> f64| {
        greatest(job.task_managers.iter().map(|manager| Some(of(&manager.process) as f32)))
    };
    let last = job.last_checkpoint;
    JobFigures {
        records_in: sum(sources.map(|lately| lately.rates.map(|rates| rates.num_records_in_per_second))),
        records_out: sum(sinks.map(|lately| lately.to_sinks)),
        busy: greatest(tasks.iter().map(busy)),
        back_pressured: greatest(tasks.iter().map(back_pressured)),
        watermark_lag_ms: watermark.map(|watermark| (now_ms - watermark) as f32),
        checkpoint_ms: last.map(|last| last.duration_ms as f32),
        checkpoint_bytes: last.map(|last| last.size_bytes as f32),
        cpu_percent: machine(|process| process.cpu_percent),
        memory_percent: machine(|process| {
            process.heap_used_bytes as f64 * 100.0 / process.heap_total_bytes.max(1) as f64
        }),
        restarts: Some(job.restarts as f32),
    }
}

fn vertices(tasks: &[Lately]) -> Vec<VertexFigures> {
    let count =
        tasks.iter().map(|lately| lately.task.counters.subtask.vertex as usize + 1).max().unwrap_or(0);
    let figures = |vertex: usize| {
        let own =
            || tasks.iter().filter(move |lately| lately.task.counters.subtask.vertex as usize == vertex);
        VertexFigures {
            records_in: sum(own().map(|lately| lately.rates.map(|rates| rates.num_records_in_per_second))),
            records_out: sum(own().map(|lately| lately.rates.map(|rates| rates.num_records_out_per_second))),
            busy: greatest(own().map(busy)),
            back_pressured: greatest(own().map(back_pressured)),
        }
    };
    (0..count.min(CHARTED_VERTICES)).map(figures).collect()
}

fn busy(lately: &Lately) -> Option<f32> {
    lately.rates.map(|rates| rates.busy_time_ms_per_second as f32)
}

fn back_pressured(lately: &Lately) -> Option<f32> {
    lately.rates.map(|rates| rates.back_pressured_time_ms_per_second as f32)
}

/// Of those that are known; nothing if none is.
fn sum(values: impl Iterator<Item = Option<f64>>) -> Option<f32> {
    values.flatten().fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value)).map(|sum: f64| sum as f32)
}

fn greatest(values: impl Iterator<Item = Option<f32>>) -> Option<f32> {
    values.flatten().max_by(f32::total_cmp)
}

#[cfg(test)]
#[path = "hour_tests.rs"]
mod tests;
