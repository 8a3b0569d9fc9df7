//! A source of numbers whose splits an enumerator finds while the job runs: a block of numbers every tenth of a second.
//!
//! Invariant: blocks follow from the number with which they begin, so that the same state of the enumerator always finds the same ones.

use std::time::Duration;

use thalweg::batch::Batch;
use thalweg::operator::{SourceContext, SourceStatus};
use thalweg::prelude::*;
use thalweg::split::{Discovery, EnumeratedSource, Next, SourceReader, SourceSplit, SplitEnumerator};

/// From one block to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// The numbers from 0 in their order, in blocks.
#[derive(Debug, Clone)]
pub struct Blocks {
    count: u64,
    per_block: u64,
}

impl Blocks {
    /// So many numbers, about so many a second.
    #[must_use]
    pub fn new(count: u64, rate: f64) -> Self {
        Self { count, per_block: ((rate * PAUSE.as_secs_f64()) as u64).max(1) }
    }
}

/// Numbers of a block that are not read yet.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
pub struct Block {
    first: u64,
    next: u64,
    end: u64,
}

impl SourceSplit for Block {
    fn split_id(&self) -> String {
        self.first.to_string()
    }
}

/// Finds blocks.
#[derive(Debug)]
pub struct Finder {
    blocks: Blocks,
    found: u64,
}

impl SplitEnumerator for Finder {
    type Split = Block;
    type State = u64;

    fn discover(&mut self) -> Result<Discovery<Block>, Failure> {
        let (first, end) = (self.found, (self.found + self.blocks.per_block).min(self.blocks.count));
        self.found = end;
        let splits = if first < end { vec![Block { first, next: first, end }] } else { Vec::new() };
        let next = if end < self.blocks.count { Next::After(PAUSE) } else { Next::Never };
        Ok(Discovery { splits, next })
    }

    fn state(&self) -> u64 {
        self.found
    }
}

/// Reads blocks one after the other.
#[derive(Debug, Default)]
pub struct Reader {
    blocks: Vec<Block>,
    finished: Vec<String>,
}

impl SourceReader for Reader {
    type Out = u64;
    type Split = Block;

    fn add_splits(&mut self, splits: Vec<Block>) -> Result<(), Failure> {
        self.blocks.extend(splits);
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<u64>, max: usize) -> Result<SourceStatus, Failure> {
        let Some(block) = self.blocks.first_mut() else { return Ok(SourceStatus::Finished) };
        let end = block.end.min(block.next + max as u64);
        (block.next..end).for_each(|number| out.push(number));
        block.next = end;
        if end == block.end {
            self.finished.push(block.split_id());
            self.blocks.remove(0);
        }
        Ok(SourceStatus::Ready)
    }

    fn snapshot(&mut self) -> Result<Vec<Block>, Failure> {
        Ok(self.blocks.clone())
    }

    fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }
}

impl EnumeratedSource for Blocks {
    type Out = u64;
    type Split = Block;
    type Reader = Reader;
    type Enumerator = Finder;

    fn enumerator(&self, _: &SourceContext, restored: Option<u64>) -> Result<Finder, Failure> {
        Ok(Finder { blocks: self.clone(), found: restored.unwrap_or(0) })
    }

    fn reader(&self, _: &SourceContext) -> Result<Reader, Failure> {
        Ok(Reader::default())
    }
}
