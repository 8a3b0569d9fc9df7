//! Counts the words of text files.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example word_count -- --input README.md
//! cargo run --release -p thalweg-examples --example word_count -- --jobmanager 127.0.0.1:6123 --parallelism 4 --input /data --output /counts
//! ```

use std::fmt;
use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::{TextFileSink, TextFileSource};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts the words of text files.
#[derive(Parser)]
#[command(name = "word_count", no_binary_name = true)]
struct Options {
    /// Files and directories to read.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Read the input this many times.
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    repeat: u64,
    /// Write the counts into files in this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

/// How often a word has been seen so far.
#[derive(Record, Clone, Debug)]
struct WordCount {
    word: String,
    count: u64,
}

impl fmt::Display for WordCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.word, self.count)
    }
}

/// The runs of letters and digits in a line, in lower case.
fn words(line: &str) -> Vec<String> {
    let runs = line.split(|character: char| !character.is_alphanumeric());
    runs.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        env.enable_checkpointing(millis(500));

        let counts = env
            .source("lines", TextFileSource::lines_of(options.input).repeat(options.repeat))
            .flat_map(|line| words(&line))
            .key_by(|word| word.clone())
            .count()
            .uid("count")
            .map(|(word, count)| WordCount { word, count });

        match options.output {
            Some(directory) => counts.sink("counts", TextFileSink::directory(directory)),
            None => counts.print(),
        };
        Ok(())
    })
}
