//! Stderr: what a person should know that is not the result.
//!
//! The only module that writes to stderr, apart from a command's end. A stderr that is closed loses notices and nothing
//! else, so that is no error.

use std::io::{self, IsTerminal, Write};

use crate::human::one_line;

/// Says something in a line of its own.
pub(crate) fn say(text: &str) {
    // Nobody is left to be told that nobody can be told.
    let _ = writeln!(io::stderr().lock(), "thalweg: {}", one_line(text));
}

/// Whether a person looks at stderr right now.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Steps of something that takes a while, in one line that is overwritten; silent unless stderr is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    has_line: bool,
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        Self { shown: is_watched(), has_line: false }
    }

    /// Shows a step instead of the one before.
    pub(crate) fn step(&mut self, text: &str) {
        if self.shown {
            self.has_line = true;
            Self::write(&format!("\r\u{1b}[K{}", one_line(text)));
        }
    }

    fn write(text: &str) {
        let mut stderr = io::stderr().lock();
        // As in `say`.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

impl Drop for Progress {
    /// Takes the line away again.
    fn drop(&mut self) {
        if self.has_line {
            Self::write("\r\u{1b}[K");
        }
    }
}
