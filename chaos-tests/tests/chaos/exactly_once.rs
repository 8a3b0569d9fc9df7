//! A minute of everything together: state larger than memory on RocksDB, checkpoints on an S3 that fails, kills of workers, task
//! managers and leading job managers, by the seed also barriers that overtake, other parallelisms and a source with an enumerator, and an
//! oracle. `cargo xtask chaos exactly-once` is the same for as long as one likes.
//!
//! `THALWEG_CHAOS_SEED` and `THALWEG_CHAOS_SECONDS` choose another schedule and a longer time.

use std::time::Duration;

use anyhow::{Context, Result};
use thalweg_chaos_tests::exactly_once::run::{Options, by_target, run};

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} must be a number, not {text:?}")),
        Err(_) => Ok(default),
    }
}

#[tokio::test]
async fn kills_and_a_failing_store_lose_and_double_nothing() -> Result<()> {
    let options = Options {
        seed: number("THALWEG_CHAOS_SEED", 1)?,
        duration: Duration::from_secs(number("THALWEG_CHAOS_SECONDS", 60)?),
        // Programs without optimisation, on a machine that may be busy.
        rate: 2_500,
        ..Options::default()
    };
    let report = run(&options).await?;
    assert!(report.is_exact(), "{report}");
    assert_eq!(report.records, options.events(), "{report}");
    assert_eq!(report.kills, by_target(options.kills()), "{report}");
    // The test has tested what it is for.
    assert!(report.attempts > 1 && report.checkpoints > 5, "{report}");
    assert!(report.rescalings.done > 0 || !report.variation.rescales, "{report}");
    assert!(report.s3_faults.values().sum::<u64>() > 0, "{report}");
    assert!(report.state_bytes >= options.least_state_bytes(), "{report}");
    assert!(report.state_bytes >= 4 * report.memory_bytes, "{report}");
    Ok(())
}
