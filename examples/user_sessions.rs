//! Sessions of users, where each click says how long it keeps its session open: a page to read longer than a page to leave.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example user_sessions -- --limit 2000
//! ```

use std::fmt;

use clap::Parser;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says what users do without a longer pause.
#[derive(Parser)]
#[command(name = "user_sessions", no_binary_name = true)]
struct Options {
    /// Stop after this many clicks; never when it is not given.
    #[arg(long, value_name = "CLICKS")]
    limit: Option<u64>,
    /// Clicks per second.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
}

/// A user has clicked.
#[derive(Record, Clone, Debug)]
pub struct Click {
    /// Who.
    pub user: String,
    /// When, in milliseconds since the epoch.
    pub at: Timestamp,
    /// How long the session waits for the next click, in milliseconds.
    pub gap_ms: u64,
}

/// What a user has done without a longer pause.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Session {
    /// Who.
    pub user: String,
    /// From the first click to when the last one would have let it end.
    pub window: TimeWindow,
    /// When, in the order in which they came.
    pub clicks: Vec<Timestamp>,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clicked {} times in {}", self.user, self.clicks.len(), self.window)
    }
}

/// The sessions of clicks that have timestamps and watermarks.
pub fn sessions(clicks: &DataStream<Click>) -> DataStream<Session> {
    clicks
        .key_by(|click| click.user.clone())
        .window(dynamic_session(|click: &Click| millis(click.gap_ms)))
        .apply(|user, window, clicks| {
            [Session { user: user.clone(), window, clicks: clicks.iter().map(|click| click.at).collect() }]
        })
        .uid("sessions")
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        // A click each second; some pages are left at once.
        let click = |number: u64| {
            let user = format!("user-{}", number * number % 5);
            Click {
                user,
                at: 1_000 * number as Timestamp,
                gap_ms: if number.is_multiple_of(4) { 1_500 } else { 4_000 },
            }
        };
        let strategy = monotonous_timestamps().timestamps(|click: &Click| click.at);
        let clicks =
            env.generate(Some(options.rate), options.limit, click).uid("clicks").watermarks(strategy);
        sessions(&clicks).print();
        Ok(())
    })
}
