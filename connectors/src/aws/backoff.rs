//! How long to wait before something is tried again: full jitter, as Flink's connectors do it. Pure.

use std::time::Duration;

/// Pauses behind this one are as long as it.
const GROWING_PAUSES: u32 = 1_000;

/// Pauses that grow, and how often something is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The longest first pause.
    pub base: Duration,
    /// The longest pause of all.
    pub max: Duration,
    /// By how much each pause may be longer than the one before.
    pub exponent: f64,
    /// How often in a row something is tried again that fails.
    pub max_retries: u32,
}

impl Backoff {
    /// The pause before try `retry`, counted from 0: anything between nothing and the longest pause for it, as `random` says. So many clients
    /// do not come back at the same time.
    #[must_use]
    pub fn pause(&self, retry: u32, random: u64) -> Duration {
        // 53 bits: what a float holds exactly.
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::try_from_secs_f64(self.longest_pause(retry) * share).unwrap_or(self.max)
    }

    /// The longest time that the pauses before so many tries take together.
    #[must_use]
    pub fn longest(&self, retries: u32) -> Duration {
        let growing = retries.min(GROWING_PAUSES);
        let seconds: f64 = (0..growing).map(|retry| self.longest_pause(retry)).sum();
        let rest = self.longest_pause(growing) * f64::from(retries - growing);
        Duration::try_from_secs_f64(seconds + rest).unwrap_or(Duration::MAX)
    }

    /// The longest pause before a try, in seconds.
    fn longest_pause(&self, retry: u32) -> f64 {
        let grown = self.base.as_secs_f64() * self.exponent.powf(f64::from(retry.min(GROWING_PAUSES)));
        grown.min(self.max.as_secs_f64()).max(0.0)
    }
}

/// A number that nobody can foresee; without randomness pauses are only less spread.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_millis(300),
        max: Duration::from_millis(1_000),
        exponent: 1.5,
        max_retries: 3,
    };

    #[test]
    fn the_longest_pauses_grow_up_to_the_limit() {
        let longest = |retry| BACKOFF.pause(retry, u64::MAX).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 5_000].map(longest), [300, 450, 675, 1_000, 1_000, 1_000]);
        let together = |retries| BACKOFF.longest(retries).as_millis();
        assert_eq!([0, 1, 3, 5, 2_000].map(together), [0, 300, 1_425, 3_425, 1_998_425]);
        let endless = Backoff { exponent: 1_000.0, max: Duration::MAX, ..BACKOFF };
        assert_eq!(endless.longest(u32::MAX), Duration::MAX);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_allowed(retry: u32, random: u64) {
            prop_assert!(BACKOFF.pause(retry, random) <= BACKOFF.max);
            prop_assert_eq!(BACKOFF.pause(retry, 0), Duration::ZERO);
        }
    }
}
