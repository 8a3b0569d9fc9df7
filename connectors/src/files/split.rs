//! Lanes: which byte ranges of which files one of them reads, and in what order. Pure.
//!
//! A file is cut into ranges of equal size; a range owns the lines that *start* in it. Which lane reads a range depends only on
//! the file's path, the range's number in its file and the number of lanes, never on other files: lanes that list a
//! directory at different moments agree about every file that both see. How many lanes there are is said once, when a job begins.
//!
//! Invariant: over all lanes each range of each round is read exactly once, and a [`Position`] that was saved and
//! restored goes on with exactly the ranges that were not read yet.

use std::ops::Range;

use thalweg_common::Record;
use thalweg_common::key_group::key_hash;
use thalweg_runtime::split::SourceSplit;

/// A share of the input, and how far it is read.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct Lane {
    pub(crate) share: Share,
    /// The files that it has found.
    pub(crate) files: Vec<InputFile>,
    pub(crate) position: Position,
}

impl SourceSplit for Lane {
    fn split_id(&self) -> String {
        format!("{}/{}", self.share.lane, self.share.lanes)
    }
}

impl Lane {
    /// Moves to the first range at or behind the position that belongs to this lane, and gives it. Nothing when all `rounds` are
    /// read; the position then stands behind the last file.
    pub(crate) fn find(&mut self, rounds: u64) -> Option<Range<u64>> {
        self.share.find(&self.files, rounds, &mut self.position)
    }
}

/// A file as it was when it was found.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) struct InputFile {
    pub(crate) path: String,
    pub(crate) length: u64,
    /// The lane that reads the first range, before the modulo: spreads many small files.
    pub(crate) start: u64,
}

impl InputFile {
    pub(crate) fn new(path: String, length: u64) -> Self {
        let start = key_hash(&path, &mut Vec::new());
        Self { path, length, start }
    }
}

/// Whose ranges are meant.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) struct Share {
    pub(crate) lane: u32,
    pub(crate) lanes: u32,
    pub(crate) split_bytes: u64,
}

/// Where a lane stands in its input: everything before it was read.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[record(crate = thalweg_common)]
pub(crate) struct Position {
    /// How many times the whole input was read.
    pub(crate) round: u64,
    /// The file, as an index.
    pub(crate) file: usize,
    /// The range's number in its file.
    pub(crate) range: u64,
    /// Where in the file the next line of this range starts; nothing when the range was not begun.
    pub(crate) offset: Option<u64>,
}

impl Position {
    /// Moves behind the present range.
    pub(crate) fn next_range(&mut self) {
        self.range += 1;
        self.offset = None;
    }

    /// What comes first in the input is the least.
    pub(crate) fn order(&self) -> (u64, usize, u64) {
        (self.round, self.file, self.range)
    }
}

impl Share {
    /// Moves `position` to the first range at or behind it that belongs to this share, and gives it.
    /// Nothing when all `rounds` are read; the position then stands behind the last file.
    pub(crate) fn find(
        &self,
        files: &[InputFile],
        rounds: u64,
        position: &mut Position,
    ) -> Option<Range<u64>> {
        while position.round < rounds {
            while let Some(file) = files.get(position.file) {
                if let Some(range) = self.find_in_file(file, position) {
                    return Some(range);
                }
                *position =
                    Position { round: position.round, file: position.file + 1, ..Position::default() };
            }
            if position.round + 1 == rounds {
                return None;
            }
            *position = Position { round: position.round + 1, ..Position::default() };
        }
        None
    }

    fn find_in_file(&self, file: &InputFile, position: &mut Position) -> Option<Range<u64>> {
        let lanes = u64::from(self.lanes.max(1));
        let owner = (file.start % lanes + position.round % lanes + position.range % lanes) % lanes;
        let skipped = (u64::from(self.lane) + lanes - owner) % lanes;
        if skipped > 0 {
            position.range += skipped;
            position.offset = None;
        }
        let split_bytes = self.split_bytes.max(1);
        let start = position.range.checked_mul(split_bytes)?;
        (start < file.length).then(|| start..start.saturating_add(split_bytes).min(file.length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All ranges that a share reads, by round and file; every position is saved and restored on the way.
    fn ranges_of(share: Share, files: &[InputFile], rounds: u64) -> Vec<(u64, usize, Range<u64>)> {
        let mut position = Position::default();
        let mut ranges = Vec::new();
        while let Some(range) = share.find(files, rounds, &mut position) {
            ranges.push((position.round, position.file, range));
            position.next_range();
        }
        ranges
    }

    proptest! {
        #[test]
        fn every_byte_of_every_round_belongs_to_exactly_one_lane(
            lengths in proptest::collection::vec(0u64..50, 0..6),
            split_bytes in 1u64..20,
            lanes in 1u32..6,
            rounds in 1u64..4,
        ) {
            let files: Vec<InputFile> =
                lengths.iter().enumerate().map(|(index, length)| InputFile::new(format!("file-{index}"), *length)).collect();
            let mut all: Vec<_> = (0..lanes)
                .flat_map(|lane| ranges_of(Share { lane, lanes, split_bytes }, &files, rounds))
                .collect();
            all.sort_by_key(|(round, file, range)| (*round, *file, range.start));
            let mut expected = Vec::new();
            for round in 0..rounds {
                for (index, length) in lengths.iter().enumerate() {
                    let starts = (0..*length).step_by(split_bytes as usize);
                    expected.extend(starts.map(|start| (round, index, start..(start + split_bytes).min(*length))));
                }
            }
            prop_assert_eq!(all, expected);
        }
    }

    #[test]
    fn the_ranges_of_one_file_are_spread_evenly_and_move_on_with_each_round() {
        let files = [InputFile::new("a".into(), 80)];
        for lane in 0..4 {
            let share = Share { lane, lanes: 4, split_bytes: 10 };
            assert_eq!(ranges_of(share, &files, 1).len(), 2, "lane {lane}");
        }
        let small = [InputFile::new("a".into(), 5)];
        for lane in 0..4 {
            let share = Share { lane, lanes: 4, split_bytes: 10 };
            assert_eq!(ranges_of(share, &small, 8).len(), 2, "lane {lane} of a small file read eight times");
        }
    }

    #[test]
    fn files_that_are_found_later_are_read_from_the_same_position() {
        let share = Share { lane: 0, lanes: 1, split_bytes: 10 };
        let mut files = vec![InputFile::new("a".into(), 5)];
        let mut position = Position::default();
        assert_eq!(share.find(&files, 1, &mut position), Some(0..5));
        position.next_range();
        assert_eq!(share.find(&files, 1, &mut position), None);
        files.push(InputFile::new("b".into(), 7));
        assert_eq!(share.find(&files, 1, &mut position), Some(0..7));
        assert_eq!(position.file, 1);
    }
}
