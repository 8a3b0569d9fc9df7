//! Panics and errors as text: what becomes of them at the edge of a task.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// Drives a future and turns a panic into an error with its message.
///
/// What the future had under way is dropped; state which it shares with others may be half changed, so the caller treats
/// the panic as the end of everything that the future touched.
///
/// # Errors
/// The message of the panic.
pub async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut running = Some(Box::pin(future));
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let polled = running.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(context));
            if polled.is_ready() {
                // Its destructors may panic as well.
                running = None;
            }
            polled
        }));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => {
                // A second panic, while the remains are cleared away, has nothing to add to the first.
                let _ = catch_unwind(AssertUnwindSafe(|| running = None));
                Poll::Ready(Err(panic_message(&*panic)))
            }
        }
    })
    .await
}

/// The message of a panic, as `std::panic::catch_unwind` returns it.
///
/// ```
/// let panic = std::panic::catch_unwind(|| panic!("no such key: {}", 7)).unwrap_err();
/// assert_eq!(thalweg_common::task_scope::panic_message(&*panic), "no such key: 7");
/// ```
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic whose value is not a text".to_owned()
    }
}

/// An error with everything that caused it, in one line. A cause which its successor already quotes is not repeated.
///
/// ```
/// use thalweg_common::task_scope::with_causes;
///
/// let error = std::io::Error::other("disk full");
/// assert_eq!(with_causes(&error), "disk full");
/// ```
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}
