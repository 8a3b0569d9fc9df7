//! Buffer debloating: how much may be on its way so that it is consumed within a target time. Pure.
//!
//! On a record's way this stands beside the receiving end of a remote channel: a slow consumer gets a small window, and so
//! a barrier behind its data arrives soon. Only time in which the consumer had more to read counts, so a channel that
//! carries little is not taken for a slow one. Invariants: no rate, no window: what was never measured is not
//! throttled; the same measurements always give the same window.

use std::time::Duration;

use thalweg_common::limits::MIN_CHANNEL_WINDOW_BYTES;

/// Measurements over this time weigh as much as all before them: some tens of frames of a fast consumer, and less than one
/// of a slow one.
const SMOOTHING: Duration = Duration::from_millis(100);

/// The measured consumption of one channel.
#[derive(Debug)]
pub(super) struct Debloater {
    target: Duration,
    bytes: u64,
    took: Duration,
    bytes_per_second: Option<f64>,
}

impl Debloater {
    /// What is on its way is to be consumed within `target`.
    pub(super) fn new(target: Duration) -> Self {
        Self { target, bytes: 0, took: Duration::ZERO, bytes_per_second: None }
    }

    /// The consumer took this time for this much, with more to read all the while.
    pub(super) fn consumed(&mut self, bytes: u64, took: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.took = self.took.saturating_add(took);
    }

    /// The window for the rate that was measured, or `None` if none ever was.
    pub(super) fn window(&mut self) -> Option<u64> {
        if !self.took.is_zero() {
            let measured = self.bytes as f64 / self.took.as_secs_f64();
            let weight = self.took.as_secs_f64() / (self.took + SMOOTHING).as_secs_f64();
            let rate = self.bytes_per_second.map_or(measured, |rate| rate + (measured - rate) * weight);
            self.bytes_per_second = Some(rate);
            (self.bytes, self.took) = (0, Duration::ZERO);
        }
        // A cast from a float saturates.
        let window = self.bytes_per_second? * self.target.as_secs_f64();
        Some((window as u64).max(MIN_CHANNEL_WINDOW_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Measurements, one after the other, and the window after each.
    fn check(target: Duration, table: &[(u64, Duration, u64)]) {
        let mut debloater = Debloater::new(target);
        for (step, (bytes, took, window)) in table.iter().enumerate() {
            debloater.consumed(*bytes, *took);
            assert_eq!(debloater.window(), Some(*window), "step {step}");
        }
    }

    #[test]
    fn nothing_measured_means_no_window() {
        let mut debloater = Debloater::new(SECOND);
        assert_eq!(debloater.window(), None);
        debloater.consumed(1_000, Duration::ZERO);
        assert_eq!(debloater.window(), None, "no time has passed");
    }

    #[test]
    fn the_window_is_the_rate_times_the_target() {
        check(SECOND, &[(10_000, SECOND, 10_000)]);
        check(2 * SECOND, &[(10_000, SECOND, 20_000)]);
        check(SECOND / 2, &[(1_000_000, Duration::from_millis(1), 500_000_000)]);
    }

    #[test]
    fn short_measurements_move_it_a_little_and_long_ones_to_the_point() {
        let millisecond = Duration::from_millis(1);
        check(
            SECOND,
            &[
                (100_000, SECOND, 100_000),
                // 1 / 101 of the way to 1,000,000.
                (1_000, millisecond, 108_910),
                // 10 / 11 of the way to 10,000.
                (10_000, SECOND, 18_991),
                (10_000, 10 * SECOND, 1_178),
            ],
        );
    }

    #[test]
    fn it_does_not_vanish() {
        check(SECOND, &[(1, 1_000 * SECOND, MIN_CHANNEL_WINDOW_BYTES)]);
        check(Duration::ZERO, &[(1 << 30, SECOND, MIN_CHANNEL_WINDOW_BYTES)]);
    }

    #[test]
    fn a_window_holds_without_new_measurements() {
        let mut debloater = Debloater::new(SECOND);
        debloater.consumed(50_000, SECOND);
        assert_eq!(debloater.window(), Some(50_000));
        assert_eq!(debloater.window(), Some(50_000));
    }
}
