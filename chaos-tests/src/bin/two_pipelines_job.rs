//! A job of two pipelines, `left` and `right`, that have nothing to do with each other. Each counts numbers by key, writes every update to
//! files of its own, and leaves a trace of every number at the moment when it comes by, whatever becomes of it.
//!
//! `two_pipelines_job --count 20000 --rate 2000 --output DIR --after 5000 --marker FILE`: the left one panics when the number `--after` passes,
//! while the marker file does not exist.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSink;

#[derive(Parser, Clone)]
#[command(name = "two_pipelines_job", no_binary_name = true)]
struct Options {
    /// How many numbers each pipeline counts.
    #[arg(long)]
    count: u64,
    /// Numbers a second of each.
    #[arg(long)]
    rate: f64,
    /// How many keys the numbers fall into.
    #[arg(long, default_value_t = 97)]
    keys: u64,
    /// Where updates and traces go: `left`, `right`, `left.trace` and `right.trace`.
    #[arg(long)]
    output: PathBuf,
    /// The number at which the left pipeline panics.
    #[arg(long, requires = "marker")]
    after: Option<u64>,
    /// Exists once it has.
    #[arg(long)]
    marker: Option<PathBuf>,
}

impl Options {
    /// Whether to panic now; leaves the marker.
    fn strikes(&self, number: u64) -> bool {
        let leave = |marker| OpenOptions::new().write(true).create_new(true).open(marker).is_ok();
        self.after == Some(number) && self.marker.as_ref().is_some_and(leave)
    }
}

/// A line for each number: when it came by in milliseconds, and the number.
#[expect(clippy::disallowed_methods, reason = "the trace is of real time, in processes that come and go")]
fn trace(path: &Path, number: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    file.write_all(format!("{} {number}\n", now.as_millis()).as_bytes())
}

#[expect(clippy::panic, reason = "misbehaving is what this job is for")]
fn strike() {
    panic!("the job under test panics as told");
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        for side in ["left", "right"] {
            let (faults, keys) = (options.clone(), options.keys);
            let path = options.output.join(format!("{side}.trace"));
            env.generate(Some(options.rate), Some(options.count), |number| number)
                .name(&format!("{side} numbers"))
                .uid(&format!("{side} numbers"))
                .slot_sharing_group(side)
                .try_map(move |number| {
                    trace(&path, number)
                        .map_err(|error| Failure::external(format!("cannot trace: {error}")))?;
                    if side == "left" && faults.strikes(number) {
                        strike();
                    }
                    Ok::<_, Failure>(number)
                })
                .name(&format!("{side} trace"))
                .key_by(move |number| number % keys)
                .count()
                .name(&format!("{side} count"))
                .uid(&format!("{side} count"))
                .map(|(key, count)| format!("{key} {count}"))
                .sink(&format!("{side} updates"), TextFileSink::directory(options.output.join(side)))
                .uid(&format!("{side} updates"));
        }
        Ok(())
    })
}
