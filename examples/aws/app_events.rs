//! What users of an application do, from Kinesis to Kinesis as JSON: how often each action comes in each country, and who fails to log in again
//! and again.
//!
//! ```text
//! cargo run --release -p thalweg-examples-aws --example app_events -- --properties application_properties.json
//! ```
//!
//! The file has the groups `ConsumerConfigProperties`, `Counts` and `Alerts`, each with `stream.name` and keys of Flink's Kinesis connectors.
//! A stream may have fewer shards than the job has subtasks: records are parsed behind a rebalance, by all of them.

use serde::{Deserialize, Serialize};
use thalweg::aggregates::Count;
use thalweg::prelude::*;
use thalweg_connectors::formats::timestamp;
use thalweg_connectors::{KinesisSink, KinesisSource};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A user has done something.
#[derive(Record, Deserialize, Clone, Debug)]
pub struct Event {
    /// When, in milliseconds since the epoch.
    #[serde(with = "timestamp::iso8601_ms")]
    pub timestamp: Timestamp,
    /// Who.
    pub user_id: String,
    /// What, as `click`.
    pub action: String,
    /// Where.
    pub country: String,
}

/// How often an action came in a country in five minutes.
#[derive(Serialize)]
struct Counted<'a> {
    key: &'a str,
    count: u64,
    window_end: Timestamp,
}

/// A user has failed to log in too often in ten minutes.
#[derive(Serialize)]
struct Alert<'a> {
    user: &'a str,
    count: u64,
    window_end: Timestamp,
}

/// How many failures are too many.
const TOO_MANY: u64 = 5;

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The sink that a group of properties describes. All records have the partition key `0`.
fn sink(env: &Environment, group: &str, stream: &str) -> Result<KinesisSink<String>, Failure> {
    let mut properties = env.properties(group);
    let stream = properties.remove("stream.name").unwrap_or_else(|| stream.to_string());
    KinesisSink::strings(stream).partition_key(|_| "0".to_string()).with_properties(properties)
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let mut consumer = env.properties("ConsumerConfigProperties");
    let input = consumer.remove("stream.name").unwrap_or_else(|| "app-events".to_string());
    env.enable_checkpointing(secs(60));

    let events = env
        .source("events", KinesisSource::bytes(input).with_properties(consumer)?)
        .uid("events")
        .rebalance()
        .try_map(|bytes: Vec<u8>| {
            serde_json::from_slice::<Event>(&bytes).or_failure("the record is no event")
        })
        .name("parse")
        .watermarks(
            bounded_out_of_orderness(secs(5))
                .timestamps(|event: &Event| event.timestamp)
                .with_idleness(secs(1)),
        );

    events
        .key_by(|event| format!("{}#{}", event.country, event.action))
        .window(sliding(minutes(5), minutes(1)))
        .aggregate_with(Count, |key, window, count| [json(&Counted { key, count, window_end: window.end })])
        .uid("counts")
        .sink("counts", sink(env, "Counts", "analytics-agg")?);

    events
        .filter(|event| event.action == "login_failed")
        .key_by(|event| event.user_id.clone())
        .window(sliding(minutes(10), minutes(1)))
        .aggregate_with(Count, |user, window, count| {
            let alert = Alert { user, count, window_end: window.end };
            (count >= TOO_MANY).then(|| json(&alert))
        })
        .uid("failed-logins")
        .sink("alerts", sink(env, "Alerts", "login-alerts")?);
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
