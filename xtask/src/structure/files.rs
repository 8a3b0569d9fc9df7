//! The files of the checkout: what git tracks or would track.
//!
//! Without git (an unpacked archive) the directories are walked instead. Invariant: build output is never among them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Directories that hold what others made, looked at only when git cannot tell.
const NOT_OURS: [&str; 3] = [".git", "target", "node_modules"];

/// Files larger than this are data, not text that somebody wrote.
const LARGEST_TEXT_BYTES: u64 = 1 << 20;

/// All files, relative to the root and sorted.
///
/// # Errors
/// When a directory cannot be read.
pub fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = match list_by_git(root) {
        Some(files) => files,
        None => {
            let mut files = Vec::new();
            walk(root, Path::new(""), &mut files)?;
            files
        }
    };
    files.sort();
    files.dedup();
    Ok(files)
}

/// The contents, when the file still exists and is text.
pub fn read(root: &Path, file: &Path) -> Option<String> {
    let path = root.join(file);
    let metadata = fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > LARGEST_TEXT_BYTES {
        return None;
    }
    String::from_utf8(fs::read(path).ok()?).ok().filter(|text| !text.contains('\0'))
}

fn list_by_git(root: &Path) -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let names = String::from_utf8(output.stdout).ok()?;
    Some(names.split_terminator('\0').map(PathBuf::from).collect())
}

fn walk(root: &Path, relative: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let directory = root.join(relative);
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let path = relative.join(entry.file_name());
        let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_file() {
            files.push(path);
        } else if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walking_skips_what_others_made() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for file in ["src/lib.rs", "target/debug/generated.rs", ".git/config", "README.md"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("files lie in directories")).expect("directory");
            fs::write(path, "text").expect("file");
        }
        let mut files = Vec::new();
        walk(root.path(), Path::new(""), &mut files).expect("readable");
        files.sort();
        assert_eq!(files, [PathBuf::from("README.md"), PathBuf::from("src/lib.rs")]);
    }

    #[test]
    fn only_text_is_read() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::write(root.path().join("text"), "words").expect("file");
        fs::write(root.path().join("binary"), b"\x7fELF\0\0").expect("file");
        assert_eq!(read(root.path(), Path::new("text")).as_deref(), Some("words"));
        assert_eq!(read(root.path(), Path::new("binary")), None);
        assert_eq!(read(root.path(), Path::new("deleted")), None);
    }
}
