//! Clicks into files: one finished file for each checkpoint and subtask.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example clicks_to_files -- --output /data-lake --parallelism 2
//! ```

use std::fmt;
use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSink;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Writes clicks into files.
#[derive(Parser)]
#[command(name = "clicks_to_files", no_binary_name = true)]
struct Options {
    /// Clicks per second.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many clicks; never when it is not given.
    #[arg(long, value_name = "CLICKS")]
    limit: Option<u64>,
    /// Write the files into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    output: PathBuf,
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

/// A line of a file.
impl fmt::Display for Click {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.user, self.url, self.at, self.spend)
    }
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    env.enable_checkpointing(secs(10));
    let click = |number: u64| Click {
        user: format!("u-{}", number % 3),
        url: "/buy".to_string(),
        at: 1_000 * number as Timestamp,
        spend: (number * 31 % 100) as f64,
    };
    env.generate(Some(options.rate), options.limit, click)
        .name("clicks")
        .rebalance()
        .sink("data-lake", TextFileSink::directory(options.output));
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
