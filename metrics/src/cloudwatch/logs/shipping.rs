//! Sends what a process logs to CloudWatch Logs.
//!
//! Behind the queue of [`LogCopies`], so that nobody who logs ever waits. One request is under way at a time; what fails is tried again with
//! growing, random pauses, for about five minutes, while the queue fills, drops and counts. Invariants: lines that were lost are counted, and a
//! line says how many; the end of a program waits for its last lines, but not for ever.

use std::collections::VecDeque;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::primitives::{DateTime, DateTimeFormat};
use serde_json::Value;
use thalweg_common::clock::{Clock, SystemClock};
use thalweg_common::config::{Configuration, keys};
use thalweg_common::task_scope::TaskScope;
use thalweg_common::telemetry::{self, LogCopies, LogLine};
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use super::batch::{MAX_BYTES, MAX_LINES, batches, size};
use super::client::{CloudWatchLogs, Problem};
use crate::cloudwatch::connect::Place;

/// How long lines wait for others to go with.
const LINGER: Duration = Duration::from_secs(1);

/// The pause before the first retry is at most this long; each one may be twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often the same lines are tried again: about five minutes.
const MAX_RETRIES: u32 = 24;

/// How long the end of a program waits for its last lines.
const FINISH_PATIENCE: Duration = Duration::from_secs(3);

/// Where lines go.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The log group.
    pub group: String,
    /// The log stream in it.
    pub stream: String,
    /// Where CloudWatch Logs is.
    pub place: Place,
}

impl LogSettings {
    /// As the settings say; nothing if lines stay on the machine.
    #[must_use]
    pub fn of(configuration: &Configuration) -> Option<Self> {
        let text = |key| configuration.text(key).map(str::to_string);
        configuration.boolean(&keys::CLOUDWATCH_LOGS_ENABLED).filter(|enabled| *enabled)?;
        Some(Self {
            group: text(&keys::CLOUDWATCH_LOGS_GROUP)?,
            stream: text(&keys::CLOUDWATCH_LOGS_STREAM)?,
            place: Place {
                region: text(&keys::CLOUDWATCH_LOGS_REGION),
                endpoint: text(&keys::CLOUDWATCH_LOGS_ENDPOINT),
                credentials_file: None,
            },
        })
    }
}

/// What sends the lines of a process.
#[derive(Debug)]
pub struct LogShipping {
    copies: LogCopies,
    scope: TaskScope,
}

impl LogShipping {
    /// Sends what is given to its [copies](Self::copies) from now on. Must be called within a tokio runtime.
    pub async fn start(settings: &LogSettings) -> Self {
        let (copies, lines) = LogCopies::new();
        let way = CloudWatchLogs::connect(settings).await;
        let scope = TaskScope::new("logs to CloudWatch");
        let shipper = Shipper { way, copies: copies.clone(), waiting: VecDeque::new(), is_failing: false };
        let token = scope.token();
        scope.spawn("shipping", async move {
            let mut shipper = shipper;
            let mut lines = lines;
            let mut gathered = Vec::new();
            token.run_until_cancelled(shipper.run(&mut lines, &mut gathered)).await;
            shipper.finish(lines, gathered).await;
        });
        Self { copies, scope }
    }

    /// Sends what this process logs, if the settings say so.
    pub async fn of_process(configuration: &Configuration) -> Option<Self> {
        let settings = LogSettings::of(configuration)?;
        let shipping = Self::start(&settings).await;
        telemetry::copy_to(shipping.copies());
        tracing::info!("sends log lines to the stream `{}` of `{}`", settings.stream, settings.group);
        Some(shipping)
    }

    /// The way in.
    #[must_use]
    pub fn copies(&self) -> LogCopies {
        self.copies.clone()
    }

    /// Sends what is there, for some seconds at most: for the end of a program.
    pub async fn finish(self) {
        self.scope.cancel();
        self.scope.drained().await;
    }
}

struct Shipper {
    way: CloudWatchLogs,
    copies: LogCopies,
    /// Requests that are not sent yet.
    waiting: VecDeque<Vec<LogLine>>,
    /// Whether the last request failed: that is told once.
    is_failing: bool,
}

impl Shipper {
    /// Sends lines without end. Cancel-safe: what is not sent is in `gathered` or waits.
    async fn run(&mut self, lines: &mut Receiver<LogLine>, gathered: &mut Vec<LogLine>) {
        loop {
            gather(lines, gathered).await;
            self.divide(gathered);
            while let Some(batch) = self.waiting.front().cloned() {
                let lost = self.send(&batch).await;
                self.copies.lost(lost);
                self.waiting.pop_front();
            }
        }
    }

    /// Makes requests of lines, and of how many are missing.
    fn divide(&mut self, gathered: &mut Vec<LogLine>) {
        let lost = self.copies.take_lost();
        if lost > 0 {
            gathered.push(LogLine::new(SystemClock::new().now_ms(), telemetry::lost_line(lost)));
        }
        self.waiting.extend(batches(std::mem::take(gathered)));
    }

    /// Sends a request, as often as that makes sense; answers how many lines were lost.
    async fn send(&mut self, batch: &[LogLine]) -> u64 {
        for retry in 0.. {
            let problem = match self.way.put(batch).await {
                Ok(rejected) => {
                    self.arrived();
                    return rejected as u64;
                }
                Err(problem) => problem,
            };
            self.failed(&problem);
            if problem.is_permanent || retry == MAX_RETRIES {
                break;
            }
            sleep(pause(retry, getrandom::u64().unwrap_or(u64::MAX))).await;
        }
        batch.len() as u64
    }

    fn arrived(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("Log lines arrive at CloudWatch again.");
        }
    }

    fn failed(&mut self, problem: &Problem) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!("{}", problem.message);
        }
    }

    /// Tries each request that is left once.
    async fn finish(mut self, mut lines: Receiver<LogLine>, mut gathered: Vec<LogLine>) {
        lines.close();
        while let Ok(line) = lines.try_recv() {
            gathered.push(line);
        }
        self.divide(&mut gathered);
        let sent = timeout(FINISH_PATIENCE, async {
            while let Some(batch) = self.waiting.front() {
                self.way.put(batch).await?;
                self.waiting.pop_front();
            }
            Ok::<_, Problem>(())
        });
        let why = match sent.await {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem.message,
            Err(_) => "CloudWatch Logs is slow".to_owned(),
        };
        let left: usize = self.waiting.iter().map(Vec::len).sum();
        tracing::warn!("the last {left} log lines are on this machine only: {why}");
    }
}

/// Waits for lines, and a moment for more. Cancel-safe: what came is in `gathered`.
async fn gather(lines: &mut Receiver<LogLine>, gathered: &mut Vec<LogLine>) {
    // What is left of an earlier call that was cancelled does not wait again.
    if gathered.is_empty() && lines.recv_many(gathered, MAX_LINES).await == 0 {
        std::future::pending::<()>().await;
    }
    let lingered = sleep(LINGER);
    tokio::pin!(lingered);
    let mut counted = 0;
    let mut bytes = 0;
    loop {
        bytes += gathered[counted..].iter().map(size).sum::<usize>();
        counted = gathered.len();
        if bytes >= MAX_BYTES || counted >= MAX_LINES {
            return;
        }
        tokio::select! {
            biased;
            () = &mut lingered => return,
            more = lines.recv_many(gathered, MAX_LINES - counted) => if more == 0 {
                return;
            },
        }
    }
}

/// The pause before try `retry`, counted from 0: half of it is random, so that processes do not come back at the same time. Pure.
fn pause(retry: u32, random: u64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << retry.min(16)).min(MAX_PAUSE);
    longest / 2 + (longest / 2).mul_f64(random as f64 / u64::MAX as f64)
}

/// A line of a program's file: as it is if the program logs as we do, or else put into our form. Pure.
#[must_use]
pub fn line_of_file(file: &str, text: &str, now_ms: i64) -> LogLine {
    let object =
        serde_json::from_str::<Value>(text).ok().filter(|line| line["messageSchemaVersion"].is_string());
    let Some(object) = object else { return LogLine::new(now_ms, telemetry::foreign_line(file, text)) };
    let timestamp = object["timestamp"].as_str();
    let logged =
        timestamp.and_then(|text| DateTime::from_str(text, DateTimeFormat::DateTime).ok()?.to_millis().ok());
    LogLine::new(logged.unwrap_or(now_ms), text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let ms = |retry, random| pause(retry, random).as_millis();
        assert_eq!([0, 1, 2, 30].map(|retry| ms(retry, u64::MAX)), [500, 1_000, 2_000, 30_000]);
        assert_eq!([0, 1, 2, 30].map(|retry| ms(retry, 0)), [250, 500, 1_000, 15_000]);
        let all: Duration = (0..MAX_RETRIES).map(|retry| pause(retry, 0)).sum();
        assert!(all > Duration::from_secs(240), "{all:?}");
    }

    #[test]
    fn settings_are_read() {
        let mut configuration = Configuration::new();
        assert!(LogSettings::of(&configuration).is_none());
        configuration.set("logs.cloudwatch.enabled", "true").expect("a key");
        configuration.set("logs.cloudwatch.region", "eu-west-1").expect("a key");
        let settings = LogSettings::of(&configuration).expect("it is enabled");
        assert_eq!(settings.stream, "kinesis-analytics-log-stream");
        assert_eq!(settings.place.region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn lines_of_files_keep_their_time_if_they_have_one() {
        let ours = r#"{"timestamp":"2023-11-14T22:13:20.123456Z","message":"m","messageSchemaVersion":"1"}"#;
        assert_eq!(line_of_file("w.err", ours, 5), LogLine::new(1_700_000_000_123, ours.into()));
        for text in ["thread 'main' panicked at src/main.rs:3:5:", r#"{"message":"of the user's own"}"#, "7"]
        {
            let line = line_of_file("w.err", text, 5);
            let object: Value = serde_json::from_str(&line.text).expect("it is JSON");
            assert_eq!(
                (line.timestamp_ms, &object["message"], &object["logger"]),
                (5, &text.into(), &"w.err".into())
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_wait_a_moment_for_others_and_not_when_there_are_many() {
        let (copies, mut lines) = LogCopies::new();
        copies.offer(LogLine::new(1, "a".into()));
        let mut gathered = Vec::new();
        let later = async {
            // not a wait: the clock is paused, and this moves it.
            sleep(LINGER / 2).await;
            copies.offer(LogLine::new(2, "b".into()));
        };
        tokio::join!(gather(&mut lines, &mut gathered), later);
        assert_eq!(gathered.len(), 2, "both go together");
        gathered.clear();
        let wide = "w".repeat(MAX_BYTES / 20);
        for _ in 0..25 {
            copies.offer(LogLine::new(1, wide.clone()));
        }
        assert!(
            timeout(Duration::ZERO, gather(&mut lines, &mut gathered)).await.is_ok(),
            "a whole request does not wait"
        );
    }
}
