//! Puts a task's thread to sleep and wakes it: new input, room in a full output, control mail.
//!
//! Stands beside every channel: a task is a plain thread that polls its gate and parks when there is nothing to do.
//! Invariant: a wake-up is never lost. What a thread did before [`TaskWaker::wake`] is visible to the task after the
//! [`TaskParker::park`] which that call ends, no matter whether it came before, during or after the decision to park.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::lock;

/// The task runs, and nobody has called since it last looked.
const RUNNING: u8 = 0;
/// Somebody has called: the next park returns at once.
const WOKEN: u8 = 1;
/// The task sleeps, or is about to: whoever calls must notify it.
const PARKED: u8 = 2;

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    asleep: Mutex<()>,
    notified: Condvar,
}

/// The end at which the task sleeps. There is one for each task; its thread owns it.
#[derive(Default)]
pub struct TaskParker {
    shared: Arc<Shared>,
}

/// Wakes a task from any thread. Cheap to clone; calling it for a task that runs costs one atomic operation.
#[derive(Clone)]
pub struct TaskWaker {
    shared: Arc<Shared>,
}

impl TaskParker {
    /// A parker that nobody has called yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that wakes this task.
    #[must_use]
    pub fn waker(&self) -> TaskWaker {
        TaskWaker { shared: Arc::clone(&self.shared) }
    }

    /// Sleeps until someone calls [`TaskWaker::wake`] or `timeout` has passed. Returns at once if someone has called since
    /// the last park. True if the task was woken, false after a timeout.
    pub fn park(&mut self, timeout: Duration) -> bool {
        let state = &self.shared.state;
        // Acquire pairs with the release in `wake`: what came before the call is seen by what follows here.
        if state.swap(RUNNING, Ordering::Acquire) == WOKEN {
            return true;
        }
        let guard = lock(&self.shared.asleep);
        if state.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let parked = |_: &mut ()| state.load(Ordering::Relaxed) == PARKED;
            // A poisoned lock guards nothing: the state is in the atomic.
            drop(self.shared.notified.wait_timeout_while(guard, timeout, parked));
        }
        state.swap(RUNNING, Ordering::Acquire) == WOKEN
    }
}

impl TaskWaker {
    /// Wakes the task, or keeps it from its next sleep.
    pub fn wake(&self) {
        if self.shared.state.swap(WOKEN, Ordering::AcqRel) == PARKED {
            // The task holds the lock from its announcement until it really sleeps: behind it the notification arrives.
            drop(lock(&self.shared.asleep));
            self.shared.notified.notify_one();
        }
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
    use std::sync::atomic::AtomicU32;
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
