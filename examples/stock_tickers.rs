//! Stock tickers: how many trades in ten seconds, the lowest price of the last ten, and what was paid in five, by the clock.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example stock_tickers
//! ```

use std::fmt;

use clap::Parser;
use thalweg::aggregates::Count;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells about trades of the last seconds.
#[derive(Parser)]
#[command(name = "stock_tickers", no_binary_name = true)]
struct Options {
    /// Trades per second.
    #[arg(long, default_value_t = 10.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many trades; never when it is not given.
    #[arg(long, value_name = "TRADES")]
    limit: Option<u64>,
}

/// Something was sold.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Trade {
    /// What.
    pub ticker: String,
    /// For how much.
    pub price: f64,
    /// The number of the trade.
    pub id: u64,
}

impl fmt::Display for Trade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.2} from trade {} on", self.ticker, self.price, self.id)
    }
}

const TICKERS: [&str; 5] = ["AAPL", "AMZN", "MSFT", "INTC", "TBV"];

/// How many trades of a ticker there were in ten seconds, as `"AAPL",3`.
pub fn counts(trades: &DataStream<Trade>) -> DataStream<String> {
    trades
        .key_by(|trade| trade.ticker.clone())
        .window(tumbling(secs(10)).processing_time())
        .aggregate_with(Count, |ticker, _, count| [format!("\"{ticker}\",{count}")])
        .uid("counts")
}

/// The lowest price of a ticker in the last ten seconds, every five, as `"AAPL",7.50`.
pub fn lowest_prices(trades: &DataStream<Trade>) -> DataStream<String> {
    trades
        .key_by(|trade| trade.ticker.clone())
        .window(sliding(secs(10), secs(5)).processing_time())
        .reduce_with(
            |lowest, next| if next.price < lowest.price { next } else { lowest },
            |ticker, _, lowest| [format!("\"{ticker}\",{:.2}", lowest.price)],
        )
        .uid("lowest-prices")
        .set_parallelism(3)
}

/// What was paid for a ticker in five seconds: the first trade with the sum as its price.
pub fn sums(trades: &DataStream<Trade>) -> DataStream<Trade> {
    trades
        .key_by(|trade| trade.ticker.clone())
        .window(tumbling(secs(5)).processing_time())
        .reduce(|first, next| Trade { price: first.price + next.price, ..first })
        .uid("sums")
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    let trade = |id: u64| Trade {
        ticker: TICKERS[id as usize * 7 % TICKERS.len()].to_string(),
        price: (id * 7_919 % 10_000) as f64 / 100.0,
        id,
    };
    let trades = env.generate(Some(options.rate), options.limit, trade).name("trades");

    counts(&trades).print().name("counts");
    lowest_prices(&trades).print().name("lowest-prices");
    sums(&trades).print().name("sums");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
