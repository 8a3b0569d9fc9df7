//! Log output of every program: one line per event on standard error.
//!
//! Called once, first thing in `main`. Standard output stays free for what a program is asked to print. Each line
//! carries the time (UTC), the program with its process id, the level, the module and the event; a terminal gets
//! colours. What is logged is chosen by the environment variable `THALWEG_LOG`.

use std::fmt;
use std::io::{IsTerminal, stderr};

use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The environment variable that chooses what is logged, for example `debug` or `warn,thalweg_runtime=trace`.
pub const LOG_VARIABLE: &str = "THALWEG_LOG";

/// What is logged when [`LOG_VARIABLE`] is not set. openraft reports every retry of a peer that is down; what matters of
/// it our own code logs.
pub const DEFAULT_FILTER: &str = "openraft=off,info";

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
    let wanted = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let (filter, complaint) = filter(Some(wanted.as_deref().unwrap_or(default_filter)));
    let installed = tracing_subscriber::fmt()
        .compact()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_timer(ProgramTime { program: format!("{program}[{}]", std::process::id()) })
        .with_env_filter(filter)
        .try_init()
        .is_ok();
    if let (true, Some(complaint)) = (installed, complaint) {
        warn!("{complaint}");
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
    fn a_second_call_is_harmless() {
        init("first");
        init("second");
        tracing::info!("still alive");
    }
}
