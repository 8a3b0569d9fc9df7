//! Finds the ranges of the input files: lists files and directories, again and again if they are watched, and cuts what is new.
//!
//! Invariants: ranges come in the order of the files' paths (of each listing) and of the ranges in them; each range of each round comes once,
//! also behind a restore; what it remembers of a file that is cut is a hash of its path, and that only where directories are watched.

use std::collections::HashSet;

use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_common::key_group::key_hash;
use thalweg_runtime::split::{Discovery, Next, SplitEnumerator};

use super::listing;
use super::source::Settings;
use super::split::FileRange;

/// Ranges that are found in one look: the rest of a large input waits here, as paths and lengths.
const RANGES_AT_ONCE: usize = 4_000;

/// Finds the ranges of a [`TextFileSource`](super::TextFileSource).
#[derive(Debug)]
pub struct TextFileEnumerator {
    settings: Settings,
    progress: Progress,
    known: Known,
}

/// How far the input is cut.
#[derive(Record, Debug, Clone, PartialEq, Eq, Default)]
#[record(crate = thalweg_common)]
struct Progress {
    /// Whether the input was listed.
    is_listed: bool,
    /// Files that are not cut; those that were, too, if the input is read several times.
    files: Vec<InputFile>,
    round: u64,
    /// The file that is being cut, as an index.
    file: usize,
    /// Where its next range begins.
    start: u64,
}

/// A file as it was when it was found.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) struct InputFile {
    pub(crate) path: String,
    pub(crate) length: u64,
}

/// What a checkpoint holds of a [`TextFileEnumerator`].
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct FoundFiles {
    progress: Progress,
    /// Of all files that were found, if there may be more.
    known: Vec<(u64, u64)>,
}

/// Files that were found, by hashes of their paths: 128 bits of each, so that no two meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    hashes: HashSet<(u64, u64)>,
}

impl Known {
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.hashes.contains(&hashes(path))
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(crate) fn add(&mut self, path: &str) {
        self.hashes.insert(hashes(path));
    }
}

fn hashes(path: &str) -> (u64, u64) {
    let (path, mut scratch) = (path.to_string(), Vec::new());
    (key_hash(&path, &mut scratch), key_hash(&("again".to_string(), path), &mut scratch))
}

impl TextFileEnumerator {
    pub(super) fn new(settings: Settings, restored: Option<FoundFiles>) -> Self {
        let (progress, hashes) = match restored {
            Some(FoundFiles { progress, known }) => (progress, known.into_iter().collect()),
            None => (Progress::default(), HashSet::new()),
        };
        Self { settings, progress, known: Known { hashes } }
    }

    fn list(&mut self) -> Result<(), Failure> {
        let files = listing::new_files(&self.settings, &self.known);
        // An input that was never there will not appear by trying again.
        let files = if self.progress.is_listed { files? } else { files.map_err(Failure::permanent)? };
        if self.settings.watching.is_some() {
            files.iter().for_each(|file| self.known.add(&file.path));
        }
        self.progress.files.extend(files);
        self.progress.is_listed = true;
        Ok(())
    }

    /// The next range, or nothing behind the last one of the last round.
    fn cut(&mut self) -> Option<FileRange> {
        let Progress { files, round, file, start, .. } = &mut self.progress;
        while *round < self.settings.rounds {
            while let Some(InputFile { path, length }) = files.get(*file) {
                if *start < *length {
                    let is_whole = self.settings.keeps_whole.is_some_and(|keeps_whole| keeps_whole(path));
                    let split_bytes = if is_whole { u64::MAX } else { self.settings.split_bytes };
                    let end = start.saturating_add(split_bytes).min(*length);
                    let range = FileRange {
                        path: path.clone(),
                        round: *round,
                        start: *start,
                        end,
                        offset: None,
                        length: *length,
                    };
                    *start = end;
                    return Some(range);
                }
                (*file, *start) = (*file + 1, 0);
            }
            if self.settings.watching.is_some() {
                break;
            }
            (*round, *file) = (*round + 1, 0);
        }
        None
    }
}

impl SplitEnumerator for TextFileEnumerator {
    type Split = FileRange;
    type State = FoundFiles;

    fn discover(&mut self) -> Result<Discovery<FileRange>, Failure> {
        let is_cut = self.progress.files.len() <= self.progress.file;
        if !self.progress.is_listed || (is_cut && self.settings.watching.is_some()) {
            self.list()?;
        }
        let mut splits = Vec::new();
        let mut next = Next::AtOnce;
        while splits.len() < RANGES_AT_ONCE {
            match self.cut() {
                Some(range) => splits.push(range),
                None => {
                    next = self.settings.watching.map_or(Next::Never, Next::After);
                    break;
                }
            }
        }
        if self.settings.rounds == 1 {
            self.progress.files.drain(..self.progress.file);
            self.progress.file = 0;
        }
        Ok(Discovery { splits, next })
    }

    fn state(&self) -> FoundFiles {
        let mut known: Vec<(u64, u64)> = self.known.hashes.iter().copied().collect();
        known.sort_unstable();
        FoundFiles { progress: self.progress.clone(), known }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use thalweg_runtime::split::SourceSplit;

    use super::*;
    use crate::files::listing::Root;

    fn settings(root: &Path, split_bytes: u64, rounds: u64, watching: Option<Duration>) -> Settings {
        Settings { split_bytes, rounds, watching, ..Settings::of(vec![Root::Path(root.to_path_buf())]) }
    }

    fn ids(found: &Discovery<FileRange>) -> Vec<String> {
        let name = |range: &FileRange| range.split_id().rsplit('/').next().unwrap().to_string();
        found.splits.iter().map(name).collect()
    }

    #[test]
    fn files_are_cut_in_their_order_round_by_round() {
        let root = tempfile::tempdir().unwrap();
        for (name, length) in [("b", 25), ("a", 10), ("empty", 0)] {
            fs::write(root.path().join(name), vec![b'x'; length]).unwrap();
        }
        let mut enumerator = TextFileEnumerator::new(settings(root.path(), 10, 2, None), None);
        let found = enumerator.discover().unwrap();
        assert_eq!(ids(&found), ["a:0", "b:0", "b:10", "b:20", "a:0#1", "b:0#1", "b:10#1", "b:20#1"]);
        assert_eq!(found.next, Next::Never);
        assert_eq!(found.splits[3].bytes(), 20..25);
        let mut none = TextFileEnumerator::new(settings(root.path(), 10, 0, None), None);
        assert_eq!(none.discover().unwrap(), Discovery { splits: vec![], next: Next::Never });
    }

    #[test]
    fn a_large_input_is_cut_bit_by_bit_also_over_restores() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), vec![b'x'; 10_000]).unwrap();
        let settings = settings(root.path(), 1, 1, None);
        let (mut restored, mut starts) = (None, Vec::new());
        for next in [Next::AtOnce, Next::AtOnce, Next::Never] {
            let mut enumerator = TextFileEnumerator::new(settings.clone(), restored);
            let found = enumerator.discover().unwrap();
            assert_eq!(found.next, next);
            starts.extend(found.splits.iter().map(|range| range.start));
            restored = Some(enumerator.state());
        }
        assert!(starts.into_iter().eq(0..10_000));
    }

    #[test]
    fn what_is_watched_is_remembered_by_hashes_and_found_once() {
        let root = tempfile::tempdir().unwrap();
        let interval = Duration::from_secs(1);
        let settings = settings(root.path(), 10, 1, Some(interval));
        let mut restored = None;
        for name in ["b", "a", "c"] {
            let mut enumerator = TextFileEnumerator::new(settings.clone(), restored);
            fs::write(root.path().join(name), "12345678901").unwrap();
            let found = enumerator.discover().unwrap();
            assert_eq!(ids(&found), [format!("{name}:0"), format!("{name}:10")]);
            assert_eq!(found.next, Next::After(interval));
            assert!(enumerator.discover().unwrap().splits.is_empty());
            assert!(enumerator.state().progress.files.is_empty(), "no path is kept");
            restored = Some(enumerator.state());
        }
        assert_eq!(restored.unwrap().known.len(), 3);
    }
}
