//! Tests of the last hour: what a point says, gaps, ends of attempts and of memory.

#![allow(clippy::unwrap_used)]

use super::*;
use thalweg_common::status::{JobStatus, TaskStatus};
use thalweg_metrics::sight::{CheckpointSight, TaskManagerSight};
use thalweg_metrics::window::MinuteRates;
use thalweg_proto::model::{OperatorCounters, ProcessMetrics};
use thalweg_proto::v1;

/// A task that has run so many seconds, was busy in half of them and has handled so many records.
fn task(vertex: VertexId, index: u32, seconds: u64, records: u64) -> TaskSight {
    let subtask = SubtaskId { vertex, index };
    let told = v1::TaskCounters {
        subtask: Some(subtask.into()),
        status: v1::TaskStatus::from(TaskStatus::Running).into(),
        records_in: records,
        records_out: 2 * records,
        busy_ns: seconds * 500_000_000,
        idle_ns: seconds * 400_000_000,
        back_pressured_ns: seconds * 100_000_000,
        ..Default::default()
    };
    let mut counters = TaskCounters::try_from(told).unwrap();
    counters.name = format!("vertex {vertex}");
    counters.operators = vec![OperatorCounters { records_in: 3 * records, ..OperatorCounters::default() }];
    TaskSight {
        task_manager: "tm-1".into(),
        attempt: 1,
        is_source: vertex == 0,
        sinks: if vertex == 1 { vec![0] } else { Vec::new() },
        counters,
        rates: None,
        minute: MinuteRates::default(),
    }
}

fn job(tasks: Vec<TaskSight>) -> JobSight {
    let process =
        ProcessMetrics { cpu_percent: 40.0, heap_used_bytes: 1, heap_total_bytes: 4, ..Default::default() };
    JobSight {
        name: "words".into(),
        id: JobId(1),
        status: JobStatus::Running,
        status_since_ms: 0,
        stopped_running_ms: None,
        restarts: 2,
        full_restarts: 1,
        failed_checkpoints: 0,
        last_checkpoint: Some(CheckpointSight { size_bytes: 1_000, duration_ms: 20, alignment_ms: None }),
        tasks,
        task_managers: vec![TaskManagerSight { id: "tm-1".into(), host: "a".into(), process }],
    }
}

/// The values of a curve of the job.
fn values(hours: &Hours, name: &str) -> Vec<Option<f32>> {
    hours.curves(JobId(1)).series.into_iter().find(|curve| curve.name == name).unwrap().values
}

const STEP: Timestamp = STEP_MS as Timestamp;

#[test]
fn a_point_says_what_was_done_since_the_one_before() {
    let mut hours = Hours::default();
    let sight = |seconds, records| {
        job(vec![task(0, 0, seconds, records), task(0, 1, seconds, records), task(1, 0, seconds, records)])
    };
    hours.add(0, &[sight(10, 1_000)]);
    hours.add(STEP, &[sight(20, 1_500)]);
    // Nothing is known of rates before there are two sights.
    for (name, expected) in [
        ("numRecordsInPerSecond", [None, Some(100.0)]),
        ("numRecordsOutPerSecond", [None, Some(150.0)]),
        ("busyTimeMsPerSecond", [None, Some(500.0)]),
        ("backPressuredTimeMsPerSecond", [None, Some(100.0)]),
        ("watermarkLag", [None, None]),
        ("lastCheckpointDuration", [Some(20.0), Some(20.0)]),
        ("lastCheckpointSize", [Some(1_000.0), Some(1_000.0)]),
        ("cpuUtilization", [Some(40.0), Some(40.0)]),
        ("heapMemoryUtilization", [Some(25.0), Some(25.0)]),
        ("numRestarts", [Some(2.0), Some(2.0)]),
    ] {
        assert_eq!(values(&hours, name), expected, "{name}");
    }
    let curves = hours.curves(JobId(1));
    assert_eq!((curves.samples, curves.begins_ms, curves.end_ms), (2, Some(0), Some(STEP)));
    let vertices: Vec<_> =
        curves.vertices.iter().map(|vertex| (vertex.name.as_str(), vertex.series[0].values[1])).collect();
    assert_eq!(vertices, [("vertex 0", Some(100.0)), ("vertex 1", Some(50.0))]);
    assert_eq!(hours.recent(JobId(1), 1), [Some(100.0)]);
    assert_eq!(hours.curves(JobId(2)).samples, 0);
}

#[test]
fn watermarks_are_behind_the_clock_only_in_the_calendar() {
    let lag = |watermarks: [Option<i64>; 2]| {
        let now_ms = 1_700_000_000_000;
        let mut tasks = vec![task(0, 0, 1, 0), task(0, 1, 1, 0)];
        for (task, watermark) in tasks.iter_mut().zip(watermarks) {
            task.counters.current_output_watermark = watermark;
        }
        now(now_ms, &job(tasks), |_| None).watermark_lag_ms
    };
    for (watermarks, expected) in [
        ([None, None], None),
        ([Some(1_699_999_999_000), Some(1_699_999_998_000)], Some(2_000.0)),
        ([Some(1_699_999_999_000), None], Some(1_000.0)),
        ([Some(i64::MAX), Some(i64::MAX)], None),
        ([Some(5), Some(1_699_999_999_000)], None),
    ] {
        assert_eq!(lag(watermarks), expected, "{watermarks:?}");
    }
}

#[test]
fn another_attempt_and_missed_moments_leave_gaps() {
    let mut hours = Hours::default();
    let sight = |attempt, seconds, records| {
        let mut task = task(0, 0, seconds, records);
        task.attempt = attempt;
        job(vec![task])
    };
    hours.add(0, &[sight(1, 100, 10_000)]);
    hours.add(STEP + 300, &[sight(1, 110, 11_000)]);
    // Restarted: it counts from the beginning.
    hours.add(2 * STEP, &[sight(2, 1, 10)]);
    // Nobody looked for a while.
    hours.add(5 * STEP + 100, &[sight(2, 31, 3_010)]);
    // The clock was set back.
    hours.add(STEP, &[sight(2, 40, 4_000)]);
    assert_eq!(values(&hours, "numRecordsInPerSecond"), [None, Some(100.0), None, None, None, Some(100.0)]);
    assert_eq!(values(&hours, "numRestarts").iter().flatten().count(), 4);
}

#[test]
fn an_hour_is_kept_and_no_more_and_not_of_all_jobs() {
    let mut hours = Hours::default();
    let points = CHARTED_POINTS as i64;
    for step in 0..points + 5 {
        hours.add(step * STEP, &[job(Vec::new())]);
    }
    let curves = hours.curves(JobId(1));
    assert_eq!((curves.samples, curves.begins_ms), (CHARTED_POINTS, Some(5 * STEP)));
    // It has ended: an hour later it is forgotten.
    let mut ended = job(Vec::new());
    ended.status = JobStatus::Finished;
    let last_ms = (points + 4) * STEP;
    hours.add(last_ms + STEP, &[ended]);
    assert_eq!(hours.curves(JobId(1)).samples, CHARTED_POINTS);
    hours.add(last_ms + points * STEP, &[]);
    assert_eq!(hours.curves(JobId(1)).samples, 0);

    let many: Vec<_> =
        (0..CHARTED_JOBS as u128 + 3).map(|id| JobSight { id: JobId(id), ..job(Vec::new()) }).collect();
    hours.add(0, &many);
    hours.add(STEP, &many);
    assert_eq!(hours.jobs.len(), CHARTED_JOBS);
    assert!(hours.jobs.values().all(|hour| hour.points.len() == 2));
    let wide = (0..CHARTED_VERTICES as u32 + 3).map(|vertex| task(vertex, 0, 1, 1)).collect();
    hours.clear();
    hours.add(0, &[job(wide)]);
    assert_eq!(hours.curves(JobId(1)).vertices.len(), CHARTED_VERTICES);
}
