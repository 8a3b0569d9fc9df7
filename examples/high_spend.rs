//! Who spends more than a thousand in five minutes: summed up every minute.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example high_spend -- --limit 5000
//! ```

use std::fmt;

use clap::Parser;
use thalweg::aggregates::sum_of;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says who spends much.
#[derive(Parser)]
#[command(name = "high_spend", no_binary_name = true)]
struct Options {
    /// Clicks per second; three seconds pass with each.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many clicks; never when it is not given.
    #[arg(long, value_name = "CLICKS")]
    limit: Option<u64>,
}

/// A user has clicked, and perhaps bought something.
#[derive(Record, Clone, Debug)]
pub struct Click {
    /// Who.
    pub user: String,
    /// At what.
    pub url: String,
    /// When, in milliseconds since the epoch.
    pub at: Timestamp,
    /// For how much.
    pub spend: f64,
}

/// A user has spent much.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Alert {
    /// Who.
    pub user: String,
    /// Which rule says so.
    pub rule: String,
    /// The end of the five minutes, in milliseconds since the epoch.
    pub window_end: Timestamp,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.rule, self.window_end)
    }
}

/// What is still in order.
const LIMIT: f64 = 1000.0;

/// Users who spend more than a thousand in five minutes, every minute.
pub fn alerts(clicks: &DataStream<Click>) -> DataStream<Alert> {
    clicks
        .watermarks(bounded_out_of_orderness(secs(10)).timestamps(|click: &Click| click.at))
        .key_by(|click| click.user.clone())
        .window(sliding(minutes(5), minutes(1)))
        .aggregate_with(sum_of(|click: &Click| click.spend), |user, window, spend| {
            let alert =
                Alert { user: user.clone(), rule: "HIGH_SPEND_5M".to_string(), window_end: window.end };
            (spend > LIMIT).then_some(alert)
        })
        .uid("high-spend")
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    env.configure("pipeline.name", "high-spend-detector");
    let click = |number: u64| Click {
        user: format!("u-{}", number % 3),
        url: "/buy".to_string(),
        at: 3_000 * number as Timestamp,
        spend: (number * 31 % 100) as f64,
    };
    let clicks = env.generate(Some(options.rate), options.limit, click).name("clicks");
    alerts(&clicks).print().name("alerts");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
