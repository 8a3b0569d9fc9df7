//! Stock trades from Kinesis in four ways: under the names of companies, summed up, counted, and by their lowest prices; each to Kinesis,
//! Firehose or files on S3.
//!
//! ```text
//! cargo run --release -p thalweg-examples-aws --example stock_streams -- --properties application_properties.json
//! ```
//!
//! A result is computed if the file has a group for it, `Names`, `Sums`, `Counts` or `LowestPrices`, with `stream.name` (Kinesis),
//! `delivery.stream` (Firehose) or `s3.sink.path`, and the keys of that connector. `ConsumerConfigProperties` say where to read;
//! `window.seconds` of `FlinkApplicationProperties` how long counts are, and `separator` what is between ticker and price.

use std::collections::BTreeMap;

use serde_json::Value;
use thalweg::aggregates::Count;
use thalweg::prelude::*;
use thalweg_connectors::files::{FileSink, RollingPolicy};
use thalweg_connectors::formats::{JsonValue, Text};
use thalweg_connectors::{FirehoseSink, KinesisSink, KinesisSource};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A JSON object of any shape with a ticker and a price, in lower or upper case.
type Trade = JsonValue;

fn field<'a>(JsonValue(trade): &'a Trade, name: &str) -> Result<&'a Value, Failure> {
    let found = trade.get(name).or_else(|| trade.get(name.to_uppercase()));
    found.or_failure(format_args!("the trade has no {name}"))
}

fn ticker(trade: &Trade) -> String {
    field(trade, "ticker").ok().and_then(Value::as_str).unwrap_or_default().to_string()
}

fn price(trade: &Trade) -> f64 {
    field(trade, "price").ok().and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// The trade with a field changed.
fn with(JsonValue(mut trade): Trade, name: &str, value: Value) -> Trade {
    trade[name] = value;
    JsonValue(trade)
}

/// A trade as it is read: one without ticker or price fails the job.
fn trade(data: &[u8]) -> Result<Option<Trade>, Failure> {
    let trade = JsonValue(serde_json::from_slice(data).or_failure("the record is no JSON")?);
    field(&trade, "ticker")?.as_str().or_failure("the ticker is no text")?;
    field(&trade, "price")?.as_f64().or_failure("the price is no number")?;
    Ok(Some(trade))
}

/// Writes lines as a group of properties says.
fn write(lines: DataStream<String>, name: &str, mut to: BTreeMap<String, String>) -> thalweg::Result<()> {
    if let Some(stream) = to.remove("delivery.stream") {
        lines.sink(name, FirehoseSink::strings(stream).with_properties(to)?);
    } else if let Some(path) = to.remove("s3.sink.path") {
        lines.sink(name, FileSink::rows(path, Text).rolling(RollingPolicy::on_checkpoint()));
    } else {
        let stream = to.remove("stream.name").unwrap_or_else(|| "ExampleOutputStream".to_string());
        lines.sink(name, KinesisSink::strings(stream).with_properties(to)?);
    }
    Ok(())
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let mut consumer = env.properties("ConsumerConfigProperties");
    let input = consumer.remove("stream.name").unwrap_or_else(|| "ExampleInputStream".to_string());
    let application = env.properties("FlinkApplicationProperties");
    let window: u64 = application.get("window.seconds").map_or("10", String::as_str).parse()?;
    let separator = application.get("separator").cloned().unwrap_or_else(|| ",".to_string());
    env.enable_checkpointing(secs(10));

    let source = KinesisSource::new(input, |record| trade(record.data)).with_properties(consumer)?;
    let trades = env.source("trades", source).uid("trades");
    let by_ticker = trades.key_by(ticker);

    let names = env.properties("Names");
    if !names.is_empty() {
        let named = trades.map(|trade: Trade| {
            let name = format!("{} Company", ticker(&trade));
            with(trade, "TICKER", name.into()).0.to_string()
        });
        write(named, "names", names)?;
    }

    let sums = env.properties("Sums");
    if !sums.is_empty() {
        let summed = by_ticker.window(tumbling(secs(5)).processing_time()).reduce(|first, next| {
            let sum = price(&first) + price(&next);
            with(first, "PRICE", sum.into())
        });
        write(summed.uid("sums").map(|JsonValue(trade)| trade.to_string()), "sums", sums)?;
    }

    let counts = env.properties("Counts");
    if !counts.is_empty() {
        let to_files = counts.contains_key("s3.sink.path");
        let line = move |ticker: &String, count| match to_files {
            true => format!("\"{ticker}\" count: {count}\n"),
            false => format!("\"{ticker}\",{count}\n"),
        };
        let counted = by_ticker
            .window(tumbling(secs(window)).processing_time())
            .aggregate_with(Count, move |ticker, _, count| [line(ticker, count)]);
        write(counted.uid("counts"), "counts", counts)?;
    }

    let prices = env.properties("LowestPrices");
    if !prices.is_empty() {
        let (to_firehose, to_files) =
            (prices.contains_key("delivery.stream"), prices.contains_key("s3.sink.path"));
        let line = move |ticker: &String, price: f64| match (to_firehose, to_files) {
            (true, _) => format!("{ticker}: min - {price:.2}\n"),
            // The file's format ends lines.
            (_, true) => format!("\"{ticker}\"{separator}{price:.2}"),
            _ => format!("\"{ticker}\"{separator}{price:.2}\n"),
        };
        let lowest = by_ticker
            .window(sliding(secs(10), secs(5)).processing_time())
            .reduce_with(
                |lowest, next| if price(&next) < price(&lowest) { next } else { lowest },
                move |ticker, _, lowest| [line(ticker, price(&lowest))],
            )
            .set_parallelism(3);
        write(lowest.uid("lowest-prices"), "lowest-prices", prices)?;
    }
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
