//! Finds users who buy directly after a click, within ten minutes: click-then-purchase fraud.
//!
//! The input are lines of a user, what the user did, and when, in milliseconds since the epoch, up to ten seconds out of order:
//!
//! ```text
//! u-7,click,1700000000000
//! u-7,purchase,1700000300000
//! ```
//!
//! ```text
//! cargo run --release -p thalweg-examples --example click_fraud -- --input actions.csv
//! ```

use std::fmt;
use std::path::PathBuf;

use clap::Parser;
use thalweg::cep::{self, Pattern};
use thalweg::prelude::*;
use thalweg_connectors::{TextFileSink, TextFileSource};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Finds users who buy directly after a click.
#[derive(Parser)]
#[command(name = "click_fraud", no_binary_name = true)]
struct Options {
    /// Files and directories to read.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Write the alerts into files in this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

/// What a user did.
#[derive(Record, Clone, Debug)]
pub struct Action {
    /// Who.
    pub user: String,
    /// `click`, `purchase`, or anything else.
    pub kind: String,
    /// Since the epoch.
    pub timestamp_ms: i64,
}

impl Action {
    /// What a line says.
    pub fn parse(line: &str) -> Result<Self, Failure> {
        let mut fields = line.split(',');
        let (Some(user), Some(kind), Some(timestamp), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(Failure::user(format!("`{line}` is not `user,action,milliseconds`")));
        };
        let timestamp_ms =
            timestamp.parse().or_failure(format_args!("`{timestamp}` in `{line}` is no time"))?;
        Ok(Self { user: user.to_string(), kind: kind.to_string(), timestamp_ms })
    }
}

/// A user who is to be looked at, and why.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Fraud {
    /// Who.
    pub user: String,
    /// What was found.
    pub rule: String,
}

impl fmt::Display for Fraud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.user, self.rule)
    }
}

/// The job between source and sink.
pub fn frauds(actions: &DataStream<Action>) -> DataStream<Fraud> {
    let click_then_purchase = Pattern::begin("click")
        .where_(|action: &Action| action.kind == "click")
        .next("purchase")
        .where_(|action| action.kind == "purchase")
        .within(minutes(10));

    let by_user = actions
        .watermarks(bounded_out_of_orderness(secs(10)).timestamps(|action: &Action| action.timestamp_ms))
        .key_by(|action| action.user.clone());

    cep::pattern(&by_user, click_then_purchase)
        .select(|found| Fraud { user: found["purchase"].user.clone(), rule: "click->purchase".to_string() })
        .uid("click-then-purchase")
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        env.enable_checkpointing(millis(500));

        let actions = env
            .source("actions", TextFileSource::lines_of(options.input))
            .try_map(|line: String| Action::parse(&line));
        let frauds = frauds(&actions);

        match options.output {
            Some(directory) => frauds.sink("frauds", TextFileSink::directory(directory)),
            None => frauds.print(),
        };
        Ok(())
    })
}
