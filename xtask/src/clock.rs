//! Time for `cargo xtask`: how long a step took, and the pause between two looks at a condition.
//!
//! The only module here that reads a clock or sleeps. Invariant: [`wait_until`] is the one way to wait, and it always
//! has a deadline.

use std::time::{Duration, Instant};

use crate::signal::Interrupt;

/// How long to pause between two looks at a condition.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Measures time from its creation.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "xtask links no crate of the workspace, so this is its own clock"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The pause of a polling loop. Never a way to wait for something to have happened.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a condition, in a program without a runtime"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Looks at a condition until it yields a value.
///
/// # Errors
/// The condition's own error at once; [`crate::exit::Interrupted`] after SIGINT or SIGTERM; otherwise, at the deadline, an error that
/// names what was waited for.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    interrupt: &Interrupt,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let stopwatch = Stopwatch::start();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        interrupt.check()?;
        if stopwatch.elapsed() >= deadline {
            anyhow::bail!("waited {} for {what}, in vain", seconds(deadline));
        }
        pause(LOOK_AGAIN_AFTER);
    }
}

/// A duration as people read it: `0.42 s`, `12.3 s`, `3 min 20 s`.
pub fn seconds(duration: Duration) -> String {
    let total = duration.as_secs_f64();
    match total {
        ..10.0 => format!("{total:.2} s"),
        ..120.0 => format!("{total:.1} s"),
        _ => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(200)), "3 min 20 s");
    }

    #[test]
    fn waiting_ends_with_the_value_or_names_what_never_came() {
        let mut looks = 0;
        let value = wait_until("three looks", Duration::from_secs(10), &Interrupt::default(), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(value.expect("the third look succeeds"), 3);

        let error = wait_until::<()>("a miracle", Duration::ZERO, &Interrupt::default(), || Ok(None))
            .expect_err("it never comes");
        assert!(error.to_string().contains("a miracle"), "{error}");
    }
}
