//! Keys that go together: which of them a task manager hands on to its workers, and which switch something on, one each.

use super::*;

/// The keys of the exchange between workers. A task manager's apply to every worker that it starts, unless the job was
/// submitted with its own.
pub const EXCHANGE: &[&ConfigKey] = &[
    &SEGMENT_SIZE,
    &CHANNEL_CREDIT,
    &FLOATING_CREDIT,
    &BUFFER_DEBLOAT_ENABLED,
    &BUFFER_DEBLOAT_TARGET,
    &COMPRESSION_CODEC,
];

/// The keys of storages. A task manager's apply to every worker that it starts, unless the job was submitted with its own.
pub const STORAGE: &[&ConfigKey] = storages::KEYS;

/// The keys of copies of checkpoints on a task manager's machine. Whether there are any is up to the job, if it says so; where
/// they are is up to the task manager.
pub const LOCAL_STATE: &[&ConfigKey] = &[&LOCAL_RECOVERY, &LOCAL_STATE_DIRECTORIES];

/// The keys of TLS between processes. A task manager's apply to every worker that it starts, whatever its job says.
pub const SSL_INTERNAL: &[&ConfigKey] =
    &[&SSL_INTERNAL_ENABLED, &SSL_INTERNAL_CERTIFICATE, &SSL_INTERNAL_PRIVATE_KEY, &SSL_INTERNAL_TRUSTED];

/// The keys of a process that say whom it trusts and what it shows. No job has them: where one is submitted they are those of the client.
pub const SECURITY: &[&ConfigKey] = security::KEYS;

/// The keys that tune RocksDB, beside its metrics. A task manager's apply to every worker that it starts, unless the job was
/// submitted with its own.
pub const ROCKSDB: &[&ConfigKey] = &[
    &ROCKSDB_PREDEFINED_OPTIONS,
    &ROCKSDB_COMPACTION_STYLE,
    &ROCKSDB_PARTITIONED_INDEX_FILTERS,
    &ROCKSDB_WRITE_BUFFER_RATIO,
    &ROCKSDB_THREADS,
    &ROCKSDB_TTL_COMPACTION_FILTER,
];

/// The keys that switch the native metrics of RocksDB on, one each.
pub const ROCKSDB_METRICS: &[&ConfigKey] = &[
    &ROCKSDB_METRIC_ACTUAL_DELAYED_WRITE_RATE,
    &ROCKSDB_METRIC_BACKGROUND_ERRORS,
    &ROCKSDB_METRIC_BLOCK_CACHE_CAPACITY,
    &ROCKSDB_METRIC_BLOCK_CACHE_PINNED_USAGE,
    &ROCKSDB_METRIC_BLOCK_CACHE_USAGE,
    &ROCKSDB_METRIC_COMPACTION_PENDING,
    &ROCKSDB_METRIC_CUR_SIZE_ACTIVE_MEM_TABLE,
    &ROCKSDB_METRIC_CUR_SIZE_ALL_MEM_TABLES,
    &ROCKSDB_METRIC_ESTIMATE_LIVE_DATA_SIZE,
    &ROCKSDB_METRIC_ESTIMATE_NUM_KEYS,
    &ROCKSDB_METRIC_ESTIMATE_PENDING_COMPACTION_BYTES,
    &ROCKSDB_METRIC_ESTIMATE_TABLE_READERS_MEM,
    &ROCKSDB_METRIC_IS_WRITE_STOPPED,
    &ROCKSDB_METRIC_MEM_TABLE_FLUSH_PENDING,
    &ROCKSDB_METRIC_NUM_DELETES_ACTIVE_MEM_TABLE,
    &ROCKSDB_METRIC_NUM_DELETES_IMM_MEM_TABLES,
    &ROCKSDB_METRIC_NUM_ENTRIES_ACTIVE_MEM_TABLE,
    &ROCKSDB_METRIC_NUM_ENTRIES_IMM_MEM_TABLES,
    &ROCKSDB_METRIC_NUM_IMMUTABLE_MEM_TABLE,
    &ROCKSDB_METRIC_NUM_LIVE_VERSIONS,
    &ROCKSDB_METRIC_NUM_RUNNING_COMPACTIONS,
    &ROCKSDB_METRIC_NUM_RUNNING_FLUSHES,
    &ROCKSDB_METRIC_NUM_SNAPSHOTS,
    &ROCKSDB_METRIC_SIZE_ALL_MEM_TABLES,
];
