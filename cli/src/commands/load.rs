//! How busy a vertex and its tasks are, for `thalweg describe`. Pure functions of the cluster's answer.

use thalweg_proto::metrics::{TaskMetrics, TaskRates};
use thalweg_proto::model::VertexDetails;

use crate::human::{bytes, count, rate, share};
use crate::table::{Align, Table};

/// The busiest and the most back-pressured task in a few words; nothing while no task runs.
pub(super) fn summary(vertex: &VertexDetails) -> String {
    let rates = || vertex.subtasks.iter().filter_map(|subtask| subtask.metrics.rates);
    let busiest = rates().map(|rates| rates.busy_time_ms_per_second).max();
    let most_held_up = rates().max_by_key(|rates| rates.back_pressured_time_ms_per_second);
    let (Some(busy), Some(held_up)) = (busiest, most_held_up) else { return String::new() };
    format!(
        ", busy up to {}, back-pressured up to {} ({})",
        share(busy),
        share(held_up.back_pressured_time_ms_per_second),
        held_up.back_pressure_level
    )
}

/// A line for each task that runs; nothing without one.
pub(super) fn table(vertex: &VertexDetails) -> String {
    let mut table = Table::new(&[
        ("SUBTASK", Align::Right),
        ("BUSY", Align::Right),
        ("IDLE", Align::Right),
        ("BACK-PRESSURED", Align::Right),
        ("LEVEL", Align::Left),
        ("RECORDS IN/S", Align::Right),
        ("RECORDS OUT/S", Align::Right),
        ("BYTES IN/S", Align::Right),
        ("BYTES OUT/S", Align::Right),
        ("QUEUED IN", Align::Right),
        ("QUEUED OUT", Align::Right),
        ("CREDIT", Align::Right),
    ])
    .indented("    ");
    let mut runs = false;
    for subtask in &vertex.subtasks {
        let Some(rates) = &subtask.metrics.rates else { continue };
        runs = true;
        table.row(row(subtask.counters.subtask.index, &subtask.metrics, rates));
    }
    if runs { table.render() } else { String::new() }
}

fn row(index: u32, metrics: &TaskMetrics, rates: &TaskRates) -> [String; 12] {
    // A task without remote channels has no use for credit.
    let is_remote = metrics.num_bytes_out > 0 || metrics.available_credit_bytes > 0;
    [
        index.to_string(),
        share(rates.busy_time_ms_per_second),
        share(rates.idle_time_ms_per_second),
        share(rates.back_pressured_time_ms_per_second),
        rates.back_pressure_level.to_string(),
        rate(rates.num_records_in_per_second),
        rate(rates.num_records_out_per_second),
        bytes(rates.num_bytes_in_per_second.round() as u64),
        bytes(rates.num_bytes_out_per_second.round() as u64),
        count(metrics.input_queue_length),
        count(metrics.output_queue_length),
        if is_remote { bytes(metrics.available_credit_bytes) } else { "-".into() },
    ]
}
