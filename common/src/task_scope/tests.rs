//! Tests of task scopes.
#![allow(clippy::panic, reason = "tests panic on purpose")]

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;

use tokio::sync::oneshot;

use super::*;

/// Far more than any of these tests needs: only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what was waited for did not happen")
}

#[tokio::test]
async fn a_panic_becomes_the_failure_and_cancels_the_scope() {
    let scope = TaskScope::new("worker");
    scope.spawn("task-1", async { panic!("index {} is out of bounds", 7) });
    assert_eq!(soon(scope.failure()).await, "`worker/task-1` panicked: index 7 is out of bounds");
    soon(scope.cancelled()).await;
    assert_eq!(scope.first_failure().as_deref(), Some("`worker/task-1` panicked: index 7 is out of bounds"));
}

#[tokio::test]
async fn a_panic_in_a_destructor_is_a_failure_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("while dropping");
        }
    }
    let bomb = Bomb;
    let scope = TaskScope::new("worker");
    // The future owns it beyond its result, so it is dropped with the future and not by its code.
    scope.spawn_fallible(
        "task",
        poll_fn(move |_| {
            let _ = &bomb;
            Poll::Ready(Ok::<(), BoxError>(()))
        }),
    );
    assert_eq!(soon(scope.failure()).await, "`worker/task` panicked: while dropping");
    soon(scope.shutdown(PATIENCE)).await.expect("nothing is left");
}

#[tokio::test]
async fn an_error_is_reported_with_its_causes() {
    #[derive(Debug, Error)]
    #[error("could not open the log")]
    struct Outer(#[source] std::io::Error);

    let scope = TaskScope::new("jobmanager");
    scope.child("raft").spawn_fallible("unrelated", async { Err("not mine") });
    scope.spawn_fallible("log", async { Err(Outer(std::io::Error::other("disk is gone"))) });
    assert_eq!(soon(scope.failure()).await, "`jobmanager/log` failed: could not open the log: disk is gone");
}

#[tokio::test]
async fn only_the_first_failure_is_kept() {
    let scope = TaskScope::with_policy("s", ErrorPolicy::LogOnly);
    let (go, wait) = oneshot::channel::<()>();
    scope.spawn_fallible("second", async move {
        wait.await.expect("the first task sends");
        Err("two")
    });
    scope.spawn_fallible("first", async { Err("one") });
    assert_eq!(soon(scope.failure()).await, "`s/first` failed: one");
    go.send(()).expect("the second task waits");
    soon(scope.drained()).await;
    assert_eq!(scope.first_failure().as_deref(), Some("`s/first` failed: one"));
}

#[tokio::test]
async fn under_log_only_the_others_go_on() {
    let scope = TaskScope::with_policy("connections", ErrorPolicy::LogOnly);
    let (answer, answered) = oneshot::channel();
    scope.spawn_fallible("bad", async { Err("reset by peer") });
    soon(scope.failure()).await;
    assert!(!scope.is_cancelled());
    scope.spawn("good", async move {
        let _ = answer.send(42);
    });
    assert_eq!(soon(answered).await, Ok(42));
}

#[tokio::test]
async fn cancelling_reaches_everything_below_and_nothing_above_or_beside() {
    let root = TaskScope::new("root");
    let (left, right) = (root.child("left"), root.child("right"));
    let leaf = left.child("leaf");
    assert_eq!(leaf.path(), "root/left/leaf");

    left.cancel();
    soon(leaf.cancelled()).await;
    assert!(!root.is_cancelled() && !right.is_cancelled());

    root.cancel();
    soon(right.cancelled()).await;
    assert!(root.child("late").is_cancelled(), "a child of a cancelled scope is born cancelled");
}

#[tokio::test]
async fn a_failing_child_does_not_cancel_its_parent() {
    let root = TaskScope::new("root");
    let child = root.child("child");
    child.spawn_fallible("task", async { Err("broken") });
    soon(child.cancelled()).await;
    assert!(!root.is_cancelled());
    assert_eq!(root.first_failure(), None);
}

#[tokio::test]
async fn shutdown_waits_for_what_a_task_does_after_the_request() {
    let scope = TaskScope::new("sink");
    let flushed = Arc::new(AtomicBool::new(false));
    let (token, done) = (scope.token(), Arc::clone(&flushed));
    scope.child("writer").spawn("flush", async move {
        token.cancelled().await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::SeqCst);
    });
    soon(scope.shutdown(PATIENCE)).await.expect("the task ends by itself");
    assert!(flushed.load(Ordering::SeqCst));
    assert_eq!(scope.running(), Vec::<String>::new());
}

#[tokio::test]
async fn shutdown_names_what_does_not_end_and_can_be_repeated() {
    let scope = TaskScope::new("taskmanager");
    let (release, released) = oneshot::channel::<()>();
    let (free, freed) = mpsc::sync_channel::<()>(1);
    let token = scope.token();
    scope.spawn("obedient", async move { token.cancelled().await });
    scope.child("worker").spawn("deaf", async move {
        let _ = released.await;
    });
    let thread = scope.spawn_thread("busy", move || {
        let _ = freed.recv();
    });

    let error = soon(scope.shutdown(Duration::from_millis(20))).await.expect_err("two of them do not end");
    assert_eq!(error.stragglers, ["taskmanager/worker/deaf", "taskmanager/busy"]);
    assert_eq!(
        error.to_string(),
        "2 tasks of `taskmanager` did not end within 20ms after cancellation: taskmanager/worker/deaf, \
         taskmanager/busy; they ignore the request or wait for something that does not come"
    );

    release.send(()).expect("the deaf task still waits");
    free.send(()).expect("the thread still waits");
    soon(scope.shutdown(PATIENCE)).await.expect("nothing holds it up any more");
    assert_eq!(soon(thread.join()).await, Ok(()));
}

#[tokio::test]
async fn dropping_the_last_handle_cancels() {
    let scope = TaskScope::new("owner");
    let clone = scope.clone();
    let token = scope.token();
    let (end, ended) = oneshot::channel();
    scope.spawn("task", {
        let token = token.clone();
        async move {
            token.cancelled().await;
            let _ = end.send(());
        }
    });
    drop(scope);
    assert!(!token.is_cancelled(), "a clone is left");
    drop(clone);
    assert!(token.is_cancelled());
    soon(ended).await.expect("the task sees the cancellation");
}

#[tokio::test]
async fn dropping_a_child_leaves_the_parent_alone() {
    let root = TaskScope::new("root");
    drop(root.child("short-lived"));
    assert!(!root.is_cancelled());
}

#[tokio::test]
async fn waiting_for_a_failure_does_not_keep_the_scope_alive() {
    let scope = TaskScope::new("s");
    let failure = scope.failure();
    let token = scope.token();
    drop(scope);
    assert!(token.is_cancelled());
    let never = tokio::time::timeout(Duration::from_millis(10), failure).await;
    assert!(never.is_err(), "there was no failure, but one was reported: {never:?}");
}

#[tokio::test]
async fn a_thread_is_named_and_its_panic_is_a_failure() {
    let scope = TaskScope::new("worker");
    let (send, receive) = mpsc::sync_channel(1);
    let fine = scope.spawn_thread("map-0", move || {
        let _ = send.send(std::thread::current().name().map(str::to_owned));
    });
    assert_eq!(soon(fine.join()).await, Ok(()));
    assert!(fine.is_finished());
    assert_eq!(receive.recv(), Ok(Some("map-0".to_owned())));
    assert!(!scope.is_cancelled());

    let broken = scope.spawn_thread("map-1", || panic!("{}", "bad record"));
    assert_eq!(broken.name(), "worker/map-1");
    assert_eq!(soon(broken.join()).await, Err("bad record".to_owned()));
    assert_eq!(soon(scope.failure()).await, "`worker/map-1` panicked: bad record");
    soon(scope.cancelled()).await;
}

#[tokio::test]
async fn a_thread_that_cannot_be_started_is_a_failure() {
    let scope = TaskScope::new("worker");
    let greedy = std::thread::Builder::new().stack_size(usize::MAX / 4);
    let handle = scope.spawn_thread_by(greedy, "greedy", || {});
    let reason = soon(handle.join()).await.expect_err("such a thread cannot start");
    assert!(reason.starts_with("could not be started"), "{reason}");
    assert!(scope.is_cancelled() && scope.running().is_empty());
    assert!(scope.first_failure().is_some_and(|failure| failure.contains("could not be started")));
}

#[tokio::test]
async fn blocking_operations_run_even_if_nobody_waits() {
    let scope = TaskScope::new("s");
    let (send, receive) = oneshot::channel();
    drop(scope.spawn_blocking("write", move || send.send("written")));
    assert_eq!(soon(receive).await, Ok("written"));
    assert_eq!(soon(scope.spawn_blocking("count", || 40 + 2)).await, Ok(42));
    soon(scope.shutdown(PATIENCE)).await.expect("both have ended");
}

#[tokio::test]
async fn a_panic_of_a_blocking_operation_reaches_its_caller_and_the_scope() {
    let scope = TaskScope::new("s");
    let outcome = soon(scope.spawn_blocking("hash", || -> u64 { panic!("no") })).await;
    assert_eq!(outcome, Err(BlockingError::Panicked { name: "hash".into(), message: "no".into() }));
    assert_eq!(soon(scope.failure()).await, "`s/hash` panicked: no");

    let outcome = soon(blocking("sum", || -> u64 { panic!("overflow") })).await;
    assert_eq!(
        outcome.expect_err("it panics").to_string(),
        "the blocking operation `sum` panicked: overflow"
    );
}

#[tokio::test]
async fn drained_waits_without_cancelling_and_later_tasks_still_count() {
    let scope = TaskScope::new("batch");
    let finished = Arc::new(AtomicUsize::new(0));
    for round in 1..=3 {
        for task in 0..4 {
            let finished = Arc::clone(&finished);
            scope.spawn(&format!("task-{task}"), async move {
                tokio::task::yield_now().await;
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        soon(scope.drained()).await;
        assert_eq!(finished.load(Ordering::SeqCst), round * 4);
    }
    assert!(!scope.is_cancelled());
}

#[tokio::test]
async fn caught_panics_carry_their_message_whatever_its_type() {
    let format = soon(catch_panic(async { panic!("code {}", 3) })).await;
    assert_eq!(format, Err::<(), _>("code 3".to_owned()));
    let literal = soon(catch_panic(async { panic!("plain") })).await;
    assert_eq!(literal, Err::<(), _>("plain".to_owned()));
    let odd = soon(catch_panic(async { std::panic::panic_any(5_u8) })).await;
    assert_eq!(odd, Err::<(), _>("a panic whose value is not a text".to_owned()));
    assert_eq!(soon(catch_panic(async { 5 })).await, Ok(5));
}
