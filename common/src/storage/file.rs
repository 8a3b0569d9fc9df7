//! Blob storage in a directory: on a local disk, or on a mount that several machines share.
//!
//! An object is a file. It is written under a temporary name beside its place, forced to the disk, and then renamed (or
//! linked, if it must not replace another), and the directory is forced to the disk as well. So a reader sees the old
//! object, the new one, or none. What a crash leaves behind are files whose names begin with [`TEMPORARY`]; they are never
//! listed, and [`Storage::delete_prefix`] removes them with everything else.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::local::{
    IncomingFile, TEMPORARY, TemporaryFile, copy, directory_of, make_directory, sync_directory,
};
use super::path::{check_path, check_prefix};
use super::{NotDeleted, ObjectInfo, Storage, StorageError, UploadedFile};
use crate::limits::{STORAGE_COPY_BYTES, STORAGE_FREED_AT_ONCE_BYTES, STORAGE_FREED_PAUSE_MS};
use crate::task_scope;

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

    fn not_found(&self, path: &str) -> StorageError {
        StorageError::NotFound { path: path.to_owned(), storage: self.uri.to_string() }
    }

    fn copy_error(
        &self,
        local_operation: &'static str,
        local: &Path,
        operation: &'static str,
        path: &str,
        error: CopyError,
    ) -> StorageError {
        match error {
            CopyError::Local(reason) => {
                StorageError::LocalFile { operation: local_operation, file: local.to_owned(), reason }
            }
            CopyError::Storage(reason) => {
                StorageError::Io { operation, path: path.to_owned(), storage: self.uri.to_string(), reason }
            }
        }
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
            None => Err(self.not_found(path)),
        }
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        check_path(path)?;
        let object = path.to_owned();
        let (start, end) = (range.start, range.end);
        let found =
            self.run("read", path, move |root| none_if_absent(read_range(root, &object, &range))).await?;
        match found {
            Some(Some(bytes)) => Ok(Bytes::from(bytes)),
            Some(None) => {
                let (path, storage) = (path.to_owned(), self.uri.to_string());
                Err(StorageError::OutOfRange { path, storage, start, end })
            }
            None => Err(self.not_found(path)),
        }
    }

    async fn upload_file(
        &self,
        local: &Path,
        path: &str,
        known: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        check_path(path)?;
        let (object, file) = (path.to_owned(), local.to_owned());
        let outcome = self.run("write", path, move |root| Ok(upload(root, &object, &file, known))).await?;
        outcome.map_err(|error| self.copy_error("read", local, "write", path, error))
    }

    async fn download_file(
        &self,
        path: &str,
        local: &Path,
        expected: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        check_path(path)?;
        let (object, file) = (path.to_owned(), local.to_owned());
        let outcome = self.run("read", path, move |root| Ok(download(root, &object, &file))).await?;
        let incoming = outcome
            .map_err(|error| self.copy_error("write", local, "read", path, error))?
            .ok_or_else(|| self.not_found(path))?;
        super::check_content(incoming.so_far(), expected, path, &self.uri)?;
        let published = self.run("read", path, move |_| Ok(incoming.publish())).await?;
        published.map_err(|error| self.copy_error("write", local, "read", path, CopyError::Local(error)))
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

    async fn delete_many(&self, paths: &[String]) -> Result<(), StorageError> {
        for path in paths {
            check_path(path)?;
        }
        let mut left = Vec::from(paths).into_iter();
        let mut failed = Vec::new();
        while let Some(next) = left.as_slice().first().cloned() {
            let deleted = self.run("delete", &next, move |root| {
                let failed = delete_some(root, &mut left, STORAGE_FREED_AT_ONCE_BYTES)?;
                Ok((left, failed))
            });
            let some_failed;
            (left, some_failed) = deleted.await?;
            failed.extend(some_failed);
            if !left.as_slice().is_empty() {
                tokio::time::sleep(Duration::from_millis(STORAGE_FREED_PAUSE_MS)).await;
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(StorageError::NotDeleted {
            storage: self.uri.to_string(),
            total: paths.len(),
            failed,
            cause: None,
        })
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError> {
        let prefix = check_prefix(prefix)?.to_owned();
        self.run("delete", &prefix.clone(), move |root| delete_tree(&root.join(&prefix))).await
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.root)
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
    let temporary = TemporaryFile::in_directory(directory)?;
    let mut file = temporary.create()?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let outcome = publish(&temporary.path, target)?;
    temporary.renamed();
    // Already deleted again, with its directory: then there is nothing left to be forced to the disk.
    none_if_absent(sync_directory(directory))?;
    Ok(outcome)
}

/// A problem with the file that is copied, or with the storage it is copied to or from.
#[derive(Debug)]
enum CopyError {
    Local(io::Error),
    Storage(io::Error),
}

impl CopyError {
    fn is_missing_directory(&self) -> bool {
        matches!(self, Self::Storage(error) if error.kind() == ErrorKind::NotFound)
    }
}

/// Makes an object of a local file.
fn upload(
    root: &Path,
    object: &str,
    local: &Path,
    known: Option<UploadedFile>,
) -> Result<UploadedFile, CopyError> {
    let target = root.join(object);
    let directory = target.parent().unwrap_or(root);
    let mut attempt = 1;
    loop {
        match upload_once(directory, &target, local, known) {
            // As in `write`: the directory was deleted meanwhile.
            Err(error) if error.is_missing_directory() && attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn upload_once(
    directory: &Path,
    target: &Path,
    local: &Path,
    known: Option<UploadedFile>,
) -> Result<UploadedFile, CopyError> {
    let mut source = File::open(local).map_err(CopyError::Local)?;
    let metadata = source.metadata().map_err(CopyError::Local)?;
    if !metadata.is_file() {
        return Err(CopyError::Local(ErrorKind::IsADirectory.into()));
    }
    make_directory(directory).map_err(CopyError::Storage)?;
    let temporary = TemporaryFile::in_directory(directory).map_err(CopyError::Storage)?;
    let uploaded = if link(local, &temporary.path) {
        // It is the link that is read, and forced to the disk, whatever became of the name.
        let mut linked = File::open(&temporary.path).map_err(CopyError::Storage)?;
        let uploaded = match known.filter(|known| known.size == metadata.len()) {
            Some(known) => known,
            None => copy(&mut linked, &mut io::sink()).map_err(CopyError::Local)?,
        };
        // Its content and size: the new name changes the file, too, but is the directory's to be forced.
        linked.sync_data().map_err(CopyError::Storage)?;
        uploaded
    } else {
        let mut file = temporary.create().map_err(CopyError::Storage)?;
        let uploaded = copy(&mut source, &mut file).map_err(CopyError::Storage)?;
        file.sync_all().map_err(CopyError::Storage)?;
        uploaded
    };
    // `temporary` stays in charge of its name: where both names are links to the same file, renaming does nothing.
    fs::rename(&temporary.path, target).map_err(CopyError::Storage)?;
    drop(temporary);
    none_if_absent(sync_directory(directory)).map_err(CopyError::Storage)?;
    Ok(uploaded)
}

/// Gives a file a second name, if it is one and both names are on the same file system. Everything else is copied.
fn link(local: &Path, name: &Path) -> bool {
    fs::symlink_metadata(local).is_ok_and(|metadata| metadata.is_file()) && fs::hard_link(local, name).is_ok()
}

/// Copies an object to a temporary file beside `local`; nothing if there is none.
fn download(root: &Path, object: &str, local: &Path) -> Result<Option<IncomingFile>, CopyError> {
    let found = none_if_absent(open_object(root, object)).map_err(CopyError::Storage)?;
    let Some(mut source) = found else { return Ok(None) };
    let mut incoming = IncomingFile::begin(local).map_err(CopyError::Local)?;
    let mut buffer = vec![0; STORAGE_COPY_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(Some(incoming)),
            Ok(read) => {
                incoming.append(buffer.get(..read).unwrap_or_default()).map_err(CopyError::Local)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Storage(error)),
        }
    }
}

/// Opens an object; a directory is none.
fn open_object(root: &Path, object: &str) -> io::Result<File> {
    let file = File::open(root.join(object))?;
    if file.metadata()?.is_dir() { Err(ErrorKind::IsADirectory.into()) } else { Ok(file) }
}

/// Reads a part of an object; nothing if it does not have these bytes.
fn read_range(root: &Path, object: &str, range: &Range<u64>) -> io::Result<Option<Vec<u8>>> {
    let mut file = open_object(root, object)?;
    if range.start > range.end || range.end > file.metadata()?.len() {
        return Ok(None);
    }
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes))
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

/// Deletes the next objects, until `at_once` bytes are free again on the disk, and tells which cannot be deleted.
fn delete_some(
    root: &Path,
    paths: &mut impl Iterator<Item = String>,
    at_once: u64,
) -> io::Result<Vec<NotDeleted>> {
    let (mut freed, mut failed) = (0, Vec::new());
    for path in paths {
        let file = root.join(&path);
        // A file that has another name as well keeps its room.
        freed += fs::symlink_metadata(&file).map_or(0, |file| if file.nlink() == 1 { file.len() } else { 0 });
        if let Err(error) = none_if_absent(fs::remove_file(&file)) {
            failed.push(NotDeleted { path, reason: error.to_string() });
        }
        if freed >= at_once {
            // Only then the file system frees the room, or with whatever else is forced to the disk, all at once.
            none_if_absent(sync_directory(directory_of(&file)))?;
            break;
        }
    }
    Ok(failed)
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
