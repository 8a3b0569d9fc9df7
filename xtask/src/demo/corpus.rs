//! The demonstration's input: this repository's own sources and documents.
//!
//! They are copied once, so that editing a file while the demonstration runs changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::words::WordCounts;
use crate::structure::files;

const EXTENSIONS: [&str; 4] = ["md", "proto", "rs", "toml"];

/// The text to count.
#[derive(Debug)]
pub struct Corpus {
    pub directory: PathBuf,
    pub files: usize,
    pub bytes: usize,
    /// Counted by one thread, file after file.
    pub counts: WordCounts,
}

impl Corpus {
    /// Copies the texts below `root` into a directory and counts their words.
    ///
    /// # Errors
    /// When a file cannot be read or written, or there is none.
    pub fn copy(root: &Path, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let directory = directory.to_path_buf();
        let mut corpus = Self { directory, files: 0, bytes: 0, counts: WordCounts::default() };
        for file in files::list(root)? {
            let is_text =
                file.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
            if !is_text {
                continue;
            }
            let Some(text) = files::read(root, &file) else { continue };
            let copy = corpus.directory.join(flat_name(&file));
            fs::write(&copy, &text).with_context(|| format!("cannot write {}", copy.display()))?;
            corpus.files += 1;
            corpus.bytes += text.len();
            corpus.counts.add_text(&text);
        }
        if corpus.counts.total() == 0 {
            bail!("{} holds no text to count", root.display());
        }
        Ok(corpus)
    }
}

/// A name for a flat directory that no other file gets and that is not hidden.
fn flat_name(file: &Path) -> String {
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    format!("text-{}", parts.join("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_copied_and_counted_and_other_files_are_not() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("src")).expect("directory");
        fs::write(root.path().join("README.md"), "Two words").expect("file");
        fs::write(root.path().join("src/lib.rs"), "two").expect("file");
        fs::write(root.path().join("picture.png"), "two").expect("file");
        let input = tempfile::tempdir().expect("a temporary directory");
        let corpus = Corpus::copy(root.path(), input.path()).expect("copied");
        assert_eq!((corpus.files, corpus.bytes, corpus.counts.total()), (2, 12, 3));
        assert_eq!(fs::read_to_string(input.path().join("text-src--lib.rs")).expect("copied"), "two");
    }
}
