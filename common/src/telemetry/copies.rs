//! Copies of log lines, for whoever sends them elsewhere: a bounded queue between those who log and a sender.
//!
//! Invariants: whoever logs never waits; a line for which there is no room is lost and counted; a line has a bounded length. Lines are
//! always JSON, whatever standard error gets, because queries read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::json::Json;
use crate::clock::{Clock, SystemClock};
use crate::limits::{LOG_QUEUE_LINES, MAX_COPIED_LINE_BYTES};

/// What the way of the copies says of itself is not copied: each line would be the reason for another one.
const WAY_OF_COPIES: [&str; 5] = ["aws_", "h2", "hyper", "rustls", "tower"];

/// Where the lines of this process are copied to, once somebody wants them.
static COPIES: OnceLock<LogCopies> = OnceLock::new();

/// A line, and when it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// In milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// A JSON object without the line's end.
    pub text: String,
}

impl LogLine {
    /// A line that is no longer than may be sent.
    #[must_use]
    pub fn new(timestamp_ms: i64, mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(MAX_COPIED_LINE_BYTES));
        Self { timestamp_ms, text }
    }
}

/// The way into the queue. Clones are ways into the same one.
#[derive(Debug, Clone)]
pub struct LogCopies {
    lines: mpsc::Sender<LogLine>,
    lost: Arc<AtomicU64>,
}

impl LogCopies {
    /// A queue, and its other end. Whoever has that takes lines out as fast as they can be sent.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<LogLine>) {
        let (lines, sent) = mpsc::channel(LOG_QUEUE_LINES);
        (Self { lines, lost: Arc::default() }, sent)
    }

    /// Adds a line if there is room, or counts it as lost.
    pub fn offer(&self, line: LogLine) {
        if self.lines.try_send(line).is_err() {
            self.lost(1);
        }
    }

    /// Waits until there is room, and adds a line; whether anybody still sends them. Cancel-safe: then the line was not added.
    pub async fn add(&self, line: LogLine) -> bool {
        self.lines.send(line).await.is_ok()
    }

    /// Counts lines that will not arrive.
    pub fn lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many lines were lost since this was asked last.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// Copies what this process logs from now on. A second call changes nothing.
pub fn copy_to(copies: LogCopies) {
    COPIES.get_or_init(|| copies);
}

/// The line of a program that does not log as we do, in our form. What nobody says about it is left out.
#[must_use]
pub fn foreign_line(logger: &str, text: &str) -> String {
    serde_json::json!({
        "logger": logger,
        "message": text,
        "messageSchemaVersion": "1",
        "messageType": "INFO",
    })
    .to_string()
}

/// The part of the subscriber that copies events.
pub(super) struct Copying {
    pub(super) json: Json,
    pub(super) clock: SystemClock,
}

impl<S: Subscriber> Layer<S> for Copying {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(copies) = COPIES.get() else { return };
        let target = event.metadata().target();
        if WAY_OF_COPIES.iter().any(|way| target.starts_with(way)) {
            return;
        }
        // Writing to a string cannot fail.
        if let Ok(text) = self.json.line_of(event) {
            copies.offer(LogLine::new(self.clock.now_ms(), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_without_room_are_counted_and_long_ones_cut() {
        let (copies, mut sent) = LogCopies::new();
        for number in 0..LOG_QUEUE_LINES as i64 + 3 {
            copies.offer(LogLine::new(number, "x".into()));
        }
        assert_eq!((copies.take_lost(), copies.take_lost()), (3, 0));
        assert_eq!(sent.try_recv().expect("the first one"), LogLine { timestamp_ms: 0, text: "x".into() });
        let long = LogLine::new(0, "ü".repeat(MAX_COPIED_LINE_BYTES));
        assert!(long.text.len() <= MAX_COPIED_LINE_BYTES && long.text.len() >= MAX_COPIED_LINE_BYTES - 1);
    }

    #[tokio::test]
    async fn whoever_can_wait_loses_nothing() {
        let (copies, mut sent) = LogCopies::new();
        let all = async {
            for number in 0..2 * LOG_QUEUE_LINES as i64 {
                assert!(copies.add(LogLine::new(number, String::new())).await);
            }
        };
        let read = async {
            for number in 0..2 * LOG_QUEUE_LINES as i64 {
                assert_eq!(sent.recv().await.map(|line| line.timestamp_ms), Some(number));
            }
        };
        tokio::join!(all, read);
        assert_eq!(copies.take_lost(), 0);
        drop(sent);
        assert!(!copies.add(LogLine::new(0, String::new())).await, "nobody sends them any more");
    }

    #[test]
    fn what_is_logged_is_copied_as_json_but_not_what_the_way_says() {
        let (copies, mut sent) = LogCopies::new();
        let subscriber =
            tracing_subscriber::registry().with(Copying { json: Json::default(), clock: SystemClock::new() });
        tracing::subscriber::with_default(subscriber, || {
            copy_to(copies);
            tracing::info!(target: "hyper::client", "connected");
            tracing::warn!("disk is full");
        });
        // Other tests of this process may log at the same time.
        let mut lines = std::iter::from_fn(|| sent.try_recv().ok());
        let found = lines.find(|line| line.text.contains("disk is full")).expect("it was copied");
        let line: serde_json::Value = serde_json::from_str(&found.text).expect("it is JSON");
        assert_eq!((&line["messageType"], &line["logger"]), (&"WARN".into(), &module_path!().into()));
        assert!(found.timestamp_ms > 1_600_000_000_000, "{found:?}");
        assert!(lines.all(|line| !line.text.contains("connected")));
        let foreign: serde_json::Value =
            serde_json::from_str(&foreign_line("worker.err", "a \"quoted\" word")).expect("it is JSON");
        assert_eq!(
            (&foreign["message"], &foreign["logger"]),
            (&"a \"quoted\" word".into(), &"worker.err".into())
        );
    }
}
