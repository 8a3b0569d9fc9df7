//! Complex event processing: patterns over events, and the automaton that finds them. Flink CEP without its runtime.
//!
//! A [`Pattern`] says what to look for and is compiled to an [`Nfa`]. A [`Matcher`] runs it over the events of one key after the other;
//! what a key has so far are its [`PartialMatches`], which are a record and so state of a function. Time is told, never asked: the
//! crate has no clock, no input and no output.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use thalweg_cep::{Found, Matcher, PartialMatches, Pattern};
//!
//! let pattern = Pattern::<&str>::begin("click")
//!     .where_(|event| *event == "click")
//!     .next("purchase")
//!     .where_(|event| *event == "purchase")
//!     .within(Duration::from_secs(600));
//! let mut matcher = Matcher::new(Arc::new(pattern.compile()?), false);
//! let (mut partial, mut found) = (PartialMatches::default(), Vec::new());
//! for (timestamp, event) in [(0, "click"), (1_000, "click"), (2_000, "purchase")] {
//!     let mut tell = |what: Found<'_, '_, &'static str>| {
//!         if let Found::Complete(match_) = what {
//!             found.push((match_.start(), match_["purchase"]));
//!         }
//!     };
//!     matcher.advance(&mut partial, timestamp, &mut tell);
//!     matcher.process(&mut partial, event, timestamp, &mut tell);
//! }
//! assert_eq!(found, [(1_000, "purchase")]);
//! # Ok::<(), thalweg_cep::PatternError>(())
//! ```

mod compile;
mod condition;
mod error;
mod matched;
mod matcher;
mod nfa;
mod partial;
mod paths;
mod pattern;
mod settle;
mod skip;

pub use condition::Earlier;
pub use error::PatternError;
pub use matched::Match;
pub use matcher::{Found, Matcher};
pub use nfa::Nfa;
pub use partial::PartialMatches;
pub use pattern::Pattern;
pub use skip::SkipStrategy;
