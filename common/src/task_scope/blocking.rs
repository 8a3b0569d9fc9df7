//! Blocking operations, such as file access, beside the asynchronous tasks.
//!
//! They run on the runtime's pool of threads for blocking work, so that they hold up no task. Invariant: a panic in one
//! reaches its caller as an error.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use super::panic_message;

/// A blocking operation produced no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockingError {
    /// The operation panicked; a fault of the program.
    #[error("the blocking operation `{name}` panicked: {message}")]
    Panicked {
        /// Name of the operation.
        name: String,
        /// Message of the panic.
        message: String,
    },
    /// The runtime was shut down before the operation began.
    #[error("the blocking operation `{name}` did not run because the program is shutting down")]
    ShuttingDown {
        /// Name of the operation.
        name: String,
    },
}

/// Runs a short blocking operation, such as one file access, outside any scope: the caller awaits it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let lines = thalweg_common::task_scope::blocking("count lines", || "a\nb".lines().count()).await;
/// assert_eq!(lines, Ok(2));
/// # }
/// ```
///
/// # Errors
/// If the operation panics, or never begins because the runtime is shut down.
pub async fn blocking<T: Send + 'static>(
    name: &str,
    operation: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingError> {
    start(name, move || catch_unwind(AssertUnwindSafe(operation)).map_err(|panic| panic_message(&*panic)))
        .await
}

/// Starts an operation that catches its own panics.
pub(super) fn start<T: Send + 'static>(
    name: &str,
    operation: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> impl Future<Output = Result<T, BlockingError>> + Send + 'static {
    let name = name.to_owned();
    let running = tokio::task::spawn_blocking(operation);
    async move {
        match running.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err(BlockingError::Panicked { name, message }),
            Err(_) => Err(BlockingError::ShuttingDown { name }),
        }
    }
}
