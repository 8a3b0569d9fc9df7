//! Counts numbers that never end, at a steady rate: a job to watch, to kill and to measure.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example unbounded_counter -- --rate 5 --keys 3
//! cargo run --release -p thalweg-examples --example unbounded_counter -- --jobmanager 127.0.0.1:6123 --rate 100000 --output /counts
//! ```

use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSink;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Generates numbers and counts how many fell to each key.
#[derive(Parser)]
#[command(name = "unbounded_counter", no_binary_name = true)]
struct Options {
    /// Numbers per second, over all subtasks; as many as possible when it is not given.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Stop after this many numbers; never when it is not given.
    #[arg(long, value_name = "NUMBERS")]
    limit: Option<u64>,
    /// How many keys there are.
    #[arg(long, default_value_t = 100, value_name = "KEYS", value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Write the counts into files in this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        env.enable_checkpointing(millis(500));

        let keys = options.keys;
        let counts = env
            .generate(options.rate, options.limit, |number| number)
            .uid("numbers")
            .key_by(move |number| number % keys)
            .count()
            .uid("count")
            .map(|(key, count)| format!("{key} {count}"));

        match options.output {
            Some(directory) => counts.sink("counts", TextFileSink::directory(directory)),
            None => counts.print(),
        };
        Ok(())
    })
}
