//! Log lines as JSON, one object each, with the fields that Amazon Managed Service for Apache Flink gives them, so that queries made for
//! these go on working. An error, and whatever has several lines, is told line by line as an exception is, its first line as the message.

use std::fmt;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes events as JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct Json {
    /// The application to which all lines belong, if it is known.
    pub(super) application_arn: Option<String>,
    /// Its version.
    pub(super) application_version_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    timestamp: String,
    location_information: String,
    logger: &'a str,
    message: &'a str,
    thread_name: &'a str,
    #[serde(rename = "applicationARN", skip_serializing_if = "Option::is_none")]
    application_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_version_id: Option<&'a str>,
    message_schema_version: &'static str,
    message_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    throwable_information: Vec<&'a str>,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writeln!(writer, "{}", self.line_of(event)?)
    }
}

impl Json {
    /// The line of an event, without its end.
    pub(super) fn line_of(&self, event: &Event<'_>) -> Result<String, fmt::Error> {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.line(event.metadata(), &fields)
    }

    fn line(&self, metadata: &Metadata<'_>, fields: &Fields) -> Result<String, fmt::Error> {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let thread = std::thread::current();
        let text = format!("{}{}", fields.message, fields.others);
        let is_throwable = *metadata.level() == Level::ERROR || text.contains('\n');
        let line = Line {
            timestamp,
            location_information: location(metadata),
            logger: metadata.target(),
            message: text.lines().next().unwrap_or_default(),
            thread_name: thread.name().unwrap_or("unnamed"),
            application_arn: self.application_arn.as_deref(),
            application_version_id: self.application_version_id.as_deref(),
            message_schema_version: "1",
            message_type: message_type(*metadata.level()),
            throwable_information: text.lines().filter(|_| is_throwable).collect(),
        };
        serde_json::to_string(&line).map_err(|_| fmt::Error)
    }

    /// The line that says how many are missing.
    pub(super) fn dropped(lines: u64) -> String {
        serde_json::json!({
            "logger": module_path!(),
            "message": super::dropped_text(lines),
            "messageSchemaVersion": "1",
            "messageType": "WARN",
        })
        .to_string()
    }
}

/// `crate::module(file.rs:95)`.
fn location(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("?");
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let module = metadata.module_path().unwrap_or_else(|| metadata.target());
    format!("{module}({file}:{})", metadata.line().unwrap_or(0))
}

fn message_type(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    /// All others, behind the message.
    others: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                self.others.push(' ');
                self.others.push_str(name);
                self.others.push('=');
                self.others.push_str(value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::telemetry::queue::Queue;
    use serde_json::Value;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: Json, log: impl FnOnce()) -> Vec<Value> {
        let memory = Memory::default();
        let queue = Queue::start(memory.clone(), Json::dropped);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_writer(queue.clone())
            .event_format(json)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        queue.flush(Duration::from_secs(30));
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_the_service() {
        let arn = "arn:aws:kinesisanalytics:eu-west-1:012345678901:application/words";
        let json = Json { application_arn: Some(arn.into()), application_version_id: Some("3".into()) };
        let lines = logged(json, || {
            tracing::info!(port = 6123, "Job \"words\" switched from RUNNING to RESTARTING.");
            tracing::error!("task failed: {}", "boom\n  at map\ncaused by: bad");
            tracing::trace!(target: "my.job", "from main");
        });
        let line = lines[0].as_object().unwrap();
        let here = "thalweg_common::telemetry::json::tests(json.rs:";
        assert!(line["locationInformation"].as_str().unwrap().starts_with(here), "{line:?}");
        for (field, expected) in [
            ("logger", "thalweg_common::telemetry::json::tests"),
            ("message", "Job \"words\" switched from RUNNING to RESTARTING. port=6123"),
            ("threadName", std::thread::current().name().unwrap()),
            ("applicationARN", arn),
            ("applicationVersionId", "3"),
            ("messageSchemaVersion", "1"),
            ("messageType", "INFO"),
        ] {
            assert_eq!(line[field], expected, "{field}");
        }
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line.len() == 9, "{line:?}");
        assert_eq!(
            lines[1]["throwableInformation"],
            serde_json::json!(["task failed: boom", "  at map", "caused by: bad"])
        );
        assert_eq!(
            (&lines[1]["message"], &lines[1]["messageType"]),
            (&"task failed: boom".into(), &"ERROR".into())
        );
        assert_eq!((&lines[2]["logger"], &lines[2]["messageType"]), (&"my.job".into(), &"DEBUG".into()));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let lines = logged(Json::default(), || tracing::warn!("careful"));
        let line = lines[0].as_object().unwrap();
        assert!(
            !line.contains_key("applicationARN") && !line.contains_key("throwableInformation"),
            "{line:?}"
        );
        let dropped: Value = serde_json::from_str(&Json::dropped(7)).unwrap();
        assert!(dropped["message"].as_str().unwrap().starts_with("7 log lines are missing"), "{dropped}");
    }
}
