//! Files of this machine: what is being written and not there yet, and copies that know their checksum.
//!
//! Stands under the storage in a directory, and under the files that are read from and written for every storage.
//! Invariants: a file appears under its name whole or not at all; what a crash leaves behind has a
//! name that begins with [`TEMPORARY`]; a copy never holds more than one buffer of a file in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::UploadedFile;
use crate::limits::STORAGE_COPY_BYTES;

/// Begin of the names of files that are being written.
pub(super) const TEMPORARY: &str = ".thalweg-tmp-";

/// A name for a file that is being written; the file is deleted with this value unless it was renamed or is to be kept.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    pub(super) path: PathBuf,
    keep: bool,
}

impl TemporaryFile {
    /// A name in `directory` that nobody else has.
    pub(super) fn in_directory(directory: &Path) -> io::Result<Self> {
        let unique = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { path: directory.join(format!("{TEMPORARY}{unique:016x}")), keep: false })
    }

    /// The file, new and empty.
    pub(super) fn create(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(&self.path)
    }

    /// It has been renamed: there is nothing to delete.
    pub(super) fn renamed(mut self) {
        self.keep = true;
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.keep {
            // Whoever failed says so. What cannot be removed now is never listed, and goes with its directory.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that grows under a temporary name, and knows its size and checksum.
#[derive(Debug)]
pub(super) struct IncomingFile {
    file: File,
    temporary: TemporaryFile,
    target: PathBuf,
    content: Content,
}

impl IncomingFile {
    /// Begins the file that will be `target`, whose directory must exist.
    pub(super) fn begin(target: &Path) -> io::Result<Self> {
        let temporary = TemporaryFile::in_directory(directory_of(target))?;
        let file = temporary.create()?;
        Ok(Self { file, temporary, target: target.to_owned(), content: Content::default() })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.add(bytes);
        self.file.write_all(bytes)
    }

    /// What has been written so far.
    pub(super) fn so_far(&self) -> UploadedFile {
        self.content.so_far()
    }

    /// Brings the file to its place. It replaces what is there. Forcing it to the disk would take seconds per gigabyte, for a copy
    /// that nobody needs when this machine has crashed.
    pub(super) fn publish(self) -> io::Result<UploadedFile> {
        fs::rename(&self.temporary.path, &self.target)?;
        self.temporary.renamed();
        Ok(self.content.so_far())
    }
}

/// Size and checksum of bytes that pass by.
#[derive(Clone, Default)]
pub(super) struct Content {
    hasher: Box<Xxh3>,
    size: u64,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.so_far().fmt(formatter)
    }
}

impl Content {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) fn so_far(&self) -> UploadedFile {
        UploadedFile { size: self.size, checksum: self.hasher.digest() }
    }
}

/// Size and checksum of what remains in `source`, which is also written to `target`, piece by piece.
pub(super) fn copy(source: &mut impl Read, target: &mut impl Write) -> io::Result<UploadedFile> {
    let mut buffer = vec![0; STORAGE_COPY_BYTES];
    let mut content = Content::default();
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(content.so_far()),
            Ok(read) => {
                let bytes = buffer.get(..read).unwrap_or_default();
                content.add(bytes);
                target.write_all(bytes)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The directory that holds a file's name.
pub(super) fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a directory and those above it, so that they survive a crash of the machine.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
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
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
