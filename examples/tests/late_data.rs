//! The job `late_data` on the example with a watermark behind each purchase.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../late_data.rs"]
#[allow(dead_code)]
mod job;

use job::{LATE, Purchase, spent};
use thalweg::prelude::*;
use thalweg::testing::run_local;

/// A watermark behind each purchase: ten seconds and a millisecond behind the latest.
#[derive(Clone)]
struct BehindEach(Timestamp);

impl WatermarkGenerator<Purchase> for BehindEach {
    fn on_event(&mut self, _: &Purchase, timestamp: Timestamp, output: &mut WatermarkOutput) {
        self.0 = self.0.max(timestamp);
        output.emit_watermark(self.0 - 10_001);
    }

    fn on_periodic_emit(&mut self, _: &mut WatermarkOutput) {}
}

#[test]
fn acceptance_ds_23_late_purchases_correct_the_result_or_are_told() {
    let values =
        [(5_000, 1), (50_000, 2), (72_000, 4), (30_000, 8), (102_000, 16), (40_000, 32), (119_999, 64)];
    let purchase = |(at, cents)| Purchase { user: "u".into(), at, cents };
    let (sums, late) = run_local(|env| {
        let strategy =
            WatermarkStrategy::for_generator(BehindEach(0)).timestamps(|purchase: &Purchase| purchase.at);
        let spent = spent(&env.from_iter(values.map(purchase)).watermarks(strategy));
        Ok((spent.collect(), spent.side_output(&LATE).collect()))
    })
    .unwrap();
    let found: Vec<_> = sums.take().into_iter().map(|spent| (spent.window_end, spent.cents)).collect();
    assert_eq!(found, [(60_000, 3), (60_000, 11), (120_000, 84)]);
    assert_eq!(late.take(), [purchase((40_000, 32))]);
}
