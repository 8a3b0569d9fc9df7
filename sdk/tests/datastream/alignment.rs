//! Sources of very different speed that are aligned with each other, through a real job manager, task manager and worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use thalweg::prelude::*;
use thalweg::testing::LocalCluster;

/// How far ahead a source may be, in milliseconds of event time.
const DRIFT_MS: u64 = 2_000;

/// How far it may be ahead beyond that: what it reads until it has heard of the other one, for which it has more than a second. Without
/// alignment it would be ahead by 36 seconds of event time at the end of the slow one.
const SLACK_MS: i64 = 28_000;

/// Records of the slow source, 100 ms apart; it makes 20 in a second.
const SLOW: u64 = 40;

/// Records of the fast source, 1 ms apart.
const FAST: u64 = 50_000;

/// How many it makes in a second.
const FAST_RATE: f64 = 20_000.0;

/// What was read, by event time.
#[derive(Clone, Default)]
struct Seen {
    slow: Arc<AtomicI64>,
    fast: Arc<AtomicI64>,
    /// How far the fast source was ahead while the slow one had more.
    furthest: Arc<AtomicI64>,
    records: Arc<AtomicU64>,
    /// How often the job has failed.
    failures: Arc<AtomicU32>,
}

impl Seen {
    fn slow(&self, time: u64) {
        self.slow.fetch_max(time as i64, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    fn fast(&self, time: u64) {
        self.fast.fetch_max(time as i64, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
        let slow = self.slow.load(Ordering::Relaxed);
        if slow < (SLOW as i64 - 1) * 100 {
            self.furthest.fetch_max(time as i64 - slow, Ordering::Relaxed);
        }
    }
}

/// Runs both sources; the job fails once if it is to.
fn run(fails: bool) -> Seen {
    let seen = Seen::default();
    let (slow_seen, fast_seen) = (seen.clone(), seen.clone());
    let cluster = LocalCluster::new()
        .configure("pipeline.auto-watermark-interval", "5 ms")
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.delay", "10 ms");
    let topology = move |env: &mut Environment| {
        let aligned = || {
            monotonous_timestamps().timestamps(|time: &u64| *time as i64).with_watermark_alignment(
                "both",
                Duration::from_millis(DRIFT_MS),
                Duration::from_millis(20),
            )
        };
        let slow = env.generate(Some(20.0), Some(SLOW), |number| number * 100);
        let slow = slow.watermarks(aligned()).map(move |time: u64| {
            if fails && time == 1_000 && slow_seen.failures.fetch_add(1, Ordering::Relaxed) == 0 {
                slow_seen.slow.store(0, Ordering::Relaxed);
                panic!("once, as the test says");
            }
            slow_seen.slow(time);
            time
        });
        let fast = env.generate(Some(FAST_RATE), Some(FAST), |number| number);
        let fast = fast.watermarks(aligned()).map(move |time: u64| {
            fast_seen.fast(time);
            time
        });
        slow.union(&fast).filter(|_| false).print();
        Ok(())
    };
    cluster.run(topology).unwrap();
    seen
}

#[test]
fn a_fast_source_stays_within_the_drift_of_a_slow_one_until_that_has_ended() {
    let seen = run(false);
    let furthest = seen.furthest.load(Ordering::Relaxed);
    assert!((DRIFT_MS as i64..=DRIFT_MS as i64 + SLACK_MS).contains(&furthest), "{furthest} ms ahead");
    assert_eq!(seen.records.load(Ordering::Relaxed), SLOW + FAST, "the end of one releases the other");
}

#[test]
fn sources_are_aligned_again_behind_a_failure() {
    let seen = run(true);
    assert_eq!(seen.failures.load(Ordering::Relaxed), 2, "the second time it goes on");
    let furthest = seen.furthest.load(Ordering::Relaxed);
    assert!(furthest <= DRIFT_MS as i64 + SLACK_MS, "{furthest} ms ahead");
    assert_eq!(seen.fast.load(Ordering::Relaxed), FAST as i64 - 1);
}
