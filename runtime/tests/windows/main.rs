//! Windows against a reference model: random records, watermarks, clocks, kinds of windows, triggers and evictors, with snapshots,
//! kills and rescaling at random points. `README.md` beside this file says how to run many.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod acceptance;
mod engine;
mod idle_shards;
mod model;
mod operations;
mod operator;
mod script;

use proptest::prelude::*;
use proptest::test_runner::Config;

/// How many random runs each test makes, unless `THALWEG_WINDOW_CASES` says otherwise.
const CASES: u32 = 128;

fn config() -> Config {
    let cases =
        std::env::var("THALWEG_WINDOW_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn windows_do_what_the_model_says(spec in script::plain(), steps in script::steps(120)) {
        let expected = model::run(&spec, &steps);
        prop_assert_eq!(engine::check(&spec, &steps, &expected), Ok(()));
    }

    #[test]
    fn windows_with_triggers_and_evictors_do_what_the_model_says(spec in script::custom(), steps in script::steps(120)) {
        let expected = model::run(&spec, &steps);
        prop_assert_eq!(engine::check(&spec, &steps, &expected), Ok(()));
    }
}
