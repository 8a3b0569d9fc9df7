//! What users spend in each minute, with time for late events: results are corrected for half a minute, what comes later still is told.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example late_data -- --limit 2000
//! ```

use std::fmt;

use clap::Parser;
use thalweg::aggregates::sum_of;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says what users spend in each minute.
#[derive(Parser)]
#[command(name = "late_data", no_binary_name = true)]
struct Options {
    /// Stop after this many purchases; never when it is not given.
    #[arg(long, value_name = "PURCHASES")]
    limit: Option<u64>,
    /// Purchases per second.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
}

/// A user has spent something.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Purchase {
    /// Who.
    pub user: String,
    /// When, in milliseconds since the epoch.
    pub at: Timestamp,
    /// How much.
    pub cents: i64,
}

/// What a user has spent in a minute.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Spent {
    /// Who.
    pub user: String,
    /// The end of the minute, in milliseconds since the epoch.
    pub window_end: Timestamp,
    /// How much, as far as is known.
    pub cents: i64,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spent {} until {}", self.user, self.cents, self.window_end)
    }
}

/// Purchases that came too late.
pub const LATE: OutputTag<Purchase> = OutputTag::new("late-purchases");

/// What each user spends in each minute. Late purchases correct the result for thirty seconds and go to [`LATE`] then. The purchases have
/// timestamps and watermarks.
pub fn spent(purchases: &DataStream<Purchase>) -> DataStream<Spent> {
    purchases
        .key_by(|purchase| purchase.user.clone())
        .window(tumbling(minutes(1)))
        .allowed_lateness(secs(30))
        .side_output_late_data(&LATE)
        .aggregate_with(sum_of(|purchase: &Purchase| purchase.cents), |user, window, cents| {
            [Spent { user: user.clone(), window_end: window.end, cents }]
        })
        .uid("spent")
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        // A second passes with each purchase, and every seventh is told a while later.
        let purchase = |number: u64| {
            let second = if number % 7 == 6 { number.saturating_sub(20 * (number % 6)) } else { number };
            Purchase {
                user: format!("user-{}", number % 3),
                at: 1_000 * second as Timestamp,
                cents: 1 + number as i64 % 100,
            }
        };
        let strategy = bounded_out_of_orderness(secs(10)).timestamps(|purchase: &Purchase| purchase.at);
        let purchases =
            env.generate(Some(options.rate), options.limit, purchase).uid("purchases").watermarks(strategy);

        let spent = spent(&purchases);
        spent.side_output(&LATE).map(|late| format!("too late: {late:?}")).print();
        spent.print();
        Ok(())
    })
}
