//! What a job's output must be, computed plainly, and how the output differs from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Lines that are missing from the output and lines that are there too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference {
    /// Expected and not there.
    pub lost: u64,
    /// There more often than expected, or not expected at all.
    pub duplicated: u64,
}

/// The lines of all committed part files below `directory`, with how often each occurs.
///
/// # Errors
/// When a file cannot be read or ends in the middle of a line.
pub fn committed_lines(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut lines = BTreeMap::new();
    for text in committed_texts(directory)? {
        for line in text.lines() {
            *lines.entry(line.to_string()).or_default() += 1;
        }
    }
    Ok(lines)
}

/// The contents of all committed part files below `directory`, in no particular order.
///
/// # Errors
/// When a file cannot be read or ends in the middle of a line.
pub fn committed_texts(directory: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if !is_committed(&path) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            bail!("{} ends in the middle of a line: a partial file is visible", path.display());
        }
        texts.push(text);
    }
    Ok(texts)
}

/// Whether a path is a committed part file: others have hidden names.
pub(crate) fn is_committed(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    !is_hidden && path.is_file()
}

/// Compares output with what it must be, both as lines with how often each occurs.
pub fn compare(expected: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> Difference {
    let mut difference = Difference::default();
    for (line, wanted) in expected {
        difference.lost += wanted.saturating_sub(found.get(line).copied().unwrap_or(0));
    }
    for (line, count) in found {
        difference.duplicated += count.saturating_sub(expected.get(line).copied().unwrap_or(0));
    }
    difference
}

/// The updates of a running count: for every word `word 1`, `word 2`, ... up to how often it occurs.
pub fn running_counts<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut updates = BTreeMap::new();
    for word in words {
        let count = counts.entry(word).or_default();
        *count += 1;
        updates.insert(format!("{word} {count}"), 1);
    }
    updates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found() {
        let expected = running_counts(["a", "b", "a"]);
        assert_eq!(expected.len(), 3);
        let mut found = expected.clone();
        assert_eq!(compare(&expected, &found), Difference::default());
        found.remove("a 2");
        found.insert("b 1".into(), 3);
        found.insert("c 1".into(), 1);
        assert_eq!(compare(&expected, &found), Difference { lost: 1, duplicated: 3 });
    }
}
