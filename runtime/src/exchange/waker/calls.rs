//! Calls for the tasks of one thread, and the sleep of that thread while there are none.
//!
//! One word holds it all: a bit for each task that was called, and one that says that the thread sleeps or is about to. So a
//! call costs one atomic operation, and only the first one that meets a sleeping thread pays for waking it.
//! Invariant: no call is lost. What a thread did before [`Calls::call`] is visible to the thread that gets the call, no
//! matter whether it came before, during or after the decision to sleep.
//!
//! All that is shared comes from `super::sync`, so that a test can put a checker's types in its place.

use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{AtomicU64, Condvar, Mutex, Ordering, wait_while};

/// How many tasks can be told apart.
pub(super) const CALLERS: usize = 63;

/// The thread sleeps, or is about to.
const ASLEEP: u64 = 1 << CALLERS;

/// The calls of one thread.
pub(super) struct Calls {
    word: AtomicU64,
    asleep: Mutex<()>,
    called: Condvar,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), asleep: Mutex::new(()), called: Condvar::new() }
    }

    /// Calls the task of this bit.
    pub(super) fn call(&self, bit: u64) {
        // Release pairs with the acquire of whoever takes the bit, also if it was set already.
        if self.word.fetch_or(bit, Ordering::Release) == ASLEEP {
            // The thread holds the lock from its announcement until it really sleeps: behind it the notification arrives.
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.called.notify_one();
        }
    }

    /// The bits of all who were called since the last time.
    pub(super) fn take(&self) -> u64 {
        // A call that is not visible yet is found by the next look, at the latest by the one before the sleep.
        if self.word.load(Ordering::Relaxed) == 0 { 0 } else { self.word.swap(0, Ordering::Acquire) }
    }

    /// The same; if there are none, sleeps until there are or `timeout` has passed.
    pub(super) fn rest(&self, timeout: Duration) -> u64 {
        let called = self.take();
        if called != 0 || timeout.is_zero() {
            return called;
        }
        let guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if self.word.compare_exchange(0, ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let is_asleep = || self.word.load(Ordering::Relaxed) == ASLEEP;
            wait_while(&self.called, guard, timeout, is_asleep);
        }
        self.word.swap(0, Ordering::Acquire) & !ASLEEP
    }
}
