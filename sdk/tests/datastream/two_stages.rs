//! Aggregations in two stages, in jobs that run in this process: results, restarts, and how to switch combining off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use thalweg::aggregates::{Count, sum_of};
use thalweg::prelude::*;
use thalweg::testing::LocalCluster;

/// The newest result of each key, where results only grow.
fn newest(results: Vec<(u64, u64)>) -> BTreeMap<u64, u64> {
    results.into_iter().fold(BTreeMap::new(), |mut newest, (key, value)| {
        let last = newest.entry(key).or_default();
        *last = value.max(*last);
        newest
    })
}

/// A key that half of all numbers have, and 99 others.
fn skewed(number: u64) -> u64 {
    if number.is_multiple_of(2) { 0 } else { number % 100 }
}

const NUMBERS: u64 = 100_000;

fn expected_counts() -> BTreeMap<u64, u64> {
    (0..NUMBERS).fold(BTreeMap::new(), |mut counts, number| {
        *counts.entry(skewed(number)).or_default() += 1;
        counts
    })
}

fn run<T: thalweg::Record>(
    strategy: &str,
    parallelism: u32,
    topology: impl FnOnce(DataStream<u64>) -> DataStream<T>,
) -> Vec<T> {
    let cluster = LocalCluster::new()
        .configure("table.optimizer.agg-phase-strategy", strategy)
        .configure("parallelism.default", parallelism);
    let collected =
        cluster.run(|env| Ok(topology(env.generate(None, Some(NUMBERS), |number| number)).collect()));
    collected.unwrap().take()
}

#[test]
fn every_strategy_comes_to_the_same_results() {
    for (strategy, parallelism) in [("AUTO", 1), ("AUTO", 2), ("TWO_PHASE", 2), ("ONE_PHASE", 2)] {
        let counts = run(strategy, parallelism, |numbers| {
            numbers.key_by(|number| skewed(*number)).aggregate(Count).uid("counts")
        });
        let emitted = counts.len() as u64;
        assert_eq!(newest(counts), expected_counts(), "{strategy}");
        if strategy == "ONE_PHASE" {
            assert_eq!(emitted, NUMBERS);
        } else {
            assert!(emitted < NUMBERS / 2, "{emitted} records of {NUMBERS} at {strategy}");
        }
    }
}

#[test]
fn one_operator_can_do_without() {
    let sums = run("TWO_PHASE", 2, |numbers| {
        numbers.key_by(|_| 0_u64).without_combining().aggregate(sum_of(|_: &u64| 2_u64)).uid("sums")
    });
    assert_eq!(sums.len() as u64, NUMBERS);
    assert_eq!(newest(sums), BTreeMap::from([(0, 2 * NUMBERS)]));
}

#[test]
fn an_associative_reduce_keeps_the_key_and_the_order() {
    // The first and the last number of each key: associative, not commutative.
    let ranges = run("AUTO", 2, |numbers| {
        let ranges = numbers.map(|number| (skewed(number), (number, number)));
        let ranges = ranges.key_by(|range| range.0);
        ranges.reduce_associative(|(key, (first, _)), (_, (_, last))| (key, (first, last))).uid("ranges")
    });
    assert!((ranges.len() as u64) < NUMBERS / 2, "{} records", ranges.len());
    for (key, (first, last)) in ranges {
        assert!(skewed(first) == key && skewed(last) == key);
    }
}

#[test]
fn a_restart_counts_nothing_twice_and_forgets_nothing() {
    const RECORDS: u64 = 30_000;
    let results: Arc<OnceLock<Collected<(u64, u64)>>> = Arc::default();
    let read = Arc::new(AtomicU64::new(0));
    // How many results were committed at each failure.
    let failures: Arc<Mutex<Vec<usize>>> = Arc::default();
    let cluster = LocalCluster::new()
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", 3)
        .configure("restart-strategy.fixed-delay.delay", "1 ms")
        .configure("execution.checkpointing.interval", "5 ms")
        .configure("parallelism.default", 2);
    let collected = cluster
        .run(|env| {
            let (results_so_far, read) = (Arc::clone(&results), Arc::clone(&read));
            let failures = Arc::clone(&failures);
            let numbers = env.generate(Some(20_000.0), Some(RECORDS), |number| number).map(move |number| {
                read.fetch_add(1, Ordering::Relaxed);
                let committed = results_so_far.get().map_or(0, Collected::len);
                let mut failures = failures.lock().unwrap();
                if failures.len() < 3 && committed > failures.last().copied().unwrap_or(0) {
                    failures.push(committed);
                    drop(failures);
                    panic!("{committed} results are committed");
                }
                number
            });
            let collected = numbers.key_by(|number| skewed(*number)).aggregate(Count).uid("counts").collect();
            Ok(results.get_or_init(|| collected).clone())
        })
        .unwrap();
    assert_eq!(failures.lock().unwrap().len(), 3);
    assert!(read.load(Ordering::Relaxed) > RECORDS, "some were read again");
    let results = collected.take();
    // A result that was emitted twice would show the same count of the same key again.
    let mut distinct = results.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), results.len());
    let expected = (0..RECORDS).fold(BTreeMap::new(), |mut counts, number| {
        *counts.entry(skewed(number)).or_default() += 1;
        counts
    });
    assert_eq!(newest(results), expected);
}
