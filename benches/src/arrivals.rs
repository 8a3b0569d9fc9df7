//! When records arrive at the sinks of an attempt: written down by the sinks, read by the program that measures.
//!
//! Stands at the end of a record's way. Every subtask of every attempt has a file of its own, `arrivals-ATTEMPT-SUBTASK`,
//! whose lines are the machine's monotonic nanoseconds at which it was opened and at which its first record came.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use thalweg::batch::Batch;
use thalweg::operator::{OrFailure, Sink, SinkContext};
use thalweg::prelude::Failure;
use thalweg_common::id::Attempt;

use crate::monotonic::now_ns;

/// Takes all records and writes down when the first one came.
#[derive(Debug, Clone)]
pub struct ArrivalSink {
    folder: PathBuf,
    file: PathBuf,
    has_arrived: bool,
}

/// What a sink's subtask has written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it was opened.
    pub opened_ns: u64,
    /// When its first record came.
    pub first_ns: u64,
}

impl ArrivalSink {
    /// A sink that writes into `folder`, which exists.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), file: PathBuf::new(), has_arrived: false }
    }

    fn note(&self) -> Result<(), Failure> {
        let file = OpenOptions::new().create(true).append(true).open(&self.file);
        let written = file.and_then(|mut file| writeln!(file, "{}", now_ns()));
        written.or_failure("cannot write down an arrival")
    }
}

impl<T: Send + 'static> Sink<T> for ArrivalSink {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.file = self.folder.join(name(context.attempt, context.subtask_index));
        self.note()
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if batch.drain().count() > 0 && !std::mem::replace(&mut self.has_arrived, true) {
            self.note()?;
        }
        Ok(())
    }
}

impl Arrival {
    /// What this subtask has written down in this attempt, once its first record has come.
    ///
    /// # Errors
    /// When the file holds something else.
    pub fn read(folder: &Path, attempt: Attempt, subtask: u32) -> Result<Option<Self>> {
        let path = folder.join(name(attempt, subtask));
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let (Some(opened), Some(first)) = (lines.next(), lines.next()) else { return Ok(None) };
        let parse = |line: &str| line.parse().with_context(|| format!("{} holds no times", path.display()));
        Ok(Some(Self { opened_ns: parse(opened)?, first_ns: parse(first)? }))
    }
}

fn name(attempt: Attempt, subtask: u32) -> String {
    format!("arrivals-{attempt}-{subtask}")
}
