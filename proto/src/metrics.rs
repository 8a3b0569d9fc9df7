//! Metrics of a task under the names which Flink and CloudWatch have for them.
//!
//! Tasks count in totals, which travel as they are; rates come into being here, from two totals of the same execution and
//! the time between them, for whoever shows them. Pure. The task's own clock measures: its busy, idle and back-pressured
//! time add up to the time it has run, so neither delays on the way nor other machines' clocks distort a rate.

use std::fmt;

use serde::Serialize;

use crate::model::TaskCounters;

const NS_PER_MS: u64 = 1_000_000;
const MS_PER_SECOND: u64 = 1_000;

/// The share of its time which a task may be back-pressured before its level is [`BackPressure::Low`].
const LOW_ABOVE_MS_PER_SECOND: u64 = 100;

/// The same for [`BackPressure::High`].
const HIGH_ABOVE_MS_PER_SECOND: u64 = 500;

/// What a task does. Serialized, a field has the metric's exact name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskMetrics {
    /// Records received since the execution began.
    pub num_records_in: u64,
    /// Records emitted since the execution began.
    pub num_records_out: u64,
    /// Bytes received from other processes since the execution began.
    pub num_bytes_in: u64,
    /// Bytes sent to other processes since the execution began.
    pub num_bytes_out: u64,
    /// Records that windows and patterns have dropped because they came too late, since the execution began.
    pub num_late_records_dropped: u64,
    /// Records that sources and formats could not read, and have left out or sent to a side output, since the execution began.
    pub num_records_in_errors: u64,
    /// Of an enumerator: splits that were found and no reader has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unassigned_splits: Option<u64>,
    /// Batches that wait to be read.
    pub input_queue_length: u64,
    /// Batches that wait because their channel is full.
    pub output_queue_length: u64,
    /// Bytes that the receivers of its remote channels together have room for.
    pub available_credit_bytes: u64,
    /// The last watermark that came to it, in milliseconds since the epoch. Absent before the first, and for a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_input_watermark: Option<i64>,
    /// The last watermark that it emitted. Absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_output_watermark: Option<i64>,
    /// Of a source that is aligned with others: how many milliseconds it is ahead of the least watermark of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark_alignment_drift: Option<i64>,
    /// How fast. Absent for a task that has not run in the meantime, or has ended.
    #[serde(flatten)]
    pub rates: Option<TaskRates>,
}

/// How fast a task has worked lately, and how it has spent its time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRates {
    /// Records received.
    pub num_records_in_per_second: f64,
    /// Records emitted.
    pub num_records_out_per_second: f64,
    /// Bytes received from other processes.
    pub num_bytes_in_per_second: f64,
    /// Bytes sent to other processes.
    pub num_bytes_out_per_second: f64,
    /// Milliseconds in which it had something to do. The three times add up to 1,000.
    pub busy_time_ms_per_second: u64,
    /// Milliseconds in which there was nothing to read.
    pub idle_time_ms_per_second: u64,
    /// Milliseconds in which an output was full.
    pub back_pressured_time_ms_per_second: u64,
    /// The last as a word.
    #[serde(rename = "backpressureLevel")]
    pub back_pressure_level: BackPressure,
    /// The time over which all this was measured.
    pub measured_time_ms: u64,
}

/// How much a task is held up by the tasks behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BackPressure {
    /// For at most 10 % of its time.
    Ok,
    /// For at most half of its time.
    Low,
    /// For more than half of its time.
    High,
}

impl BackPressure {
    fn of(back_pressured_ms_per_second: u64) -> Self {
        if back_pressured_ms_per_second <= LOW_ABOVE_MS_PER_SECOND {
            Self::Ok
        } else if back_pressured_ms_per_second <= HIGH_ABOVE_MS_PER_SECOND {
            Self::Low
        } else {
            Self::High
        }
    }
}

impl fmt::Display for BackPressure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ok => "OK",
            Self::Low => "LOW",
            Self::High => "HIGH",
        })
    }
}

impl TaskMetrics {
    /// The metrics of an execution that shows `later` now and has shown `earlier` before; without an earlier sight rates are
    /// those since its beginning.
    #[must_use]
    pub fn between(earlier: Option<&TaskCounters>, later: &TaskCounters) -> Self {
        Self {
            num_records_in: later.records_in,
            num_records_out: later.records_out,
            num_bytes_in: later.bytes_in,
            num_bytes_out: later.bytes_out,
            num_late_records_dropped: later.late_records_dropped,
            num_records_in_errors: later.records_in_errors,
            unassigned_splits: later.unassigned_splits,
            input_queue_length: later.input_queue_length,
            output_queue_length: later.output_queue_length,
            available_credit_bytes: later.available_credit_bytes,
            current_input_watermark: later.current_input_watermark,
            current_output_watermark: later.current_output_watermark,
            watermark_alignment_drift: later.watermark_alignment_drift_ms,
            rates: TaskRates::between(earlier, later).filter(|_| !later.status.is_terminal()),
        }
    }
}

impl TaskRates {
    /// The rates between two sights of the same execution; nothing if it has not run between them.
    #[must_use]
    pub fn between(earlier: Option<&TaskCounters>, later: &TaskCounters) -> Option<Self> {
        // Totals only grow; what a reader sees of them in mid-flight may be a moment older than before.
        let difference = |of: fn(&TaskCounters) -> u64| of(later).saturating_sub(earlier.map_or(0, of));
        let busy_ns = difference(|counters| counters.busy_ns);
        let idle_ns = difference(|counters| counters.idle_ns);
        let back_pressured_ns = difference(|counters| counters.back_pressured_ns);
        let time_ns = busy_ns.saturating_add(idle_ns).saturating_add(back_pressured_ns);
        if time_ns == 0 {
            return None;
        }
        let per_second = |of: fn(&TaskCounters) -> u64| difference(of) as f64 * 1e9 / time_ns as f64;
        let ms_per_second = |part_ns: u64| {
            let rounded = (u128::from(part_ns) * u128::from(MS_PER_SECOND) * 2 + u128::from(time_ns))
                / (u128::from(time_ns) * 2);
            u64::try_from(rounded).unwrap_or(MS_PER_SECOND)
        };
        let back_pressured = ms_per_second(back_pressured_ns);
        // Both may be rounded up.
        let idle = ms_per_second(idle_ns).min(MS_PER_SECOND - back_pressured);
        Some(Self {
            num_records_in_per_second: per_second(|counters| counters.records_in),
            num_records_out_per_second: per_second(|counters| counters.records_out),
            num_bytes_in_per_second: per_second(|counters| counters.bytes_in),
            num_bytes_out_per_second: per_second(|counters| counters.bytes_out),
            busy_time_ms_per_second: MS_PER_SECOND - idle - back_pressured,
            idle_time_ms_per_second: idle,
            back_pressured_time_ms_per_second: back_pressured,
            back_pressure_level: BackPressure::of(back_pressured),
            measured_time_ms: time_ns / NS_PER_MS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SubtaskDetails;
    use crate::v1;
    use prost::Message;
    use thalweg_common::id::SubtaskId;
    use thalweg_common::status::TaskStatus;

    /// Counters of a task with these busy, idle and back-pressured milliseconds.
    fn counters(records: u64, [busy_ms, idle_ms, back_pressured_ms]: [u64; 3]) -> TaskCounters {
        TaskCounters {
            subtask: SubtaskId { vertex: 0, index: 0 },
            status: TaskStatus::Running,
            records_in: records,
            records_out: 2 * records,
            bytes_in: 10 * records,
            bytes_out: 20 * records,
            late_records_dropped: 0,
            records_in_errors: 0,
            state_bytes: 0,
            unassigned_splits: None,
            restored_local_bytes: 0,
            restored_remote_bytes: 0,
            busy_ns: busy_ms * NS_PER_MS,
            idle_ns: idle_ms * NS_PER_MS,
            back_pressured_ns: back_pressured_ms * NS_PER_MS,
            input_queue_length: 3,
            output_queue_length: 4,
            available_credit_bytes: 5,
            current_input_watermark: None,
            current_output_watermark: Some(6),
            watermark_alignment_drift_ms: None,
            operators: Vec::new(),
            name: String::new(),
        }
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        for (earlier, later, records_per_second, times, level, measured_time_ms) in [
            // Since the beginning.
            (None, counters(500, [250, 250, 0]), 1_000.0, [500, 500, 0], BackPressure::Ok, 500),
            (None, counters(1, [0, 10_000, 0]), 0.1, [0, 1_000, 0], BackPressure::Ok, 10_000),
            // Since an earlier sight: what was before does not count.
            (
                Some(counters(1_000_000, [9_000, 0, 0])),
                counters(1_000_500, [9_100, 100, 800]),
                500.0,
                [100, 100, 800],
                BackPressure::High,
                1_000,
            ),
            // Shares that cannot be written in whole milliseconds still add up.
            (None, counters(0, [1, 1, 1]), 0.0, [334, 333, 333], BackPressure::Low, 3),
            (None, counters(0, [0, 1_999, 1]), 0.0, [0, 999, 1], BackPressure::Ok, 2_000),
            // A total that is a moment older than before.
            (
                Some(counters(10, [100, 100, 0])),
                counters(10, [99, 200, 0]),
                0.0,
                [0, 1_000, 0],
                BackPressure::Ok,
                100,
            ),
        ] {
            let rates = TaskRates::between(earlier.as_ref(), &later).expect("it has run");
            let found = [
                rates.busy_time_ms_per_second,
                rates.idle_time_ms_per_second,
                rates.back_pressured_time_ms_per_second,
            ];
            assert_eq!((found, found.iter().sum::<u64>()), (times, 1_000), "{later:?}");
            assert_eq!(rates.num_records_in_per_second, records_per_second, "{later:?}");
            assert_eq!(rates.num_records_out_per_second, 2.0 * records_per_second, "{later:?}");
            assert_eq!((rates.back_pressure_level, rates.measured_time_ms), (level, measured_time_ms));
        }
    }

    #[test]
    fn a_task_that_has_not_run_has_no_rates() {
        let ended = counters(500, [250, 250, 0]);
        assert_eq!(TaskRates::between(Some(&ended), &ended), None);
        assert_eq!(TaskRates::between(None, &counters(0, [0, 0, 0])), None);
        for ended in [ended.clone(), TaskCounters { status: TaskStatus::Finished, ..ended }] {
            let earlier = (ended.status == TaskStatus::Running).then_some(&ended);
            let metrics = TaskMetrics::between(earlier, &ended);
            assert_eq!((metrics.num_records_in, metrics.rates), (500, None), "{:?}", ended.status);
        }
    }

    #[test]
    fn the_wire_keeps_every_total() {
        let earlier = v1::TaskCounters {
            subtask: Some(v1::SubtaskId { vertex: 1, index: 2 }),
            status: v1::TaskStatus::Running.into(),
            records_in: 10,
            records_out: 20,
            bytes_in: 30,
            bytes_out: 40,
            late_records_dropped: 1,
            records_in_errors: 3,
            state_bytes: 50,
            unassigned_splits: None,
            restored_local_bytes: 0,
            restored_remote_bytes: 0,
            busy_ns: 1_000_000_000,
            idle_ns: 1_000_000_000,
            back_pressured_ns: 1_000_000_000,
            input_queue_length: 60,
            output_queue_length: 70,
            available_credit_bytes: 80,
            current_input_watermark: None,
            current_output_watermark: Some(90),
            watermark_alignment_drift_ms: None,
            operators: Vec::new(),
            name: String::new(),
        };
        let later = v1::TaskCounters {
            records_in: 11,
            records_out: 22,
            bytes_in: 33,
            bytes_out: 44,
            late_records_dropped: 2,
            records_in_errors: 4,
            busy_ns: 1_100_000_000,
            idle_ns: 1_200_000_000,
            back_pressured_ns: 1_700_000_000,
            input_queue_length: 61,
            output_queue_length: 72,
            available_credit_bytes: 83,
            current_input_watermark: Some(i64::MIN + 1),
            current_output_watermark: Some(i64::MAX),
            watermark_alignment_drift_ms: Some(95),
            ..earlier.clone()
        };
        let sent = v1::SubtaskDetails { counters: Some(later), earlier: Some(earlier), ..Default::default() };
        let received = v1::SubtaskDetails::decode(&sent.encode_to_vec()[..]).expect("it is what was sent");
        let metrics = SubtaskDetails::try_from(received).expect("it is well formed").metrics;
        let expected = TaskMetrics {
            num_records_in: 11,
            num_records_out: 22,
            num_bytes_in: 33,
            num_bytes_out: 44,
            num_late_records_dropped: 2,
            num_records_in_errors: 4,
            unassigned_splits: None,
            input_queue_length: 61,
            output_queue_length: 72,
            available_credit_bytes: 83,
            current_input_watermark: Some(i64::MIN + 1),
            current_output_watermark: Some(i64::MAX),
            watermark_alignment_drift: Some(95),
            rates: Some(TaskRates {
                num_records_in_per_second: 1.0,
                num_records_out_per_second: 2.0,
                num_bytes_in_per_second: 3.0,
                num_bytes_out_per_second: 4.0,
                busy_time_ms_per_second: 100,
                idle_time_ms_per_second: 200,
                back_pressured_time_ms_per_second: 700,
                back_pressure_level: BackPressure::High,
                measured_time_ms: 1_000,
            }),
        };
        assert_eq!(metrics, expected);
    }

    #[test]
    fn the_level_has_flinks_bounds() {
        for (ms_per_second, level) in [
            (0, BackPressure::Ok),
            (100, BackPressure::Ok),
            (101, BackPressure::Low),
            (500, BackPressure::Low),
            (501, BackPressure::High),
            (1_000, BackPressure::High),
        ] {
            assert_eq!(BackPressure::of(ms_per_second), level, "{ms_per_second}");
        }
    }

    #[test]
    fn names_are_those_of_flink_and_cloudwatch() {
        let metrics = TaskMetrics::between(None, &counters(100, [100, 200, 700]));
        let expected = serde_json::json!({
            "numRecordsIn": 100,
            "numRecordsOut": 200,
            "numBytesIn": 1_000,
            "numBytesOut": 2_000,
            "numLateRecordsDropped": 0,
            "numRecordsInErrors": 0,
            "inputQueueLength": 3,
            "outputQueueLength": 4,
            "availableCreditBytes": 5,
            "currentOutputWatermark": 6,
            "numRecordsInPerSecond": 100.0,
            "numRecordsOutPerSecond": 200.0,
            "numBytesInPerSecond": 1_000.0,
            "numBytesOutPerSecond": 2_000.0,
            "busyTimeMsPerSecond": 100,
            "idleTimeMsPerSecond": 200,
            "backPressuredTimeMsPerSecond": 700,
            "backpressureLevel": "HIGH",
            "measuredTimeMs": 1_000,
        });
        assert_eq!(serde_json::to_value(metrics).expect("it has a form as JSON"), expected);
    }
}
