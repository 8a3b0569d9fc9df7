//! The records of a key, counted: what its row holds of windows over so many records.
//!
//! Records are added up in panes of gcd(size, slide) records; a window that fires merges the last panes, so that each record is added once.

use std::collections::VecDeque;

use thalweg_common::Record;
use thalweg_common::failure::Failure;

use super::aggregate::WindowAggregate;

/// How many records a window has, and after how many it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counting {
    size: u64,
    slide: u64,
    pane: u64,
}

impl Counting {
    /// Windows of `size` records every `slide` records.
    pub fn new(size: u64, slide: u64) -> Self {
        Self { size, slide, pane: gcd(size, slide).max(1) }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The panes of a key.
#[derive(Debug, Clone, PartialEq, Record)]
#[record(crate = thalweg_common)]
pub struct Panes<A> {
    /// Records since the last window fired.
    since: u64,
    /// Records in the pane that is not full.
    in_open: u64,
    open: Option<A>,
    /// Those that are full, the earliest first.
    full: VecDeque<A>,
}

impl<A> Default for Panes<A> {
    fn default() -> Self {
        Self { since: 0, in_open: 0, open: None, full: VecDeque::new() }
    }
}

impl<A: thalweg_common::record::Record> Panes<A> {
    /// Adds a record, and gives what the window has that it completes.
    ///
    /// # Errors
    /// If the aggregate cannot be merged and the windows have several panes.
    pub fn add<In, G>(&mut self, counting: Counting, record: In, aggregate: &G) -> Result<Option<A>, Failure>
    where
        G: WindowAggregate<In, Accumulator = A>,
    {
        match &mut self.open {
            Some(open) => aggregate.add(open, record),
            None => self.open = Some(aggregate.first(record)),
        }
        (self.in_open, self.since) = (self.in_open + 1, self.since + 1);
        if self.in_open < counting.pane {
            return Ok(None);
        }
        self.in_open = 0;
        self.full.extend(self.open.take());
        let fires = self.since >= counting.slide;
        let mut result = None;
        if fires {
            self.since = 0;
            let panes =
                self.full.len().min(usize::try_from(counting.size / counting.pane).unwrap_or(usize::MAX));
            if counting.size <= counting.slide {
                // The next window shares nothing with this one.
                self.full.drain(..self.full.len() - panes);
                result = self.full.pop_front();
                for later in self.full.drain(..) {
                    merge_into(&mut result, later, aggregate)?;
                }
                return Ok(result);
            }
            for later in self.full.range(self.full.len() - panes..) {
                merge_into(&mut result, later.clone(), aggregate)?;
            }
        }
        // What the next window does not have: it has as many records, of which the next ones replace the first.
        let keep = usize::try_from(counting.size / counting.pane).unwrap_or(usize::MAX);
        while self.full.len() > keep {
            self.full.pop_front();
        }
        Ok(result)
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.since == 0 && self.open.is_none() && self.full.is_empty()
    }
}

fn merge_into<In, A, G>(result: &mut Option<A>, later: A, aggregate: &G) -> Result<(), Failure>
where
    G: WindowAggregate<In, Accumulator = A>,
{
    match result {
        Some(result) => aggregate.merge(result, later),
        None => {
            *result = Some(later);
            Ok(())
        }
    }
}
