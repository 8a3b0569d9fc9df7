//! What windows cost, counted in operations of the aggregate and not in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thalweg_common::Timestamp;

use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::MergeAggregate;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_runtime::windows::{
    Lateness, Mapped, Merged, SessionWindows, SlidingWindows, TimeWindow, TumblingWindows, WindowAssigner,
};

/// A sum that counts what is done with it.
#[derive(Clone, Default)]
struct Counted {
    is_invertible: bool,
    adds: Arc<AtomicUsize>,
    merges: Arc<AtomicUsize>,
}

impl MergeAggregate<u64> for Counted {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, number: u64) {
        self.adds.fetch_add(1, Ordering::Relaxed);
        *sum += number;
    }

    fn merge(&self, sum: &mut u64, later: u64) {
        self.merges.fetch_add(1, Ordering::Relaxed);
        *sum += later;
    }

    fn subtract(&self, sum: &mut u64, earlier: &u64) -> bool {
        if self.is_invertible {
            self.merges.fetch_add(1, Ordering::Relaxed);
            *sum -= earlier;
        }
        self.is_invertible
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

/// Ten records a second of one key for `seconds`, with a watermark behind each. Returns adds, merges and how many windows fired.
fn cost<W: WindowAssigner<u64>>(windows: W, counted: &Counted, seconds: i64) -> (usize, usize, usize) {
    let output = Mapped(|_: &u64, _: TimeWindow, sum: u64| [sum]);
    let process = windows.aggregated(Merged::new::<u64>(counted.clone()), output, Lateness::default());
    counted.merges.store(0, Ordering::Relaxed);
    let mut harness: OperatorHarness<u64, u64> =
        OperatorHarness::keyed(|_: &u64| 0_u64, process, Setup::default()).unwrap();
    let mut fired = 0;
    for step in 0..10 * seconds {
        let at: Timestamp = 100 * step;
        harness.push_batch(Batch::from_parts(vec![1], vec![at])).unwrap();
        harness.watermark(at).unwrap();
        fired += harness.output().len();
    }
    (counted.adds.load(Ordering::Relaxed), counted.merges.load(Ordering::Relaxed), fired)
}

#[test]
fn a_sliding_window_adds_a_record_once_and_merges_about_twice_for_each_window() {
    for is_invertible in [false, true] {
        let counted = Counted { is_invertible, ..Counted::default() };
        let windows = SlidingWindows::of(Duration::from_secs(60), Duration::from_secs(1));
        let (adds, merges, fired) = cost(windows, &counted, 600);
        assert_eq!((adds, fired), (6_000, 599));
        // Without what windows share it would be 60 for each.
        assert!(merges <= 3 * fired + 60, "{merges} merges for {fired} windows, invertible: {is_invertible}");
    }
    let counted = Counted::default();
    let (adds, merges, fired) = cost(TumblingWindows::of(Duration::from_secs(60)), &counted, 600);
    assert_eq!((adds, merges, fired), (6_000, 0, 9));
}

#[test]
fn a_slide_that_does_not_divide_the_size_makes_two_slices_and_not_thousands() {
    let counted = Counted::default();
    // The greatest common divisor is a millisecond.
    let windows = SlidingWindows::of(Duration::from_millis(60_001), Duration::from_secs(1));
    let (adds, merges, fired) = cost(windows, &counted, 600);
    assert_eq!(adds, 6_000);
    assert!(fired >= 598 && merges <= 5 * fired + 120, "{merges} merges for {fired} windows");
}

#[test]
fn sessions_that_grow_merge_nothing() {
    let counted = Counted::default();
    let (adds, merges, fired) = cost(SessionWindows::with_gap(Duration::from_secs(1)), &counted, 600);
    assert_eq!((adds, merges, fired), (6_000, 0, 0));
}
