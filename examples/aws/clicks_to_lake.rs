//! Clicks from Kinesis into files of a data lake on S3: as lines of text, a file for each checkpoint, and as JSON, in larger files.
//!
//! ```text
//! cargo run --release -p thalweg-examples-aws --example clicks_to_lake -- --properties application_properties.json
//! ```
//!
//! The file has the group `ConsumerConfigProperties` with `stream.name` and keys of Flink's Kinesis connectors, and `Lake` with `text.path` and
//! `json.path`. Files of JSON are closed after five minutes, a minute of silence (`rolling.inactivity.seconds`), or 256 MiB.

use serde::{Deserialize, Serialize};
use thalweg::prelude::*;
use thalweg_connectors::KinesisSource;
use thalweg_connectors::files::{FileSink, RollingPolicy};
use thalweg_connectors::formats::{Json, Text};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A user has clicked, and perhaps bought something.
#[derive(Record, Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Click {
    /// Who.
    pub user_id: String,
    /// At what.
    pub url: String,
    /// When, in milliseconds since the epoch.
    pub ts: Timestamp,
    /// For how much.
    pub spend: f64,
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let mut consumer = env.properties("ConsumerConfigProperties");
    let input = consumer.remove("stream.name").unwrap_or_else(|| "clicks".to_string());
    let lake = env.properties("Lake");
    let setting = |key: &str, default: &str| lake.get(key).cloned().unwrap_or_else(|| default.to_string());
    let silence: u64 = setting("rolling.inactivity.seconds", "60").parse()?;
    env.enable_checkpointing(secs(10));

    let read = KinesisSource::new(input, |record| {
        serde_json::from_slice::<Click>(record.data).map(Some).or_failure("the record is no click")
    });
    let clicks = env.source("clicks", read.with_properties(consumer)?).uid("clicks");

    let text = FileSink::rows(setting("text.path", "s3://data-lake/clicks"), Text);
    clicks
        .map(|Click { user_id, url, ts, spend }| format!("{user_id},{url},{ts},{spend}"))
        .sink("text", text.rolling(RollingPolicy::on_checkpoint()))
        .uid("text");

    let larger = RollingPolicy::default()
        .rollover(minutes(5))
        .inactivity(secs(silence))
        .check_interval(secs(silence))
        .max_part_bytes(256 * 1024 * 1024);
    let json = FileSink::rows(setting("json.path", "s3://data-lake/clicks-json"), Json::<Click>::new());
    clicks.sink("json", json.rolling(larger)).uid("json");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
