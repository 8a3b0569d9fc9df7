//! What tasks have read and written and how they have spent their time, as Flink's objects `metrics` have it.

use serde_json::{Map, Value, json};
use thalweg_common::Timestamp;
use thalweg_proto::v1::TaskCounters;

const NS_PER_MS: u64 = 1_000_000;

/// Of one task, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    read_bytes: u64,
    write_bytes: u64,
    read_records: u64,
    write_records: u64,
    busy_ns: u64,
    idle_ns: u64,
    back_pressured_ns: u64,
}

impl Traffic {
    /// Of a task that has told this.
    pub(super) fn of(counters: &TaskCounters) -> Self {
        Self {
            read_bytes: counters.bytes_in,
            write_bytes: counters.bytes_out,
            read_records: counters.records_in,
            write_records: counters.records_out,
            busy_ns: counters.busy_ns,
            idle_ns: counters.idle_ns,
            back_pressured_ns: counters.back_pressured_ns,
        }
    }

    /// Of all of them.
    pub(super) fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            read_bytes: sum.read_bytes + one.read_bytes,
            write_bytes: sum.write_bytes + one.write_bytes,
            read_records: sum.read_records + one.read_records,
            write_records: sum.write_records + one.write_records,
            busy_ns: sum.busy_ns + one.busy_ns,
            idle_ns: sum.idle_ns + one.idle_ns,
            back_pressured_ns: sum.back_pressured_ns + one.back_pressured_ns,
        })
    }

    /// How long the task has run by its own clock.
    pub(super) fn duration_ms(&self) -> Timestamp {
        let all_ns = self.busy_ns.saturating_add(self.idle_ns).saturating_add(self.back_pressured_ns);
        Timestamp::try_from(all_ns / NS_PER_MS).unwrap_or(Timestamp::MAX)
    }

    /// The numbers under Flink's names.
    fn fields(&self) -> [(&'static str, u64); 7] {
        [
            ("read-bytes", self.read_bytes),
            ("write-bytes", self.write_bytes),
            ("read-records", self.read_records),
            ("write-records", self.write_records),
            ("accumulated-backpressured-time", self.back_pressured_ns / NS_PER_MS),
            ("accumulated-idle-time", self.idle_ns / NS_PER_MS),
            ("accumulated-busy-time", self.busy_ns / NS_PER_MS),
        ]
    }

    /// As Flink writes it; `is_complete` says whether all tasks that it is about have told something.
    pub(super) fn to_json(self, is_complete: bool) -> Value {
        let mut all = Map::new();
        for (name, number) in self.fields() {
            all.insert(name.to_string(), number.into());
            if name.starts_with("read") || name.starts_with("write") {
                all.insert(format!("{name}-complete"), is_complete.into());
            }
        }
        Value::Object(all)
    }

    /// Least, mean, most and sum over tasks, for each number.
    pub(super) fn spread(all: &[Self]) -> Value {
        let mut spread = Map::new();
        for (place, (name, _)) in Self::default().fields().into_iter().enumerate() {
            let numbers: Vec<u64> = all.iter().map(|one| one.fields()[place].1).collect();
            spread.insert(name.to_string(), statistics(&numbers));
        }
        Value::Object(spread)
    }
}

/// Least, most, mean, sum and quantiles of some numbers, as Flink's summaries have them. All 0 if there is none, as there.
pub(super) fn statistics(numbers: &[u64]) -> Value {
    let mut statistics = summary(numbers);
    if let Value::Object(fields) = &mut statistics {
        fields.insert("sum".to_string(), numbers.iter().sum::<u64>().into());
    }
    statistics
}

/// The same without the sum.
pub(super) fn summary(numbers: &[u64]) -> Value {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let count = sorted.len();
    // The smallest number that so large a part of them does not exceed.
    let quantile = |part: f64| {
        let rank = (part * count as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    };
    json!({
        "min": sorted.first().copied().unwrap_or(0),
        "max": sorted.last().copied().unwrap_or(0),
        "avg": sorted.iter().sum::<u64>().checked_div(count as u64).unwrap_or(0),
        "p50": quantile(0.5),
        "p90": quantile(0.9),
        "p95": quantile(0.95),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_those_of_their_numbers() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(
            statistics(&hundred),
            json!({"min": 1, "max": 100, "avg": 50, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 100, "sum": 5050})
        );
        assert_eq!(
            summary(&[7]),
            json!({"min": 7, "max": 7, "avg": 7, "p50": 7, "p90": 7, "p95": 7, "p99": 7, "p999": 7})
        );
        assert_eq!(summary(&[])["max"], 0);
    }

    #[test]
    fn times_are_milliseconds_and_add_up_to_the_duration() {
        let counters = TaskCounters {
            records_in: 3,
            busy_ns: 2_000_000,
            idle_ns: 3_500_000,
            back_pressured_ns: 500_000,
            ..TaskCounters::default()
        };
        let traffic = Traffic::of(&counters);
        assert_eq!(traffic.duration_ms(), 6);
        let both = Traffic::sum(&[traffic, traffic]).to_json(true);
        assert_eq!((&both["read-records"], &both["accumulated-busy-time"]), (&json!(6), &json!(4)));
        assert_eq!(
            (&both["read-records-complete"], both.get("accumulated-busy-time-complete")),
            (&json!(true), None)
        );
        assert_eq!(Traffic::spread(&[traffic])["accumulated-idle-time"]["max"], 3);
    }
}
