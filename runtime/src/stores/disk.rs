//! Stores on RocksDB: opened empty, or from the files of a checkpoint.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::clock::ManualClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::OperatorId;
use thalweg_proto::convert::SharedFile;
use thalweg_state::{
    CacheOptions, Declarations, KeyedStore, MemoryShares, RocksDb, RocksDbMemory, RocksDbOptions,
    RocksDbSettings, StateKey, StoreDescription, StoreFile, StoreFiles,
};

use super::{Disk, Files, StateBackend, StateSettings, TaskStores};
use crate::metrics::ManagedMemory;
use crate::program::OperatorContext;
use crate::snapshot::{FilePlace, StoreManifest};
use crate::task::files::local_failure;

/// What all stores of an attempt share.
pub(super) struct Shared {
    settings: RocksDbSettings,
    memory: Arc<RocksDbMemory>,
    /// Memory for the cache of each store.
    cache_bytes: u64,
    /// How many stores there are.
    stores: u64,
}

impl Shared {
    pub(super) fn new(settings: &RocksDbSettings, managed_bytes: u64, stores: u64) -> Self {
        let shares = MemoryShares::of(managed_bytes, stores);
        let memory = Arc::new(RocksDbMemory::new(shares.rocksdb_bytes, settings));
        let cache_bytes = shares.cache_bytes;
        Self { settings: settings.clone(), memory, cache_bytes, stores: stores.max(1) }
    }

    /// The memory of one store: its cache, and as much of RocksDB's as every other store has.
    fn managed_memory(&self) -> ManagedMemory {
        let (memory, stores) = (Arc::clone(&self.memory), self.stores);
        ManagedMemory {
            total_bytes: self.cache_bytes + memory.capacity_bytes() / stores,
            shared_bytes: Box::new(move || memory.used_bytes() / stores),
        }
    }
}

impl TaskStores {
    /// Stores of a task on its own, below a directory.
    pub(crate) fn on_disk(directory: &Path, managed_bytes: u64) -> Self {
        let settings = StateSettings { backend: StateBackend::RocksDb, ..StateSettings::default() };
        let disk = Disk::new(&settings, managed_bytes, 1, directory.to_path_buf());
        Self { disk: Some(Arc::new(disk)), directory: directory.to_path_buf(), ..Self::default() }
    }

    /// Opens the store in the files of a checkpoint, which were fetched, as it was at `now_ms`, for whoever has no program.
    pub(crate) fn open_fetched(
        &self,
        operator: OperatorId,
        manifest: &StoreManifest,
        now_ms: Timestamp,
    ) -> Result<RocksDb, Failure> {
        let Some(disk) = &self.disk else {
            return Err(Failure::internal("a store on disk is to be opened in memory"));
        };
        let sources = self.put_in_place(manifest, &self.fetched(&operator.to_string()));
        let sources = [sources.map_err(|error| local_failure("prepare", &self.directory, error))?];
        let options = RocksDbOptions {
            operator: operator.to_string(),
            directory: self.directory.join(operator.to_string()).join("db"),
            descriptors: manifest.description.descriptors.clone(),
            settings: disk.rocksdb.settings.clone(),
            memory: Arc::clone(&disk.rocksdb.memory),
            // Stands still, so that nothing expires but what had expired then.
            clock: Arc::new(ManualClock::new(now_ms)),
        };
        Ok(RocksDb::restore(&options, &manifest.description, &sources)?)
    }

    pub(super) fn open_on_disk<K: StateKey>(
        &self,
        disk: &Disk,
        context: &OperatorContext,
        declarations: Declarations<K>,
    ) -> Result<KeyedStore<K>, Failure> {
        let (name, max_parallelism) = (&context.open.operator_name, context.open.max_parallelism);
        let descriptors = declarations.descriptors()?;
        let options = RocksDbOptions {
            operator: name.clone(),
            directory: self.directory.join(context.open.operator_id.to_string()).join("db"),
            descriptors: descriptors.clone(),
            settings: disk.rocksdb.settings.clone(),
            memory: Arc::clone(&disk.rocksdb.memory),
            clock: Arc::clone(&context.open.clock),
        };
        let wanted =
            StoreDescription { descriptors, key_schema: K::schema(), groups: context.owned, max_parallelism };
        let manifests = context.restored.iter().filter_map(|snapshot| snapshot.store.as_ref());
        // The others have nothing of what this subtask owns, and were not fetched.
        let manifests: Vec<_> = manifests.filter(|manifest| manifest.overlaps(context.owned)).collect();
        let unusable = |error| {
            let failure = local_failure("prepare", &self.directory, error);
            failure.context(format_args!("cannot restore the state of `{name}`"))
        };
        let sources: io::Result<Vec<_>> = manifests
            .iter()
            .enumerate()
            .map(|(number, manifest)| {
                let own = self.fetched(&format!("{}-{number}", context.open.operator_id));
                self.put_in_place(manifest, &own)
            })
            .collect();
        let sources = sources.map_err(unusable)?;
        let backend = RocksDb::restore(&options, &wanted, &sources)?;
        // Stores that came from one another name the same files.
        let files: BTreeSet<_> =
            sources.iter().flat_map(|source| &source.files).map(|file| file.path.as_path()).collect();
        for path in files.into_iter().filter(|path| path.starts_with(&self.directory)) {
            // The store has its own links to what it needs.
            fs::remove_file(path).map_err(unusable)?;
        }
        self.uploads().restored(known_files(context, &manifests));
        context.open.metrics.set_managed_memory(disk.rocksdb.managed_memory());
        let cache = CacheOptions::with_budget(disk.rocksdb.cache_bytes);
        Ok(KeyedStore::with_backend(
            name,
            declarations,
            max_parallelism,
            context.owned,
            Arc::new(backend),
            cache,
        )?)
    }

    /// Writes the files that are part of a manifest to `own`, and says where all of them are.
    fn put_in_place(&self, manifest: &StoreManifest, own: &Path) -> io::Result<StoreFiles> {
        fs::create_dir_all(own)?;
        let mut files = Vec::new();
        for file in &manifest.files {
            let (path, is_shared) = match &file.place {
                FilePlace::Shared(path) => (self.fetched(path), true),
                FilePlace::Here(bytes) => {
                    let path = own.join(&file.name);
                    fs::write(&path, bytes)?;
                    (path, false)
                }
            };
            let (name, size_bytes, checksum) = (file.name.clone(), file.size_bytes, file.checksum);
            // What was fetched, or linked from a copy, was checked then.
            files.push(StoreFile { name, path, size_bytes, checksum, is_shared, is_verified: is_shared });
        }
        Ok(StoreFiles { description: manifest.description.clone(), files })
    }
}

/// The shared files of what was restored: they need not be uploaded again.
fn known_files(context: &OperatorContext, manifests: &[&StoreManifest]) -> Files {
    let files = manifests.iter().flat_map(|manifest| &manifest.files);
    let shared = files.filter_map(|file| match &file.place {
        FilePlace::Shared(path) => {
            let (size_bytes, checksum) = (file.size_bytes, file.checksum);
            let id = (context.open.operator_id, file.name.clone(), size_bytes, checksum);
            Some((id, SharedFile { path: path.clone(), size_bytes, checksum }))
        }
        FilePlace::Here(_) => None,
    });
    shared.collect()
}
