//! A failure that crosses processes: what happened, whose fault it is and whether trying again can help.
//!
//! Inside a crate errors are typed per operation; at its border they become a [`Failure`], which a task manager, a job
//! manager and a client read the same way. A failure is logged once, where it is handled.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault a failure is: it decides who is told what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The job's author: a panic or an error in user code, a wrong setting, a bad binary.
    User,
    /// The world around: a machine, a disk, a network, a store.
    External,
    /// Thalweg itself: a broken invariant. Please report it.
    Internal,
}

/// What happened, for people and for the restart strategy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether a restart can help. Only failures that are certain to repeat say no.
    pub retryable: bool,
    /// One sentence that names cause and cure.
    pub message: String,
    /// More lines, as a backtrace or the end of a worker's stderr. May be empty.
    pub details: String,
    /// Whether something else failed first, which whoever saw it reports. Known only where the failure arose.
    #[serde(skip)]
    pub is_consequence: bool,
}

impl Failure {
    /// The job author's code or settings failed; a restart may help (the input can differ).
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Fault::User, true, message)
    }

    /// Something outside failed; a restart may help.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(Fault::External, true, message)
    }

    /// An invariant of ours is broken; the task fails rather than yield a wrong result.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Fault::Internal, true, message)
    }

    /// The same failure, certain to repeat: it is not restarted.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// The same failure, most likely the consequence of another one: that is given a moment to be reported first, so
    /// that people see the cause.
    #[must_use]
    pub fn consequence(mut self) -> Self {
        self.is_consequence = true;
        self
    }

    /// The same failure with more lines for people.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same failure, its message led by where it happened: `where: message`.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    fn new(fault: Fault, retryable: bool, message: impl Into<String>) -> Self {
        Self { fault, retryable, message: message.into(), details: String::new(), is_consequence: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "\n{}", self.details) }
    }
}

impl std::error::Error for Failure {}

impl From<crate::codec::CodecError> for Failure {
    fn from(error: crate::codec::CodecError) -> Self {
        Self::internal(error.to_string())
    }
}
