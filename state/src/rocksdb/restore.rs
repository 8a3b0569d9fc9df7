//! Opening a store with the files of checkpoints: of one with the same key groups, or of several with others.
//!
//! The checkpoint that has most of the wanted groups is linked and opened, and what it has too much is deleted by ranges. From
//! the others the wanted groups are read in order into sorted files, which are taken in as they are. Nothing is inserted key
//! by key. Invariant: the files that are restored from are never changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ::rocksdb::{DB, SstFileWriter};
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange};
use thalweg_common::limits::MAX_RESTORED_FILE_BYTES;

use super::{Fault, RocksDb, RocksDbOptions, STATE_PREFIX, scan};
use crate::backend::{StoreDescription, StoreFiles};
use crate::cache::batch::put_group;
use crate::error::{RestoreError, StoreError};

impl RocksDb {
    /// Opens a store with the entries of the wanted key groups, from the files of all checkpoints that have some. The files may
    /// be anywhere on local disks; they are linked where that is possible, else copied.
    ///
    /// # Errors
    /// When the states have changed, or a file is missing, damaged or cannot be read.
    pub fn restore(
        options: &RocksDbOptions,
        wanted: &StoreDescription,
        sources: &[StoreFiles],
    ) -> Result<Self, RestoreError> {
        let mut sources: Vec<_> = sources.iter().map(|source| (overlap(source, wanted), source)).collect();
        sources.retain(|(groups, _)| groups.start < groups.end);
        sources.sort_by_key(|(groups, _)| std::cmp::Reverse(groups.end - groups.start));
        for (_, source) in &sources {
            check(&options.operator, &source.description, wanted)?;
        }
        let Some(((_, base), others)) = sources.split_first() else { return Ok(Self::create(options)?) };
        place(options, base, &options.directory)?;
        let store = Self::open(options, false)?;
        store.clip(base.description.groups, wanted.groups)?;
        for (number, (groups, source)) in others.iter().enumerate() {
            let directory = options.directory.join(format!("restored-{number}"));
            place(options, source, &directory)?;
            store.import(options, &directory, &source.description.descriptors, *groups)?;
            std::fs::remove_dir_all(&directory).map_err(|error| store.fault("restore").io(&error))?;
        }
        // Files that are known need no checksum, and no upload, with the next checkpoint.
        let known = base.files.iter().filter(|file| file.is_shared);
        *store.known_files.lock().unwrap_or_else(PoisonError::into_inner) =
            known.map(|file| (file.name.clone(), file.clone())).collect();
        let size_bytes = sources.iter().map(|(_, source)| source.size_bytes()).sum();
        store.size_bytes.store(size_bytes, Ordering::Relaxed);
        Ok(store)
    }

    /// Deletes the groups that are there and not wanted.
    fn clip(&self, there: KeyGroupRange, wanted: KeyGroupRange) -> Result<(), StoreError> {
        let fault = self.fault("restore");
        for (from, to) in
            [(there.start, wanted.start.min(there.end)), (wanted.end.max(there.start), there.end)]
        {
            if from >= to {
                continue;
            }
            // The end of a range of files belongs to it: it must not be the place of an empty key.
            let last = [bound(to - 1), vec![u8::MAX]].concat();
            let (from, to) = (bound(from), bound(to));
            for state in 0..self.families.len() {
                let family = self.family(state)?;
                // Whole files go at once; the rest is hidden now and goes with the next compactions.
                self.db.delete_file_in_range_cf(family, &from, &last).map_err(|error| fault.of(&error))?;
                let mut deleted = rocksdb::WriteBatch::default();
                deleted.delete_range_cf(family, &from, &to);
                self.db.write_opt(deleted, &super::unlogged()).map_err(|error| fault.of(&error))?;
            }
        }
        Ok(())
    }

    /// Takes in some groups of another store.
    fn import(
        &self,
        options: &RocksDbOptions,
        directory: &Path,
        states: &[StateDescriptor],
        groups: KeyGroupRange,
    ) -> Result<(), StoreError> {
        let fault = Fault { action: "restore", operator: &self.operator, state: None, directory };
        let database = options.settings.database(&options.memory);
        let families = DB::list_cf(&database, directory).map_err(|error| fault.of(&error))?;
        let opened = families.iter().map(|name| (name.as_str(), self.family_options.clone()));
        let source = DB::open_cf_with_opts_for_read_only(&database, directory, opened, false)
            .map_err(|error| fault.of(&error))?;
        for state in states {
            let name = format!("{STATE_PREFIX}{}", state.name);
            let target = self.families.iter().position(|family| *family == name);
            let (Some(target), Some(family)) = (target, source.cf_handle(&name)) else { continue };
            let mut clip = Clip { store: self, state: target, file: None, number: 0 };
            let (from, to) = (bound(groups.start), bound(groups.end));
            let mut add = |key: &[u8], value: &[u8]| clip.add(key, value);
            scan(&source, family, (&from, Some(to)), usize::MAX, &fault, &mut add)?;
            clip.finish()?;
        }
        Ok(())
    }
}

/// Writes entries that come in order into files and takes them in.
struct Clip<'a> {
    store: &'a RocksDb,
    state: usize,
    file: Option<(SstFileWriter<'a>, PathBuf, usize)>,
    number: usize,
}

impl Clip<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let store = self.store;
        let fault = store.fault("restore");
        let (mut writer, path, bytes) = match self.file.take() {
            Some(file) => file,
            None => {
                let path = store.directory.join(format!("clip-{}-{}", self.state, self.number));
                self.number += 1;
                let writer = SstFileWriter::create(&store.family_options);
                writer.open(&path).map_err(|error| fault.of(&error))?;
                (writer, path, 0)
            }
        };
        writer.put(key, value).map_err(|error| fault.of(&error))?;
        self.file = Some((writer, path, bytes + key.len() + value.len()));
        if bytes >= MAX_RESTORED_FILE_BYTES {
            self.finish()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        let Some((mut writer, path, _)) = self.file.take() else { return Ok(()) };
        writer.finish().map_err(|error| self.store.fault("restore").of(&error))?;
        self.store.ingest_file(self.state, path)
    }
}

/// The groups that a checkpoint has of those that are wanted.
fn overlap(source: &StoreFiles, wanted: &StoreDescription) -> KeyGroupRange {
    let (there, wanted) = (source.description.groups, wanted.groups);
    KeyGroupRange { start: there.start.max(wanted.start), end: there.end.min(wanted.end) }
}

/// Where the entries of a group begin.
fn bound(group: KeyGroup) -> Vec<u8> {
    let mut bound = Vec::new();
    put_group(&mut bound, group);
    bound
}

/// Whether the states of a checkpoint are those that the program declares.
pub(super) fn check(
    operator: &str,
    found: &StoreDescription,
    wanted: &StoreDescription,
) -> Result<(), RestoreError> {
    let operator = || operator.to_string();
    if found.max_parallelism != wanted.max_parallelism {
        let (found, now) = (found.max_parallelism, wanted.max_parallelism);
        return Err(RestoreError::MaxParallelism { operator: operator(), found, now });
    }
    for state in &found.descriptors {
        let name = state.name.clone();
        let Some(declared) = wanted.descriptors.iter().find(|declared| declared.name == name) else {
            return Err(RestoreError::Undeclared { operator: operator(), state: name });
        };
        if (declared.kind, declared.fingerprint) != (state.kind, state.fingerprint) {
            let describe = |state: &StateDescriptor| format!("{:?} of {:?}", state.kind, state.schema);
            let (found, declared) = (describe(state), describe(declared));
            return Err(RestoreError::Changed { operator: operator(), state: name, found, declared });
        }
        if found.key_schema.fingerprint() != wanted.key_schema.fingerprint() {
            let (found, declared) = (format!("{:?}", found.key_schema), format!("{:?}", wanted.key_schema));
            return Err(RestoreError::KeyChanged { operator: operator(), state: name, found, declared });
        }
    }
    Ok(())
}

/// Puts the files of a checkpoint into a directory, and checks that they are what they were.
fn place(options: &RocksDbOptions, source: &StoreFiles, directory: &Path) -> Result<(), StoreError> {
    let fault = Fault { directory, ..Fault::at(options, "restore") };
    std::fs::create_dir_all(directory).map_err(|error| fault.io(&error))?;
    for file in &source.files {
        let fault = Fault { directory: &file.path, ..Fault::at(options, "restore") };
        let size_bytes = std::fs::metadata(&file.path).map_err(|error| fault.io(&error))?.len();
        let checksum = if file.is_verified {
            file.checksum
        } else {
            File::open(&file.path).and_then(super::checkpoint::checksum).map_err(|error| fault.io(&error))?
        };
        if (size_bytes, checksum) != (file.size_bytes, file.checksum) {
            return Err(fault.reason(format!(
                "the file is damaged: it has {size_bytes} bytes with checksum {checksum:x} instead of {} bytes with {:x}",
                file.size_bytes, file.checksum
            )));
        }
        let target = directory.join(&file.name);
        // Files of another disk cannot be linked. What is not shared may be written to.
        if !file.is_shared || std::fs::hard_link(&file.path, &target).is_err() {
            std::fs::copy(&file.path, &target).map_err(|error| fault.io(&error))?;
        }
    }
    Ok(())
}
