//! Finds the input files: a path may be a file or a directory, which is searched to its depths, or a prefix on S3.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::limits::{MAX_DIRECTORY_DEPTH, MAX_INPUT_FILES};
use thalweg_common::storage::Storage;
use thalweg_runtime::io::Io;

use super::enumerator::{InputFile, Known};
use super::error::{absolute, failed};
use super::source::Settings;

/// The files at `roots` that are not in `known`, sorted by path.
///
/// In directories, names that start with `.` or `_` are hidden, as in Flink: whoever writes there gives a file its real
/// name only when it is complete. A path that was given by name is always read.
pub(super) fn new_files(settings: &Settings, known: &Known) -> Result<Vec<InputFile>, Failure> {
    let mut found = BTreeMap::new();
    for root in &settings.roots {
        let root = match root {
            Root::Path(root) => root,
            Root::Bucket(bucket) => {
                bucket.list(settings, known, &mut found)?;
                continue;
            }
        };
        let metadata = fs::metadata(root).map_err(|error| failed("read the input", root, &error))?;
        if metadata.is_dir() {
            list_directory(root, root, 0, settings, known, &mut found)?;
        } else if metadata.is_file() {
            add(root, metadata.len(), known, &mut found)?;
        } else {
            let path = absolute(root);
            return Err(Failure::user(format!(
                "the input {} is neither a file nor a directory",
                path.display()
            )));
        }
    }
    Ok(found.into_iter().map(|(path, length)| InputFile { path, length }).collect())
}

fn list_directory(
    root: &Path,
    directory: &Path,
    depth: usize,
    settings: &Settings,
    known: &Known,
    found: &mut BTreeMap<String, u64>,
) -> Result<(), Failure> {
    if depth > MAX_DIRECTORY_DEPTH {
        let path = absolute(directory);
        return Err(Failure::user(format!(
            "the input directory {} is nested deeper than {MAX_DIRECTORY_DEPTH} levels; does a symbolic link lead back?",
            path.display()
        )));
    }
    for entry in fs::read_dir(directory).map_err(|error| failed("list", directory, &error))? {
        let entry = entry.map_err(|error| failed("list", directory, &error))?;
        if is_hidden(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                list_directory(root, &path, depth + 1, settings, known, found)?
            }
            Ok(metadata) if metadata.is_file() => {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
                if settings.is_wanted(&relative) {
                    add(&path, metadata.len(), known, found)?;
                }
            }
            // Sockets, pipes and devices are no input.
            Ok(_) => {}
            // Removed or renamed since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read the input", &path, &error)),
        }
    }
    Ok(())
}

fn add(path: &Path, length: u64, known: &Known, found: &mut BTreeMap<String, u64>) -> Result<(), Failure> {
    let Some(text) = path.to_str() else {
        return Err(Failure::user(format!(
            "the name of the input file {} is not UTF-8; rename it",
            absolute(path).display()
        )));
    };
    insert(text, length, known, found)
}

fn insert(path: &str, length: u64, known: &Known, found: &mut BTreeMap<String, u64>) -> Result<(), Failure> {
    if !known.contains(path) {
        found.insert(path.to_string(), length);
    }
    if known.len() + found.len() > MAX_INPUT_FILES {
        return Err(Failure::user(format!(
            "the input has more than {MAX_INPUT_FILES} files; join small files or read fewer directories"
        )));
    }
    Ok(())
}

/// Where input files are.
#[derive(Debug, Clone)]
pub(super) enum Root {
    /// A file or directory of this machine.
    Path(PathBuf),
    /// An object, or all below a prefix.
    Bucket(Bucket),
}

/// An object or a prefix of a bucket.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) prefix: String,
    pub(super) io: Io,
}

impl Bucket {
    fn list(
        &self,
        settings: &Settings,
        known: &Known,
        found: &mut BTreeMap<String, u64>,
    ) -> Result<(), Failure> {
        let listed = self.io.wait_for(self.storage.list(&self.prefix))?;
        for object in listed.map_err(|error| Failure::from(&error))? {
            let below = object.path.strip_prefix(&self.prefix).unwrap_or(&object.path);
            let relative = below.strip_prefix('/').unwrap_or(below);
            // One that was given by name is always read.
            let is_read =
                relative.is_empty() || !relative.split('/').any(is_hidden) && settings.is_wanted(relative);
            if is_read {
                insert(&format!("{}/{}", self.storage.uri(), object.path), object.size, known, found)?;
            }
        }
        Ok(())
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn of(roots: Vec<PathBuf>) -> Settings {
        Settings::of(roots.into_iter().map(Root::Path).collect())
    }

    fn names(files: &[InputFile], root: &Path) -> Vec<String> {
        files
            .iter()
            .map(|file| file.path.strip_prefix(root.to_str().unwrap()).unwrap()[1..].to_string())
            .collect()
    }

    #[test]
    fn directories_are_searched_and_hidden_names_are_skipped() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        fs::create_dir_all(root.path().join("_temporary")).unwrap();
        for name in ["b/c/two", "a", "b/one", ".hidden", "_SUCCESS", "b/.part-0-0.inprogress", "_temporary/x"]
        {
            fs::write(root.path().join(name), name).unwrap();
        }
        let files = new_files(&of(vec![root.path().to_path_buf()]), &Known::default()).unwrap();
        assert_eq!(names(&files, root.path()), ["a", "b/c/two", "b/one"]);
        assert_eq!(files[1].length, 7);

        let mut known = Known::default();
        known.add(&files[0].path);
        let files = new_files(&of(vec![root.path().to_path_buf()]), &known).unwrap();
        assert_eq!(names(&files, root.path()), ["b/c/two", "b/one"]);
    }

    #[test]
    fn a_file_given_by_name_is_read_even_if_hidden_and_only_once() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(".hidden");
        fs::write(&path, "x").unwrap();
        let files = new_files(&of(vec![path.clone(), path.clone()]), &Known::default()).unwrap();
        assert_eq!(names(&files, root.path()), [".hidden"]);
    }

    #[test]
    fn a_missing_path_is_named_with_a_cure() {
        let root = tempfile::tempdir().unwrap();
        let failure = new_files(&of(vec![root.path().join("nothing")]), &Known::default()).unwrap_err();
        assert!(failure.message.contains("nothing: No such file"), "{failure}");
        assert!(failure.message.contains("every machine that runs a task manager"), "{failure}");
    }

    #[test]
    fn a_link_that_leads_back_is_an_error_and_no_endless_loop() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        let failure = new_files(&of(vec![root.path().to_path_buf()]), &Known::default()).unwrap_err();
        assert!(failure.message.contains("loop"), "{failure}");
    }
}
