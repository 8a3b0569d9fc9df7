//! The checkpoint of a store: its files, linked into a directory, with their sizes and checksums.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ::rocksdb::checkpoint::Checkpoint;
use rustix::fs::{Advice, fadvise};
use xxhash_rust::xxh3::Xxh3;

use super::{Fault, RocksDb};
use crate::backend::StoreFile;
use crate::error::StoreError;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

impl RocksDb {
    pub(super) fn link_checkpoint(&self, directory: &Path) -> Result<Vec<StoreFile>, StoreError> {
        let fault = Fault { action: "checkpoint", operator: &self.operator, state: None, directory };
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| fault.of(&error))?;
        checkpoint.create_checkpoint(directory).map_err(|error| fault.of(&error))?;
        let mut known = self.known_files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|error| fault.io(&error))? {
            let entry = entry.map_err(|error| fault.io(&error))?;
            let size_bytes = entry.metadata().map_err(|error| fault.io(&error))?.len();
            let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            // Without a write-ahead log its file is empty.
            if size_bytes == 0 && name.ends_with(".log") {
                continue;
            }
            let is_shared = name.ends_with(".sst");
            let checksum = match known.get(&name).filter(|known| is_shared && known.size_bytes == size_bytes)
            {
                Some(known) => known.checksum,
                None => in_pieces(&path).and_then(checksum).map_err(|error| fault.io(&error))?,
            };
            files.push(StoreFile { name, path, size_bytes, checksum, is_shared, is_verified: false });
        }
        files.sort_by(|left, right| left.name.cmp(&right.name));
        *known = files
            .iter()
            .filter(|file| file.is_shared)
            .map(|file| (file.name.clone(), file.clone()))
            .collect();
        let size_bytes = files.iter().map(|file| file.size_bytes).sum();
        self.size_bytes.store(size_bytes, Ordering::Relaxed);
        Ok(files)
    }
}

/// A file that is read in no larger pieces than it is asked for: many a disk of a cloud's machines is read ahead by megabytes, and the task's
/// own reads would wait behind these.
fn in_pieces(path: &Path) -> std::io::Result<File> {
    let file = File::open(path)?;
    fadvise(&file, 0, None, Advice::Random)?;
    Ok(file)
}

/// xxh3 of the bytes of a file.
pub(super) fn checksum(mut file: File) -> std::io::Result<u64> {
    let mut hash = Xxh3::new();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hash.digest()),
            read => hash.update(&bytes[..read]),
        }
    }
}
