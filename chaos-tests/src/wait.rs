//! Waiting for a state, with a deadline and a message that says what was waited for.

use std::time::Duration;

use anyhow::{Result, bail};
use thalweg_common::clock::{Clock, SystemClock};

/// How long a state may take to come on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `state` until it is some value.
///
/// # Errors
/// When [`DEADLINE`] passes, naming `what`.
pub async fn until<T>(what: &str, mut state: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let clock = SystemClock::new();
    let end = clock.monotonic() + DEADLINE;
    loop {
        let last = match state().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "it has not come about".to_string(),
            Err(error) => format!("{error:#}"),
        };
        if clock.monotonic() > end {
            bail!("waited {} s for {what}: {last}", DEADLINE.as_secs());
        }
        tokio::time::sleep(POLL_INTERVAL).await; // not a wait: the pause between two looks
    }
}

/// As [`until`], for a state that is true or false.
///
/// # Errors
/// When [`DEADLINE`] passes, naming `what`.
pub async fn until_true<F: FnMut() -> bool>(what: &str, mut state: F) -> Result<()> {
    until(what, async || Ok(state().then_some(()))).await
}
