//! Buffer debloating: how much may be on its way so that it is consumed within a target time. Pure.
//!
//! On a record's way this stands beside the receiving end of a remote channel, counting bytes, and beside the gate and the
//! source of a task, counting records: a slow consumer gets a small window, and so a barrier behind its data arrives soon.
//! Only time in which the consumer had something to do counts, so a channel that carries little is not taken for a slow
//! one. Invariants: no rate, no window: what was never measured is not
//! throttled; the same measurements always give the same window.

use std::time::Duration;

/// Measurements over this time weigh as much as all before them: some tens of frames of a fast consumer, and less than one
/// of a slow one.
const SMOOTHING: Duration = Duration::from_millis(100);

/// The measured consumption of one channel or task, in bytes or in records.
#[derive(Debug)]
pub(super) struct Debloater {
    target: Duration,
    /// How much the consumer works on, and since when.
    working_on: Option<(u64, Duration)>,
    /// Consumed since the last average.
    amount: u64,
    took: Duration,
    /// An average of times, not of rates: a consumer that has become slow must show at once.
    seconds_per_unit: Option<f64>,
}

impl Debloater {
    /// What is on its way is to be consumed within `target`.
    pub(super) fn new(target: Duration) -> Self {
        Self { target, working_on: None, amount: 0, took: Duration::ZERO, seconds_per_unit: None }
    }

    /// At `now` the consumer begins to work on this much.
    pub(super) fn begin(&mut self, amount: u64, now: Duration) {
        self.working_on = Some((amount, now));
    }

    /// Whether the consumer works on something: only then is the time of interest.
    pub(super) fn is_working(&self) -> bool {
        self.working_on.is_some()
    }

    /// At `now` the consumer is through with what it worked on, if there was something.
    pub(super) fn end(&mut self, now: Duration) {
        if let Some((amount, since)) = self.working_on.take() {
            self.amount = self.amount.saturating_add(amount);
            self.took = self.took.saturating_add(now.saturating_sub(since));
        }
    }

    /// What is consumed in the target time at the rate that was measured, or `None` if none ever was.
    pub(super) fn amount(&mut self) -> Option<u64> {
        if !self.took.is_zero() && self.amount > 0 {
            let measured = self.took.as_secs_f64() / self.amount as f64;
            let weight = self.took.as_secs_f64() / (self.took + SMOOTHING).as_secs_f64();
            let seconds =
                self.seconds_per_unit.map_or(measured, |before| before + (measured - before) * weight);
            self.seconds_per_unit = Some(seconds);
            (self.amount, self.took) = (0, Duration::ZERO);
        }
        // A cast from a float saturates.
        Some((self.target.as_secs_f64() / self.seconds_per_unit?).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn consume(debloater: &mut Debloater, amount: u64, took: Duration) {
        debloater.begin(amount, SECOND);
        debloater.end(SECOND + took);
    }

    /// Measurements, one after the other, and the window after each.
    fn check(target: Duration, table: &[(u64, Duration, u64)]) {
        let mut debloater = Debloater::new(target);
        for (step, (bytes, took, window)) in table.iter().enumerate() {
            consume(&mut debloater, *bytes, *took);
            assert_eq!(debloater.amount(), Some(*window), "step {step}");
        }
    }

    #[test]
    fn nothing_measured_means_no_window() {
        let mut debloater = Debloater::new(SECOND);
        assert_eq!(debloater.amount(), None);
        consume(&mut debloater, 1_000, Duration::ZERO);
        assert_eq!(debloater.amount(), None, "no time has passed");
    }

    #[test]
    fn only_time_behind_a_beginning_counts() {
        let mut debloater = Debloater::new(SECOND);
        debloater.end(SECOND);
        consume(&mut debloater, 100, SECOND);
        assert!(!debloater.is_working());
        debloater.end(9 * SECOND);
        assert_eq!(debloater.amount(), Some(100));
        debloater.begin(1, 9 * SECOND);
        assert!(debloater.is_working());
        assert_eq!(debloater.amount(), Some(100), "it is not through");
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
                // 1 / 101 of the way from 10 us to 1 us.
                (1_000, millisecond, 100_899),
                // 10 / 11 of the way to 100 us.
                (10_000, SECOND, 10_892),
                (10_000, 10 * SECOND, 1_009),
            ],
        );
    }

    #[test]
    fn less_than_one_is_nothing() {
        check(SECOND, &[(1, 1_000 * SECOND, 0)]);
        check(Duration::ZERO, &[(1 << 30, SECOND, 0)]);
    }

    #[test]
    fn a_window_holds_without_new_measurements() {
        let mut debloater = Debloater::new(SECOND);
        consume(&mut debloater, 50_000, SECOND);
        assert_eq!(debloater.amount(), Some(50_000));
        assert_eq!(debloater.amount(), Some(50_000));
    }
}
