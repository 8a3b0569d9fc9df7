//! What the job has written, and whether it is exactly what it should be.
//!
//! The job writes a line `word n` when it has seen the word for the n-th time. Exactly once means: for every word each n
//! from 1 to the word's number of occurrences, once. A missing line was lost, a second one is a duplicate, and any other
//! line should not be there. Invariant: only committed files are read; hidden ones are none of a reader's business.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::words::WordCounts;

/// How many wrong lines are quoted.
const QUOTED: usize = 5;

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    pub records: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// Lines that no input explains.
    pub unexpected: u64,
    /// Some of the wrong lines.
    pub examples: Vec<String>,
    /// The highest count of each word: the job's result.
    pub result: WordCounts,
}

/// The bytes that are visible to a reader of the directory now. None before the job has made it.
pub fn committed_bytes(directory: &Path) -> u64 {
    committed_files(directory)
        .unwrap_or_default()
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Compares the committed files with what a plain count says.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(directory: &Path, expected: &WordCounts) -> Result<Verdict> {
    let mut words: HashMap<&[u8], Occurrences> =
        expected.iter().map(|(word, total)| (word.as_bytes(), Occurrences::none_of(total))).collect();
    let mut verdict = Verdict::default();
    for path in committed_files(directory)? {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot read {}", path.display()))?
            > 0
        {
            verdict.records += 1;
            let complete = line.pop_if(|byte| *byte == b'\n').is_some();
            match parse(&line).and_then(|(word, count)| Some((words.get_mut(word)?, count))) {
                Some((occurrences, count)) if complete && occurrences.is_possible(count) => {
                    if !occurrences.see(count) {
                        verdict.duplicated += 1;
                        verdict.quote("twice", &path, &line);
                    }
                }
                _ => {
                    verdict.unexpected += 1;
                    verdict.quote("unexpected", &path, &line);
                }
            }
            line.clear();
        }
    }
    for (word, total) in expected.iter() {
        let occurrences = &words[word.as_bytes()];
        verdict.lost += total - occurrences.seen;
        if let Some(missing) = occurrences.first_missing() {
            verdict.quote("lost", directory, format!("{word} {missing}").as_bytes());
        }
    }
    verdict.result = words
        .iter()
        .filter(|(_, occurrences)| occurrences.highest > 0)
        .map(|(word, occurrences)| (String::from_utf8_lossy(word).into_owned(), occurrences.highest))
        .collect();
    Ok(verdict)
}

impl Verdict {
    /// Whether every record was counted exactly once.
    ///
    /// # Errors
    /// Says how many were not.
    pub fn check(&self) -> Result<()> {
        let Self { lost, duplicated, unexpected, .. } = self;
        if lost + duplicated + unexpected > 0 {
            bail!("the result is wrong: {lost} lost, {duplicated} duplicated, {unexpected} unexpected");
        }
        Ok(())
    }

    /// Quotes some of the wrong lines, if there are any.
    pub fn print_examples(&self) {
        for example in &self.examples {
            eprintln!("    {example}");
        }
    }

    fn quote(&mut self, what: &str, path: &Path, line: &[u8]) {
        if self.examples.len() < QUOTED {
            self.examples.push(format!("{what}: {:?} in {}", String::from_utf8_lossy(line), path.display()));
        }
    }
}

/// Which of a word's occurrences have been seen.
struct Occurrences {
    total: u64,
    seen: u64,
    highest: u64,
    bits: Vec<u64>,
}

impl Occurrences {
    fn none_of(total: u64) -> Self {
        // Total is the number of words read from files, which fits into memory many times.
        Self { total, seen: 0, highest: 0, bits: vec![0; (total / 64 + 1) as usize] }
    }

    fn is_possible(&self, count: u64) -> bool {
        (1..=self.total).contains(&count)
    }

    /// Whether it is the first time.
    fn see(&mut self, count: u64) -> bool {
        let (word, bit) = ((count / 64) as usize, 1 << (count % 64));
        let first = self.bits[word] & bit == 0;
        if first {
            self.bits[word] |= bit;
            self.seen += 1;
            self.highest = self.highest.max(count);
        }
        first
    }

    fn first_missing(&self) -> Option<u64> {
        (1..=self.total).find(|count| self.bits[(count / 64) as usize] & (1 << (count % 64)) == 0)
    }
}

/// `word n`, with one space.
fn parse(line: &[u8]) -> Option<(&[u8], u64)> {
    let space = line.iter().rposition(|&byte| byte == b' ')?;
    let digits = &line[space + 1..];
    if digits.is_empty() || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((&line[..space], std::str::from_utf8(digits).ok()?.parse().ok()?))
}

/// All visible files, sorted.
fn committed_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
        if !is_hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn output(files: &[(&str, &str)]) -> TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("file");
        }
        directory
    }

    fn expected() -> WordCounts {
        [("a".to_owned(), 3), ("b".to_owned(), 1)].into_iter().collect()
    }

    #[test]
    fn a_complete_output_in_any_order_is_exactly_once() {
        let directory = output(&[("part-0-0", "a 1\na 3\n"), ("part-1-0", "b 1\na 2\n"), ("part-1-1", "")]);
        let verdict = verify(directory.path(), &expected()).expect("readable");
        verdict.check().expect("exactly once");
        assert_eq!(verdict.records, 4);
        assert_eq!(verdict.result, expected());
        assert_eq!(committed_bytes(directory.path()), expected().output_bytes());
    }

    #[test]
    fn what_is_missing_is_lost_even_when_a_higher_count_is_there() {
        let directory = output(&[("part-0-0", "a 1\na 3\n")]);
        let verdict = verify(directory.path(), &expected()).expect("readable");
        assert_eq!((verdict.lost, verdict.duplicated, verdict.unexpected), (2, 0, 0));
        assert!(verdict.examples.iter().any(|example| example.contains("a 2")), "{:?}", verdict.examples);
    }

    #[test]
    fn what_is_there_twice_is_duplicated() {
        let directory = output(&[("part-0-0", "a 1\na 2\na 3\nb 1\n"), ("part-1-0", "a 2\nb 1\n")]);
        let verdict = verify(directory.path(), &expected()).expect("readable");
        assert_eq!((verdict.lost, verdict.duplicated, verdict.unexpected), (0, 2, 0));
    }

    #[test]
    fn lines_that_no_input_explains_are_counted() {
        let rubbish = "c 1\na 4\na 0\na\na 01\n\na 1 \na x\n";
        let directory =
            output(&[("part-0-0", "a 1\na 2\na 3\nb 1\n"), ("part-1-0", rubbish), ("part-2-0", "b 1")]);
        let verdict = verify(directory.path(), &expected()).expect("readable");
        assert_eq!((verdict.lost, verdict.duplicated), (0, 0));
        assert_eq!(verdict.unexpected, 9, "an unfinished last line is one of them: {:?}", verdict.examples);
        assert!(verdict.check().is_err());
    }

    #[test]
    fn hidden_files_do_not_count() {
        let directory =
            output(&[("part-0-0", "a 1\na 2\na 3\nb 1\n"), (".part-0-1.pending", "a 1\n"), ("_x", "a 1\n")]);
        verify(directory.path(), &expected()).expect("readable").check().expect("exactly once");
    }

    #[test]
    fn a_directory_that_is_not_there_yet_has_nothing_committed() {
        let directory = output(&[]);
        let missing = directory.path().join("missing");
        assert_eq!(committed_bytes(&missing), 0);
        assert!(verify(&missing, &expected()).is_err());
    }
}
