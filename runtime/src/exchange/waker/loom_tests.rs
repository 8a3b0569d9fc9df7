//! `calls` once more, on the types of a model checker: it tries every order in which threads can meet, and a call that is lost
//! ends as a deadlock or as a read of old data.

#[path = "calls.rs"]
#[allow(clippy::duplicate_mod, reason = "the same code on other types is what this file is about")]
mod calls;

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use self::calls::Calls;
use self::sync::Ordering;

const LONG: Duration = Duration::from_secs(60);

/// What `calls` is built from; the checker's clocks stand still, so nothing but a notification ends a sleep.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(super) use loom::sync::{Condvar, Mutex};

    use loom::sync::MutexGuard;
    use std::time::Duration;

    pub(super) fn wait_while(
        notified: &Condvar,
        mut guard: MutexGuard<'_, ()>,
        _: Duration,
        condition: impl Fn() -> bool,
    ) {
        while condition() {
            guard = notified.wait(guard).expect("no thread panics");
        }
    }
}

#[test]
fn a_call_reaches_the_thread_with_what_was_done_before() {
    loom::model(|| {
        let (calls, data) = (Arc::new(Calls::new()), Arc::new(AtomicU32::new(0)));
        let caller = {
            let (calls, data) = (Arc::clone(&calls), Arc::clone(&data));
            thread::spawn(move || {
                data.store(1, Ordering::Relaxed);
                calls.call(1);
            })
        };
        assert_eq!(calls.rest(LONG), 1);
        assert_eq!(data.load(Ordering::Relaxed), 1);
        caller.join().expect("it does not panic");
    });
}

/// Checks a model of three threads in every order with at most so many changes of the thread where none had to be: all of
/// them would take hours.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn calls_of_two_threads_for_two_tasks_are_both_found() {
    check(|| {
        let calls = Arc::new(Calls::new());
        let data = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let callers = [0usize, 1].map(|task| {
            let (calls, data) = (Arc::clone(&calls), Arc::clone(&data));
            thread::spawn(move || {
                data[task].store(1, Ordering::Relaxed);
                calls.call(1 << task);
            })
        });
        let mut found = 0;
        while found != 0b11 {
            let called = calls.rest(LONG);
            assert_ne!(called, 0, "nothing ends the sleep but a call");
            assert_eq!(called & found, 0, "each call is found once");
            for task in (0..2).filter(|task| called & (1 << task) != 0) {
                assert_eq!(data[task].load(Ordering::Relaxed), 1);
            }
            found |= called;
        }
        for caller in callers {
            caller.join().expect("it does not panic");
        }
    });
}

/// The second call may find the bit set and do nothing: what was done before it must be seen all the same.
#[test]
fn of_two_calls_for_the_same_task_the_later_one_counts_too() {
    check(|| {
        let (calls, data) = (Arc::new(Calls::new()), Arc::new(AtomicU32::new(0)));
        let callers = [(); 2].map(|()| {
            let (calls, data) = (Arc::clone(&calls), Arc::clone(&data));
            thread::spawn(move || {
                data.fetch_add(1, Ordering::Relaxed);
                calls.call(1);
            })
        });
        while data.load(Ordering::Relaxed) < 2 {
            assert_eq!(calls.rest(LONG), 1);
        }
        for caller in callers {
            caller.join().expect("it does not panic");
        }
    });
}

/// As the thread of a slot does it: it looks without sleeping while it has other work, then sleeps.
#[test]
fn a_look_between_takes_no_call_away_from_the_sleep() {
    loom::model(|| {
        let (calls, data) = (Arc::new(Calls::new()), Arc::new(AtomicU32::new(0)));
        let caller = {
            let (calls, data) = (Arc::clone(&calls), Arc::clone(&data));
            thread::spawn(move || {
                for round in 1..=2 {
                    data.store(round, Ordering::Relaxed);
                    calls.call(1);
                }
            })
        };
        let _ = calls.take();
        while data.load(Ordering::Relaxed) < 2 {
            assert_ne!(calls.rest(LONG), 0);
        }
        caller.join().expect("it does not panic");
    });
}
