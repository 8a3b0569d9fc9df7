//! Splits of files: ranges of bytes, each of which owns the lines that *start* in it.

use std::ops::Range;

use thalweg_common::Record;
use thalweg_runtime::split::SourceSplit;

/// A range of a file, and how far it is read.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct FileRange {
    pub(crate) path: String,
    /// Which time it is that the whole input is read, from 0.
    pub(crate) round: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where in the file the next line starts; nothing when the range was not begun.
    pub(crate) offset: Option<u64>,
    /// That of the whole file; 0 where nobody needed it.
    #[record(default)]
    pub(crate) length: u64,
}

impl FileRange {
    pub(crate) fn bytes(&self) -> Range<u64> {
        self.start..self.end
    }
}

impl SourceSplit for FileRange {
    fn split_id(&self) -> String {
        match self.round {
            0 => format!("{}:{}", self.path, self.start),
            round => format!("{}:{}#{round}", self.path, self.start),
        }
    }
}
