//! What a chain tells the loop of its task: how far the frozen epochs of its operators are encoded, and when one of them wants to be
//! flushed again although nothing has happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use thalweg_state::Drained;

/// Shared by a task's loop, which asks, and its operators, which encode a slice whenever they are flushed.
#[derive(Debug, Clone)]
pub(crate) struct Draining {
    left: Arc<AtomicU8>,
    /// Monotonic microseconds.
    alarm: Arc<AtomicU64>,
    /// The part of it without which the task must not end.
    held: Arc<AtomicU64>,
}

/// No operator waits for a time.
const NEVER: u64 = u64::MAX;

impl Default for Draining {
    fn default() -> Self {
        let never = || Arc::new(AtomicU64::new(NEVER));
        Self { left: Arc::default(), alarm: never(), held: never() }
    }
}

impl Draining {
    /// The chain is about to be flushed.
    pub(crate) fn begin(&self) {
        self.left.store(0, Ordering::Relaxed);
        self.alarm.store(NEVER, Ordering::Relaxed);
        self.held.store(NEVER, Ordering::Relaxed);
    }

    /// An operator wants to be flushed at this monotonic time at the latest. Said again at every flush before.
    pub(crate) fn flush_at(&self, time: Duration) {
        self.alarm.fetch_min(micros(time), Ordering::Relaxed);
    }

    /// The same for what the task must not end without: a commit that is to be repeated, records that a sink has on their way.
    pub(crate) fn hold_until(&self, time: Duration) {
        self.held.fetch_min(micros(time), Ordering::Relaxed);
        self.flush_at(time);
    }

    /// Whether the task must not end yet.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) != NEVER
    }

    /// When an operator wants to be flushed.
    pub(crate) fn alarm(&self) -> Option<Duration> {
        match self.alarm.load(Ordering::Relaxed) {
            NEVER => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// What an operator has left.
    pub(crate) fn add(&self, drained: Drained) {
        let left = match drained {
            Drained::All => return,
            Drained::Behind => 1,
            // Another one may go on while one waits.
            Drained::Some => 2,
        };
        self.left.fetch_max(left, Ordering::Relaxed);
    }

    /// What is left in all.
    pub(crate) fn left(&self) -> Drained {
        match self.left.load(Ordering::Relaxed) {
            0 => Drained::All,
            1 => Drained::Behind,
            _ => Drained::Some,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER)
}
