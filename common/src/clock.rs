//! Time, as a value that is handed in: the only module which reads the machine's clocks.
//!
//! Stands beside every actor and task. They ask a [`Clock`] instead of the operating system, so that tests and
//! simulations decide what time it is. Invariants: [`Clock::monotonic`] never goes back; [`Clock::now_ms`] may (an
//! administrator or NTP may set the machine's clock), so it is for people and records, never for measuring.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use thalweg_common::clock::{ManualClock, SharedClock, Stopwatch};
//!
//! let manual = Arc::new(ManualClock::new(1_700_000_000_000));
//! let clock: SharedClock = manual.clone();
//! let stopwatch = Stopwatch::start(&clock);
//! manual.advance(Duration::from_millis(250));
//! assert_eq!(stopwatch.elapsed_ms(), 250);
//! assert_eq!(clock.now_ms(), 1_700_000_000_250);
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall-clock time in milliseconds since 1970-01-01 UTC. May go back.
    fn now_ms(&self) -> i64;

    /// Time since this clock's own origin. Never goes back; comparable only with values of the same clock.
    fn monotonic(&self) -> Duration;
}

/// A clock that is shared between tasks. Clone it, do not create another one.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The same, ready to be shared.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }
}

/// A clock for tests and simulations: it stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    times: Mutex<ManualTimes>,
}

#[derive(Debug, Clone, Copy)]
struct ManualTimes {
    now_ms: i64,
    /// Part of a millisecond by which the wall clock is ahead of `now_ms`, so that small advances add up.
    remainder: Duration,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock that shows `now_ms` and a monotonic time of zero.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self {
            times: Mutex::new(ManualTimes { now_ms, remainder: Duration::ZERO, monotonic: Duration::ZERO }),
        }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times();
        times.monotonic += by;
        let wall = times.remainder + by;
        let whole_ms = wall.as_millis();
        times.remainder = wall - Duration::from_millis(u64::try_from(whole_ms).unwrap_or(u64::MAX));
        times.now_ms = times.now_ms.saturating_add(i64::try_from(whole_ms).unwrap_or(i64::MAX));
    }

    /// Sets the wall clock, forwards or back, as an administrator may; monotonic time does not notice.
    pub fn set_now_ms(&self, now_ms: i64) {
        let mut times = self.times();
        times.now_ms = now_ms;
        times.remainder = Duration::ZERO;
    }

    fn times(&self) -> MutexGuard<'_, ManualTimes> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.times().now_ms
    }

    fn monotonic(&self) -> Duration {
        self.times().monotonic
    }
}

/// Measures how long something takes.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    clock: SharedClock,
    started: Duration,
}

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    pub fn start(clock: &SharedClock) -> Self {
        Self { clock: Arc::clone(clock), started: clock.monotonic() }
    }

    /// Time since the start, or since the last [`Stopwatch::restart`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// The same in whole milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts over and returns the time that was measured until now.
    pub fn restart(&mut self) -> Duration {
        let now = self.clock.monotonic();
        let elapsed = now.saturating_sub(self.started);
        self.started = now;
        elapsed
    }
}

/// A moment on a clock by which something has to have happened.
#[derive(Debug, Clone)]
pub struct Deadline {
    clock: SharedClock,
    at: Duration,
}

/// The deadline `after` from now. A deadline too far away to be represented never passes.
///
/// ```
/// use std::time::Duration;
/// use thalweg_common::clock::{deadline_in, SystemClock};
///
/// let deadline = deadline_in(&SystemClock::shared(), Duration::from_secs(60));
/// assert!(!deadline.is_over());
/// assert!(deadline.remaining() <= Duration::from_secs(60));
/// ```
#[must_use]
pub fn deadline_in(clock: &SharedClock, after: Duration) -> Deadline {
    Deadline { clock: Arc::clone(clock), at: clock.monotonic().saturating_add(after) }
}

impl Deadline {
    /// Time that is left; zero when the deadline has passed. What to give to `tokio::time::timeout`.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.at.saturating_sub(self.clock.monotonic())
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manual() -> (Arc<ManualClock>, SharedClock) {
        let manual = Arc::new(ManualClock::new(1_000));
        let clock: SharedClock = manual.clone();
        (manual, clock)
    }

    #[test]
    fn the_system_clock_is_after_2020_and_monotonic() {
        let clock = SystemClock::new();
        assert!(clock.now_ms() > 1_577_836_800_000, "the wall clock is before 2020: {}", clock.now_ms());
        let times: Vec<Duration> = (0..1_000).map(|_| clock.monotonic()).collect();
        assert!(times.is_sorted(), "monotonic time went back");
    }

    #[test]
    fn a_manual_clock_stands_still_until_it_is_advanced() {
        let (manual, clock) = manual();
        assert_eq!((clock.now_ms(), clock.monotonic()), (1_000, Duration::ZERO));
        manual.advance(Duration::from_millis(5));
        assert_eq!((clock.now_ms(), clock.monotonic()), (1_005, Duration::from_millis(5)));
    }

    #[test]
    fn parts_of_a_millisecond_add_up() {
        let (manual, clock) = manual();
        for _ in 0..10 {
            manual.advance(Duration::from_micros(300));
        }
        assert_eq!((clock.now_ms(), clock.monotonic()), (1_003, Duration::from_millis(3)));
    }

    #[test]
    fn setting_the_wall_clock_back_does_not_move_deadlines_or_stopwatches() {
        let (manual, clock) = manual();
        let stopwatch = Stopwatch::start(&clock);
        let deadline = deadline_in(&clock, Duration::from_secs(1));
        manual.set_now_ms(-5);
        assert_eq!(clock.now_ms(), -5);
        assert_eq!(stopwatch.elapsed_ms(), 0);
        assert_eq!(deadline.remaining(), Duration::from_secs(1));
    }

    #[test]
    fn a_deadline_passes_exactly_when_its_time_has_come() {
        let (manual, clock) = manual();
        let deadline = deadline_in(&clock, Duration::from_millis(10));
        manual.advance(Duration::from_millis(9));
        assert!(!deadline.is_over());
        assert_eq!(deadline.remaining(), Duration::from_millis(1));
        manual.advance(Duration::from_millis(1));
        assert!(deadline.is_over());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[test]
    fn a_deadline_that_is_too_far_away_never_passes() {
        let (manual, clock) = manual();
        manual.advance(Duration::from_secs(1));
        assert!(!deadline_in(&clock, Duration::MAX).is_over());
    }

    #[test]
    fn a_restarted_stopwatch_reports_each_lap() {
        let (manual, clock) = manual();
        let mut stopwatch = Stopwatch::start(&clock);
        manual.advance(Duration::from_millis(3));
        assert_eq!(stopwatch.restart(), Duration::from_millis(3));
        manual.advance(Duration::from_millis(4));
        assert_eq!(stopwatch.elapsed(), Duration::from_millis(4));
    }
}
