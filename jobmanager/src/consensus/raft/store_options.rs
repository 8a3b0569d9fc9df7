//! How RocksDB is set up for the log: little memory, and no tolerance for lost writes.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    DEFAULT_COLUMN_FAMILY_NAME, LogLevel, Options,
};

/// Column family of the entries: big-endian index -> entry.
pub(crate) const LOG: &str = "log";

/// Column family of Raft's numbers: vote, commit index, last purged entry, owner.
pub(crate) const META: &str = "meta";

/// Column family of the last snapshot.
pub(crate) const SNAPSHOT: &str = "snapshot";

// The log is compacted after a few thousand entries, so it stays small, and so do these.
const MEMTABLE_BYTES: usize = 4 * 1024 * 1024;
const WRITE_AHEAD_LOG_BYTES: u64 = 32 * 1024 * 1024;
const BLOCK_CACHE_BYTES: usize = 4 * 1024 * 1024;
const OPEN_FILES: i32 = 64;
const INFO_LOG_BYTES: usize = 1024 * 1024;
const INFO_LOGS: usize = 2;

pub(crate) fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A record that was synced and cannot be read is an error, never the silent end of the log: a node that forgets
    // what it acknowledged may undo a commit. Only an incomplete last record, which nobody was told about, is dropped.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    options.set_max_total_wal_size(WRITE_AHEAD_LOG_BYTES);
    options.set_max_open_files(OPEN_FILES);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_stats_dump_period_sec(0);
    options
}

/// All column families, "default" among them: RocksDB insists on opening it too.
pub(crate) fn column_families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    [DEFAULT_COLUMN_FAMILY_NAME, LOG, META, SNAPSHOT]
        .into_iter()
        .map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)))
        .collect()
}

fn family_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_block_based_table_factory(&blocks);
    options
}
