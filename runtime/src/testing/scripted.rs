//! A source that reads what a test gives it, and a sink that keeps what it gets: the ends of a job in a test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::record::Record;

use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{Sink, SinkContext};
use crate::operators;
use crate::program::{AnyLink, Head, OperatorContext, OperatorFactory, Polled, SourceFactory};
use crate::snapshot::SnapshotBuilder;
use crate::task::counters::Counters;
use crate::time::MAX_WATERMARK;
use crate::time::splits::SharedSplits;

/// What a test gives a source to read, in this order. Clones are the same.
pub struct Script<T> {
    /// By subtask.
    waiting: Arc<Mutex<BTreeMap<u32, VecDeque<Line<T>>>>>,
}

/// What a source reads next.
enum Line<T> {
    Records(Batch<T>),
    Watermark(Timestamp),
}

impl<T> Default for Script<T> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

impl<T> Clone for Script<T> {
    fn clone(&self) -> Self {
        Self { waiting: Arc::clone(&self.waiting) }
    }
}

impl<T: Record> Script<T> {
    /// Records for a subtask, perhaps with timestamps.
    pub fn records(&self, subtask: u32, records: impl IntoIterator<Item = (T, Option<Timestamp>)>) {
        let mut batch = Batch::default();
        for (record, timestamp) in records {
            match timestamp {
                Some(timestamp) => batch.push_with_timestamp(record, timestamp),
                None => batch.push(record),
            }
            if batch.len() >= Batch::<T>::FULL_RECORDS {
                self.line(subtask, Line::Records(std::mem::take(&mut batch)));
            }
        }
        if !batch.is_empty() {
            self.line(subtask, Line::Records(batch));
        }
    }

    /// A watermark for a subtask, later than the one before.
    pub fn watermark(&self, subtask: u32, timestamp: Timestamp) {
        self.line(subtask, Line::Watermark(timestamp));
    }

    /// The code of the source that reads it.
    pub fn source(&self) -> Arc<dyn SourceFactory> {
        Arc::new(self.clone())
    }

    fn line(&self, subtask: u32, line: Line<T>) {
        self.lock().entry(subtask).or_default().push_back(line);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, VecDeque<Line<T>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Record> SourceFactory for Script<T> {
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure> {
        let next = next.typed::<T>().map_err(|failure| failure.context(&context.open.operator_name))?;
        let splits = context.splits.clone().filter(SharedSplits::is_wanted);
        if let Some(splits) = &splits {
            // None so far.
            splits.lock().opened([]);
        }
        let mut head = ScriptedHead {
            script: self.clone(),
            subtask: context.open.subtask_index,
            counters: context.counters.clone(),
            splits,
            status: WatermarkStatus::Active,
            next,
        };
        head.set_status(if head.subtask == 0 { WatermarkStatus::Active } else { WatermarkStatus::Idle })?;
        Ok(Box::new(head))
    }
}

/// Reads what is there. It has no position: what a test gives is read before the call returns that gives it.
///
/// The first subtask has a split from the beginning; the others have none, and are idle, until something is there for them.
struct ScriptedHead<T> {
    script: Script<T>,
    subtask: u32,
    counters: Counters,
    /// Where it tells of its split, if somebody keeps time for that.
    splits: Option<SharedSplits>,
    status: WatermarkStatus,
    next: Box<dyn Link<T>>,
}

impl<T: Record> ScriptedHead<T> {
    /// The name of its split.
    fn split(&self) -> String {
        self.subtask.to_string()
    }

    fn set_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        if status == WatermarkStatus::Active
            && let Some(splits) = &self.splits
        {
            let mut report = splits.lock();
            if report.open_since(0).is_none_or(|(open, _)| open.splits.is_empty()) {
                report.opened([self.split()]);
            }
        }
        if self.status != status {
            self.status = status;
            self.next.watermark_status(status)?;
        }
        Ok(())
    }
}

impl<T: Record> Head for ScriptedHead<T> {
    fn poll(&mut self) -> Result<Polled, Failure> {
        let line = self.script.lock().get_mut(&self.subtask).and_then(VecDeque::pop_front);
        let Some(line) = line else { return Ok(Polled::Idle { retry_after: None }) };
        self.set_status(WatermarkStatus::Active)?;
        match line {
            Line::Records(mut batch) => {
                self.counters.add_records_read(batch.len());
                if let Some(splits) = &self.splits {
                    let mut report = splits.lock();
                    report.begin();
                    report.records(&self.split(), batch.len());
                }
                self.next.process(&mut batch)?;
            }
            Line::Watermark(timestamp) => self.next.watermark(timestamp)?,
        }
        Ok(Polled::Progress)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.set_status(WatermarkStatus::Active)?;
        self.next.watermark(MAX_WATERMARK)?;
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.next.flush(partial)
    }
}

/// Keeps what comes to a sink, in the order in which it comes. Clones are the same.
pub struct Gathered<T> {
    shared: Arc<Mutex<Shared<T>>>,
    subtask: u32,
}

struct Shared<T> {
    records: Vec<(T, Option<Timestamp>)>,
    /// The last one of each subtask; nothing before the first.
    watermarks: BTreeMap<u32, Option<Timestamp>>,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        let shared = Shared { records: Vec::new(), watermarks: BTreeMap::new() };
        Self { shared: Arc::new(Mutex::new(shared)), subtask: 0 }
    }
}

impl<T> Clone for Gathered<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), subtask: self.subtask }
    }
}

impl<T: Record> Gathered<T> {
    /// Takes out what has come, with timestamps.
    pub fn take(&self) -> Vec<(T, Option<Timestamp>)> {
        std::mem::take(&mut self.lock().records)
    }

    /// The watermark that has come to all subtasks.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.lock().watermarks.values().copied().min().flatten()
    }

    /// The code of the sink that fills it.
    pub fn sink(&self) -> Arc<dyn OperatorFactory> {
        operators::sink(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Shared<T>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Record> Sink<T> for Gathered<T> {
    type Committable = ();

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        self.subtask = context.subtask_index;
        self.lock().watermarks.insert(self.subtask, None);
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.lock().records.extend(batch.drain_with_timestamps());
        Ok(())
    }

    fn write_watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.lock().watermarks.insert(self.subtask, Some(timestamp));
        Ok(())
    }
}
