//! Keeps what is written in Korean: a filter over lines of JSON.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example tweets -- --input /tweets
//! ```

use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSource;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps what is written in Korean.
#[derive(Parser)]
#[command(name = "tweets", no_binary_name = true)]
struct Options {
    /// The directory with files of tweets, one as JSON in each line.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    input: PathBuf,
}

/// The text of a tweet, if its author writes Korean and it has one.
///
/// # Errors
/// If the line is no JSON.
pub fn korean_text(line: &str) -> Result<Option<String>, Failure> {
    let tweet: serde_json::Value =
        serde_json::from_str(line).or_failure(format_args!("`{line}` is no tweet"))?;
    let is_korean = tweet["user"]["lang"] == "ko";
    Ok(tweet["text"].as_str().filter(|_| is_korean).map(String::from))
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    env.configure("pipeline.name", "Twitter Streaming Example");
    env.source("tweets", TextFileSource::lines(&options.input))
        .try_flat_map(|line| korean_text(&line))
        .print()
        .name("texts");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
