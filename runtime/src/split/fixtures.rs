//! A source with an enumerator for tests: the pairs of the usual job, in ranges.

use std::collections::VecDeque;
use std::time::Duration;

use thalweg_common::Record;
use thalweg_common::failure::Failure;

use super::{Discovery, EnumeratedSource, Next, SourceReader, SourceSplit, SplitEnumerator};
use crate::batch::Batch;
use crate::fixtures::Pair;
use crate::operator::{SourceContext, SourceStatus};

/// Records of a split.
pub(crate) const SPLIT_RECORDS: u64 = 500;

/// The pairs of the usual test in ranges. Each may only be read when the one before it is at its end, if they are `in_turn`.
#[derive(Clone)]
pub(crate) struct Ranges {
    pub(crate) count: u64,
    pub(crate) in_turn: bool,
}

#[derive(Record, Clone)]
#[record(crate = thalweg_common)]
pub(crate) struct Range {
    next: u64,
    end: u64,
}

impl SourceSplit for Range {
    fn split_id(&self) -> String {
        self.end.to_string()
    }
}

pub(crate) struct Enumerator {
    source: Ranges,
    found: u64,
}

impl Enumerator {
    fn find(&mut self) -> Range {
        let (next, end) = (self.found + 1, (self.found + SPLIT_RECORDS).min(self.source.count));
        self.found = end;
        Range { next, end }
    }
}

impl SplitEnumerator for Enumerator {
    type Split = Range;
    type State = u64;
    const TRACKS_FINISHED: bool = true;

    fn discover(&mut self) -> Result<Discovery<Range>, Failure> {
        let has_more = self.found < self.source.count;
        let may_read = has_more && (!self.source.in_turn || self.found == 0);
        let splits = may_read.then(|| self.find()).into_iter().collect();
        let next = match self.found < self.source.count {
            true if self.source.in_turn => Next::After(Duration::from_millis(5)),
            true => Next::AtOnce,
            false => Next::Never,
        };
        Ok(Discovery { splits, next })
    }

    fn finished(&mut self, splits: &[String]) -> Result<Vec<Range>, Failure> {
        // Behind a restore an older one may be told again.
        let is_newest = splits.iter().any(|id| *id == self.found.to_string());
        let may_read = self.source.in_turn && is_newest && self.found < self.source.count;
        Ok(may_read.then(|| self.find()).into_iter().collect())
    }

    fn state(&self) -> u64 {
        self.found
    }
}

#[derive(Default)]
pub(crate) struct Reader {
    ranges: VecDeque<Range>,
    finished: Vec<String>,
}

impl SourceReader for Reader {
    type Out = Pair;
    type Split = Range;

    fn add_splits(&mut self, splits: Vec<Range>) -> Result<(), Failure> {
        self.ranges.extend(splits);
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Pair>, max: usize) -> Result<SourceStatus, Failure> {
        let Some(range) = self.ranges.front_mut() else { return Ok(SourceStatus::Finished) };
        let end = range.end.min(range.next + max as u64 - 1);
        out.extend((range.next..=end).map(|number| (number % 10, number)));
        range.next = end + 1;
        if range.next > range.end {
            self.finished.push(range.split_id());
            self.ranges.pop_front();
        }
        Ok(SourceStatus::Ready)
    }

    fn snapshot(&mut self) -> Result<Vec<Range>, Failure> {
        Ok(self.ranges.iter().cloned().collect())
    }

    fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }
}

impl EnumeratedSource for Ranges {
    type Out = Pair;
    type Split = Range;
    type Reader = Reader;
    type Enumerator = Enumerator;

    fn enumerator(&self, _: &SourceContext, restored: Option<u64>) -> Result<Enumerator, Failure> {
        Ok(Enumerator { source: self.clone(), found: restored.unwrap_or(0) })
    }

    fn reader(&self, _: &SourceContext) -> Result<Reader, Failure> {
        Ok(Reader::default())
    }
}
