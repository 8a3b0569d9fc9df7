//! What the functions of a vertex count themselves, for `thalweg describe`. Pure functions of the cluster's answer.

use thalweg_proto::model::{MetricValue, VertexDetails};

use crate::human::{count, one_line};
use crate::table::{Align, Table};

/// A line for each metric of each task; nothing where no function has any.
pub(super) fn table(vertex: &VertexDetails) -> String {
    let mut table = Table::new(&[
        ("SUBTASK", Align::Right),
        ("OPERATOR", Align::Left),
        ("METRIC", Align::Left),
        ("VALUE", Align::Left),
    ])
    .indented("    ");
    let mut has_metrics = false;
    for subtask in &vertex.subtasks {
        for operator in &subtask.counters.operators {
            for metric in &operator.metrics {
                has_metrics = true;
                table.row([
                    subtask.counters.subtask.index.to_string(),
                    one_line(&operator.name),
                    metric.to_string(),
                    text(&metric.value),
                ]);
            }
        }
    }
    if has_metrics { table.render() } else { String::new() }
}

fn text(value: &MetricValue) -> String {
    match value {
        MetricValue::Counter(value) => value.to_string(),
        MetricValue::Gauge(value) => value.to_string(),
        MetricValue::Meter(events) => format!("{} events", count(*events)),
        MetricValue::Histogram(of) => {
            format!(
                "{} values, from {} to {}, p50 {}, p99 {}",
                count(of.count),
                of.min,
                of.max,
                of.p50,
                of.p99
            )
        }
    }
}
