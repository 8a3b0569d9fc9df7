//! State in RocksDB: what it is tuned by, and its native metrics.

use super::kind::{ConfigKey, ValueKind};

keys! {
    /// Options of RocksDB that go well with a kind of disk, or with little memory.
    ROCKSDB_PREDEFINED_OPTIONS: "state.backend.rocksdb.predefined-options",
        ValueKind::Choice(&[
            &["DEFAULT"],
            &["FLASH_SSD", "FLASH_SSD_OPTIMIZED"],
            &["SPINNING", "SPINNING_DISK_OPTIMIZED", "SPINNING_DISK_OPTIMIZED_HIGH_MEM"],
            &["LOW_MEMORY"],
        ]), default "DEFAULT";
    /// How RocksDB merges its files: `UNIVERSAL` writes and uploads least, `LEVEL` takes the least space, `NONE` never merges.
    ROCKSDB_COMPACTION_STYLE: "state.backend.rocksdb.compaction.style",
        ValueKind::Choice(&[&["UNIVERSAL"], &["LEVEL"], &["NONE"]]), default "UNIVERSAL";
    /// Whether index and filter of a file are read in parts, for state much larger than its memory.
    ROCKSDB_PARTITIONED_INDEX_FILTERS: "state.backend.rocksdb.memory.partitioned-index-filters",
        ValueKind::Boolean, default "false";
    /// Part of RocksDB's memory that its write buffers may take.
    ROCKSDB_WRITE_BUFFER_RATIO: "state.backend.rocksdb.memory.write-buffer-ratio",
        ValueKind::Decimal { min: 0.05, max: 0.9 }, default "0.5";
    /// Threads of a worker that flush and compact.
    ROCKSDB_THREADS: "state.backend.rocksdb.thread.num", ValueKind::Integer { min: 1, max: 256 }, default "2";
    /// Whether compactions drop state whose time to live is over.
    ROCKSDB_TTL_COMPACTION_FILTER: "state.backend.rocksdb.ttl.compaction.filter.enabled", ValueKind::Boolean, default "true";
    /// Whether RocksDB reports the rate to which writes are slowed down at the moment.
    ROCKSDB_METRIC_ACTUAL_DELAYED_WRITE_RATE:
        "state.backend.rocksdb.metrics.actual-delayed-write-rate", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports errors of flushes and compactions.
    ROCKSDB_METRIC_BACKGROUND_ERRORS:
        "state.backend.rocksdb.metrics.background-errors", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports the size of the block cache.
    ROCKSDB_METRIC_BLOCK_CACHE_CAPACITY:
        "state.backend.rocksdb.metrics.block-cache-capacity", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports what is pinned in the block cache.
    ROCKSDB_METRIC_BLOCK_CACHE_PINNED_USAGE:
        "state.backend.rocksdb.metrics.block-cache-pinned-usage", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports what is in the block cache.
    ROCKSDB_METRIC_BLOCK_CACHE_USAGE:
        "state.backend.rocksdb.metrics.block-cache-usage", ValueKind::Boolean, default "false";
    /// Whether a native metric of RocksDB names the state a figure belongs to, as a variable instead of a part of the name.
    ROCKSDB_METRIC_COLUMN_FAMILY_AS_VARIABLE:
        "state.backend.rocksdb.metrics.column-family-as-variable", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports whether a compaction waits.
    ROCKSDB_METRIC_COMPACTION_PENDING:
        "state.backend.rocksdb.metrics.compaction-pending", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports the size of the active memtable.
    ROCKSDB_METRIC_CUR_SIZE_ACTIVE_MEM_TABLE:
        "state.backend.rocksdb.metrics.cur-size-active-mem-table", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports the size of all memtables that are not flushed.
    ROCKSDB_METRIC_CUR_SIZE_ALL_MEM_TABLES:
        "state.backend.rocksdb.metrics.cur-size-all-mem-tables", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports about how large the live data is.
    ROCKSDB_METRIC_ESTIMATE_LIVE_DATA_SIZE:
        "state.backend.rocksdb.metrics.estimate-live-data-size", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports about how many keys there are.
    ROCKSDB_METRIC_ESTIMATE_NUM_KEYS:
        "state.backend.rocksdb.metrics.estimate-num-keys", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports about how much compactions have yet to rewrite.
    ROCKSDB_METRIC_ESTIMATE_PENDING_COMPACTION_BYTES:
        "state.backend.rocksdb.metrics.estimate-pending-compaction-bytes", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports memory of open files outside the block cache.
    ROCKSDB_METRIC_ESTIMATE_TABLE_READERS_MEM:
        "state.backend.rocksdb.metrics.estimate-table-readers-mem", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports whether writes are stopped.
    ROCKSDB_METRIC_IS_WRITE_STOPPED:
        "state.backend.rocksdb.metrics.is-write-stopped", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports whether a flush waits.
    ROCKSDB_METRIC_MEM_TABLE_FLUSH_PENDING:
        "state.backend.rocksdb.metrics.mem-table-flush-pending", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports deletes in the active memtable.
    ROCKSDB_METRIC_NUM_DELETES_ACTIVE_MEM_TABLE:
        "state.backend.rocksdb.metrics.num-deletes-active-mem-table", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports deletes in memtables that are being flushed.
    ROCKSDB_METRIC_NUM_DELETES_IMM_MEM_TABLES:
        "state.backend.rocksdb.metrics.num-deletes-imm-mem-tables", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports entries in the active memtable.
    ROCKSDB_METRIC_NUM_ENTRIES_ACTIVE_MEM_TABLE:
        "state.backend.rocksdb.metrics.num-entries-active-mem-table", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports entries in memtables that are being flushed.
    ROCKSDB_METRIC_NUM_ENTRIES_IMM_MEM_TABLES:
        "state.backend.rocksdb.metrics.num-entries-imm-mem-tables", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports memtables that are not flushed.
    ROCKSDB_METRIC_NUM_IMMUTABLE_MEM_TABLE:
        "state.backend.rocksdb.metrics.num-immutable-mem-table", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports versions of the set of files that are in use.
    ROCKSDB_METRIC_NUM_LIVE_VERSIONS:
        "state.backend.rocksdb.metrics.num-live-versions", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports compactions that run.
    ROCKSDB_METRIC_NUM_RUNNING_COMPACTIONS:
        "state.backend.rocksdb.metrics.num-running-compactions", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports flushes that run.
    ROCKSDB_METRIC_NUM_RUNNING_FLUSHES:
        "state.backend.rocksdb.metrics.num-running-flushes", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports snapshots that are held.
    ROCKSDB_METRIC_NUM_SNAPSHOTS:
        "state.backend.rocksdb.metrics.num-snapshots", ValueKind::Boolean, default "false";
    /// Whether RocksDB reports the size of all memtables, pinned ones included.
    ROCKSDB_METRIC_SIZE_ALL_MEM_TABLES:
        "state.backend.rocksdb.metrics.size-all-mem-tables", ValueKind::Boolean, default "false";
}
