//! Tells which page sold what: each purchase with the clicks of the same user in the half hour before it, by an interval join.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example click_purchase
//! cargo run --release -p thalweg-examples --example click_purchase -- --jobmanager 127.0.0.1:6123 --output /sales
//! ```

use std::fmt;
use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSink;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells which page sold what.
#[derive(Parser)]
#[command(name = "click_purchase", no_binary_name = true)]
struct Options {
    /// Clicks per second of all users; every tenth one is followed by a purchase.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many clicks; never when it is not given.
    #[arg(long, value_name = "CLICKS")]
    limit: Option<u64>,
    /// Write the sales into files in this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

/// A user has looked at a page.
#[derive(Record, Clone, Debug)]
pub struct Click {
    /// Who.
    pub user: String,
    /// At what.
    pub page: String,
    /// When.
    pub at: Timestamp,
}

/// A user has bought something.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Purchase {
    /// Who.
    pub user: String,
    /// For how much.
    pub price: u64,
    /// When.
    pub at: Timestamp,
}

/// A page that a user has looked at before a purchase.
#[derive(Record, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sale {
    /// What the user had looked at.
    pub page: String,
    /// What the purchase was worth.
    pub price: u64,
    /// How long the click was before it, in milliseconds.
    pub after_ms: i64,
}

impl fmt::Display for Sale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sold {} after {} s", self.page, self.price, self.after_ms / 1_000)
    }
}

/// How long before a purchase a click counts, in milliseconds.
pub const HALF_AN_HOUR_MS: i64 = 1_800_000;

/// Purchases that came when clicks before them may have been forgotten.
pub const LATE: OutputTag<Purchase> = OutputTag::new("late-purchases");

/// Each purchase with the clicks of its user in the half hour before it, the half hour itself included.
pub fn sales(clicks: &DataStream<Click>, purchases: &DataStream<Purchase>) -> DataStream<Sale> {
    let clicks = clicks
        .watermarks(bounded_out_of_orderness(secs(5)).timestamps(|click: &Click| click.at))
        .key_by(|click| click.user.clone());
    let purchases = purchases
        .watermarks(bounded_out_of_orderness(secs(5)).timestamps(|purchase: &Purchase| purchase.at))
        .key_by(|purchase| purchase.user.clone());
    clicks
        .interval_join(&purchases, 0, HALF_AN_HOUR_MS)
        .side_output_right_late_data(LATE)
        .map(|click, purchase| Sale {
            page: click.page.clone(),
            price: purchase.price,
            after_ms: purchase.at - click.at,
        })
        .uid("sales")
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        env.enable_checkpointing(secs(1));
        let user = |number: u64| format!("user-{}", number % 1_000);
        let clicks = env.generate(Some(options.rate), options.limit, move |number| Click {
            user: user(number),
            page: format!("/products/{}", number % 37),
            at: number as Timestamp * 100,
        });
        let limit = options.limit.map(|clicks| clicks / 10);
        let purchases = env.generate(Some(options.rate / 10.0), limit, move |number| Purchase {
            user: user(number * 10),
            price: 5 + number % 95,
            at: number as Timestamp * 1_000 + 60_000,
        });
        let sales = sales(&clicks, &purchases);
        sales.side_output(&LATE).map(|purchase| format!("too late: {purchase:?}")).print();
        match options.output {
            Some(directory) => {
                sales.map(|sale| sale.to_string()).sink("sales", TextFileSink::directory(directory))
            }
            None => sales.print(),
        };
        Ok(())
    })
}
