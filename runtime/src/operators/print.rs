//! Prints records to standard output, a line each. Not transactional: after a failure lines may be repeated.

use std::fmt::{self, Debug, Display, Write as _};
use std::io::{self, Write as _};

use thalweg_common::failure::Failure;

use crate::batch::Batch;
use crate::operator::{Sink, SinkContext};

/// Writes a record's text to the end of a line.
type Format<T> = fn(&T, &mut String);

/// Prints records to standard output. Lines of several subtasks are led by the subtask's number, from 1, as in `2> `.
pub struct PrintSink<T> {
    format: Format<T>,
    prefix: String,
    lines: String,
}

impl<T: Display> PrintSink<T> {
    /// Prints records as their `Display` says.
    pub fn display() -> Self {
        Self::with_format(|record, line| append(line, format_args!("{record}")))
    }
}

impl<T: Debug> PrintSink<T> {
    /// Prints records as their `Debug` says.
    pub fn debug() -> Self {
        Self::with_format(|record, line| append(line, format_args!("{record:?}")))
    }
}

impl<T> PrintSink<T> {
    /// Prints records as `format` writes them.
    pub fn with_format(format: fn(&T, &mut String)) -> Self {
        Self { format, prefix: String::new(), lines: String::new() }
    }

    fn render(&mut self, batch: &mut Batch<T>) -> &str {
        self.lines.clear();
        for record in batch.drain() {
            self.lines.push_str(&self.prefix);
            (self.format)(&record, &mut self.lines);
            self.lines.push('\n');
        }
        &self.lines
    }
}

impl<T> Clone for PrintSink<T> {
    fn clone(&self) -> Self {
        Self { format: self.format, prefix: self.prefix.clone(), lines: String::new() }
    }
}

impl<T> Sink<T> for PrintSink<T> {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.prefix = match context.parallelism {
            1 => String::new(),
            _ => format!("{}> ", context.subtask_index + 1),
        };
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let lines = self.render(batch).as_bytes();
        // Under one lock, so that lines of several subtasks do not mix.
        io::stdout().lock().write_all(lines).map_err(cannot_print)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        flush_stdout()
    }
}

fn append(line: &mut String, text: fmt::Arguments<'_>) {
    // A String takes everything; only the record's own formatting could fail, and then its line is cut short.
    let _ = line.write_fmt(text);
}

fn flush_stdout() -> Result<(), Failure> {
    io::stdout().flush().map_err(cannot_print)
}

fn cannot_print(error: io::Error) -> Failure {
    Failure::external(format!("cannot print to standard output: {error}; keep it open while the job runs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Setup;

    fn lines(mut sink: PrintSink<(String, u64)>, setup: &Setup) -> String {
        sink.open(&setup.open_context()).expect("opens");
        sink.render(&mut Batch::from(vec![("a".to_string(), 1), ("b".to_string(), 2)])).to_string()
    }

    #[test]
    fn lines_of_several_subtasks_are_led_by_their_number() {
        let sink = || {
            PrintSink::with_format(|(word, count): &(String, u64), line| {
                append(line, format_args!("{word}={count}"))
            })
        };
        assert_eq!(lines(sink(), &Setup::default()), "a=1\nb=2\n");
        assert_eq!(lines(sink(), &Setup::default().subtask(1, 4)), "2> a=1\n2> b=2\n");
        assert_eq!(lines(PrintSink::debug(), &Setup::default()), "(\"a\", 1)\n(\"b\", 2)\n");
    }
}
