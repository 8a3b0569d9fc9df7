//! What each user has spent so far; who does nothing for seven days begins anew.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example user_totals
//! ```

use clap::Parser;
use thalweg::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says what each user has spent so far.
#[derive(Parser)]
#[command(name = "user_totals", no_binary_name = true)]
struct Options {
    /// Purchases per second.
    #[arg(long, default_value_t = 2.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many purchases; never when it is not given.
    #[arg(long, value_name = "PURCHASES")]
    limit: Option<u64>,
}

/// A user has spent something.
#[derive(Record, Clone, Debug)]
pub struct Purchase {
    /// Who.
    pub user: String,
    /// How much.
    pub price: i64,
}

/// Adds up what each user spends. A sum that has not changed for seven days is forgotten.
#[derive(State, Clone, Default)]
pub struct Totals {
    #[state(ttl = "7d")]
    sum: ExpiringValue<i64>,
}

impl KeyedProcess<String, Purchase> for Totals {
    type Out = (String, i64);

    fn on_record(
        &mut self,
        purchase: Purchase,
        context: &mut Context<'_, String, (String, i64)>,
    ) -> Result<(), Failure> {
        let sum = self.sum.get_or_insert_with(context, || 0);
        *sum += purchase.price;
        let sum = *sum;
        context.emit((purchase.user, sum));
        Ok(())
    }
}

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let options = Options::parse_from(env.args());
    let purchase = |number: u64| Purchase {
        user: format!("user-{}", number % 5),
        price: 1 + (number * 37 % 100) as i64,
    };
    env.generate(Some(options.rate), options.limit, purchase)
        .name("purchases")
        .key_by(|purchase| purchase.user.clone())
        .process(Totals::default())
        .uid("totals")
        .print_debug()
        .name("sums");
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
