//! How records flow into a sink: how many until when, and for how long none came.
//!
//! Stands at the end of a record's way: [`FlowSink`] runs in a worker and appends lines to a file, [`Flow`] is what the program
//! that measures reads of it. Invariant: no silence of more than [`NOTED`] is lost, however long or short the time between two
//! lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use thalweg::batch::Batch;
use thalweg::operator::{OrFailure, Sink, SinkContext};
use thalweg::prelude::Failure;

use crate::monotonic::now_ns;
use crate::submitted::refuse_restart;

/// A silence of this length gets a line of its own.
pub const NOTED: Duration = Duration::from_millis(2);

/// The longest time between two lines while records come.
const INTERVAL_NS: u64 = 5_000_000;

/// Counts records and notes down when they came.
#[derive(Debug, Default)]
pub struct FlowSink {
    path: PathBuf,
    file: Option<File>,
    count: u64,
    last_ns: u64,
    next_ns: u64,
}

impl FlowSink {
    /// Notes down in files whose names are this one, a dash and the number of the subtask.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    fn note(&mut self, records: usize) -> std::io::Result<()> {
        let now = now_ns();
        let silence_ns = if self.last_ns == 0 { 0 } else { now - self.last_ns };
        if u128::from(silence_ns) >= NOTED.as_nanos() {
            // Where it began: what is told of the time before must not be spread over it.
            self.line(self.last_ns, 0)?;
            self.count += records as u64;
            self.line(now, silence_ns)?;
        } else {
            self.count += records as u64;
            if now >= self.next_ns {
                self.line(now, 0)?;
            }
        }
        self.last_ns = now;
        Ok(())
    }

    fn line(&mut self, at_ns: u64, silence_ns: u64) -> std::io::Result<()> {
        self.next_ns = at_ns + INTERVAL_NS;
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(format!("{at_ns} {} {silence_ns}\n", self.count).as_bytes())
    }
}

impl Clone for FlowSink {
    fn clone(&self) -> Self {
        Self::new(&self.path)
    }
}

impl<T> Sink<T> for FlowSink {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        refuse_restart(context)?;
        let path = file(&self.path, context.subtask_index);
        let opened = OpenOptions::new().append(true).create(true).open(&path);
        self.file = Some(opened.or_failure(format_args!("cannot write {}", path.display()))?);
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let records = batch.len();
        batch.clear();
        if records == 0 {
            return Ok(());
        }
        self.note(records).or_failure(format_args!("cannot write {}", self.path.display()))
    }
}

/// A folder for the files of sinks: in memory, if the system has one there. A write to a disk waits while the checkpoints of the job fill
/// its queue, and with it the thread whose silences are measured.
///
/// # Errors
/// When there is no room.
pub fn folder() -> Result<TempDir> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.context("cannot make a folder for what the sinks note down")
}

/// Where a subtask of a sink notes down.
fn file(path: &Path, subtask: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{subtask}"));
    name.into()
}

/// How much had come to a subtask until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    at_ns: u64,
    count: u64,
    silence_ns: u64,
}

/// What a subtask of a sink has noted down.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flow(Vec<Line>);

impl Flow {
    /// What a subtask has noted down so far; nothing if it has not begun.
    ///
    /// # Errors
    /// When the file holds something else, or cannot be read although it is there.
    pub fn read(path: &Path, subtask: u32) -> Result<Self> {
        let path = file(path, subtask);
        match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).with_context(|| format!("{} tells of no flow", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Records so far.
    pub fn count(&self) -> u64 {
        self.0.last().map_or(0, |line| line.count)
    }

    /// Records that came between two moments, in proportion where these lie between two lines.
    pub fn between(&self, from_ns: u64, to_ns: u64) -> f64 {
        self.until(to_ns) - self.until(from_ns)
    }

    fn until(&self, at_ns: u64) -> f64 {
        let behind = self.0.partition_point(|line| line.at_ns <= at_ns);
        let before = behind.checked_sub(1).and_then(|at| self.0.get(at));
        match (before, self.0.get(behind)) {
            (Some(before), Some(after)) => {
                let share = (at_ns - before.at_ns) as f64 / (after.at_ns - before.at_ns) as f64;
                before.count as f64 + share * (after.count - before.count) as f64
            }
            (Some(last), None) => last.count as f64,
            (None, _) => 0.0,
        }
    }

    /// The longest silence that ended between two moments, in nanoseconds; 0 if all were shorter than [`NOTED`].
    pub fn longest_silence_ns(&self, from_ns: u64, to_ns: u64) -> u64 {
        let within = self.0.iter().filter(|line| (from_ns..=to_ns).contains(&line.at_ns));
        within.map(|line| line.silence_ns).max().unwrap_or(0)
    }
}

fn parse(text: &str) -> Result<Flow> {
    // The part behind the last line's end is still being written.
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let line = |line: &str| {
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().context("a line needs three numbers")?.context("no number");
        Ok(Line { at_ns: next()?, count: next()?, silence_ns: next()? })
    };
    complete.lines().map(line).collect::<Result<_>>().map(Flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_lines_are_read_and_rubbish_is_refused() {
        let flow = parse("10 5 0\n20 9 7\n30 1").unwrap();
        assert_eq!((flow.0.len(), flow.count()), (2, 9));
        assert_eq!(parse("").unwrap(), Flow::default());
        for rubbish in ["x 1 2\n", "1 2\n", "1 2 -3\n"] {
            assert!(parse(rubbish).is_err(), "{rubbish:?}");
        }
    }

    #[test]
    fn what_came_between_two_moments() {
        let flow = parse("100 10 0\n200 30 0\n300 30 100\n").unwrap();
        for (from, to, expected) in
            [(100, 200, 20.0), (150, 200, 10.0), (0, 100, 10.0), (200, 300, 0.0), (250, 900, 0.0)]
        {
            assert_eq!(flow.between(from, to), expected, "{from} to {to}");
        }
        assert_eq!(flow.longest_silence_ns(0, 299), 0);
        assert_eq!(flow.longest_silence_ns(300, 400), 100);
    }

    #[test]
    fn a_silence_is_noted_with_its_beginning_and_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flow");
        let mut sink = FlowSink::new(&path);
        sink.file = Some(OpenOptions::new().append(true).create(true).open(file(&path, 3)).unwrap());
        // As if the last record had come long ago.
        let began = now_ns() - 60_000_000;
        (sink.count, sink.last_ns, sink.next_ns) = (5, began, u64::MAX);
        sink.note(2).unwrap();
        let flow = Flow::read(&path, 3).unwrap();
        let noted: Vec<(u64, bool)> = flow.0.iter().map(|line| (line.count, line.at_ns == began)).collect();
        assert_eq!(noted, [(5, true), (7, false)]);
        assert!(flow.longest_silence_ns(began + 1, u64::MAX) >= 60_000_000);
        assert_eq!(Flow::read(&path, 4).unwrap(), Flow::default());
    }
}
