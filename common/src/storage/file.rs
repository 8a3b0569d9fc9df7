//! Blob storage in a directory: on a local disk, or on a mount that several machines share.
//!
//! An object is a file. It is written under a temporary name beside its place, forced to the disk, and then renamed (or
//! linked, if it must not replace another), and the directory is forced to the disk as well. So a reader sees the old
//! object, the new one, or none. What a crash leaves behind are files whose names begin with [`TEMPORARY`]; they are never
//! listed, and [`Storage::delete_prefix`] removes them with everything else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectInfo, Storage, StorageError, check_path, check_prefix};
use crate::task_scope;

/// Begin of the names of files that are being written.
pub(super) const TEMPORARY: &str = ".thalweg-tmp-";

/// How often a write or a deletion starts over when the other one changes a directory under its hands.
const ATTEMPTS: usize = 8;

/// Objects as files below a directory.
#[derive(Debug, Clone)]
pub struct FileStorage {
    root: Arc<Path>,
    uri: Arc<str>,
}

impl FileStorage {
    /// The storage below the directory `root`, which is made when the first object is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root: PathBuf = root.into();
        let uri = format!("file://{}", root.display());
        Self { root: root.into(), uri: uri.into() }
    }

    /// The directory below which the objects are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a file operation where it may block, and says in its error what was tried.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let root = Arc::clone(&self.root);
        match task_scope::blocking(operation, move || work(&root)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(reason)) => Err(StorageError::Io {
                operation,
                path: path.to_owned(),
                storage: self.uri.to_string(),
                reason,
            }),
            Err(reason) => Err(StorageError::BrokenOff {
                operation,
                path: path.to_owned(),
                storage: self.uri.to_string(),
                reason,
            }),
        }
    }
}

#[async_trait]
impl Storage for FileStorage {
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StorageError> {
        check_path(path)?;
        let object = path.to_owned();
        self.run("write", path, move |root| write(root, &object, &bytes, replace)).await
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, StorageError> {
        check_path(path)?;
        let object = path.to_owned();
        self.run("write", path, move |root| write(root, &object, &bytes, keep_the_first)).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StorageError> {
        check_path(path)?;
        let object = path.to_owned();
        let found = self.run("read", path, move |root| none_if_absent(fs::read(root.join(object)))).await?;
        match found {
            Some(bytes) => Ok(Bytes::from(bytes)),
            None => Err(StorageError::NotFound { path: path.to_owned(), storage: self.uri.to_string() }),
        }
    }

    async fn exists(&self, path: &str) -> Result<bool, StorageError> {
        check_path(path)?;
        let object = path.to_owned();
        let found =
            self.run("look for", path, move |root| none_if_absent(fs::metadata(root.join(object)))).await?;
        Ok(found.is_some_and(|metadata| metadata.is_file()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let prefix = check_prefix(prefix)?.to_owned();
        self.run("list", &prefix.clone(), move |root| list(root, &prefix)).await
    }

    async fn delete(&self, path: &str) -> Result<(), StorageError> {
        check_path(path)?;
        let object = path.to_owned();
        self.run("delete", path, move |root| none_if_absent(fs::remove_file(root.join(object))).map(drop))
            .await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError> {
        let prefix = check_prefix(prefix)?.to_owned();
        self.run("delete", &prefix.clone(), move |root| delete_tree(&root.join(&prefix))).await
    }

    fn uri(&self) -> &str {
        &self.uri
    }
}

/// Brings a complete temporary file to its place, and says whether it did.
type Publish<T> = fn(temporary: &Path, target: &Path) -> io::Result<T>;

fn replace(temporary: &Path, target: &Path) -> io::Result<()> {
    fs::rename(temporary, target)
}

/// A hard link, other than a rename, never replaces what is there.
fn keep_the_first(temporary: &Path, target: &Path) -> io::Result<bool> {
    let linked = match fs::hard_link(temporary, target) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists && target.is_file() => false,
        Err(error) => return Err(error),
    };
    fs::remove_file(temporary)?;
    Ok(linked)
}

/// Writes an object durably.
fn write<T>(root: &Path, object: &str, bytes: &[u8], publish: Publish<T>) -> io::Result<T> {
    let target = root.join(object);
    let directory = target.parent().unwrap_or(root);
    let mut attempt = 1;
    loop {
        match write_once(directory, &target, bytes, publish) {
            // The directory was deleted between its making and its use: the object is newer than the deletion.
            Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn write_once<T>(directory: &Path, target: &Path, bytes: &[u8], publish: Publish<T>) -> io::Result<T> {
    make_directory(directory)?;
    let temporary = TemporaryFile::write(directory, bytes)?;
    let outcome = publish(&temporary.path, target)?;
    temporary.keep();
    // Already deleted again, with its directory: then there is nothing left to be forced to the disk.
    none_if_absent(sync_directory(directory))?;
    Ok(outcome)
}

/// A complete file under a temporary name; deleted unless it is published.
struct TemporaryFile {
    path: PathBuf,
    published: bool,
}

impl TemporaryFile {
    fn write(directory: &Path, bytes: &[u8]) -> io::Result<Self> {
        let unique = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let path = directory.join(format!("{TEMPORARY}{unique:016x}"));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let temporary = Self { path, published: false };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn keep(mut self) {
        self.published = true;
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.published {
            // The write has failed and says so. What cannot be removed now is never listed, and goes with its directory.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a directory and those above it, so that they survive a crash of the machine.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => parent.map_or(Ok(()), sync_directory),
    }
}

/// Forces the names in a directory to the disk.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Objects at and below a prefix, by path.
fn list(root: &Path, prefix: &str) -> io::Result<Vec<ObjectInfo>> {
    let mut found = Vec::new();
    let mut directories = Vec::new();
    let start = if prefix.is_empty() { root.to_owned() } else { root.join(prefix) };
    match none_if_absent(fs::metadata(&start))? {
        None => return Ok(found),
        Some(metadata) if metadata.is_dir() => directories.push((start, prefix.to_owned())),
        Some(metadata) => found.push(ObjectInfo { path: prefix.to_owned(), size: metadata.len() }),
    }
    while let Some((directory, path)) = directories.pop() {
        // Directories and files may be deleted while they are listed.
        let Some(entries) = none_if_absent(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let Some(entry) = none_if_absent(entry)? else { continue };
            let name = entry.file_name();
            // No object has a name that is not UTF-8.
            let Some(name) = name.to_str().filter(|name| !name.starts_with(TEMPORARY)) else { continue };
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            let Some(metadata) = none_if_absent(entry.metadata())? else { continue };
            if metadata.is_dir() {
                directories.push((entry.path(), path));
            } else if metadata.is_file() {
                found.push(ObjectInfo { path, size: metadata.len() });
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Deletes a file or a directory with everything in it. New files may appear in it meanwhile.
fn delete_tree(path: &Path) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        let Some(metadata) = none_if_absent(fs::symlink_metadata(path))? else { return Ok(()) };
        let outcome = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match outcome {
            // Somebody else wrote or deleted in there, which ended this pass before it had seen everything.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty)
                    && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => return outcome,
        }
    }
}

/// A file or directory that does not exist is an answer here, and no error. The same for a path that leads through an
/// object as if it were a directory, or to a directory as if it were an object.
fn none_if_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
