//! Counts the words of the last fifteen seconds, every five seconds.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example sliding_word_count
//! ```

use clap::Parser;
use thalweg::aggregates::Count;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts the words of the last fifteen seconds.
#[derive(Parser)]
#[command(name = "sliding_word_count", no_binary_name = true)]
struct Options {
    /// Lines per second.
    #[arg(long, default_value_t = 2.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many lines; never when it is not given.
    #[arg(long, value_name = "LINES")]
    limit: Option<u64>,
}

/// What is read, line by line and again and again.
const LINES: [&str; 4] = [
    "Full fathom five thy father lies",
    "Of his bones are coral made",
    "Those are pearls that were his eyes",
    "Nothing of him that doth fade",
];

/// The runs of letters, digits and underscores in a line, in lower case. Only those of ASCII count, as in `\W+` of Java.
fn words(line: &str) -> Vec<String> {
    let is_between = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
    line.to_lowercase().split(is_between).filter(|word| !word.is_empty()).map(String::from).collect()
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    env.configure("pipeline.name", "Streaming WordCount");

    env.generate(Some(options.rate), options.limit, |number| {
        LINES[number as usize % LINES.len()].to_string()
    })
    .name("lines")
    .flat_map(|line| words(&line))
    .key_by(|word| word.clone())
    .window(sliding(secs(15), secs(5)).processing_time())
    .aggregate(Count)
    .uid("counts")
    .print_debug()
    .name("word-counts");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
