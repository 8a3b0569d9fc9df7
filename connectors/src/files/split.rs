//! Splits: which byte ranges of which files a subtask reads, and in what order. Pure.
//!
//! A file is cut into ranges of equal size; a range owns the lines that *start* in it. Who reads a split depends only on
//! the file's path, the split's number in its file and the parallelism, never on other files: subtasks that list a
//! directory at different moments agree about every file that both see.
//!
//! Invariant: over all subtasks each split of each round is read exactly once, and a [`Position`] that was saved and
//! restored goes on with exactly the splits that were not read yet.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thalweg_common::key_group::key_hash;

/// A file as it was when it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputFile {
    pub(crate) path: String,
    pub(crate) length: u64,
    /// The subtask that reads the first split, before the modulo: spreads many small files.
    pub(crate) start: u64,
}

impl InputFile {
    pub(crate) fn new(path: String, length: u64) -> Self {
        let start = key_hash(&path, &mut Vec::new());
        Self { path, length, start }
    }
}

/// Whose splits are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    pub(crate) split_bytes: u64,
}

/// Where a subtask stands in its input: everything before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    /// How many times the whole input was read.
    pub(crate) round: u64,
    /// The file, as an index.
    pub(crate) file: usize,
    /// The split's number in its file.
    pub(crate) split: u64,
    /// Where in the file the next line of this split starts; nothing when the split was not begun.
    pub(crate) offset: Option<u64>,
}

impl Position {
    /// Moves behind the present split.
    pub(crate) fn next_split(&mut self) {
        self.split += 1;
        self.offset = None;
    }
}

impl Share {
    /// Moves `position` to the first split at or behind it that belongs to this share, and gives its byte range.
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
        let parallelism = u64::from(self.parallelism.max(1));
        let owner = (file.start % parallelism + position.round % parallelism + position.split % parallelism)
            % parallelism;
        let skipped = (u64::from(self.subtask) + parallelism - owner) % parallelism;
        if skipped > 0 {
            position.split += skipped;
            position.offset = None;
        }
        let split_bytes = self.split_bytes.max(1);
        let start = position.split.checked_mul(split_bytes)?;
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
            position.next_split();
        }
        ranges
    }

    proptest! {
        #[test]
        fn every_byte_of_every_round_belongs_to_exactly_one_subtask(
            lengths in proptest::collection::vec(0u64..50, 0..6),
            split_bytes in 1u64..20,
            parallelism in 1u32..6,
            rounds in 1u64..4,
        ) {
            let files: Vec<InputFile> =
                lengths.iter().enumerate().map(|(index, length)| InputFile::new(format!("file-{index}"), *length)).collect();
            let mut all: Vec<_> = (0..parallelism)
                .flat_map(|subtask| ranges_of(Share { subtask, parallelism, split_bytes }, &files, rounds))
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
    fn the_splits_of_one_file_are_spread_evenly_and_move_on_with_each_round() {
        let files = [InputFile::new("a".into(), 80)];
        for subtask in 0..4 {
            let share = Share { subtask, parallelism: 4, split_bytes: 10 };
            assert_eq!(ranges_of(share, &files, 1).len(), 2, "subtask {subtask}");
        }
        let small = [InputFile::new("a".into(), 5)];
        for subtask in 0..4 {
            let share = Share { subtask, parallelism: 4, split_bytes: 10 };
            assert_eq!(
                ranges_of(share, &small, 8).len(),
                2,
                "subtask {subtask} of a small file read eight times"
            );
        }
    }

    #[test]
    fn files_that_are_found_later_are_read_from_the_same_position() {
        let share = Share { subtask: 0, parallelism: 1, split_bytes: 10 };
        let mut files = vec![InputFile::new("a".into(), 5)];
        let mut position = Position::default();
        assert_eq!(share.find(&files, 1, &mut position), Some(0..5));
        position.next_split();
        assert_eq!(share.find(&files, 1, &mut position), None);
        files.push(InputFile::new("b".into(), 7));
        assert_eq!(share.find(&files, 1, &mut position), Some(0..7));
        assert_eq!(position.file, 1);
    }
}
