//! When a request is tried again, and when it is given up.
//!
//! Stands around every single request. The decision is pure: [`decide`] knows how often and how long it was tried, and asks a
//! budget that all requests of a process share. Invariants:
//! - the pauses double, up to a limit, and are half random, so that many clients do not come back at the same time;
//! - a store that fails every request is asked no more than its budget allows, whatever runs against it;
//! - no request takes longer than its limit of time.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::debug;

use super::super::{RemoteCause, S3Settings};
use super::problem::Problem;
use crate::clock::{Clock, SystemClock};
use crate::limits::{S3_MAX_BACKOFF_MS, S3_RETRY_BUDGET, S3_RETRY_BUDGET_PER_SECOND};

/// Pause before the first retry, before its random half is taken.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// The budget is counted in tenths of a retry.
const RETRY: u32 = 10;
/// A retry after a timeout costs more: such a request has kept connections and memory for long.
const RETRY_AFTER_TIMEOUT: u32 = 20;
/// What a request earns that succeeds at once.
const FIRST_SUCCESS: u32 = 2;

/// Retries that are left, for all requests together.
#[derive(Debug)]
struct Budget {
    tenths: u32,
    /// When it last earned something by waiting.
    refilled_at: Duration,
}

impl Budget {
    const FULL: u32 = S3_RETRY_BUDGET * RETRY;

    fn new(now: Duration) -> Self {
        Self { tenths: Self::FULL, refilled_at: now }
    }

    fn take(&mut self, tenths: u32, now: Duration) -> bool {
        let waited_ms = now.saturating_sub(self.refilled_at).as_millis();
        let earned = waited_ms * u128::from(S3_RETRY_BUDGET_PER_SECOND * RETRY) / 1_000;
        if earned > 0 {
            self.earn(u32::try_from(earned).unwrap_or(Self::FULL));
            self.refilled_at = now;
        }
        let left = self.tenths.checked_sub(tenths);
        self.tenths = left.unwrap_or(self.tenths);
        left.is_some()
    }

    fn earn(&mut self, tenths: u32) {
        self.tenths = self.tenths.saturating_add(tenths).min(Self::FULL);
    }
}

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_retries: u32,
    total: Duration,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    retries: u32,
    elapsed: Duration,
    now: Duration,
    random: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Retry { after: Duration },
    GiveUp { because: &'static str },
}

/// Whether a request that failed is tried again.
fn decide(limits: Limits, progress: Progress, cause: RemoteCause, budget: &mut Budget) -> Decision {
    if !cause.retryable() {
        return Decision::GiveUp { because: "" };
    }
    if progress.retries >= limits.max_retries {
        return Decision::GiveUp { because: "" };
    }
    let after = backoff(progress.retries, progress.random);
    if progress.elapsed + after >= limits.total {
        return Decision::GiveUp { because: "; the time for it is over" };
    }
    let cost = if cause == RemoteCause::Timeout { RETRY_AFTER_TIMEOUT } else { RETRY };
    if budget.take(cost, progress.now) {
        Decision::Retry { after }
    } else {
        Decision::GiveUp { because: "; so many requests fail that no more are repeated" }
    }
}

/// The pause before a retry: between half and all of a time that doubles with each.
fn backoff(retries: u32, random: u64) -> Duration {
    let longest =
        FIRST_BACKOFF.saturating_mul(1 << retries.min(16)).min(Duration::from_millis(S3_MAX_BACKOFF_MS));
    let half = longest / 2;
    let span_us = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(random % span_us)
}

/// Runs requests, again where that helps.
#[derive(Debug)]
pub(super) struct Retries {
    limits: Limits,
    attempt_timeout: Duration,
    clock: SystemClock,
    budget: Mutex<Budget>,
}

impl Retries {
    pub(super) fn new(settings: &S3Settings) -> Self {
        let clock = SystemClock::new();
        let limits = Limits { max_retries: settings.max_retries, total: settings.operation_timeout };
        let budget = Mutex::new(Budget::new(clock.monotonic()));
        Self { limits, attempt_timeout: settings.attempt_timeout, clock, budget }
    }

    /// Runs a request until it succeeds, is answered, or is given up. The reason then says how often it was tried.
    pub(super) async fn run<T, F>(&self, request: &str, mut attempt: impl FnMut() -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let began = self.clock.monotonic();
        let mut retries = 0;
        loop {
            let left = self.limits.total.saturating_sub(self.clock.monotonic().saturating_sub(began));
            let limit = self.attempt_timeout.min(left);
            let outcome = tokio::time::timeout(limit, attempt()).await.unwrap_or_else(|_| {
                Err(Problem::fault(RemoteCause::Timeout, format!("no complete answer within {limit:.1?}")))
            });
            let (cause, reason) = match outcome {
                Err(Problem::Fault { cause, reason }) => (cause, reason),
                answered => {
                    self.budget().earn(if retries == 0 { FIRST_SUCCESS } else { RETRY });
                    return answered;
                }
            };
            let now = self.clock.monotonic();
            let elapsed = now.saturating_sub(began);
            // Without randomness pauses are only less spread.
            let progress = Progress { retries, elapsed, now, random: getrandom::u64().unwrap_or_default() };
            let decision = decide(self.limits, progress, cause, &mut self.budget());
            match decision {
                Decision::Retry { after } => {
                    debug!(request, retries, "S3: {reason}; tried again in {after:?}");
                    tokio::time::sleep(after).await;
                    retries += 1;
                }
                Decision::GiveUp { because } => {
                    let tried = match retries {
                        0 => String::new(),
                        _ => format!(" (tried {} times in {elapsed:.1?})", retries + 1),
                    };
                    return Err(Problem::Fault { cause, reason: format!("{reason}{tried}{because}") });
                }
            }
        }
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_retries: 3, total: Duration::from_secs(10) };

    fn progress(retries: u32, elapsed_ms: u64) -> Progress {
        Progress { retries, elapsed: Duration::from_millis(elapsed_ms), now: Duration::ZERO, random: 0 }
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let mut budget = Budget::new(Duration::ZERO);
        let retry = Decision::Retry { after: Duration::from_millis(25) };
        assert_eq!(decide(LIMITS, progress(0, 0), RemoteCause::Throttled, &mut budget), retry);
        for (progress, cause) in [
            (progress(0, 0), RemoteCause::Denied),
            (progress(3, 100), RemoteCause::Throttled),
            (progress(1, 9_990), RemoteCause::Throttled),
        ] {
            let decision = decide(LIMITS, progress, cause, &mut budget);
            assert!(matches!(decision, Decision::GiveUp { .. }), "{progress:?} {cause:?}: {decision:?}");
        }
    }

    #[test]
    fn a_store_that_is_down_uses_the_budget_up_and_success_earns_it_back() {
        let mut budget = Budget::new(Duration::ZERO);
        let ask = |budget: &mut Budget, now_s| {
            let progress = Progress { now: Duration::from_secs(now_s), ..progress(0, 0) };
            matches!(decide(LIMITS, progress, RemoteCause::Unreachable, budget), Decision::Retry { .. })
        };
        assert_eq!((0..10_000).filter(|_| ask(&mut budget, 0)).count(), S3_RETRY_BUDGET as usize);
        assert!(!ask(&mut budget, 0));
        assert_eq!(
            (0..10_000).filter(|_| ask(&mut budget, 10)).count(),
            10 * S3_RETRY_BUDGET_PER_SECOND as usize
        );
        (0..5).for_each(|_| budget.earn(FIRST_SUCCESS));
        assert!(ask(&mut budget, 10) && !ask(&mut budget, 10));
        (0..100_000).for_each(|_| budget.earn(RETRY));
        assert_eq!(budget.tenths, Budget::FULL, "it never holds more than it began with");
    }

    proptest! {
        #[test]
        fn pauses_double_up_to_the_limit_and_at_most_half_is_random(retries in 0_u32..200, random: u64) {
            let longest = backoff(retries, 0) * 2;
            let pause = backoff(retries, random);
            prop_assert!(pause >= longest / 2 && pause <= longest, "{pause:?} {longest:?}");
            prop_assert!(longest <= Duration::from_millis(S3_MAX_BACKOFF_MS));
            prop_assert!(backoff(retries + 1, 0) >= backoff(retries, 0));
        }
    }

    #[tokio::test]
    async fn a_request_is_tried_until_it_succeeds_and_says_how_often_it_was() {
        let settings = S3Settings { max_retries: 2, ..S3Settings::default() };
        let retries = Retries::new(&settings);
        let tries = Cell::new(0);
        let attempt = |succeeds_at: u32| {
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                let succeeds = tries.get() >= succeeds_at;
                async move {
                    if succeeds { Ok(()) } else { Err(Problem::fault(RemoteCause::Throttled, "SlowDown")) }
                }
            }
        };
        assert_eq!(retries.run("test", attempt(3)).await, Ok(()));
        assert_eq!(tries.replace(0), 3);
        let given_up = retries.run("test", attempt(4)).await.expect_err("two retries are not enough");
        let (_, reason) = given_up.into_fault();
        assert!(reason.starts_with("SlowDown (tried 3 times in "), "{reason}");
    }

    #[tokio::test]
    async fn silence_ends_with_the_time_for_a_try() {
        let attempt_timeout = Duration::from_millis(20);
        let settings = S3Settings { max_retries: 1, attempt_timeout, ..S3Settings::default() };
        let silence = || std::future::pending::<Result<(), Problem>>();
        let given_up = Retries::new(&settings).run("test", silence).await.expect_err("nobody answers");
        let (cause, reason) = given_up.into_fault();
        assert_eq!(cause, RemoteCause::Timeout);
        assert!(reason.contains("no complete answer within 20.0ms (tried 2 times"), "{reason}");
    }
}
