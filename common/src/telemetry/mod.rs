//! Log output of every program: one line per event on standard error.
//!
//! Called once, first thing in `main`. Standard output stays free for what a program is asked to print. Each line
//! carries the time (UTC), the program with its process id, the level, the module and the event; a terminal gets
//! colours. What is logged is chosen by the environment variable `THALWEG_LOG`, and by `THALWEG_LOG_FORMAT` whether as text or as JSON. Whoever
//! logs never waits for the reader of standard error: lines go through a bounded [`queue`], which [`flush`] empties at the end. Whoever wants
//! the lines elsewhere too gets [`copies`].

mod copies;
mod json;
mod queue;

use std::env::var;
use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::copies::Copying;
pub use self::copies::{LogCopies, LogLine, copy_to, foreign_line};
use self::json::Json;
use self::queue::Queue;
use crate::clock::SystemClock;

/// The environment variable that chooses what is logged, for example `debug` or `warn,thalweg_runtime=trace`.
pub const LOG_VARIABLE: &str = "THALWEG_LOG";

/// The environment variable that chooses how: `text`, which people read, or `json`, which queries read.
pub const FORMAT_VARIABLE: &str = "THALWEG_LOG_FORMAT";

/// The environment variable that says to which application all lines belong: `applicationARN` in lines of JSON.
pub const APPLICATION_ARN_VARIABLE: &str = "THALWEG_APPLICATION_ARN";

/// The same for its version: `applicationVersionId`.
pub const APPLICATION_VERSION_VARIABLE: &str = "THALWEG_APPLICATION_VERSION_ID";

/// What is logged when [`LOG_VARIABLE`] is not set. openraft reports every retry of a peer that is down; what matters of
/// it our own code logs.
pub const DEFAULT_FILTER: &str = "openraft=off,info";

/// How long the end of a program waits for a reader of its log that does not read.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The queue of this process, if it logs.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts logging to standard error under the name `program`.
///
/// A second call changes nothing, so libraries, tests and embedded clusters may all call it. A filter that cannot be
/// read is reported and replaced by [`DEFAULT_FILTER`].
///
/// ```
/// thalweg_common::telemetry::init("jobmanager");
/// thalweg_common::telemetry::init("taskmanager"); // harmless: the first one stays
/// tracing::debug!("not shown unless THALWEG_LOG=debug");
/// ```
pub fn init(program: &str) {
    init_with_default(program, DEFAULT_FILTER);
}

/// The same with another filter for when [`LOG_VARIABLE`] is not set: a job that runs in its author's terminal should not
/// bury its own output.
pub fn init_with_default(program: &str, default_filter: &str) {
    let set = |name| var(name).ok().filter(|text| !text.trim().is_empty());
    let (filter, complaint) = filter(Some(set(LOG_VARIABLE).as_deref().unwrap_or(default_filter)));
    let (is_json, format_complaint) = is_json(set(FORMAT_VARIABLE).as_deref());
    let mut is_first = false;
    let queue = QUEUE.get_or_init(|| {
        is_first = true;
        Queue::start(stderr(), if is_json { Json::dropped } else { dropped_text })
    });
    if !is_first {
        return;
    }
    let subscriber = tracing_subscriber::fmt()
        .with_writer(queue.clone())
        .with_ansi(!is_json && stderr().is_terminal())
        .with_env_filter(filter);
    let json = Json {
        application_arn: set(APPLICATION_ARN_VARIABLE),
        application_version_id: set(APPLICATION_VERSION_VARIABLE),
    };
    let copying = Copying { json: json.clone(), clock: SystemClock::new() };
    let installed = if is_json {
        subscriber.event_format(json).finish().with(copying).try_init()
    } else {
        let timer = ProgramTime { program: format!("{program}[{}]", std::process::id()) };
        subscriber.compact().with_timer(timer).finish().with(copying).try_init()
    };
    if installed.is_ok() {
        complaint.into_iter().chain(format_complaint).for_each(|complaint| warn!("{complaint}"));
    }
}

/// Waits until what was logged is written: for the end of a program, before `std::process::exit` too.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_PATIENCE);
    }
}

/// What stands in place of lines that were dropped.
fn dropped_text(lines: u64) -> String {
    format!("{lines} log lines are missing here: they came faster than standard error was read")
}

/// What stands in place of lines that were lost on their way elsewhere, as JSON.
#[must_use]
pub fn lost_line(lines: u64) -> String {
    foreign_line(
        module_path!(),
        &format!("{lines} log lines are missing here: they came faster than they could be sent"),
    )
}

/// Whether lines are JSON, and what is to be said about a format that is none.
fn is_json(wanted: Option<&str>) -> (bool, Option<String>) {
    match wanted.map(str::trim) {
        None | Some("text") => (false, None),
        Some("json") => (true, None),
        Some(other) => (
            false,
            Some(format!(
                "{FORMAT_VARIABLE} is set to `{other}`, which is no format: logging as text; write `text` or `json`"
            )),
        ),
    }
}

/// The filter for the wanted directives, and what is to be said about them.
fn filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    let wanted = wanted.map(str::trim).filter(|text| !text.is_empty());
    match wanted.map(EnvFilter::try_new) {
        None => (EnvFilter::new(DEFAULT_FILTER), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (
            EnvFilter::new(DEFAULT_FILTER),
            Some(format!(
                "{LOG_VARIABLE} is set to `{}`, which is not a log filter ({error}): logging at `{DEFAULT_FILTER}`; \
                 write a level, or levels by module such as `warn,thalweg_runtime=debug`",
                wanted.unwrap_or_default()
            )),
        ),
    }
}

/// Writes the time and the program in front of every line, so that the output of several processes can be mixed.
struct ProgramTime {
    program: String,
}

impl FormatTime for ProgramTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " {}", self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_follows_the_variable() {
        for (wanted, shown) in [
            (None, DEFAULT_FILTER),
            (Some(""), DEFAULT_FILTER),
            (Some("  "), DEFAULT_FILTER),
            (Some("debug"), "debug"),
            (Some("warn,thalweg_runtime=trace"), "thalweg_runtime=trace,warn"),
        ] {
            let (filter, complaint) = filter(wanted);
            assert_eq!(filter.to_string(), shown, "for {wanted:?}");
            assert_eq!(complaint, None, "for {wanted:?}");
        }
    }

    #[test]
    fn a_bad_filter_is_named_and_replaced() {
        let (filter, complaint) = filter(Some("thalweg=loud"));
        assert_eq!(filter.to_string(), DEFAULT_FILTER);
        let complaint = complaint.expect("a bad filter is reported");
        assert!(complaint.contains("`thalweg=loud`") && complaint.contains("write a level"), "{complaint}");
    }

    #[test]
    fn the_program_stands_in_front_of_every_line() {
        let mut line = String::new();
        ProgramTime { program: "jobmanager[7]".into() }
            .format_time(&mut Writer::new(&mut line))
            .expect("writing to a string succeeds");
        assert!(line.ends_with("Z jobmanager[7]"), "{line}");
    }

    #[test]
    fn the_format_follows_its_variable() {
        assert_eq!(
            (is_json(None), is_json(Some("text")), is_json(Some(" json "))),
            ((false, None), (false, None), (true, None))
        );
        let (is_json, complaint) = is_json(Some("xml"));
        assert!(
            !is_json
                && complaint
                    .is_some_and(|text| text.contains("`xml`") && text.contains("write `text` or `json`"))
        );
        assert!(dropped_text(3).starts_with("3 log lines are missing"));
    }

    #[test]
    fn a_second_call_is_harmless() {
        init("first");
        init("second");
        tracing::info!("still alive");
    }
}
