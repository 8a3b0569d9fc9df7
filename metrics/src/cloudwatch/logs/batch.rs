//! Divides log lines into requests that CloudWatch Logs takes. Pure.
//!
//! Invariants: a request has at most 10,000 lines and 1 MiB, its lines are in the order of their times and not more than a day apart; lines
//! of the same time keep their order, and none is lost but those that say nothing.

use thalweg_common::telemetry::LogLine;

/// What `PutLogEvents` takes in one request.
pub const MAX_LINES: usize = 10_000;
/// The same in bytes, with what it counts for each line.
pub const MAX_BYTES: usize = 1 << 20;
/// What is counted for a line beside its text.
const LINE_BYTES: usize = 26;
/// From the first line of a request to the last.
const MAX_SPAN_MS: i64 = 24 * 3_600_000;

/// What a line takes of a request.
#[must_use]
pub fn size(line: &LogLine) -> usize {
    LINE_BYTES + line.text.len()
}

/// The requests, none of them empty.
#[must_use]
pub fn batches(mut lines: Vec<LogLine>) -> Vec<Vec<LogLine>> {
    lines.retain(|line| !line.text.is_empty());
    lines.sort_by_key(|line| line.timestamp_ms);
    let mut batches: Vec<Vec<LogLine>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        let more = size(&line);
        let fits = |batch: &&mut Vec<LogLine>| {
            let span_ms =
                batch.first().map_or(0, |first| line.timestamp_ms.saturating_sub(first.timestamp_ms));
            batch.len() < MAX_LINES && bytes + more <= MAX_BYTES && span_ms < MAX_SPAN_MS
        };
        match batches.last_mut().filter(fits) {
            Some(batch) => batch.push(line),
            None => {
                batches.push(vec![line]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(timestamp_ms: i64, text: &str) -> LogLine {
        LogLine::new(timestamp_ms, text.into())
    }

    #[test]
    fn lines_are_sent_in_the_order_of_their_times() {
        let lines = vec![line(3, "c"), line(1, "a"), line(1, "b"), line(2, "")];
        assert_eq!(batches(lines), [vec![line(1, "a"), line(1, "b"), line(3, "c")]]);
        assert_eq!(batches(Vec::new()), Vec::<Vec<LogLine>>::new());
    }

    #[test]
    fn a_request_is_as_large_as_may_be() {
        let lengths = |lines: Vec<LogLine>| batches(lines).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(vec![line(1, "x"); 25_000]), [10_000, 10_000, 5_000]);
        // 16 of these with what is counted beside them are just more than a MiB.
        let wide = "w".repeat(MAX_BYTES / 16);
        assert_eq!(lengths(vec![line(1, &wide); 31]), [15, 15, 1]);
        let day = MAX_SPAN_MS;
        assert_eq!(
            lengths(vec![line(0, "x"), line(day - 1, "x"), line(day, "x"), line(2 * day, "x")]),
            [2, 1, 1]
        );
    }

    proptest! {
        #[test]
        fn every_request_is_taken_and_no_line_is_lost(
            lines in proptest::collection::vec((0..4 * MAX_SPAN_MS, 0_usize..60_000), 0..200)
        ) {
            let lines: Vec<_> = lines.into_iter().map(|(at, length)| line(at, &"x".repeat(length))).collect();
            let batches = batches(lines.clone());
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= MAX_LINES);
                prop_assert!(batch.iter().map(size).sum::<usize>() <= MAX_BYTES);
                prop_assert!(batch.is_sorted_by_key(|line| line.timestamp_ms));
                prop_assert!(batch[batch.len() - 1].timestamp_ms - batch[0].timestamp_ms < MAX_SPAN_MS);
            }
            let sent: usize = batches.iter().map(Vec::len).sum();
            prop_assert_eq!(sent, lines.iter().filter(|line| !line.text.is_empty()).count());
        }
    }
}
