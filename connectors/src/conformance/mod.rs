//! What every connector must keep, as checks that any connector runs: attempts that end and are restored, other parallelisms, savepoints, back
//! pressure, peers that are slow or fail, cancellation, idle subtasks, connections that are closed.
//!
//! A connector's test says what its peer is ([`SourceSubject`], [`SinkSubject`]) and lets [`source_conformance!`](crate::source_conformance) or
//! [`sink_conformance!`](crate::sink_conformance) make the tests, whose names contain `conformance`. Connectors are driven without a cluster:
//! [`thalweg_runtime::testing`] has their tasks, channels and barriers, one step after the other, so that what happens between two steps
//! is the check's choice.
//!
//! ```
//! use std::ops::Range;
//! use std::time::Duration;
//!
//! use thalweg_connectors::TextFileSource;
//! use thalweg_connectors::conformance::{SourceSubject, Trouble};
//! use thalweg_runtime::io::Io;
//!
//! /// Files in a directory that is watched.
//! struct Files(tempfile::TempDir);
//!
//! impl SourceSubject for Files {
//!     type Source = TextFileSource;
//!
//!     fn source(&self) -> TextFileSource {
//!         TextFileSource::lines(self.0.path()).watching(Duration::from_millis(1))
//!     }
//!
//!     fn number(&self, line: &String) -> u64 {
//!         line.parse().unwrap()
//!     }
//!
//!     fn write(&self, numbers: Range<u64>) {
//!         let (name, hidden) = (format!("{:09}", numbers.start), format!(".{:09}", numbers.start));
//!         let lines: String = numbers.map(|number| format!("{number}\n")).collect();
//!         std::fs::write(self.0.path().join(&hidden), lines).unwrap();
//!         std::fs::rename(self.0.path().join(hidden), self.0.path().join(name)).unwrap();
//!     }
//! }
//!
//! thalweg_connectors::conformance::source::kill_and_restore(&Files(tempfile::tempdir().unwrap())).unwrap();
//! ```

pub mod sink;
pub mod source;

use std::time::Duration;

use thalweg_common::clock::{Clock as _, SystemClock};
use thalweg_common::failure::Failure;

pub use sink::{Guarantee, SinkSubject};
pub use source::SourceSubject;

/// Longest wait for anything that must happen.
const WAIT: Duration = Duration::from_secs(30);

/// How long something may take that must not wait for the outside.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a peer may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It refuses requests now and then, which succeed when they are repeated.
    Failing,
    /// It answers nothing until it is told otherwise.
    Silent,
}

/// What a check has found.
fn broken(what: impl Into<String>) -> Failure {
    Failure::internal(what)
}

/// Repeats `step` until it says that it is done.
fn until(what: &str, mut step: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let clock = SystemClock::new();
    while !step()? {
        if clock.monotonic() > WAIT {
            return Err(broken(format!("not within {WAIT:?}: {what}")));
        }
    }
    Ok(())
}

/// That `action` does not wait for anybody.
fn at_once(what: &str, action: impl FnOnce()) -> Result<(), Failure> {
    let clock = SystemClock::new();
    action();
    let took = clock.monotonic();
    if took > AT_ONCE { Err(broken(format!("{what} takes {took:?}"))) } else { Ok(()) }
}

/// That no connection is left behind the end of all attempts.
fn all_closed(breathe: impl Fn(), connections: impl Fn() -> Option<usize>) -> Result<(), Failure> {
    until("all connections are closed", || {
        breathe();
        Ok(connections().is_none_or(|open| open == 0))
    })
}

/// Makes a test of each check, with a new subject for each.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($kind:ident, $subject:expr; $($check:ident as $test:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() -> Result<(), ::thalweg_common::failure::Failure> {
                $crate::conformance::$kind::$check(&$subject)
            }
        )*
    };
}

/// That exactly the numbers below are there, each once.
fn each_once(mut found: Vec<u64>, numbers: u64) -> Result<(), Failure> {
    found.sort_unstable();
    let lost: Vec<u64> = (0..numbers).filter(|number| found.binary_search(number).is_err()).collect();
    let count = found.len();
    found.dedup();
    let duplicated = count - found.len();
    if lost.is_empty() && duplicated == 0 && found.len() as u64 == numbers {
        return Ok(());
    }
    let foreign = found.iter().filter(|number| **number >= numbers).count();
    Err(broken(format!("lost {} ({lost:?}), duplicated {duplicated}, foreign {foreign}", lost.len())))
}

/// A number that looks like chance and is the same in each run.
fn lot(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}
