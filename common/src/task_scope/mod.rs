//! Tasks and threads with an owner: the only module that spawns anything.
//!
//! Every actor, connection and task thread runs inside a [`TaskScope`]. Scopes form a tree along the parts of a program
//! (`jobmanager/raft`, `worker/task-3/exchange`). Invariants:
//! - cancelling a scope cancels everything below it, never anything above it;
//! - a scope ends only when everything below it has ended, and [`TaskScope::shutdown`] names what did not;
//! - a panic never disappears: it is caught, logged once, kept as the scope's failure and handled by its [`ErrorPolicy`];
//! - dropping the last handle of a scope cancels it, so nothing outlives its owner unnoticed. A task that holds a
//!   clone of its own scope keeps it alive: give it [`TaskScope::token`] or a child scope instead.
//!
//! Cancellation is a request. A task answers it by returning (`Ok(())` if fallible) as soon as it has put its things in
//! order; an error that it returns after the request still counts as a failure.
//!
//! ```
//! use std::time::Duration;
//! use thalweg_common::task_scope::TaskScope;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let scope = TaskScope::new("jobmanager");
//! let connections = scope.child("connections");
//! let cancelled = connections.token();
//! connections.spawn("client", async move { cancelled.cancelled().await });
//! scope.shutdown(Duration::from_secs(5)).await.expect("the only task obeys");
//! # }
//! ```

mod blocking;
mod panics;

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::error;

pub use blocking::{BlockingError, blocking};
pub use panics::{catch_panic, panic_message, with_causes};

/// Any error that a fallible task may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What the failure of one task or thread means for the others of its scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// The failure is logged and kept; the others go on. For independent tasks, such as one per client connection.
    LogOnly,
    /// The scope is cancelled. For tasks that are one unit, such as the parts of an actor.
    #[default]
    CancelScope,
}

/// Some tasks or threads of a scope did not end in the time they were given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{} of `{scope}` did not end within {grace:?} after cancellation: {}; they ignore the request or wait for \
     something that does not come",
    count(.stragglers.len()),
    .stragglers.join(", ")
)]
pub struct ShutdownError {
    /// Path of the scope that was shut down.
    pub scope: String,
    /// The time that was given.
    pub grace: Duration,
    /// Paths of the tasks and threads that still ran, in the order of their start.
    pub stragglers: Vec<String>,
}

fn count(tasks: usize) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

/// A handle of a named group of tasks and threads. Clones are handles of the same group.
#[derive(Clone)]
pub struct TaskScope {
    handle: Arc<Handle>,
}

/// Counted apart from [`Shared`], which the tasks hold too: when the last handle goes, the scope is cancelled.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.token.cancel();
    }
}

struct Shared {
    /// Names from the root to this scope, joined by `/`.
    path: String,
    policy: ErrorPolicy,
    token: CancellationToken,
    /// Counts the tasks of this scope and of all scopes below it.
    tracker: TaskTracker,
    running: Mutex<Running>,
    failure: watch::Sender<Option<String>>,
    parent: Option<Arc<Shared>>,
}

/// Who runs in this scope and in the scopes below it, by order of start.
#[derive(Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, Arc<str>>,
}

impl TaskScope {
    /// A root scope.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_policy(name, ErrorPolicy::default())
    }

    /// A root scope whose failures are handled by `policy`.
    #[must_use]
    pub fn with_policy(name: impl Into<String>, policy: ErrorPolicy) -> Self {
        Self::build(name.into(), policy, CancellationToken::new(), None)
    }

    /// A scope inside this one: cancelled with it and awaited by its shutdown. It has the same error policy. Its failures
    /// are its own: whoever depends on it waits for [`TaskScope::failure`].
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Self {
        self.child_with_policy(name, self.shared().policy)
    }

    /// A scope inside this one whose failures are handled by `policy`.
    #[must_use]
    pub fn child_with_policy(&self, name: impl Into<String>, policy: ErrorPolicy) -> Self {
        let parent = self.shared();
        let path = format!("{}/{}", parent.path, name.into());
        Self::build(path, policy, parent.token.child_token(), Some(Arc::clone(parent)))
    }

    fn build(
        path: String,
        policy: ErrorPolicy,
        token: CancellationToken,
        parent: Option<Arc<Shared>>,
    ) -> Self {
        let shared = Shared {
            path,
            policy,
            token,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            failure: watch::Sender::new(None),
            parent,
        };
        Self { handle: Arc::new(Handle { shared: Arc::new(shared) }) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Names from the root scope to this one, joined by `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.shared().path
    }

    /// Starts a task. A panic is handled by the scope's error policy.
    ///
    /// Must be called within a tokio runtime, as everything here that starts tasks.
    pub fn spawn(&self, name: &str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            future.await;
            Ok::<(), BoxError>(())
        });
    }

    /// Starts a task that may fail. An error or a panic is logged once and handled by the scope's error policy.
    pub fn spawn_fallible<E>(&self, name: &str, future: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<BoxError> + 'static,
    {
        let place = Place::take(self.shared(), name);
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
        tokio::spawn(async move {
            match catch_panic(future).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => place.fail(&format!("failed: {}", with_causes(&*error.into()))),
                Err(message) => place.fail(&format!("panicked: {message}")),
            }
        });
    }

    /// Runs a blocking operation on the runtime's pool for blocking work. It starts at once, whether or not the result
    /// is awaited; dropping the returned future does not stop it. A panic is handled by the scope's error policy too.
    ///
    /// # Errors
    /// If the operation panics, or never begins because the runtime is shut down.
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        name: &str,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, BlockingError>> + Send + 'static {
        let place = Place::take(self.shared(), name);
        blocking::start(name, move || {
            let outcome = catch_unwind(AssertUnwindSafe(operation)).map_err(|panic| panic_message(&*panic));
            if let Err(message) = &outcome {
                place.fail(&format!("panicked: {message}"));
            }
            outcome
        })
    }

    /// Starts an operating system thread, for work that occupies a core: the loop of a task. A panic is handled by the
    /// scope's error policy, and so is a thread that the system refuses to start. A thread cannot be interrupted: `work`
    /// looks at [`TaskScope::token`] often enough to end in time.
    pub fn spawn_thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> ThreadHandle {
        self.spawn_thread_by(std::thread::Builder::new(), name, work)
    }

    fn spawn_thread_by(
        &self,
        builder: std::thread::Builder,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> ThreadHandle {
        let place = Arc::new(Place::take(self.shared(), name));
        let (end, ended) = watch::channel(None);
        let handle = ThreadHandle { name: Arc::clone(&place.path), ended };
        let body = {
            let (place, end) = (Arc::clone(&place), end.clone());
            move || {
                let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic));
                if let Err(message) = &outcome {
                    place.fail(&format!("panicked: {message}"));
                }
                drop(place);
                end.send_replace(Some(outcome));
            }
        };
        if let Err(error) = builder.name(name.replace('\0', "")).spawn(body) {
            let message = format!(
                "could not be started: {error}; raise the limit on threads (`ulimit -u`, `TasksMax`) or free memory"
            );
            place.fail(&message);
            end.send_replace(Some(Err(message)));
        }
        handle
    }

    /// Asks everything in this scope and below it to end. Does not wait; may be called again.
    pub fn cancel(&self) {
        self.shared().token.cancel();
    }

    /// Whether this scope, or one above it, was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared().token.is_cancelled()
    }

    /// Waits until the scope is cancelled: the first arm of every `select!`.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.shared().token.cancelled()
    }

    /// The scope's cancellation, for a task to look at without holding the scope.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.shared().token.clone()
    }

    /// The first failure in this scope, if there was one. Failures of child scopes are not included.
    #[must_use]
    pub fn first_failure(&self) -> Option<String> {
        self.shared().failure.borrow().clone()
    }

    /// Waits for the first failure in this scope and returns its text; never returns if there is none. Cancel-safe, and
    /// does not keep the scope alive.
    pub fn failure(&self) -> impl Future<Output = String> + Send + 'static {
        let mut failure = self.shared().failure.subscribe();
        async move {
            // The sender goes with the scope's last task: after that nothing can fail any more.
            let first = failure.wait_for(Option::is_some).await.ok().and_then(|first| first.clone());
            match first {
                Some(first) => first,
                None => pending().await,
            }
        }
    }

    /// Paths of the tasks and threads that run in this scope and below it, in the order of their start.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.shared().running().tasks.values().map(|path| path.to_string()).collect()
    }

    /// Waits until nothing runs in this scope and below it any more, without cancelling anything: for work that comes to
    /// an end by itself. Cancel-safe.
    pub async fn drained(&self) {
        let tracker = &self.shared().tracker;
        // A tracker tells that it is empty only while it is closed. Closing it hinders no later spawn.
        tracker.close();
        tracker.wait().await;
    }

    /// Cancels the scope and waits until everything in it and below it has ended. What has not ended after `grace` goes
    /// on running, and may be waited for again.
    ///
    /// # Errors
    /// If something still runs after `grace`; the error names it.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), ShutdownError> {
        self.cancel();
        if tokio::time::timeout(grace, self.drained()).await.is_ok() {
            return Ok(());
        }
        let stragglers = self.running();
        if stragglers.is_empty() {
            // The last one ended between the time-out and the look at the list.
            return Ok(());
        }
        Err(ShutdownError { scope: self.path().to_owned(), grace, stragglers })
    }
}

impl std::fmt::Debug for TaskScope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TaskScope")
            .field("path", &self.path())
            .field("cancelled", &self.is_cancelled())
            .field("running", &self.running())
            .finish()
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This scope and all above it.
    fn with_ancestors(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |scope| scope.parent.as_ref())
    }
}

/// One running task's or thread's place in its scope and in all scopes above; given back when it is dropped.
struct Place {
    path: Arc<str>,
    shared: Arc<Shared>,
    /// Held for what their dropping does.
    _entries: Vec<Entry>,
}

struct Entry {
    scope: Arc<Shared>,
    number: u64,
    /// Dropped after the name was taken off the list, so that a scope that counts as empty lists nobody.
    _counted: TaskTrackerToken,
}

impl Place {
    fn take(shared: &Arc<Shared>, name: &str) -> Self {
        let path: Arc<str> = format!("{}/{name}", shared.path).into();
        let entries = shared
            .with_ancestors()
            .map(|scope| {
                let counted = scope.tracker.token();
                let mut running = scope.running();
                let number = running.next;
                running.next += 1;
                running.tasks.insert(number, Arc::clone(&path));
                Entry { scope: Arc::clone(scope), number, _counted: counted }
            })
            .collect();
        Self { path, shared: Arc::clone(shared), _entries: entries }
    }

    /// Logs and keeps a failure, and does what the scope's policy says. `what` completes a sentence about the task.
    fn fail(&self, what: &str) {
        let text = format!("`{}` {what}", self.path);
        error!(task = %self.path, "{text}");
        self.shared.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(text);
            is_first
        });
        match self.shared.policy {
            ErrorPolicy::LogOnly => {}
            ErrorPolicy::CancelScope => self.shared.token.cancel(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.scope.running().tasks.remove(&self.number);
    }
}

/// A thread that was started by [`TaskScope::spawn_thread`]. Dropping it does not stop the thread.
#[derive(Debug, Clone)]
pub struct ThreadHandle {
    name: Arc<str>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

impl ThreadHandle {
    /// Path of the thread: its scope's path and its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits until the thread has ended. Cancel-safe.
    ///
    /// # Errors
    /// The message of its panic, or why it could not be started.
    pub async fn join(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err("ended without a result".to_owned()))
    }
}

#[cfg(test)]
mod tests;
