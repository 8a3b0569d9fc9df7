//! How far the event time of a vertex's tasks is, for `thalweg describe`. Pure functions of the cluster's answer.

use thalweg_proto::model::VertexDetails;

use crate::human::{duration, moment};
use crate::table::{Align, Table};

/// A line for each task, with its watermarks; nothing while none has any.
pub(super) fn table(vertex: &VertexDetails) -> String {
    let metrics = || vertex.subtasks.iter().map(|subtask| &subtask.metrics);
    let is_aligned = metrics().any(|metrics| metrics.watermark_alignment_drift.is_some());
    let mut headings =
        vec![("SUBTASK", Align::Right), ("INPUT WATERMARK", Align::Left), ("OUTPUT WATERMARK", Align::Left)];
    headings.extend(is_aligned.then_some(("AHEAD OF GROUP", Align::Right)));
    let mut table = Table::new(&headings).indented("    ");
    let mut has_time = false;
    for (subtask, metrics) in vertex.subtasks.iter().zip(metrics()) {
        let watermarks = [metrics.current_input_watermark, metrics.current_output_watermark];
        has_time |= watermarks.iter().any(Option::is_some);
        let [input, output] = watermarks.map(watermark);
        let index = subtask.counters.subtask.index.to_string();
        let drift = metrics.watermark_alignment_drift.and_then(|drift_ms| u64::try_from(drift_ms).ok());
        match is_aligned {
            true => table.row([index, input, output, drift.map_or_else(|| "-".into(), duration)]),
            false => table.row([index, input, output]),
        }
    }
    if has_time { table.render() } else { String::new() }
}

/// A watermark for people.
pub(super) fn watermark(watermark: Option<i64>) -> String {
    match watermark {
        None => "-".into(),
        Some(i64::MAX) => "end of input".into(),
        Some(time_ms) => moment(time_ms),
    }
}
