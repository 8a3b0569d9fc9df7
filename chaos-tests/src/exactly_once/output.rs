//! Watches what the job commits: how much, and how long nothing came.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::oracle::is_committed;

/// The longest time without output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Silence {
    /// How long it was, in milliseconds.
    pub silence_ms: u64,
    /// When it ended, in milliseconds since the start of the watch.
    pub until_ms: u64,
}

/// The committed files of a job, as far as they were seen.
#[derive(Debug)]
pub struct Output {
    directory: PathBuf,
    seen: HashSet<String>,
    records: u64,
    last_ms: u64,
    longest: Silence,
}

impl Output {
    /// Nothing was seen yet; the watch starts with 0 ms.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let directory = directory.to_path_buf();
        Self { directory, seen: HashSet::new(), records: 0, last_ms: 0, longest: Silence::default() }
    }

    /// Looks for what is new.
    ///
    /// # Errors
    /// When a committed file cannot be read.
    pub fn look(&mut self, now_ms: u64) -> Result<()> {
        let before = self.records;
        // The job makes the directory.
        for entry in fs::read_dir(&self.directory).into_iter().flatten() {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if is_committed(&path) && !self.seen.contains(name) {
                self.records += fs::read(&path)?.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.seen.insert(name.to_owned());
            }
        }
        if self.records > before {
            let silence_ms = now_ms.saturating_sub(self.last_ms);
            if before > 0 && silence_ms > self.longest.silence_ms {
                self.longest = Silence { silence_ms, until_ms: now_ms };
            }
            self.last_ms = now_ms;
        }
        Ok(())
    }

    /// Committed lines.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// When something new was seen last, in milliseconds since the start of the watch.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// The longest time between two looks that saw something new.
    #[must_use]
    pub fn longest_silence(&self) -> Silence {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_committed_lines_count_and_the_longest_silence_is_between_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut output = Output::new(&directory.path().join("output"));
        output.look(1_000).unwrap();
        fs::create_dir(directory.path().join("output")).unwrap();
        let write =
            |name: &str, text: &str| fs::write(directory.path().join("output").join(name), text).unwrap();
        write(".part-0-0.pending.1.1", "a\nb\n");
        output.look(2_000).unwrap();
        assert_eq!((output.records(), output.last_ms()), (0, 0));
        write("part-0-0", "a\nb\n");
        output.look(5_000).unwrap();
        write("part-1-0", "c\n");
        output.look(5_500).unwrap();
        output.look(9_000).unwrap();
        write("part-0-1", "d\n");
        output.look(9_100).unwrap();
        assert_eq!((output.records(), output.last_ms()), (4, 9_100));
        assert_eq!(output.longest_silence(), Silence { silence_ms: 3_600, until_ms: 9_100 });
    }
}
