//! The job `stock_tickers` on trades at given times, and its results in files.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../stock_tickers.rs"]
#[allow(dead_code)]
mod job;

use std::fs;
use std::path::Path;

use job::{Trade, counts, lowest_prices};
use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup, scripted};
use thalweg_connectors::TextFileSink;

const SECOND: Timestamp = 1_000;

fn trade(ticker: &str, price: f64, id: u64) -> Trade {
    Trade { ticker: ticker.into(), price, id }
}

fn open() -> JobHarness {
    JobHarness::open(job::topology, JobSetup::default()).unwrap()
}

/// Apple at 10.00, 7.50 and 9.25, when the vectors say.
fn feed_prices(job: &mut JobHarness, mut look: impl FnMut(&mut JobHarness)) {
    let prices = [(1, 10.0), (6, 7.5), (12, 9.25)];
    for second in 1..=20 {
        job.advance_to(second * SECOND).unwrap();
        if second % 5 == 0 {
            look(job);
        }
        let now = prices.iter().filter(|(at, _)| *at == second);
        job.feed("trades", now.map(|(_, price)| trade("AAPL", *price, 0))).unwrap();
    }
}

/// The texts of all finished files.
fn finished(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_finished = |path: &Path| !path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let mut files: Vec<_> = names.filter(|path| is_finished(path)).collect();
    files.sort();
    files.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn acceptance_ds_05_the_first_trade_with_the_sum() {
    let mut job = open();
    job.feed("trades", [trade("A", 10.0, 1), trade("A", 5.5, 2)]).unwrap();
    job.advance_to(5 * SECOND).unwrap();
    assert_eq!(job.output::<Trade>("sums").unwrap(), [trade("A", 15.5, 1)]);
}

#[test]
fn acceptance_ds_06_and_13_trades_of_ten_seconds() {
    let mut job = open();
    job.feed("trades", ["AAPL", "AMZN", "AAPL"].map(|ticker| trade(ticker, 1.0, 0))).unwrap();
    job.advance_to(9 * SECOND).unwrap();
    assert_eq!(job.output::<String>("counts").unwrap(), [""; 0]);
    job.advance_to(10 * SECOND).unwrap();
    let mut counts = job.output::<String>("counts").unwrap();
    counts.sort();
    assert_eq!(counts, [r#""AAPL",2"#, r#""AMZN",1"#]);
    job.feed("trades", ["AAPL"; 3].map(|ticker| trade(ticker, 1.0, 0))).unwrap();
    job.advance_to(20 * SECOND).unwrap();
    assert_eq!(job.output::<String>("counts").unwrap(), [r#""AAPL",3"#]);
}

#[test]
fn acceptance_ds_07_the_lowest_price_of_ten_seconds_every_five() {
    let (mut job, mut found) = (open(), Vec::new());
    feed_prices(&mut job, |job| found.push(job.output::<String>("lowest-prices").unwrap()));
    let expected = [r#""AAPL",10.00"#, r#""AAPL",7.50"#, r#""AAPL",7.50"#, r#""AAPL",9.25"#];
    assert_eq!(found, expected.map(|line| vec![line.to_string()]));
}

/// A line with its own end, to which the sink adds another one, is followed by an empty one.
#[test]
fn acceptance_ds_08_counts_of_a_minute_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let topology = |env: &mut Environment| {
        env.source("trades", scripted::<Trade>())
            .key_by(|trade| trade.ticker.clone())
            .window(tumbling(minutes(1)).processing_time())
            .aggregate_with(thalweg::aggregates::Count, |ticker, _, count| {
                [format!("\"{ticker}\" count: {count}\n")]
            })
            .uid("counts")
            .sink("data", TextFileSink::directory(directory.path()));
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default().keeping("data")).unwrap();
    job.feed("trades", (0..12).map(|id| trade("AAPL", 1.0, id))).unwrap();
    job.advance_to(60 * SECOND).unwrap();
    assert_eq!(finished(directory.path()), [""; 0], "nothing is final before a checkpoint");
    job.snapshot().unwrap();
    assert_eq!(finished(directory.path()), ["\"AAPL\" count: 12\n\n"]);
}

#[test]
fn acceptance_ds_15_lowest_prices_as_lines_of_finished_files() {
    let directory = tempfile::tempdir().unwrap();
    let topology = |env: &mut Environment| {
        let trades = env.source("trades", scripted::<Trade>());
        counts(&trades).discard();
        lowest_prices(&trades).set_parallelism(1).sink("lowest", TextFileSink::directory(directory.path()));
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default().keeping("lowest")).unwrap();
    feed_prices(&mut job, |job| drop(job.snapshot().unwrap()));
    let expected = ["\"AAPL\",10.00\n", "\"AAPL\",7.50\n", "\"AAPL\",7.50\n", "\"AAPL\",9.25\n"];
    assert_eq!(finished(directory.path()), expected);
}
