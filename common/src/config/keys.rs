//! The table of known configuration keys: name, older names, form of the value, default and what it does.
//!
//! Names, forms and defaults are Flink's wherever Flink has the setting. A key is here only if some code acts on it: a
//! setting that would be accepted and ignored is worse than an unknown one. Adding a key means adding one entry here.

mod groups;

pub use groups::{EXCHANGE, LOCAL_STATE, ROCKSDB, ROCKSDB_METRICS, SECURITY, SSL_INTERNAL, STORAGE};

use crate::limits::{
    CHANNEL_CREDIT_BYTES, FLOATING_CREDIT_BYTES, FRAME_TARGET_BYTES, MAX_CHANNEL_CREDIT_BYTES,
    MAX_CONCURRENT_CHECKPOINTS, MAX_PARALLELISM, MAX_RETAINED_CHECKPOINTS, MAX_TASK_SLOTS, S3_MIN_PART_BYTES,
    S3_PART_BYTES, S3_PARTS_UNDER_WAY,
};

use super::parse::{parse_boolean, parse_decimal, parse_duration, parse_integer, parse_memory_size};

/// One configuration key.
#[derive(Debug, PartialEq)]
pub struct ConfigKey {
    /// The name under which the value is stored and shown.
    pub name: &'static str,
    /// Other names that are accepted, mostly Flink's older ones.
    pub aliases: &'static [&'static str],
    /// The form of its value.
    pub kind: ValueKind,
    /// The value if none is set.
    pub default: Option<&'static str>,
    help: &'static str,
}

impl ConfigKey {
    /// What the key does, in plain words.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }
}

/// The form of a key's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueKind {
    /// A time span such as `10 s`, at least `min_ms` milliseconds long.
    Duration {
        /// The shortest span that makes sense, in milliseconds.
        min_ms: u64,
    },
    /// A size such as `32 kb`, within bounds.
    MemorySize {
        /// The smallest size that works.
        min_bytes: u64,
        /// The largest size that works.
        max_bytes: u64,
    },
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest number.
        min: i64,
        /// The largest number.
        max: i64,
    },
    /// A number such as `1.5` within bounds, both included.
    Decimal {
        /// The smallest number.
        min: f64,
        /// The largest number.
        max: f64,
    },
    /// `true` or `false`.
    Boolean,
    /// One of some words; each is listed with the other spellings that are accepted for it.
    Choice(&'static [&'static [&'static str]]),
    /// Any text that is not empty.
    Text,
}

impl ValueKind {
    /// The text in the form in which it is stored, or `None` if it is not of this kind.
    pub(super) fn normalize(&self, text: &str) -> Option<String> {
        let text = text.trim();
        match *self {
            Self::Duration { min_ms } => parse_duration(text)
                .filter(|duration| duration.as_millis() >= u128::from(min_ms))
                .map(|_| text.into()),
            Self::MemorySize { min_bytes, max_bytes } => parse_memory_size(text)
                .filter(|bytes| (min_bytes..=max_bytes).contains(bytes))
                .map(|_| text.into()),
            Self::Integer { min, max } => parse_integer(text)
                .filter(|number| (min..=max).contains(number))
                .map(|number| number.to_string()),
            Self::Decimal { min, max } => {
                parse_decimal(text).filter(|number| (min..=max).contains(number)).map(|_| text.into())
            }
            Self::Boolean => parse_boolean(text).map(|value| value.to_string()),
            Self::Choice(choices) => choices
                .iter()
                .find(|spellings| spellings.iter().any(|spelling| spelling.eq_ignore_ascii_case(text)))
                .and_then(|spellings| spellings.first())
                .map(|canonical| (*canonical).to_owned()),
            Self::Text => Some(text.to_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// What a value has to be, with an example, for an error message.
    pub fn expectation(&self) -> String {
        match *self {
            Self::Duration { min_ms: 0 } => "a duration, for example `10 s` or `500 ms`".to_owned(),
            Self::Duration { min_ms } => {
                format!("a duration of at least {min_ms} ms, for example `10 s` or `500 ms`")
            }
            Self::MemorySize { min_bytes, max_bytes } => {
                format!("a memory size from `{}` to `{}`", memory_text(min_bytes), memory_text(max_bytes))
            }
            Self::Integer { min, max } => {
                format!("a whole number from {min} to {max}, for example `{}`", 4.clamp(min, max))
            }
            Self::Decimal { min, max } => {
                format!("a number from {min:?} to {max:?}, for example `{:?}`", 1.5_f64.clamp(min, max))
            }
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Choice(choices) => {
                let words: Vec<_> = choices.iter().filter_map(|spellings| spellings.first()).collect();
                let listed: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("one of {}", listed.join(", "))
            }
            Self::Text => "a text that is not empty".to_owned(),
        }
    }
}

/// A memory size with the largest unit that leaves a whole number.
fn memory_text(bytes: u64) -> String {
    [(40, "tb"), (30, "gb"), (20, "mb"), (10, "kb")]
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes} b"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// Any duration, zero included.
const DURATION: ValueKind = ValueKind::Duration { min_ms: 0 };
/// A duration that cannot be zero: it would mean "at once" or "all the time".
const POSITIVE_DURATION: ValueKind = ValueKind::Duration { min_ms: 1 };
const COUNT_MAX: i64 = u32::MAX as i64;

/// Declares the keys as constants and lists them all, so that no key can be missing from the list.
macro_rules! keys {
    ($(
        $(#[doc = $help:literal])+
        $constant:ident: $name:literal $(| $alias:literal)*, $kind:expr $(, default $default:expr)?;
    )+) => {
        $(
            $(#[doc = $help])+
            pub const $constant: ConfigKey = ConfigKey {
                name: $name,
                aliases: &[$($alias),*],
                kind: $kind,
                default: keys!(@default $($default)?),
                help: concat!($($help),+),
            };
        )+

        /// Every known key, in the order of this page.
        pub const ALL: &[&ConfigKey] = &[$(&$constant),+];
    };
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
}

keys! {
    /// Time from the start of one checkpoint to the start of the next. Without it there are no checkpoints.
    CHECKPOINTING_INTERVAL: "execution.checkpointing.interval", POSITIVE_DURATION;
    /// Whether records are counted exactly once or at least once after a failure.
    CHECKPOINTING_MODE: "execution.checkpointing.mode",
        ValueKind::Choice(&[&["EXACTLY_ONCE", "exactly-once"], &["AT_LEAST_ONCE", "at-least-once"]]),
        default "EXACTLY_ONCE";
    /// A checkpoint that takes longer is given up.
    CHECKPOINTING_TIMEOUT: "execution.checkpointing.timeout", POSITIVE_DURATION, default "10 min";
    /// Least time from the end of one checkpoint to the start of the next.
    CHECKPOINTING_MIN_PAUSE: "execution.checkpointing.min-pause", DURATION, default "0 ms";
    /// Checkpoints that may be in progress at the same time. In at-least-once mode, and of those that are unaligned, always one.
    CHECKPOINTING_MAX_CONCURRENT: "execution.checkpointing.max-concurrent-checkpoints",
        ValueKind::Integer { min: 1, max: MAX_CONCURRENT_CHECKPOINTS as i64 }, default "1";
    /// Whether barriers overtake records, which then are part of the checkpoint: it completes in time also where tasks are slow.
    /// With it one checkpoint is taken at a time. Savepoints are always aligned, and so is everything in at-least-once mode.
    CHECKPOINTING_UNALIGNED: "execution.checkpointing.unaligned.enabled" | "execution.checkpointing.unaligned",
        ValueKind::Boolean, default "false";
    /// How long after its trigger an unaligned checkpoint begins to overtake; until then its barriers keep their place.
    CHECKPOINTING_ALIGNED_TIMEOUT: "execution.checkpointing.aligned-checkpoint-timeout"
            | "execution.checkpointing.alignment-timeout",
        DURATION, default "0 ms";
    /// Completed checkpoints that are kept: the newest ones, so that an older one is there when the newest cannot be read.
    CHECKPOINTING_RETAINED: "execution.checkpointing.num-retained" | "state.checkpoints.num-retained",
        ValueKind::Integer { min: 1, max: MAX_RETAINED_CHECKPOINTS as i64 }, default "1";
    /// Which checkpoints outlive their job: those of a job that failed, those of one that was cancelled too, or none.
    CHECKPOINTING_RETENTION: "execution.checkpointing.externalized-checkpoint-retention"
            | "execution.checkpointing.externalized-checkpoints",
        ValueKind::Choice(&[
            &["DELETE_ON_CANCELLATION", "delete-on-cancellation"],
            &["RETAIN_ON_CANCELLATION", "retain-on-cancellation"],
            &["NO_EXTERNALIZED_CHECKPOINTS", "no-externalized-checkpoints"],
        ]),
        default "DELETE_ON_CANCELLATION";
    /// Checkpoints that may fail one after the other before the job fails.
    CHECKPOINTING_TOLERABLE_FAILURES: "execution.checkpointing.tolerable-failed-checkpoints",
        ValueKind::Integer { min: 0, max: COUNT_MAX }, default "0";
    /// Where checkpoints are stored: a directory that job managers and task managers all reach.
    CHECKPOINTING_DIRECTORY: "execution.checkpointing.dir" | "state.checkpoints.dir", ValueKind::Text;
    /// Whether a task that returns to its machine reads what it restores from a copy there instead of the checkpoint's storage.
    LOCAL_RECOVERY: "execution.state-recovery.from-local" | "state.backend.local-recovery",
        ValueKind::Boolean, default "true";
    /// Where savepoints are stored when the command that asks for one names no directory.
    SAVEPOINT_DIRECTORY: "execution.checkpointing.savepoint-dir" | "state.savepoints.dir", ValueKind::Text;
    /// A batch that is not full is sent at the latest after this time.
    BUFFER_TIMEOUT: "execution.buffer-timeout.interval" | "execution.buffer-timeout", DURATION, default "100 ms";

    /// How a failed job is restarted. Without it: not at all, or with checkpoints every second without end.
    RESTART_STRATEGY: "restart-strategy.type" | "restart-strategy",
        ValueKind::Choice(&[
            &["none", "off", "disable"],
            &["fixed-delay", "fixeddelay"],
            &["exponential-delay", "exponentialdelay"],
            &["failure-rate", "failurerate"],
        ]);
    /// A job that has run this long is restarted at once; the delays of the strategy are for jobs that fail sooner.
    IMMEDIATE_RESTART_AFTER: "restart-strategy.immediate-restart-after", DURATION, default "10 s";
    /// Restarts before the job fails for good.
    FIXED_DELAY_ATTEMPTS: "restart-strategy.fixed-delay.attempts",
        ValueKind::Integer { min: 0, max: COUNT_MAX }, default "1";
    /// Time from a failure to the restart.
    FIXED_DELAY_DELAY: "restart-strategy.fixed-delay.delay", DURATION, default "1 s";
    /// Time from the first failure to the restart.
    EXPONENTIAL_DELAY_INITIAL_BACKOFF: "restart-strategy.exponential-delay.initial-backoff",
        POSITIVE_DURATION, default "1 s";
    /// Longest time from a failure to the restart.
    EXPONENTIAL_DELAY_MAX_BACKOFF: "restart-strategy.exponential-delay.max-backoff",
        POSITIVE_DURATION, default "5 min";
    /// Factor by which the time grows with every failure.
    EXPONENTIAL_DELAY_MULTIPLIER: "restart-strategy.exponential-delay.backoff-multiplier",
        ValueKind::Decimal { min: 1.0, max: 1_000.0 }, default "2.0";
    /// A job that ran this long without a failure starts over with the initial time.
    EXPONENTIAL_DELAY_RESET_THRESHOLD: "restart-strategy.exponential-delay.reset-backoff-threshold",
        POSITIVE_DURATION, default "1 h";
    /// Part of the time by which it is made longer or shorter at random, so that jobs do not restart all at once.
    EXPONENTIAL_DELAY_JITTER: "restart-strategy.exponential-delay.jitter-factor",
        ValueKind::Decimal { min: 0.0, max: 1.0 }, default "0.1";
    /// Restarts before the job fails for good, counted from the last reset. Without it there is no such limit.
    EXPONENTIAL_DELAY_ATTEMPTS: "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        ValueKind::Integer { min: 1, max: COUNT_MAX };
    /// Failures within the interval before the job fails for good.
    FAILURE_RATE_MAX_FAILURES: "restart-strategy.failure-rate.max-failures-per-interval",
        ValueKind::Integer { min: 1, max: COUNT_MAX }, default "1";
    /// The interval in which failures are counted.
    FAILURE_RATE_INTERVAL: "restart-strategy.failure-rate.failure-rate-interval", POSITIVE_DURATION, default "1 min";
    /// Time from a failure to the restart.
    FAILURE_RATE_DELAY: "restart-strategy.failure-rate.delay", DURATION, default "1 s";

    /// Parallelism of operators and jobs that set none.
    PARALLELISM_DEFAULT: "parallelism.default",
        ValueKind::Integer { min: 1, max: MAX_PARALLELISM as i64 }, default "1";
    /// Number of key groups of operators that set none; no job can ever run at a higher parallelism with its state.
    PIPELINE_MAX_PARALLELISM: "pipeline.max-parallelism", ValueKind::Integer { min: 1, max: MAX_PARALLELISM as i64 };
    /// Name of the job.
    PIPELINE_NAME: "pipeline.name", ValueKind::Text;
    /// Whether operators that forward one to one run together in one task.
    PIPELINE_OPERATOR_CHAINING: "pipeline.operator-chaining.enabled" | "pipeline.operator-chaining",
        ValueKind::Boolean, default "true";
    /// How often watermark generators are asked for a watermark; `0` asks them never.
    AUTO_WATERMARK_INTERVAL: "pipeline.auto-watermark-interval", ValueKind::Duration { min_ms: 0 }, default "200 ms";

    /// Whether associative aggregates are combined before their records are sent to their keys: `AUTO` as long as it pays,
    /// `TWO_PHASE` always, `ONE_PHASE` never.
    AGG_PHASE_STRATEGY: "table.optimizer.agg-phase-strategy",
        ValueKind::Choice(&[&["AUTO"], &["TWO_PHASE", "two-phase"], &["ONE_PHASE", "one-phase"]]), default "AUTO";

    /// Where keyed state is: `hashmap` in memory, `rocksdb` on the local disk with a cache in memory, for state that is larger than
    /// memory. The job must be built with the feature of the same name.
    STATE_BACKEND: "state.backend.type" | "state.backend",
        ValueKind::Choice(&[&["hashmap"], &["rocksdb"]]), default "hashmap";
    /// Whether a checkpoint of state in RocksDB uploads only the files that are new since the last one.
    CHECKPOINTING_INCREMENTAL: "execution.checkpointing.incremental" | "state.backend.incremental",
        ValueKind::Boolean, default "true";
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

    /// Slots of a task manager: tasks of one job that it runs beside each other.
    TASK_SLOTS: "taskmanager.numberOfTaskSlots", ValueKind::Integer { min: 1, max: MAX_TASK_SLOTS as i64 }, default "1";
    /// Host name or address under which others reach a task manager.
    TASK_MANAGER_HOST: "taskmanager.host", ValueKind::Text;
    /// Where a task manager keeps job binaries, logs and state: a directory of its own on a local disk.
    TASK_MANAGER_DATA_DIRECTORY: "taskmanager.data-dir", ValueKind::Text;
    /// Where tasks keep copies of their newest checkpoint for `execution.state-recovery.from-local`: directories with commas
    /// between them, best on the disk of the state. Task managers of one machine and one cluster may share them, so that one
    /// finds what another has left. Without it: a directory in the task manager's data directory.
    LOCAL_STATE_DIRECTORIES: "taskmanager.state.local.root-dirs" | "execution.checkpointing.local-backup.dirs", ValueKind::Text;
    /// Labels of a task manager, as in `zone=a,disk=nvme`.
    TASK_MANAGER_LABELS: "taskmanager.labels", ValueKind::Text;
    /// Memory for state in RocksDB, all workers of a task manager together; each slot has the same share. Without it: a part of
    /// the machine's memory.
    MANAGED_MEMORY_SIZE: "taskmanager.memory.managed.size",
        ValueKind::MemorySize { min_bytes: 1 << 20, max_bytes: 1 << 50 };
    /// Part of the machine's memory, or of its control group's, that state in RocksDB may take.
    MANAGED_MEMORY_FRACTION: "taskmanager.memory.managed.fraction",
        ValueKind::Decimal { min: 0.01, max: 0.9 }, default "0.4";
    /// Size at which a frame to another process is sent although more records wait.
    SEGMENT_SIZE: "taskmanager.memory.segment-size",
        ValueKind::MemorySize { min_bytes: 1 << 10, max_bytes: 4 << 20 }, default "128 kb";
    /// Bytes that a channel from another process may have on their way without borrowing.
    CHANNEL_CREDIT: "taskmanager.network.memory.channel-credit",
        ValueKind::MemorySize { min_bytes: 32 << 10, max_bytes: MAX_CHANNEL_CREDIT_BYTES as u64 }, default "256 kb";
    /// Bytes that a worker lends to those channels from other processes whose senders have more to send.
    FLOATING_CREDIT: "taskmanager.network.memory.floating-credit",
        ValueKind::MemorySize { min_bytes: 0, max_bytes: 1 << 40 }, default "16 mb";
    /// Whether a channel from another process holds only what its task consumes within the target time.
    BUFFER_DEBLOAT_ENABLED: "taskmanager.network.memory.buffer-debloat.enabled", ValueKind::Boolean, default "true";
    /// Time within which a task consumes what is on its way to it from other processes.
    BUFFER_DEBLOAT_TARGET: "taskmanager.network.memory.buffer-debloat.target", POSITIVE_DURATION, default "1 s";
    /// How batches are compressed on their way to other processes, if that makes them smaller. For slow networks.
    COMPRESSION_CODEC: "taskmanager.network.compression.codec",
        ValueKind::Choice(&[&["NONE"], &["LZ4"]]), default "NONE";
    /// A task that does not react to its cancellation within this time is ended with its worker.
    TASK_CANCELLATION_TIMEOUT: "task.cancellation.timeout", POSITIVE_DURATION, default "180 s";

    /// Time from one heartbeat to the next.
    HEARTBEAT_INTERVAL: "heartbeat.interval", POSITIVE_DURATION, default "10 s";
    /// A process from which nothing was heard for this time counts as lost.
    HEARTBEAT_TIMEOUT: "heartbeat.timeout", POSITIVE_DURATION, default "50 s";
    /// A job that waits longer for its slots fails.
    SLOT_REQUEST_TIMEOUT: "slot.request.timeout", POSITIVE_DURATION, default "5 min";

    /// Whether a job waits for all its slots, or runs at a lower parallelism with those that are there and is scaled up when more come.
    SCHEDULER: "jobmanager.scheduler", ValueKind::Choice(&[&["default", "ng"], &["adaptive"]]), default "default";
    /// What a failure restarts: the tasks that exchange records with those that failed, or all of the job. With the adaptive scheduler
    /// it is always all.
    FAILOVER_STRATEGY: "jobmanager.execution.failover-strategy",
        ValueKind::Choice(&[&["region"], &["full"]]), default "region";
    /// With the adaptive scheduler: a job that waits longer for slots to run at all fails.
    ADAPTIVE_RESOURCE_WAIT: "jobmanager.adaptive-scheduler.resource-wait-timeout", DURATION, default "5 min";
    /// With the adaptive scheduler: so long the number of slots must stay the same before a job takes fewer than it wants, or more
    /// than it has.
    ADAPTIVE_STABILIZATION: "jobmanager.adaptive-scheduler.resource-stabilization-timeout", DURATION, default "1 s";
    /// With the adaptive scheduler: least time from the moment a job runs to the moment it is scaled up.
    ADAPTIVE_SCALING_INTERVAL: "jobmanager.adaptive-scheduler.scaling-interval.min", DURATION, default "30 s";

    /// Where the job managers are: one `host` or `host:port`, or several with commas between them.
    JOB_MANAGER_ADDRESS: "jobmanager.rpc.address", ValueKind::Text;
    /// Port of a job manager; 0 takes any free one.
    JOB_MANAGER_PORT: "jobmanager.rpc.port", ValueKind::Integer { min: 0, max: 65_535 }, default "6123";
    /// Address at which a job manager listens: `0.0.0.0` for every one of its machine.
    JOB_MANAGER_BIND_HOST: "jobmanager.bind-host", ValueKind::Text, default "127.0.0.1";
    /// Port at which a job manager serves REST and its dashboard; 0 takes any free one.
    REST_PORT: "rest.port", ValueKind::Integer { min: 0, max: 65_535 }, default "8081";
    /// Address at which it serves REST: `0.0.0.0` for every one of its machine.
    REST_BIND_ADDRESS: "rest.bind-address", ValueKind::Text, default "127.0.0.1";
    /// Host under which others reach its REST. Without it: where it serves REST, or if that is every address of its machine, the host at which
    /// other job managers reach it.
    REST_ADDRESS: "rest.address", ValueKind::Text;
    /// All job managers of a new cluster, the same for each of them, as in `1=jm-1:6123,2=jm-2:6123,3=jm-3:6123`.
    JOB_MANAGER_PEERS: "jobmanager.peers", ValueKind::Text;
    /// Number of a job manager in its cluster; no two have the same, and it never changes.
    JOB_MANAGER_ID: "jobmanager.id", ValueKind::Integer { min: 1, max: i64::MAX };
    /// Where a job manager keeps its log and its state: a directory of its own on a local disk.
    JOB_MANAGER_DATA_DIRECTORY: "jobmanager.data-dir", ValueKind::Text;
    /// A job binary that takes longer to print its plan is refused.
    PLAN_TIMEOUT: "jobmanager.plan.timeout", POSITIVE_DURATION, default "10 s";
    /// Memory that a job binary may use while it prints its plan.
    PLAN_MEMORY: "jobmanager.plan.memory",
        ValueKind::MemorySize { min_bytes: 16 << 20, max_bytes: 1 << 40 }, default "1 gb";
    /// Where job binaries are stored. Without it they are stored on the disks of a majority of the job managers.
    BLOB_DIRECTORY: "blob.storage.directory", ValueKind::Text;

    /// Size beyond which a task manager moves what a worker has written to an older log, and lets it begin anew.
    LOG_MAX_SIZE: "taskmanager.log.max-size",
        ValueKind::MemorySize { min_bytes: 1 << 20, max_bytes: 1 << 40 }, default "100 mb";
    /// Older logs of a worker that are kept, each for its standard output and its standard error.
    LOG_MAX_FILES: "env.log.max", ValueKind::Integer { min: 0, max: 1_000 }, default "10";
    /// Whether a job manager or task manager sends what it and its workers log to CloudWatch Logs, as JSON.
    CLOUDWATCH_LOGS_ENABLED: "logs.cloudwatch.enabled", ValueKind::Boolean, default "false";
    /// The log group, as the managed service for Apache Flink names that of an application. It is made if it is not there.
    CLOUDWATCH_LOGS_GROUP: "logs.cloudwatch.group", ValueKind::Text, default "/aws/kinesis-analytics/thalweg";
    /// The log stream in it. It is made if it is not there.
    CLOUDWATCH_LOGS_STREAM: "logs.cloudwatch.stream", ValueKind::Text, default "kinesis-analytics-log-stream";
    /// Region of CloudWatch Logs. Without it: what the environment, the profile or the machine says.
    CLOUDWATCH_LOGS_REGION: "logs.cloudwatch.region", ValueKind::Text;
    /// Where something other than AWS is that speaks CloudWatch Logs, as in `http://127.0.0.1:4566`.
    CLOUDWATCH_LOGS_ENDPOINT: "logs.cloudwatch.endpoint", ValueKind::Text;
    /// Port at which Prometheus reads the metrics of a job manager or task manager, or a range of which the first free one is taken, as in
    /// `9250-9260`. Without it there is no such endpoint.
    PROMETHEUS_PORT: "metrics.reporter.prom.port", ValueKind::Text;
    /// The address of this machine at which it is read.
    PROMETHEUS_HOST: "metrics.reporter.prom.host", ValueKind::Text, default "127.0.0.1";
    /// Whether the leading job manager reports the metrics of its jobs to CloudWatch, four times a minute.
    CLOUDWATCH_ENABLED: "metrics.reporter.cloudwatch.enabled", ValueKind::Boolean, default "false";
    /// The namespace of these metrics. CloudWatch itself keeps names that begin with `AWS/` for services of AWS.
    CLOUDWATCH_NAMESPACE: "metrics.reporter.cloudwatch.namespace", ValueKind::Text, default "AWS/KinesisAnalytics";
    /// Region of CloudWatch. Without it: what the environment, the profile or the machine says.
    CLOUDWATCH_REGION: "metrics.reporter.cloudwatch.region", ValueKind::Text;
    /// Where something other than AWS is that speaks CloudWatch, as in `http://127.0.0.1:4566`.
    CLOUDWATCH_ENDPOINT: "metrics.reporter.cloudwatch.endpoint", ValueKind::Text;
    /// Whether the leading job manager writes the metrics of its jobs to its standard output, four times a minute, in CloudWatch's
    /// embedded metric format.
    EMF_ENABLED: "metrics.reporter.emf.enabled", ValueKind::Boolean, default "false";
    /// The finest level whose metrics go to CloudWatch: one level includes all that are coarser.
    METRICS_LEVEL: "metrics.level",
        ValueKind::Choice(&[&["APPLICATION"], &["TASK"], &["OPERATOR"], &["PARALLELISM"]]), default "APPLICATION";

    /// Where a store other than AWS is that speaks S3, as in `http://127.0.0.1:9000`.
    S3_ENDPOINT: "s3.endpoint", ValueKind::Text;
    /// Region of the bucket. Without it: what the environment, the profile or the machine says.
    S3_REGION: "s3.region" | "s3.endpoint.region", ValueKind::Text;
    /// Whether the bucket is in the path of a request and not in its host name. Without it: where `s3.endpoint` is set.
    S3_PATH_STYLE: "s3.path.style.access" | "s3.path-style-access", ValueKind::Boolean;
    /// Least size of the parts in which large objects are written and read. At most `s3.upload.max.concurrent.uploads` of
    /// them are in memory.
    S3_PART_SIZE: "s3.upload.min.part.size",
        ValueKind::MemorySize { min_bytes: S3_MIN_PART_BYTES, max_bytes: 1 << 30 }, default "8 mb";
    /// Parts of large objects that a process writes or reads at the same time.
    S3_PARTS: "s3.upload.max.concurrent.uploads", ValueKind::Integer { min: 1, max: 1_000 }, default "8";
    /// Longest time in which a connection to S3 must come about.
    S3_CONNECTION_TIMEOUT: "s3.connection.timeout", POSITIVE_DURATION, default "5 s";
    /// A request to S3 is tried again when nothing is heard for this time.
    S3_SOCKET_TIMEOUT: "s3.socket.timeout", POSITIVE_DURATION, default "15 s";
    /// A request to S3 is tried again when it takes longer, with its content.
    S3_ATTEMPT_TIMEOUT: "s3.attempt.timeout", POSITIVE_DURATION, default "1 min";
    /// A request to S3 that takes longer with all its tries has failed.
    S3_OPERATION_TIMEOUT: "s3.operation.timeout", POSITIVE_DURATION, default "2 min";
    /// How often a request to S3 is tried again. Pauses double and are partly random; when many requests fail, a budget for
    /// the whole process ends them earlier.
    S3_RETRIES: "s3.retry.max-num-retries", ValueKind::Integer { min: 0, max: 100 }, default "9";
    /// How S3 encrypts what it keeps: as the bucket says, with its own keys, or with a key of AWS KMS.
    S3_SSE_TYPE: "s3.sse.type",
        ValueKind::Choice(&[&["none"], &["sse-s3", "AES256"], &["sse-kms", "aws:kms"]]), default "none";
    /// Id, ARN or alias of the key for `sse-kms`. Without it: the one that AWS keeps for S3.
    S3_SSE_KMS_KEY: "s3.sse.kms.key-id", ValueKind::Text;

    /// Whether all connections between the processes of a cluster, and of its clients to job managers, use TLS, and nodes show each other
    /// certificates. On all of them or none.
    SSL_INTERNAL_ENABLED: "security.ssl.internal.enabled", ValueKind::Boolean, default "false";
    /// A PEM file with the certificate of this machine, which has the names under which others reach it, and those that lead to the
    /// authority, if there are any. A new one is used without a restart. Clients that have the token need none.
    SSL_INTERNAL_CERTIFICATE: "security.ssl.internal.certificate", ValueKind::Text;
    /// A PEM file with the key of that certificate, which nobody else may read.
    SSL_INTERNAL_PRIVATE_KEY: "security.ssl.internal.private-key", ValueKind::Text;
    /// A PEM file with the certificates of the authorities whose certificates are accepted: that of this cluster, and while it is
    /// replaced the old and the new one.
    SSL_INTERNAL_TRUSTED: "security.ssl.internal.trusted-certificates", ValueKind::Text;
    /// Whether REST and the dashboard are served with TLS, at `https://`. Clients need no certificate, but the token, if there is one.
    SSL_REST_ENABLED: "security.ssl.rest.enabled", ValueKind::Boolean, default "false";
    /// A PEM file with the certificate of REST, and those that lead to an authority that browsers know. Without it: that of
    /// `security.ssl.internal.certificate`.
    SSL_REST_CERTIFICATE: "security.ssl.rest.certificate", ValueKind::Text;
    /// A PEM file with the key of that certificate. Without it: that of `security.ssl.internal.private-key`.
    SSL_REST_PRIVATE_KEY: "security.ssl.rest.private-key", ValueKind::Text;
    /// A file with the token that clients show, the same for all nodes: 16 characters or more in one line. Without a certificate of the
    /// cluster no client is let in that does not have it. The environment variable THALWEG_TOKEN wins over it.
    TOKEN_FILE: "security.token-file", ValueKind::Text;
    /// Lets a node listen beyond its own machine without TLS or without a token, so that whoever reaches it can run programs there.
    ALLOW_INSECURE: "security.allow-insecure", ValueKind::Boolean, default "false";

    /// Time from one sign of life of the leading job manager to the next.
    LEADER_HEARTBEAT_INTERVAL: "high-availability.heartbeat-interval", POSITIVE_DURATION, default "50 ms";
    /// Job managers that heard nothing of their leader elect another one, the first of them after this time.
    ELECTION_TIMEOUT_MIN: "high-availability.election-timeout.min", POSITIVE_DURATION, default "150 ms";
    /// Job managers that heard nothing of their leader elect another one, the last of them after this time.
    ELECTION_TIMEOUT_MAX: "high-availability.election-timeout.max", POSITIVE_DURATION, default "300 ms";
}

// The defaults are written out for people; they must stay the constants.
const _: () = assert!(CHANNEL_CREDIT_BYTES == 256 << 10);
const _: () = assert!(S3_PART_BYTES == 8 << 20 && S3_PARTS_UNDER_WAY == 8);
const _: () = assert!(FLOATING_CREDIT_BYTES == 16 << 20 && FRAME_TARGET_BYTES == 128 << 10);

/// The key with this name or alias.
#[must_use]
pub fn find(name: &str) -> Option<&'static ConfigKey> {
    ALL.iter().copied().find(|key| key.name == name || key.aliases.contains(&name))
}

/// The known name that is most like `name`, if any is like it at all.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    const LIKE: f64 = 0.75;
    ALL.iter()
        .flat_map(|key| {
            std::iter::once((key.name, key.name)).chain(key.aliases.iter().map(|alias| (*alias, key.name)))
        })
        .map(|(spelling, canonical)| (strsim::normalized_damerau_levenshtein(name, spelling), canonical))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, canonical)| canonical)
}

#[cfg(test)]
mod tests;
