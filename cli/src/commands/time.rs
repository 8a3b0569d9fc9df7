//! How far the event time of a vertex's tasks is, for `thalweg describe`. Pure functions of the cluster's answer.

use thalweg_proto::model::VertexDetails;

use crate::human::moment;
use crate::table::{Align, Table};

/// A line for each task, with its watermarks; nothing while none has any.
pub(super) fn table(vertex: &VertexDetails) -> String {
    let mut table = Table::new(&[
        ("SUBTASK", Align::Right),
        ("INPUT WATERMARK", Align::Left),
        ("OUTPUT WATERMARK", Align::Left),
    ])
    .indented("    ");
    let mut has_time = false;
    for subtask in &vertex.subtasks {
        let metrics = &subtask.metrics;
        let watermarks = [metrics.current_input_watermark, metrics.current_output_watermark];
        has_time |= watermarks.iter().any(Option::is_some);
        let [input, output] = watermarks.map(text);
        table.row([subtask.counters.subtask.index.to_string(), input, output]);
    }
    if has_time { table.render() } else { String::new() }
}

fn text(watermark: Option<i64>) -> String {
    match watermark {
        None => "-".into(),
        Some(i64::MAX) => "end of input".into(),
        Some(time_ms) => moment(time_ms),
    }
}
