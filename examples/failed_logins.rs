//! Who has failed to log in five times in ten minutes: counted every minute.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example failed_logins -- --limit 5000
//! ```

use std::fmt;

use clap::Parser;
use thalweg::aggregates::Count;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says who fails to log in again and again.
#[derive(Parser)]
#[command(name = "failed_logins", no_binary_name = true)]
struct Options {
    /// Events per second; five seconds pass with each.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many events; never when it is not given.
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,
}

/// A user has done something.
#[derive(Record, Clone, Debug)]
pub struct Event {
    /// Who.
    pub user: String,
    /// What, as `login_failed`.
    pub action: String,
    /// When, in milliseconds since the epoch.
    pub at: Timestamp,
}

/// A user has failed to log in too often.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Alert {
    /// Who.
    pub user: String,
    /// How often in ten minutes.
    pub count: u64,
    /// The end of these, in milliseconds since the epoch.
    pub window_end: Timestamp,
}

/// As JSON.
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, count, window_end } = self;
        let alert = serde_json::json!({ "user": user, "count": count, "windowEnd": window_end });
        write!(f, "{alert}")
    }
}

/// How many failures are too many.
const TOO_MANY: u64 = 5;

/// Users with five failures or more in ten minutes, every minute.
pub fn alerts(events: &DataStream<Event>) -> DataStream<Alert> {
    events
        .watermarks(bounded_out_of_orderness(secs(5)).timestamps(|event: &Event| event.at))
        .filter(|event| event.action == "login_failed")
        .key_by(|event| event.user.clone())
        .window(sliding(minutes(10), minutes(1)))
        .aggregate_with(Count, |user, window, count| {
            let alert = Alert { user: user.clone(), count, window_end: window.end };
            (count >= TOO_MANY).then_some(alert)
        })
        .uid("failed-logins")
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    let event = |number: u64| Event {
        user: format!("user-{}", number * number % 11),
        action: if number.is_multiple_of(3) { "login_failed" } else { "login" }.to_string(),
        at: 5_000 * number as Timestamp,
    };
    let events = env.generate(Some(options.rate), options.limit, event).name("events");
    alerts(&events).print().name("alerts");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
