//! Panics of user code: caught, with their message, place and backtrace.
//!
//! A panic hook is the only way to a panic's backtrace. It is installed once per process and changes nothing for threads that
//! are not inside [`guard`].

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use thalweg_common::failure::Failure;
use thalweg_common::task_scope::panic_message;

thread_local! {
    static GUARDED: RefCell<Guarded> = const { RefCell::new(Guarded { depth: 0, caught: None }) };
}

struct Guarded {
    depth: u32,
    caught: Option<Caught>,
}

struct Caught {
    location: String,
    backtrace: String,
}

/// Runs `work`. A panic becomes a failure of user code with its backtrace; what `work` had under way is lost.
///
/// # Errors
/// The panic, or the failure of `work`.
pub(crate) fn guard<R>(work: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install_hook);
    GUARDED.with_borrow_mut(|guarded| guarded.depth += 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let caught = GUARDED.with_borrow_mut(|guarded| {
        guarded.depth -= 1;
        guarded.caught.take()
    });
    outcome.unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(match caught {
            Some(caught) => Failure::user(format!("panicked at {}: {message}", caught.location))
                .with_details(caught.backtrace),
            None => Failure::user(format!("panicked: {message}")),
        })
    })
}

fn install_hook() {
    let previous = take_hook();
    set_hook(Box::new(move |info| {
        let is_guarded = GUARDED.try_with(|guarded| {
            // Already borrowed only if the code above panicked, which is not the user's.
            guarded.try_borrow_mut().is_ok_and(|mut guarded| guarded.catch(info))
        });
        if !is_guarded.unwrap_or(false) {
            previous(info);
        }
    }));
}

impl Guarded {
    fn catch(&mut self, info: &PanicHookInfo<'_>) -> bool {
        if self.depth == 0 {
            return false;
        }
        let location = info.location().map_or_else(|| "an unknown place".to_string(), ToString::to_string);
        self.caught = Some(Caught { location, backtrace: Backtrace::force_capture().to_string() });
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::*;
    use thalweg_common::failure::Fault;

    fn deep_in_user_code(index: usize) -> u32 {
        [1, 2, 3][index]
    }

    #[test]
    fn a_panic_is_a_failure_of_the_user_with_place_and_backtrace() {
        let failure = guard(|| Ok(deep_in_user_code(7))).expect_err("out of bounds");
        assert_eq!(failure.fault, Fault::User);
        assert!(
            failure.message.starts_with("panicked at runtime/src/task/panics.rs:"),
            "{}",
            failure.message
        );
        assert!(failure.message.contains("the len is 3 but the index is 7"), "{}", failure.message);
        assert!(failure.details.contains("deep_in_user_code"), "{}", failure.details);
    }

    #[test]
    fn values_and_failures_pass() {
        assert_eq!(guard(|| Ok(1)), Ok(1));
        assert_eq!(guard::<()>(|| Err(Failure::external("x"))), Err(Failure::external("x")));
    }

    #[test]
    fn a_caught_panic_leaves_nothing_behind() {
        let _ = guard::<()>(|| panic!("first {}", 1));
        let failure =
            guard::<()>(|| std::panic::resume_unwind(Box::new(3u8))).expect_err("no hook runs for this");
        assert_eq!(
            (failure.message.as_str(), failure.details.as_str()),
            ("panicked: a panic whose value is not a text", "")
        );
    }
}
