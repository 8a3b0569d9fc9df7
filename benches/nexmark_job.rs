//! A Nexmark query as a job: in this process, or submitted to a cluster.
//!
//! ```text
//! cargo run --release -p thalweg-benches --example nexmark_job -- --query q3 --events 10000000 --output /tmp/q3
//! cargo run --release -p thalweg-benches --example nexmark_job -- --jobmanager 127.0.0.1:6123 --parallelism 2 \
//!     -- --query q3 --events 10000000 --output /tmp/q3
//! ```
//!
//! Each subtask of the sink leaves a file with how many results there were and the sum of their digests, for what
//! completed checkpoints cover; all together must be what the plain loop over the same events comes to.

use std::path::PathBuf;

use clap::Parser;
use thalweg_benches::nexmark::generator::Generator;
use thalweg_benches::nexmark::queries::Query;
use thalweg_benches::tally::TallySink;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a Nexmark query.
#[derive(Parser)]
#[command(name = "nexmark_job", no_binary_name = true)]
struct Options {
    /// Such as q0 or q12_count; a wrong name is answered with all of them.
    #[arg(long)]
    query: Query,
    /// How many events it reads.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Event time between two events, in nanoseconds.
    #[arg(long, default_value_t = Generator::default().delay_ns)]
    delay_ns: u64,
    /// The directory of the tallies, the same on all machines.
    #[arg(long)]
    output: PathBuf,
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let Options { query, events, delay_ns, output } = Options::parse_from(env.args());
        let generator = Generator { delay_ns, ..Generator::default() };
        query.topology(env, generator, events, TallySink::in_directory(output));
        Ok(())
    })
}
