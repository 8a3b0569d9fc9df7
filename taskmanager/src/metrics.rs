//! What Prometheus reads of a task manager: its machine, and the tasks that run here, with their operators.
//!
//! Computed when it is asked for. Rates over the last minute are those between the questions, of which there are several a minute.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, JobId, SubtaskId, TaskManagerId};
use thalweg_common::task_scope::TaskScope;
use thalweg_metrics::prometheus;
use thalweg_metrics::scope::{self, Labels, Sample};
use thalweg_metrics::sight::TaskSight;
use thalweg_metrics::window::RateWindow;
use thalweg_proto::convert::WireId;
use thalweg_proto::metrics::TaskRates;
use thalweg_proto::model::{ProcessMetrics, TaskCounters};
use thalweg_proto::v1;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::actor::Mail;

/// Answers Prometheus at this host and one of these ports, as long as `scope` lives.
pub(crate) async fn serve(
    (address, ports): &(String, String),
    id: &TaskManagerId,
    host: String,
    mailbox: mpsc::Sender<Mail>,
    scope: &TaskScope,
) -> Result<(), Failure> {
    let listener = prometheus::bind(address, ports).await.map_err(|error| {
        Failure::external(format!("{error}; choose another `metrics.reporter.prom.port`"))
    })?;
    if let Ok(bound) = listener.local_addr() {
        tracing::info!("metrics for Prometheus are at http://{bound}/metrics");
    }
    let labels = vec![("host", host), ("tm_id", id.to_string())];
    let seen = Arc::new(Mutex::new(Seen { labels, tasks: BTreeMap::new() }));
    let collect = move || {
        let (mailbox, seen) = (mailbox.clone(), Arc::clone(&seen));
        async move {
            let (reply, answer) = oneshot::channel();
            if mailbox.send(Mail::Metrics(reply)).await.is_err() {
                return Vec::new();
            }
            match answer.await {
                Ok(heartbeat) => seen.lock().await.samples(heartbeat),
                // It is stopping.
                Err(_) => Vec::new(),
            }
        }
    };
    let stopped = scope.token().cancelled_owned();
    scope.spawn_fallible("prometheus", prometheus::serve(listener, stopped, collect));
    Ok(())
}

/// What was seen of the tasks.
struct Seen {
    labels: Labels,
    tasks: BTreeMap<(JobId, SubtaskId), Task>,
}

#[derive(Default)]
struct Task {
    attempt: Attempt,
    window: RateWindow,
    earlier: Option<TaskCounters>,
}

impl Seen {
    fn samples(&mut self, heartbeat: v1::Heartbeat) -> Vec<Sample> {
        let mut samples = Vec::new();
        if let Some(process) = heartbeat.process {
            samples.extend(scope::of_process("taskmanager", &ProcessMetrics::from(process), &self.labels));
        }
        let mut seen = std::mem::take(&mut self.tasks);
        for job in heartbeat.jobs {
            let Ok(job_id) = JobId::from_wire("job_id", &job.job_id) else { continue };
            let mut labels = self.labels.clone();
            labels.extend([("job_id", job_id.to_string()), ("job_name", job.job_name)]);
            // What a worker of another version tells is left out.
            for counters in job.tasks.into_iter().filter_map(|task| TaskCounters::try_from(task).ok()) {
                let key = (job_id, counters.subtask);
                let known = seen.remove(&key).filter(|task| task.attempt == job.attempt);
                let mut task = known.unwrap_or_else(|| Task { attempt: job.attempt, ..Task::default() });
                samples.extend(scope::of_task(&task.see(counters), &labels));
                self.tasks.insert(key, task);
            }
        }
        samples
    }
}

impl Task {
    fn see(&mut self, counters: TaskCounters) -> TaskSight {
        self.window.add(&counters);
        let rates = TaskRates::between(self.earlier.as_ref(), &counters);
        self.earlier = Some(counters.clone());
        TaskSight {
            task_manager: String::new(),
            attempt: self.attempt,
            is_source: false,
            sinks: Vec::new(),
            rates: rates.filter(|_| !counters.status.is_terminal()),
            minute: self.window.rates(&counters),
            counters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_common::status::TaskStatus;

    fn heartbeat(attempt: Attempt, records_in: u64, busy_s: u64) -> v1::Heartbeat {
        let task = v1::TaskCounters {
            subtask: Some(v1::SubtaskId { vertex: 0, index: 0 }),
            status: v1::TaskStatus::from(TaskStatus::Running).into(),
            name: "map".into(),
            records_in,
            records_in_errors: 3,
            busy_ns: busy_s * 1_000_000_000,
            ..Default::default()
        };
        let job_id = JobId(7).to_wire();
        let job = v1::JobCounters { job_id, attempt, tasks: vec![task], job_name: "words".into() };
        let process = v1::ProcessMetrics { threads: 9, ..Default::default() };
        v1::Heartbeat { jobs: vec![job], process: Some(process) }
    }

    #[test]
    fn tasks_are_told_with_the_rates_between_two_questions() {
        let mut seen = Seen { labels: vec![("tm_id", "a".into())], tasks: BTreeMap::new() };
        let mut value = |heartbeat, name: &str| {
            let samples = seen.samples(heartbeat);
            let sample = samples.iter().find(|sample| sample.name == format!("flink_taskmanager_{name}"));
            sample.map(|sample| (sample.labels.clone(), sample.value))
        };
        let rate = "job_task_numRecordsInPerSecond";
        let (labels, first) = value(heartbeat(1, 100, 10), rate).expect("it runs");
        assert_eq!(first, 10.0);
        let expected =
            [("tm_id", "a"), ("job_id", "00000000000000000000000000000007"), ("job_name", "words")];
        assert_eq!(labels[..3], expected.map(|(name, value)| (name, value.to_string())));
        let unreadable = value(heartbeat(1, 100, 10), "job_task_numRecordsInErrors");
        assert_eq!(unreadable.map(|(_, records)| records), Some(3.0));
        let busy = value(heartbeat(1, 100, 20), "job_task_busyTimeMsPerSecond");
        assert_eq!(busy.map(|(_, busy)| busy), Some(1_000.0));
        let later = value(heartbeat(2, 40, 2), rate).map(|(_, rate)| rate);
        assert_eq!(later, Some(20.0), "another attempt begins anew");
        assert_eq!(value(heartbeat(2, 40, 3), "threadCount").map(|(_, threads)| threads), Some(9.0));
        assert_eq!(value(v1::Heartbeat::default(), rate), None);
    }
}
