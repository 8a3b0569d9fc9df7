//! How far another process has come: it appends to a file how much it has counted and when, and others read the last line.
//!
//! Stands at the end of a record's way: [`CountingSink`] runs in a worker, [`Point::latest`] in the program that measures.
//! Invariant: a line that is not complete is not seen.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use thalweg::batch::Batch;
use thalweg::operator::{OrFailure, Sink, SinkContext};
use thalweg::prelude::Failure;

use crate::monotonic::now_ns;
use crate::submitted::refuse_restart;

/// The shortest time between two lines.
const INTERVAL_NS: u64 = 10_000_000;

/// How much was counted when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Nanoseconds of the machine's monotonic clock.
    pub at_ns: u64,
    /// Records or bytes, since the beginning.
    pub count: u64,
}

impl Point {
    /// The last point in a file, if there is one yet.
    ///
    /// # Errors
    /// When the file holds something else, or cannot be read although it is there.
    pub fn latest(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => last_point(&text).with_context(|| format!("{} holds no progress", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What was counted a second between an earlier point and this one.
    pub fn rate_since(self, earlier: Self) -> f64 {
        (self.count - earlier.count) as f64 / ((self.at_ns - earlier.at_ns) as f64 / 1e9)
    }
}

fn last_point(text: &str) -> Result<Option<Point>> {
    // The part behind the last line's end is still being written.
    let Some((lines, _)) = text.rsplit_once('\n') else { return Ok(None) };
    let line = lines.rsplit_once('\n').map_or(lines, |(_, line)| line);
    let (at_ns, count) = line.split_once(' ').context("a line needs a time and a count")?;
    Ok(Some(Point { at_ns: at_ns.parse()?, count: count.parse()? }))
}

/// Counts, and notes down how far it is.
#[derive(Debug, Clone)]
pub struct Progress {
    path: PathBuf,
    count: u64,
    next_ns: u64,
}

impl Progress {
    /// Notes down in this file, which is made when there is something to note.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), count: 0, next_ns: 0 }
    }

    /// Adds to the count, and writes it down if that was not done just now. Call it for batches, not for records.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, more: usize) -> std::io::Result<()> {
        self.count += more as u64;
        let now = now_ns();
        if now < self.next_ns {
            return Ok(());
        }
        self.next_ns = now + INTERVAL_NS;
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        file.write_all(format!("{now} {}\n", self.count).as_bytes())
    }
}

/// Counts records into a file; for jobs that run in other processes. It may be a slow one.
#[derive(Debug, Clone)]
pub struct CountingSink {
    progress: Progress,
    pause: Duration,
}

impl CountingSink {
    /// Counts into this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { progress: Progress::new(path), pause: Duration::ZERO }
    }

    /// Blocks for this long at every record, as a naive sink does that waits for the outside.
    #[must_use]
    pub fn blocking(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    #[expect(clippy::disallowed_methods, reason = "blocking is what a slow sink is for")]
    fn write_slowly(&mut self, records: usize) -> std::io::Result<()> {
        for _ in 0..records {
            std::thread::sleep(self.pause);
            self.progress.add(1)?;
        }
        Ok(())
    }
}

impl<T> Sink<T> for CountingSink {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        refuse_restart(context)
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let records = batch.len();
        batch.clear();
        let noted =
            if self.pause.is_zero() { self.progress.add(records) } else { self.write_slowly(records) };
        noted.or_failure(format_args!("cannot write {}", self.progress.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_line_counts() {
        let point = |at_ns, count| Some(Point { at_ns, count });
        let table = [
            ("", None),
            ("12 3", None),
            ("12 3\n", point(12, 3)),
            ("12 3\n15 4", point(12, 3)),
            ("12 3\n15 4\n", point(15, 4)),
        ];
        for (text, expected) in table {
            assert_eq!(last_point(text).unwrap(), expected, "{text:?}");
        }
        for rubbish in ["x\n", "1 2\nx 3\n", "1 -2\n"] {
            assert!(last_point(rubbish).is_err(), "{rubbish:?}");
        }
    }

    #[test]
    fn what_was_counted_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress");
        assert_eq!(Point::latest(&path).unwrap(), None);
        let mut progress = Progress::new(&path);
        progress.add(7).unwrap();
        // Too soon for a line of its own.
        progress.add(1).unwrap();
        assert_eq!(Point::latest(&path).unwrap().unwrap().count, 7);
        progress.next_ns = 0;
        progress.add(2).unwrap();
        assert_eq!(Point::latest(&path).unwrap().unwrap().count, 10);
    }

    #[test]
    fn a_rate_is_counted_by_the_clock_of_the_lines() {
        let (earlier, later) = (Point { at_ns: 500, count: 10 }, Point { at_ns: 2_000_000_500, count: 110 });
        assert_eq!(later.rate_since(earlier), 50.0);
    }
}
