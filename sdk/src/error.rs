//! What `?` makes of any error in a topology, and what `thalweg::run` returns.

use std::error::Error as StdError;
use std::fmt;

use crate::graph::Place;

/// The result of building or running a job.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job could not be built or run. Any error converts into it with `?`.
///
/// Like `anyhow::Error` it shows the whole chain of causes, so that `fn main() -> thalweg::Result<()>` prints one
/// readable message.
///
/// ```
/// fn rate(text: &str) -> thalweg::Result<f64> {
///     let rate: f64 = text.parse()?;
///     if rate > 0.0 { Ok(rate) } else { Err(thalweg::Error::new("the rate must be more than 0")) }
/// }
/// assert_eq!(rate("x").unwrap_err().to_string(), "invalid float literal");
/// ```
pub struct Error {
    message: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), cause: None }
    }

    /// The same error, its message led by what was being done: `what: message`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What a wrong declaration at `place` says: `src/main.rs:12: message`.
    pub(crate) fn at(place: Place, message: impl fmt::Display) -> Self {
        Self::new(message).context(place)
    }

    /// The error that was converted into this one.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), cause: Some(Box::new(error)) }
    }
}

/// For functions that take any error, such as that of [`try_map`](crate::DataStream::try_map).
impl From<Error> for Box<dyn StdError + Send + Sync> {
    fn from(error: Error) -> Self {
        match error.cause {
            Some(cause) if cause.to_string() == error.message => cause,
            _ => format!("{error:?}").into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// As the message and its causes: what a `main` that returns the error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut shown = self.message.clone();
        let mut cause = self.cause.as_ref().and_then(|cause| cause.source());
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors name their source in their own message.
            if !shown.contains(&text) {
                write!(f, "\n  because {text}")?;
                shown.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the stream")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn the_whole_chain_is_shown_once() {
        let error = Error::from(Outer("x".parse::<u32>().expect_err("no number")));
        assert_eq!(error.to_string(), "cannot open the stream");
        assert_eq!(format!("{error:?}"), "cannot open the stream\n  because invalid digit found in string");
        assert!(error.cause().is_some());
    }

    #[test]
    fn it_passes_through_code_that_takes_any_error() {
        type Any = Box<dyn StdError + Send + Sync>;
        let failure = Any::from(Error::from(thalweg_common::failure::Failure::user("no price")));
        assert!(
            failure.downcast_ref::<thalweg_common::failure::Failure>().is_some(),
            "a failure stays what it is"
        );
        assert_eq!(Any::from(Error::new("no price").context("line 3")).to_string(), "line 3: no price");
    }

    #[test]
    fn a_place_leads_the_message() {
        let place = Place { file: "src/main.rs", line: 12 };
        assert_eq!(Error::at(place, "no sink").to_string(), "src/main.rs:12: no sink");
    }
}
