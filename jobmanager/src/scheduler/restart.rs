//! Restart strategies: whether a failed job is restarted, and after what delay. Flink's four, with Flink's defaults.
//!
//! A job that has run well for a while is restarted at once, whatever the delay: a delay keeps a job from failing again and
//! again, not from coming back after its machine was lost.
//!
//! On a command's way this is asked once per failed attempt. The answer depends on nothing but its arguments; what has to
//! be remembered for the next failure is a [`RestartRecord`], which goes through the Raft log with the state change, so a
//! new leader decides as the old one would have.

use thalweg_common::Timestamp;
use thalweg_common::config::RestartStrategy;
use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_RESTART_TIMES;

use crate::cluster::RestartRecord;

/// What happens after a failure.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// A new attempt starts after the delay.
    Restart {
        /// Milliseconds from the failure.
        delay_ms: u64,
        /// What to remember.
        record: RestartRecord,
    },
    /// The job fails for good.
    GiveUp {
        /// Why, as the end of a sentence.
        reason: String,
    },
}

/// When a failure happened, and after what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Milliseconds since the epoch.
    pub now_ms: Timestamp,
    /// A random number from -1 to 1.
    pub jitter: f64,
    /// Whether the attempt had run long enough (`restart-strategy.immediate-restart-after`) to be restarted at once.
    pub had_run_well: bool,
}

/// Decides about a failure. After an attempt that had run well the delay is left out; with exponential delay only when no
/// earlier failure is remembered, because that strategy has an idea of its own of how long running well takes.
#[must_use]
pub fn decide(
    strategy: &RestartStrategy,
    record: &RestartRecord,
    failure: &Failure,
    moment: Moment,
) -> Decision {
    match by_strategy(strategy, record, failure, moment) {
        Decision::Restart { mut record, .. } if moment.had_run_well && is_first(strategy, &record) => {
            record.resume_at_ms = moment.now_ms;
            Decision::Restart { delay_ms: 0, record }
        }
        decision => decision,
    }
}

/// Whether the strategy counts this restart as the first of a row, as far as it counts.
fn is_first(strategy: &RestartStrategy, record: &RestartRecord) -> bool {
    !matches!(strategy, RestartStrategy::ExponentialDelay { .. }) || record.restarts == 1
}

fn by_strategy(
    strategy: &RestartStrategy,
    record: &RestartRecord,
    failure: &Failure,
    Moment { now_ms, jitter, .. }: Moment,
) -> Decision {
    if !failure.retryable {
        return give_up("the failure would repeat on a restart");
    }
    match *strategy {
        RestartStrategy::None => {
            give_up("the restart strategy is `none`; set `restart-strategy.type` to restart")
        }
        RestartStrategy::FixedDelay { attempts, delay_ms } => fixed_delay(record, attempts, delay_ms, now_ms),
        RestartStrategy::FailureRate { max_failures, interval_ms, delay_ms } => {
            failure_rate(record, max_failures, interval_ms, delay_ms, now_ms)
        }
        RestartStrategy::ExponentialDelay {
            initial_backoff_ms,
            max_backoff_ms,
            backoff_multiplier,
            reset_backoff_threshold_ms,
            jitter_factor,
            attempts,
        } => {
            let ran_well = record.failure_times_ms.back().is_none_or(|last| {
                elapsed_ms(*last, now_ms) >= reset_backoff_threshold_ms.saturating_add(record.backoff_ms)
            });
            let mut record = if ran_well { RestartRecord::default() } else { record.clone() };
            if attempts.is_some_and(|limit| record.restarts >= limit) {
                return give_up(&format!(
                    "it was restarted {} times without running for {reset_backoff_threshold_ms} ms in between, which \
                     the restart strategy allows at most",
                    record.restarts
                ));
            }
            record.backoff_ms = match record.backoff_ms {
                0 => initial_backoff_ms,
                last => ((last as f64 * backoff_multiplier) as u64).clamp(initial_backoff_ms, max_backoff_ms),
            };
            let shift = record.backoff_ms as f64 * jitter_factor * jitter.clamp(-1.0, 1.0);
            let delay_ms = ((record.backoff_ms as f64 + shift).max(0.0) as u64).min(max_backoff_ms);
            restart(record, 1, delay_ms, now_ms)
        }
    }
}

/// The longest delay that the strategy can ask for.
#[must_use]
pub fn longest_delay_ms(strategy: &RestartStrategy) -> u64 {
    match *strategy {
        RestartStrategy::None => 0,
        RestartStrategy::FixedDelay { delay_ms, .. } | RestartStrategy::FailureRate { delay_ms, .. } => {
            delay_ms
        }
        RestartStrategy::ExponentialDelay { max_backoff_ms, .. } => max_backoff_ms,
    }
}

fn fixed_delay(record: &RestartRecord, attempts: u32, delay_ms: u64, now_ms: Timestamp) -> Decision {
    if attempts != RestartStrategy::UNLIMITED && record.restarts >= attempts {
        return give_up(&format!("the restart strategy's {attempts} restarts are used up"));
    }
    restart(record.clone(), 0, delay_ms, now_ms)
}

fn failure_rate(
    record: &RestartRecord,
    max_failures: u32,
    interval_ms: u64,
    delay_ms: u64,
    now_ms: Timestamp,
) -> Decision {
    let allowed = (max_failures as usize).min(MAX_RESTART_TIMES);
    let recent =
        record.failure_times_ms.iter().filter(|time| elapsed_ms(**time, now_ms) < interval_ms).count();
    if recent >= allowed {
        return give_up(&format!(
            "it failed {} times within {interval_ms} ms, the restart strategy allows {allowed}",
            recent + 1
        ));
    }
    restart(record.clone(), allowed, delay_ms, now_ms)
}

fn restart(mut record: RestartRecord, keep_times: usize, delay_ms: u64, now_ms: Timestamp) -> Decision {
    record.restarts = record.restarts.saturating_add(1);
    record.remember(now_ms, keep_times);
    record.resume_at_ms = now_ms.saturating_add(i64::try_from(delay_ms).unwrap_or(i64::MAX));
    Decision::Restart { delay_ms, record }
}

fn give_up(reason: &str) -> Decision {
    Decision::GiveUp { reason: reason.to_string() }
}

/// Time from one moment to a later one; zero when the clock was set back in between.
fn elapsed_ms(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000;

    /// A failure at the beginning of time, of an attempt that had just begun.
    const EARLY: Moment = Moment { now_ms: 0, jitter: 0.0, had_run_well: false };

    /// The delays of failures at these times, until the strategy gives up.
    fn delays(strategy: &RestartStrategy, times_ms: &[Timestamp], jitter: f64) -> Vec<Option<u64>> {
        let mut record = RestartRecord::default();
        let mut delays = Vec::new();
        for now_ms in times_ms {
            let moment = Moment { now_ms: *now_ms, jitter, had_run_well: false };
            match decide(strategy, &record, &Failure::external("lost"), moment) {
                Decision::Restart { delay_ms, record: next } => {
                    record = next;
                    delays.push(Some(delay_ms));
                }
                Decision::GiveUp { .. } => {
                    delays.push(None);
                    break;
                }
            }
        }
        delays
    }

    fn exponential(attempts: Option<u32>) -> RestartStrategy {
        RestartStrategy::ExponentialDelay {
            initial_backoff_ms: 1_000,
            max_backoff_ms: 5_000,
            backoff_multiplier: 2.0,
            reset_backoff_threshold_ms: 60_000,
            jitter_factor: 0.1,
            attempts,
        }
    }

    #[test]
    fn each_strategy_restarts_as_often_as_it_says() {
        let fixed = |attempts| RestartStrategy::FixedDelay { attempts, delay_ms: 500 };
        let rate = RestartStrategy::FailureRate { max_failures: 2, interval_ms: 10_000, delay_ms: 50 };
        let table: Vec<(RestartStrategy, Vec<Timestamp>, Vec<Option<u64>>)> = vec![
            (RestartStrategy::None, vec![0], vec![None]),
            (fixed(0), vec![0], vec![None]),
            (fixed(2), vec![0, 1, 2], vec![Some(500), Some(500), None]),
            (fixed(RestartStrategy::UNLIMITED), vec![0; 50], vec![Some(500); 50]),
            // The third failure within ten seconds is one too many.
            (rate.clone(), vec![0, 5 * SECOND, 9 * SECOND], vec![Some(50), Some(50), None]),
            (rate.clone(), vec![0, 9 * SECOND, 11 * SECOND], vec![Some(50), Some(50), Some(50)]),
            (rate, vec![0, 9 * SECOND, 11 * SECOND, 12 * SECOND], vec![Some(50), Some(50), Some(50), None]),
            (
                exponential(None),
                vec![0; 5],
                vec![Some(1_000), Some(2_000), Some(4_000), Some(5_000), Some(5_000)],
            ),
            (exponential(Some(2)), vec![0, 1, 2], vec![Some(1_000), Some(2_000), None]),
            // 62 s without a failure: longer than the threshold and the last delay together.
            (exponential(Some(2)), vec![0, 1, 63 * SECOND], vec![Some(1_000), Some(2_000), Some(1_000)]),
        ];
        for (strategy, times_ms, expected) in table {
            assert_eq!(
                delays(&strategy, &times_ms, 0.0),
                expected,
                "{strategy:?} with failures at {times_ms:?}"
            );
        }
    }

    #[test]
    fn jitter_moves_the_delay_but_not_the_growth() {
        assert_eq!(delays(&exponential(None), &[0, 0], 1.0), [Some(1_100), Some(2_200)]);
        assert_eq!(delays(&exponential(None), &[0, 0], -1.0), [Some(900), Some(1_800)]);
        assert_eq!(delays(&exponential(None), &[0; 4], 1.0)[3], Some(5_000), "never above the maximum");
    }

    #[test]
    fn what_would_repeat_is_not_restarted() {
        let strategy = RestartStrategy::FixedDelay { attempts: RestartStrategy::UNLIMITED, delay_ms: 0 };
        let failure = Failure::user("the plan differs").permanent();
        let decision = decide(&strategy, &RestartRecord::default(), &failure, EARLY);
        assert!(matches!(decision, Decision::GiveUp { reason } if reason.contains("would repeat")));
    }

    #[test]
    fn a_record_says_when_the_next_attempt_may_start() {
        let strategy = RestartStrategy::FixedDelay { attempts: 1, delay_ms: 500 };
        let moment = Moment { now_ms: 10_000, ..EARLY };
        let decision = decide(&strategy, &RestartRecord::default(), &Failure::user("x"), moment);
        let Decision::Restart { record, .. } = decision else { unreachable!("the first restart is allowed") };
        assert_eq!((record.restarts, record.resume_at_ms), (1, 10_500));
    }

    #[test]
    fn a_job_that_had_run_well_is_restarted_at_once() {
        let fixed = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 500 };
        let rate = RestartStrategy::FailureRate { max_failures: 3, interval_ms: 10_000, delay_ms: 50 };
        // Whether each attempt had run well, and the delay behind it.
        type Attempts<'a> = &'a [(bool, Option<u64>)];
        let table: [(RestartStrategy, Attempts<'_>); 5] = [
            (fixed, &[(true, Some(0)), (false, Some(500)), (true, Some(0)), (true, None)]),
            (rate, &[(true, Some(0)), (false, Some(50)), (true, Some(0)), (true, None)]),
            (RestartStrategy::None, &[(true, None)]),
            // Ten seconds are not long for a job whose delay has grown to five.
            (
                exponential(None),
                &[(true, Some(0)), (true, Some(2_000)), (false, Some(4_000)), (true, Some(5_000))],
            ),
            (exponential(Some(1)), &[(true, Some(0)), (true, None)]),
        ];
        for (strategy, attempts) in table {
            let mut record = RestartRecord::default();
            for (had_run_well, expected) in attempts {
                let moment = Moment { had_run_well: *had_run_well, ..EARLY };
                let found = match decide(&strategy, &record, &Failure::external("lost"), moment) {
                    Decision::Restart { delay_ms, record: next } => {
                        assert_eq!(next.resume_at_ms, delay_ms as i64, "a new leader waits no longer");
                        record = next;
                        Some(delay_ms)
                    }
                    Decision::GiveUp { .. } => None,
                };
                assert_eq!(found, *expected, "{strategy:?} {attempts:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_stays_small_and_delays_in_bounds(
            times_ms in proptest::collection::vec(any::<i64>(), 1..100),
            max_failures in 1u32..,
            jitter in -2.0f64..2.0,
            had_run_well in any::<bool>(),
        ) {
            let rate = RestartStrategy::FailureRate { max_failures, interval_ms: 1, delay_ms: 1 };
            for strategy in [rate, exponential(None)] {
                let mut record = RestartRecord::default();
                for now_ms in &times_ms {
                    let moment = Moment { now_ms: *now_ms, jitter, had_run_well };
                    if let Decision::Restart { delay_ms, record: next } =
                        decide(&strategy, &record, &Failure::user("x"), moment)
                    {
                        prop_assert!(delay_ms <= 5_000);
                        prop_assert!(next.failure_times_ms.len() <= MAX_RESTART_TIMES.min(max_failures as usize));
                        record = next;
                    }
                }
            }
        }
    }
}
