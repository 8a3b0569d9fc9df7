//! How RocksDB is tuned, and the memory that the stores of a process share.
//!
//! Compaction decides how much a checkpoint uploads: every file that a compaction writes is new. With one per cent of the state
//! changed in each checkpoint, universal compaction of runs that wait for each other until there are sixteen of about the
//! same size uploads a changed byte 2.7 times, and up to 30 runs are asked for a key, by their filters; with ten and 20 it is 3.1 times,
//! and reads of keys outside the cache are no faster. Merging as soon
//! as runs add up to the next one (RocksDB's default) uploaded 6.5 times the changes with 16 runs.

use ::rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BlockBasedTablePinningTier, Cache, DBCompactionStyle,
    DBCompressionType, DataBlockIndexType, LogLevel, Options, UniversalCompactOptions,
    UniversalCompactionStopStyle, WriteBufferManager,
};
use thalweg_common::config::{ConfigKey, Configuration, keys};

/// Sets of options that go well together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PredefinedOptions {
    /// For every disk.
    #[default]
    Default,
    /// More memory for fewer reads: larger write buffers, stronger filters.
    FlashSsd,
    /// Large blocks and files, read ahead.
    Spinning,
    /// Small write buffers, filters and index in parts.
    LowMemory,
}

/// How files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompactionStyle {
    /// Runs of about the same size: writes and uploads least.
    #[default]
    Universal,
    /// Levels, each ten times as large as the one above: takes the least space.
    Level,
    /// Never.
    None,
}

/// The `state.backend.rocksdb.*` settings.
#[derive(Debug, Clone, PartialEq)]
pub struct RocksDbSettings {
    /// The set of options that all others start from.
    pub predefined: PredefinedOptions,
    /// How files are merged.
    pub compaction: CompactionStyle,
    /// Whether index and filters are read in parts.
    pub partitioned_index_filters: bool,
    /// Part of RocksDB's memory that write buffers may take.
    pub write_buffer_ratio: f64,
    /// Threads of the process that flush and compact.
    pub threads: u32,
    /// Whether compactions drop state whose time to live is over.
    pub ttl_compaction_filter: bool,
    /// The native metrics that are switched on.
    pub metrics: Vec<&'static ConfigKey>,
    /// Whether metrics name a state as a variable instead of in their own name.
    pub state_as_variable: bool,
}

impl Default for RocksDbSettings {
    fn default() -> Self {
        Self::from_configuration(&Configuration::new())
    }
}

impl RocksDbSettings {
    /// Reads the settings.
    #[must_use]
    pub fn from_configuration(configuration: &Configuration) -> Self {
        let switch = |key| configuration.boolean(key).unwrap_or_default();
        let predefined = match configuration.text(&keys::ROCKSDB_PREDEFINED_OPTIONS) {
            Some("FLASH_SSD") => PredefinedOptions::FlashSsd,
            Some("SPINNING") => PredefinedOptions::Spinning,
            Some("LOW_MEMORY") => PredefinedOptions::LowMemory,
            _ => PredefinedOptions::Default,
        };
        let compaction = match configuration.text(&keys::ROCKSDB_COMPACTION_STYLE) {
            Some("LEVEL") => CompactionStyle::Level,
            Some("NONE") => CompactionStyle::None,
            _ => CompactionStyle::Universal,
        };
        let threads =
            configuration.integer(&keys::ROCKSDB_THREADS).and_then(|threads| u32::try_from(threads).ok());
        Self {
            predefined,
            compaction,
            partitioned_index_filters: switch(&keys::ROCKSDB_PARTITIONED_INDEX_FILTERS),
            write_buffer_ratio: configuration.decimal(&keys::ROCKSDB_WRITE_BUFFER_RATIO).unwrap_or(0.5),
            threads: threads.unwrap_or(2),
            ttl_compaction_filter: switch(&keys::ROCKSDB_TTL_COMPACTION_FILTER),
            metrics: keys::ROCKSDB_METRICS.iter().copied().filter(|key| switch(key)).collect(),
            state_as_variable: switch(&keys::ROCKSDB_METRIC_COLUMN_FAMILY_AS_VARIABLE),
        }
    }

    /// The options of a database.
    pub(super) fn database(&self, memory: &RocksDbMemory) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_paranoid_checks(true);
        options.set_max_background_jobs(i32::try_from(self.threads).unwrap_or(i32::MAX));
        options.set_write_buffer_manager(&memory.write_buffers);
        // It goes with every checkpoint.
        options.set_max_manifest_file_size(256 << 10);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_bytes_per_sync(1 << 20);
        // Compactions read what checkpoints wrote from the disk, and the task's reads wait behind each piece: on an SSD small ones take hardly longer.
        let is_spinning = self.predefined == PredefinedOptions::Spinning;
        options.set_compaction_readahead_size(if is_spinning { 8 << 20 } else { 256 << 10 });
        options
    }

    /// The options of a column family.
    pub(super) fn family(&self, memory: &RocksDbMemory) -> Options {
        let mut options = Options::default();
        let (write_buffer, filter_bits, block) = match self.predefined {
            PredefinedOptions::Default => (32 << 20, 10.0, 4 << 10),
            PredefinedOptions::FlashSsd => (64 << 20, 12.0, 4 << 10),
            PredefinedOptions::Spinning => (64 << 20, 10.0, 64 << 10),
            PredefinedOptions::LowMemory => (4 << 20, 8.0, 8 << 10),
        };
        options.set_write_buffer_size(write_buffer);
        options.set_compression_type(DBCompressionType::Lz4);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&memory.blocks);
        blocks.set_block_size(block);
        blocks.set_bloom_filter(filter_bits, false);
        blocks.set_format_version(6);
        blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        blocks.set_data_block_hash_ratio(0.75);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // Every read asks the filters of several files: they stay at hand, charged to the cache, unless they are in parts.
        blocks.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::All);
        blocks.set_top_level_index_pinning_tier(BlockBasedTablePinningTier::All);
        if self.partitioned_index_filters || self.predefined == PredefinedOptions::LowMemory {
            blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
            blocks.set_partition_filters(true);
            blocks.set_metadata_block_size(4 << 10);
            blocks.set_pin_top_level_index_and_filter(true);
        }
        options.set_block_based_table_factory(&blocks);
        self.set_compaction(&mut options);
        options
    }

    fn set_compaction(&self, options: &mut Options) {
        match self.compaction {
            CompactionStyle::Universal => {
                let mut universal = UniversalCompactOptions::default();
                // Only runs of similar size are merged, sixteen or more at once; all of them when the changes are twice the rest.
                universal.set_size_ratio(100);
                universal.set_min_merge_width(16);
                universal.set_max_size_amplification_percent(200);
                universal.set_stop_style(UniversalCompactionStopStyle::Similar);
                options.set_compaction_style(DBCompactionStyle::Universal);
                options.set_universal_compaction_options(&universal);
                options.set_level_zero_file_num_compaction_trigger(30);
                options.set_level_zero_slowdown_writes_trigger(48);
                options.set_level_zero_stop_writes_trigger(64);
            }
            CompactionStyle::Level => {
                options.set_compaction_style(DBCompactionStyle::Level);
                options.set_level_compaction_dynamic_level_bytes(true);
                let file = if self.predefined == PredefinedOptions::Spinning { 256 << 20 } else { 64 << 20 };
                options.set_target_file_size_base(file);
                options.set_max_bytes_for_level_base(4 * file);
            }
            CompactionStyle::None => {
                options.set_disable_auto_compactions(true);
                options.set_level_zero_slowdown_writes_trigger(i32::MAX);
                options.set_level_zero_stop_writes_trigger(i32::MAX);
            }
        }
    }
}

/// The memory that all stores of a process share: one block cache, and write buffers that are charged to it. A store that would
/// exceed their part is flushed; what it writes meanwhile comes on top.
pub struct RocksDbMemory {
    blocks: Cache,
    write_buffers: WriteBufferManager,
    capacity_bytes: u64,
}

impl RocksDbMemory {
    /// Of this size in all.
    #[must_use]
    pub fn new(bytes: u64, settings: &RocksDbSettings) -> Self {
        let capacity = usize::try_from(bytes).unwrap_or(usize::MAX);
        let blocks = Cache::new_hyper_clock_cache(capacity, 0);
        let for_writes = (bytes as f64 * settings.write_buffer_ratio) as usize;
        // Writers do not wait for memory: what they wait for may be the buffer of another store, which nothing flushes while that
        // store is idle, or of one that is being closed. They would wait for ever.
        let waits = false;
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(for_writes, waits, blocks.clone());
        Self { blocks, write_buffers, capacity_bytes: bytes }
    }

    /// What is in use: blocks and write buffers.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.blocks.get_usage() as u64
    }

    /// What it may become.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
}

/// How the managed memory of a worker is divided between the typed caches of its stores and RocksDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShares {
    /// The budget of the cache of each store.
    pub cache_bytes: u64,
    /// For RocksDB, once per worker.
    pub rocksdb_bytes: u64,
}

impl MemoryShares {
    /// The shares of `stores` stores of one worker. The caches get two thirds: what is found there costs tens of nanoseconds,
    /// what is found in RocksDB's block cache about two microseconds.
    #[must_use]
    pub fn of(managed_bytes: u64, stores: u64) -> Self {
        let rocksdb_bytes = managed_bytes / 3;
        Self { cache_bytes: (managed_bytes - rocksdb_bytes) / stores.max(1), rocksdb_bytes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn settings_are_read_from_their_keys() {
        assert_eq!(RocksDbSettings::default().compaction, CompactionStyle::Universal);
        let configuration = Configuration::from_yaml(
            "state.backend.rocksdb.predefined-options: spinning_disk_optimized\n\
             state.backend.rocksdb.compaction.style: level\n\
             state.backend.rocksdb.memory.partitioned-index-filters: true\n\
             state.backend.rocksdb.memory.write-buffer-ratio: 0.25\n\
             state.backend.rocksdb.thread.num: 4\n\
             state.backend.rocksdb.ttl.compaction.filter.enabled: false\n\
             state.backend.rocksdb.metrics.column-family-as-variable: true\n\
             state.backend.rocksdb.metrics.num-snapshots: true",
        );
        let settings = RocksDbSettings::from_configuration(&configuration.unwrap());
        let expected = RocksDbSettings {
            predefined: PredefinedOptions::Spinning,
            compaction: CompactionStyle::Level,
            partitioned_index_filters: true,
            write_buffer_ratio: 0.25,
            threads: 4,
            ttl_compaction_filter: false,
            metrics: vec![&keys::ROCKSDB_METRIC_NUM_SNAPSHOTS],
            state_as_variable: true,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn all_memory_is_given_out_and_not_more() {
        for (managed, stores) in [(0, 0), (1_000, 1), (1 << 30, 7)] {
            let shares = MemoryShares::of(managed, stores);
            let used = shares.cache_bytes * stores + shares.rocksdb_bytes;
            assert!(used <= managed && managed - used <= shares.cache_bytes.max(stores), "{shares:?}");
        }
    }
}
