//! Every metric against prepared jobs: idle, half busy, back-pressured, failing, finished.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use thalweg_common::id::SubtaskId;
use thalweg_common::status::{JobStatus, TaskStatus};
use thalweg_proto::metrics::TaskRates;
use thalweg_proto::model::{HistogramStatistics, OperatorCounters, ProcessMetrics, TaskCounters};

use super::*;
use crate::sight::fixtures::{counters, job, meter, shard, user};
use crate::sight::{CheckpointSight, TaskManagerSight};
use crate::window::RateWindow;

/// When reports are made, in milliseconds since the epoch.
const NOW_MS: Timestamp = 100_000;

const SECOND_NS: u64 = 1_000_000_000;

/// A subtask of a job `source -> map` and `sum -> sink`, ten seconds old, which has spent so many milliseconds of each second busy, idle and
/// back-pressured.
fn task(vertex: u32, index: u32, records: u64, [busy, idle, back_pressured]: [u64; 3]) -> TaskSight {
    let of_ten = |ms_per_second: u64| ms_per_second * SECOND_NS / 100;
    let names = [["source", "map"], ["sum", "sink"]][vertex as usize];
    let operator = |position: usize, records_out| OperatorCounters {
        position: position as u32,
        name: names[position].into(),
        records_in: records,
        records_out,
        ..OperatorCounters::default()
    };
    let last_out = if vertex == 0 { records } else { 0 };
    let counters = TaskCounters {
        subtask: SubtaskId { vertex, index },
        name: names.join(" -> "),
        records_in: records,
        records_out: last_out,
        busy_ns: of_ten(busy),
        idle_ns: of_ten(idle),
        back_pressured_ns: of_ten(back_pressured),
        operators: vec![operator(0, records), operator(1, last_out)],
        ..counters()
    };
    let mut window = RateWindow::default();
    window.add(&counters);
    TaskSight {
        task_manager: "tm-1".into(),
        attempt: 1,
        is_source: vertex == 0,
        sinks: if vertex == 1 { vec![1] } else { Vec::new() },
        rates: TaskRates::between(None, &counters).filter(|_| !counters.status.is_terminal()),
        minute: window.rates(&counters),
        counters,
    }
}

/// The values of a metric with these dimensions behind `Application`.
fn values(data: &[Datum], name: &str, dimensions: &[(&str, &str)]) -> Vec<f64> {
    let is_it = |datum: &&Datum| {
        let own = datum.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        datum.name == name && own.eq([("Application", "words")].into_iter().chain(dimensions.iter().copied()))
    };
    data.iter().find(is_it).map(|datum| datum.values.clone()).unwrap_or_default()
}

/// The same of the whole job.
fn of_job(job: &JobSight, name: &str) -> Vec<f64> {
    values(&report(job, Level::Application, 0, NOW_MS), name, &[])
}

const SUM: (&str, &str) = ("Task", "sum -> sink");

#[test]
fn an_idle_job_is_idle() {
    let job = JobSight { tasks: vec![task(0, 0, 0, [0, 1_000, 0]), task(1, 0, 0, [1, 999, 0])], ..job() };
    let data = report(&job, Level::Task, 0, NOW_MS);
    assert_eq!(values(&data, "idleTimeMsPerSecond", &[SUM]), [999.0]);
    assert_eq!(values(&data, "busyTimeMsPerSecond", &[SUM]), [1.0]);
    assert_eq!(values(&data, "backPressuredTimeMsPerSecond", &[SUM]), [0.0]);
    for name in ["numRecordsIn", "numRecordsOut", "numRecordsInPerSecond", "numRecordsOutPerSecond"] {
        assert_eq!(of_job(&job, name), [0.0], "{name}");
    }
    assert_eq!((of_job(&job, "uptime"), of_job(&job, "downtime")), (vec![91_000.0], vec![0.0]));
    for none in ["currentInputWatermark", "currentOutputWatermark", "lastCheckpointSize", "managedMemoryUsed"]
    {
        assert_eq!(of_job(&job, none), [0.0; 0], "{none} is not known");
    }
}

#[test]
fn a_half_busy_job_tells_each_level_its_samples() {
    let tasks =
        vec![task(0, 0, 300, [400, 600, 0]), task(1, 0, 100, [250, 750, 0]), task(1, 1, 200, [750, 250, 0])];
    let job = JobSight { tasks, ..job() };
    // Of the whole job: what its source reads, and what comes to its sinks.
    assert_eq!(of_job(&job, "numRecordsIn"), [300.0]);
    assert_eq!(of_job(&job, "numRecordsOut"), [300.0]);
    assert_eq!(of_job(&job, "numRecordsInPerSecond"), [30.0]);
    assert_eq!(of_job(&job, "numRecordsOutPerSecond"), [30.0]);
    assert_eq!(of_job(&job, "busyTimeMsPerSecond"), [0.0; 0], "it has no meaning there");

    let data = report(&job, Level::Parallelism, 0, NOW_MS);
    let operator = [SUM, ("Operator", "sum")];
    assert_eq!(values(&data, "busyTimeMsPerSecond", &[SUM]), [250.0, 750.0]);
    assert_eq!(values(&data, "busyTimeMsPerSecond", &operator), [250.0, 750.0]);
    let subtask = [SUM, ("Operator", "sum"), ("Parallelism", "1")];
    assert_eq!(values(&data, "busyTimeMsPerSecond", &subtask), [750.0]);
    assert_eq!(values(&data, "idleTimeMsPerSecond", &subtask), [250.0]);
    assert_eq!(values(&data, "numRecordsIn", &operator), [100.0, 200.0]);
    assert_eq!(values(&data, "numRecordsOut", &[SUM, ("Operator", "sink")]), [0.0, 0.0]);
    assert_eq!(values(&data, "numRecordsInPerSecond", &subtask), [20.0]);

    // A level reports itself and all that are coarser, and nothing finer.
    for (level, deepest) in Level::ALL.into_iter().zip(1..) {
        let data = report(&job, level, 0, NOW_MS);
        assert_eq!(data.iter().map(|datum| datum.dimensions.len()).max(), Some(deepest), "{level:?}");
        assert!(data.iter().any(|datum| datum.dimensions.len() == 1), "{level:?}");
        assert!(data.iter().all(|datum| datum.timestamp_ms == NOW_MS));
    }
}

#[test]
fn a_back_pressured_task_is_not_idle() {
    let job = JobSight { tasks: vec![task(0, 0, 10, [100, 0, 900])], ..job() };
    let data = report(&job, Level::Task, 0, NOW_MS);
    let source = [("Task", "source -> map")];
    for (name, expected) in [
        ("backPressuredTimeMsPerSecond", 900.0),
        ("idleTimeMsPerSecond", 0.0),
        ("busyTimeMsPerSecond", 100.0),
    ] {
        assert_eq!(values(&data, name, &source), [expected], "{name}");
    }
}

#[test]
fn time_and_what_is_late_or_unreadable_are_those_of_operators() {
    let mut late = task(1, 0, 10, [0, 1_000, 0]);
    late.counters.late_records_dropped = 3;
    (late.counters.current_input_watermark, late.counters.current_output_watermark) = (Some(50), Some(40));
    late.counters.operators[0].late_records_dropped = 3;
    late.counters.records_in_errors = 7;
    (late.counters.operators[0].records_in_errors, late.counters.operators[1].records_in_errors) = (5, 2);
    late.counters.operators[0].current_input_watermark = Some(50);
    late.counters.operators[0].current_output_watermark = Some(40);
    let mut later = late.clone();
    later.counters.subtask.index = 1;
    (later.counters.current_input_watermark, later.counters.late_records_dropped) = (Some(70), 0);
    let job = JobSight { tasks: vec![late, later], ..job() };
    assert_eq!(of_job(&job, "currentInputWatermark"), [50.0], "the least");
    assert_eq!(of_job(&job, "currentOutputWatermark"), [40.0]);
    assert_eq!(of_job(&job, "numLateRecordsDropped"), [3.0]);
    assert_eq!(of_job(&job, "numRecordsInErrors"), [14.0], "of all subtasks");
    let data = report(&job, Level::Operator, 0, NOW_MS);
    assert_eq!(values(&data, "currentInputWatermark", &[SUM]), [50.0, 70.0]);
    assert_eq!(values(&data, "numLateRecordsDropped", &[SUM, ("Operator", "sum")]), [3.0, 3.0]);
    assert_eq!(values(&data, "numLateRecordsDropped", &[SUM, ("Operator", "sink")]), [0.0, 0.0]);
    assert_eq!(values(&data, "numRecordsInErrors", &[SUM]), [7.0, 7.0]);
    assert_eq!(values(&data, "numRecordsInErrors", &[SUM, ("Operator", "sum")]), [5.0, 5.0]);
    assert_eq!(values(&data, "numRecordsInErrors", &[SUM, ("Operator", "sink")]), [2.0, 2.0]);
}

#[test]
fn a_failing_job_is_down_since_it_stopped_running() {
    let mut down = JobSight {
        status: JobStatus::Restarting,
        status_since_ms: 98_500,
        stopped_running_ms: Some(98_500),
        restarts: 3,
        full_restarts: 1,
        failed_checkpoints: 7,
        last_checkpoint: Some(CheckpointSight { size_bytes: 4_096, duration_ms: 120, alignment_ms: Some(9) }),
        ..job()
    };
    for (name, expected) in [
        ("uptime", 0.0),
        ("downtime", 1_500.0),
        ("numRestarts", 3.0),
        ("fullRestarts", 1.0),
        ("numberOfFailedCheckpoints", 7.0),
        ("lastCheckpointSize", 4_096.0),
        ("lastCheckpointDuration", 120.0),
        ("lastCheckpointAlignmentDuration", 9.0),
    ] {
        assert_eq!(of_job(&down, name), [expected], "{name}");
    }
    down.last_checkpoint.as_mut().unwrap().alignment_ms = None;
    assert_eq!(of_job(&down, "lastCheckpointAlignmentDuration"), [0.0; 0]);
    let new = JobSight { status: JobStatus::Created, ..job() };
    assert_eq!((of_job(&new, "uptime"), of_job(&new, "downtime")), (vec![0.0], vec![0.0]), "it never ran");
}

#[test]
fn a_finished_job_has_neither_uptime_nor_rates() {
    for status in [JobStatus::Finished, JobStatus::Canceled, JobStatus::Failed] {
        let mut ended = task(0, 0, 10, [500, 500, 0]);
        ended.counters.status = TaskStatus::Finished;
        ended.rates = None;
        let job = JobSight { status, stopped_running_ms: Some(99_000), tasks: vec![ended], ..job() };
        assert_eq!((of_job(&job, "uptime"), of_job(&job, "downtime")), (vec![-1.0], vec![-1.0]));
        assert_eq!(of_job(&job, "numRecordsIn"), [10.0], "totals stay");
        let data = report(&job, Level::Operator, 0, NOW_MS);
        let source = [("Task", "source -> map")];
        assert_eq!(values(&data, "numRecordsInPerSecond", &source), [0.0; 0]);
        assert_eq!(values(&data, "busyTimeMsPerSecond", &source), [0.0; 0]);
    }
}

#[test]
fn machines_have_a_sample_each_as_often_as_they_shall() {
    let manager = |id: &str, scale: f64| TaskManagerSight {
        id: id.into(),
        host: "h".into(),
        process: ProcessMetrics {
            cpu_percent: 10.0 * scale,
            container_cpu_percent: 20.0 * scale,
            container_memory_percent: 30.0,
            container_disk_percent: 40.0,
            heap_used_bytes: 1,
            heap_total_bytes: 4,
            threads: 12,
        },
    };
    let job = JobSight { task_managers: vec![manager("a", 1.0), manager("b", 2.0)], ..job() };
    for (name, samples, expected) in [
        ("cpuUtilization", 2, vec![10.0, 20.0]),
        ("heapMemoryUtilization", 2, vec![25.0, 25.0]),
        ("containerCPUUtilization", 4, vec![20.0, 40.0]),
        ("containerMemoryUtilization", 4, vec![30.0, 30.0]),
        ("containerDiskUtilization", 4, vec![40.0, 40.0]),
        ("threadCount", 4, vec![24.0]),
    ] {
        let minute: Vec<_> = (8..12)
            .map(|snapshot| values(&report(&job, Level::Application, snapshot, NOW_MS), name, &[]))
            .collect();
        assert_eq!(minute[0], expected, "{name}");
        assert_eq!(minute.concat().len(), samples, "{name}");
    }
}

#[test]
fn managed_memory_and_stalls_are_those_of_stores() {
    let store = |used, stalls| {
        let mut task = task(1, 0, 0, [0, 1_000, 0]);
        let operator = &mut task.counters.operators[0];
        (operator.managed_memory_used_bytes, operator.managed_memory_total_bytes) = (used, 1_000);
        (operator.memory_stalls, operator.memory_stall_ns) = (stalls, stalls * 2_500_000);
        task
    };
    let job = JobSight { tasks: vec![store(100, 1), store(600, 2), task(0, 0, 0, [0, 1_000, 0])], ..job() };
    for (name, expected) in [
        ("managedMemoryUsed", 700.0),
        ("managedMemoryTotal", 2_000.0),
        ("managedMemoryUtilization", 35.0),
        ("oldGenerationGCCount", 3.0),
        ("oldGenerationGCTime", 7.0),
    ] {
        assert_eq!(of_job(&job, name), [expected], "{name}");
    }
    let data = report(&job, Level::Operator, 0, NOW_MS);
    let sum = [SUM, ("Operator", "sum")];
    assert_eq!(values(&data, "managedMemoryUtilization", &sum), [10.0, 60.0]);
    assert_eq!(values(&data, "managedMemoryUtilization", &[SUM]), [10.0, 60.0]);
    assert_eq!(values(&data, "managedMemoryUsed", &[SUM, ("Operator", "sink")]), [0.0; 0]);
}

#[test]
fn a_users_metrics_are_told_with_their_dimensions() {
    let mut counting = task(0, 0, 10, [0, 1_000, 0]);
    counting.counters.operators[1].metrics = vec![
        user("TotalWords", MetricValue::Counter(6)),
        user("Filtered", MetricValue::Gauge(2.5)),
        meter(20),
        user("Sizes", MetricValue::Histogram(HistogramStatistics::default())),
        UserMetric { scope: Vec::new(), name: "Private".into(), value: MetricValue::Counter(1) },
    ];
    let mut window = RateWindow::default();
    window.add(&counting.counters);
    counting.minute = window.rates(&counting.counters);
    let job = JobSight { tasks: vec![counting], ..job() };
    let data = report(&job, Level::Operator, 0, NOW_MS);
    let program = ("Program", "Words");
    for (name, unit, value) in [
        ("TotalWords", Unit::Count, 6.0),
        ("Filtered", Unit::None, 2.5),
        ("Marks", Unit::CountPerSecond, 2.0),
    ] {
        assert_eq!(values(&data, name, &[program]), [value], "{name}");
        let operator = [("Task", "source -> map"), ("Operator", "map"), program];
        assert_eq!(values(&data, name, &operator), [value], "{name}");
        assert!(data.iter().filter(|datum| datum.name == name).all(|datum| datum.unit == unit));
    }
    assert!(!data.iter().any(|datum| datum.name == "Sizes" || datum.name == "Private"));
}

#[test]
fn names_units_and_levels_are_those_of_the_service() {
    let all = &[Level::Application, Level::Task, Level::Operator, Level::Parallelism][..];
    let (job, tasks) = (&all[..1], &all[1..]);
    let expected = [
        ("backPressuredTimeMsPerSecond", "Milliseconds", tasks),
        ("busyTimeMsPerSecond", "Milliseconds", tasks),
        ("idleTimeMsPerSecond", "Milliseconds", tasks),
        ("cpuUtilization", "Percent", job),
        ("containerCPUUtilization", "Percent", job),
        ("containerMemoryUtilization", "Percent", job),
        ("containerDiskUtilization", "Percent", job),
        ("currentInputWatermark", "Milliseconds", all),
        ("currentOutputWatermark", "Milliseconds", all),
        ("downtime", "Milliseconds", job),
        ("uptime", "Milliseconds", job),
        ("fullRestarts", "Count", job),
        ("numRestarts", "Count", job),
        ("heapMemoryUtilization", "Percent", job),
        ("oldGenerationGCCount", "Count", job),
        ("oldGenerationGCTime", "Milliseconds", job),
        ("threadCount", "Count", job),
        ("managedMemoryUsed", "Bytes", all),
        ("managedMemoryTotal", "Bytes", all),
        ("managedMemoryUtilization", "Percent", all),
        ("lastCheckpointSize", "Bytes", job),
        ("lastCheckpointDuration", "Milliseconds", job),
        ("lastCheckpointAlignmentDuration", "Milliseconds", job),
        ("numberOfFailedCheckpoints", "Count", job),
        ("numRecordsIn", "Count", all),
        ("numRecordsOut", "Count", all),
        ("numRecordsInPerSecond", "Count/Second", all),
        ("numRecordsOutPerSecond", "Count/Second", all),
        ("numLateRecordsDropped", "Count", all),
        ("numRecordsInErrors", "Count", all),
    ];
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names, expected.iter().map(|(name, ..)| *name).collect());
    for (name, unit, levels) in expected {
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!(metric.unit.name(), unit, "{name}");
        assert_eq!(
            Level::ALL.into_iter().filter(|level| metric.has(*level)).collect::<Vec<_>>(),
            levels,
            "{name}"
        );
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
    }
    assert!(Level::ALL.into_iter().all(|level| Level::named(level.name()) == Some(level)));
}

#[test]
fn a_stream_is_as_far_behind_as_its_last_shard_and_shards_are_told_at_the_finest_level() {
    let mut tasks = vec![task(0, 0, 0, [0, 1_000, 0]), task(0, 1, 0, [0, 1_000, 0])];
    let name = "millisBehindLatest";
    tasks[0].counters.operators[0].metrics = vec![
        shard("orders", "shardId-000000000000", name, 0.0),
        shard("orders", "shardId-000000000001", name, 1_500.0),
        shard("trades", "shardId-000000000000", name, -1.0),
        shard("trades", "shardId-000000000000", "bytesRequestedPerFetch", 0.0),
    ];
    tasks[1].counters.operators[0].metrics = vec![shard("orders", "shardId-000000000002", name, 700.0)];
    let job = JobSight { tasks, ..job() };
    for level in Level::ALL {
        let data = report(&job, level, 0, NOW_MS);
        let (orders, trades) = (("StreamName", "orders"), ("StreamName", "trades"));
        assert_eq!(values(&data, name, &[orders]), [1_500.0]);
        assert_eq!(values(&data, name, &[trades]), [-1.0], "nothing of it was read");
        assert_eq!(values(&data, "bytesRequestedPerFetch", &[trades]), [0.0]);
        let units = data.iter().filter(|datum| datum.name == name).map(|datum| datum.unit);
        assert!(units.clone().all(|unit| unit == Unit::Milliseconds));
        let of_shard = values(&data, name, &[orders, ("ShardId", "shardId-000000000002")]);
        match level {
            Level::Parallelism => assert_eq!((of_shard, units.count()), (vec![700.0], 6)),
            _ => assert_eq!((of_shard, units.count()), (vec![], 2)),
        }
    }
}
