//! Calls tasks and puts their thread to sleep: new input, room in a full output, control mail.
//!
//! Stands beside every channel: a task polls its gate and gives its thread away when there is nothing to do. A thread runs
//! all tasks of a slot, so its parker tells which of them were called. Invariant: a wake-up is never lost. What a thread did
//! before [`TaskWaker::wake`] is visible to the task when it runs because of that call, no matter whether the call came
//! before, during or after the decision to park.

mod calls;
#[cfg(test)]
mod loom_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::calls::{CALLERS, Calls};

/// What [`calls`] is built from.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
    pub(super) use std::sync::{Condvar, Mutex};

    use std::sync::MutexGuard;
    use std::time::Duration;

    /// Waits for a notification as long as `condition` holds, at most for `timeout`.
    pub(super) fn wait_while(
        notified: &Condvar,
        guard: MutexGuard<'_, ()>,
        timeout: Duration,
        condition: impl Fn() -> bool,
    ) {
        // A poisoned lock guards nothing: the state is in the atomic.
        drop(notified.wait_timeout_while(guard, timeout, |()| condition()));
    }
}

/// The end at which a thread sleeps that runs one task.
pub struct TaskParker {
    calls: Arc<Calls>,
}

/// The end at which the thread of a slot sleeps, which runs the tasks of many seats.
pub(crate) struct SlotParker {
    calls: Arc<Calls>,
}

/// Wakes a task from any thread. Cheap to clone; a call costs one atomic operation, and only the one that ends a thread's
/// sleep costs more.
#[derive(Clone)]
pub struct TaskWaker {
    calls: Arc<Calls>,
    bit: u64,
}

/// The seats that were called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Called {
    bits: u64,
}

impl TaskParker {
    /// A parker that nobody has called yet.
    #[must_use]
    pub fn new() -> Self {
        Self { calls: Arc::new(Calls::new()) }
    }

    /// A handle that wakes this task.
    #[must_use]
    pub fn waker(&self) -> TaskWaker {
        TaskWaker { calls: Arc::clone(&self.calls), bit: 1 }
    }

    /// Sleeps until someone calls [`TaskWaker::wake`] or `timeout` has passed. Returns at once if someone has called since
    /// the last park. True if the task was woken, false after a timeout.
    pub fn park(&mut self, timeout: Duration) -> bool {
        self.calls.rest(timeout) != 0
    }
}

impl Default for TaskParker {
    fn default() -> Self {
        Self::new()
    }
}

impl SlotParker {
    /// A parker that nobody has called yet.
    pub(crate) fn new() -> Self {
        Self { calls: Arc::new(Calls::new()) }
    }

    /// A handle that wakes the task on this seat. Beyond 63 seats some share their calls, and look in vain now and then.
    pub(crate) fn waker(&self, seat: usize) -> TaskWaker {
        TaskWaker { calls: Arc::clone(&self.calls), bit: 1 << (seat % CALLERS) }
    }

    /// Who was called since the last time.
    pub(crate) fn called(&mut self) -> Called {
        Called { bits: self.calls.take() }
    }

    /// The same; sleeps for at most `timeout` while there is nobody.
    pub(crate) fn park(&mut self, timeout: Duration) -> Called {
        Called { bits: self.calls.rest(timeout) }
    }
}

impl Called {
    /// The seats below `seats` that were called.
    pub(crate) fn seats(self, seats: usize) -> impl Iterator<Item = usize> {
        let mut bits = self.bits;
        let first = std::iter::from_fn(move || {
            let seat = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(seat)
        });
        first.flat_map(move |seat| (seat..seats).step_by(CALLERS))
    }
}

impl TaskWaker {
    /// Wakes the task, or keeps it from its next sleep.
    pub fn wake(&self) {
        self.calls.call(self.bit);
    }
}

impl fmt::Debug for TaskParker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TaskParker").finish_non_exhaustive()
    }
}

impl fmt::Debug for TaskWaker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TaskWaker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use thalweg_common::task_scope::TaskScope;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_call_before_the_park_is_remembered_once() {
        let mut parker = TaskParker::new();
        let waker = parker.waker();
        waker.wake();
        waker.wake();
        assert!(parker.park(LONG));
        assert!(!parker.park(Duration::from_millis(1)), "two calls without a park between are one");
    }

    #[test]
    fn a_timeout_ends_the_park() {
        let mut parker = TaskParker::new();
        assert!(!parker.park(Duration::ZERO));
        assert!(!parker.park(Duration::from_millis(1)));
    }

    #[test]
    fn a_slot_learns_who_was_called() {
        let mut parker = SlotParker::new();
        const NOBODY: [usize; 0] = [];
        let seats = 130;
        let taken = |called: Called| called.seats(seats).collect::<Vec<_>>();
        assert_eq!(taken(parker.called()), NOBODY);
        for seat in [0, 5, 62] {
            parker.waker(seat).wake();
        }
        parker.waker(5).wake();
        assert_eq!(taken(parker.park(LONG)), [0, 63, 126, 5, 68, 62, 125], "the others share their bits");
        assert_eq!(taken(parker.called()), NOBODY);
        parker.waker(129).wake();
        assert_eq!(parker.called().seats(2).collect::<Vec<_>>(), NOBODY, "no seat beyond the last");
        assert_eq!(taken(parker.park(Duration::from_millis(1))), NOBODY);
    }

    /// Two threads hand a turn to and fro; one lost wake-up and the test would hang in a park of a minute.
    #[tokio::test]
    async fn no_wake_up_is_lost() {
        const TURNS: u32 = 20_000;
        let scope = TaskScope::new("test");
        let turn = Arc::new(AtomicU32::new(0));
        let parkers = [TaskParker::new(), TaskParker::new()];
        let wakers = [parkers[1].waker(), parkers[0].waker()];
        let mut threads = Vec::new();
        for (me, (mut parker, other)) in (0u32..).zip(parkers.into_iter().zip(wakers)) {
            let turn = Arc::clone(&turn);
            threads.push(scope.spawn_thread("player", move || {
                for round in 0..TURNS {
                    // Relaxed on purpose: the order must come from the waker alone.
                    while turn.load(Ordering::Relaxed) != 2 * round + me {
                        assert!(parker.park(LONG), "the other's call was lost");
                    }
                    turn.store(2 * round + me + 1, Ordering::Relaxed);
                    other.wake();
                }
            }));
        }
        for thread in threads {
            thread.join().await.expect("no wake-up is lost");
        }
        assert_eq!(turn.load(Ordering::Relaxed), 2 * TURNS);
    }
}
