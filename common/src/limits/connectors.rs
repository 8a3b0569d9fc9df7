//! Sources and sinks, and the services behind them.

// ---- Sinks and sources -------------------------------------------------------------------------------------------

/// How often a sink's commit is repeated that fails and may succeed later; then the task fails, and recovery repeats it.
pub const MAX_COMMIT_REPETITIONS: u32 = 10;

/// Pause before the first repetition; before each further one it is twice as long.
pub const COMMIT_BACKOFF_MS: u64 = 100;

/// Longest pause between two of them.
pub const MAX_COMMIT_BACKOFF_MS: u64 = 10_000;

/// Splits into which a source divides its numbers at least in each snapshot of a subtask, so that so many times the subtasks find work
/// when the job is restored.
pub const NUMBER_SPLITS: usize = 16;

// ---- Files that a job reads --------------------------------------------------------------------------------------

/// Longest line of a text file. A longer one fails the task: the file is hardly text.
pub const MAX_TEXT_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Splits that were found and wait for a reader, from which on an enumerator is not asked for more.
pub const MAX_WAITING_SPLITS: usize = 10_000;

/// Most files that one source reads.
pub const MAX_INPUT_FILES: usize = 1_000_000;

/// Bytes that a file source asks S3 for at once. Of a disk it reads a sixteenth of that.
pub const FILE_SOURCE_CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Chunks of a file that are on their way from S3 to a subtask at the same time.
pub const FILE_SOURCE_CHUNKS_AHEAD: usize = 3;

/// Pieces of files that a subtask of a file sink has on their way to S3; with more of them its task waits. Each takes as much memory as a part of
/// an object.
pub const FILE_SINK_PIECES_UNDER_WAY: u64 = 4;

/// Buckets that a subtask of a file sink has open at the same time; with more of them the one that was quiet for longest is closed.
pub const MAX_OPEN_BUCKETS: usize = 1_000;

/// Deepest nesting of directories below an input directory.
pub const MAX_DIRECTORY_DEPTH: usize = 64;

// ---- Connectors --------------------------------------------------------------------------------------------------

/// Most records of one read of a shard of Kinesis, which sets it.
pub const KINESIS_MAX_RECORDS_PER_READ: u32 = 10_000;

/// Most bytes of one read of a shard of Kinesis, which sets it.
pub const KINESIS_MAX_BYTES_PER_READ: u64 = 10 * 1024 * 1024;

/// What a shard of Kinesis gives in a second, to all who poll it; a read of more makes it refuse the next ones.
pub const KINESIS_READ_BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

/// Bytes that a subtask of a Kinesis source has read and not given on, above which it reads no more. One read may bring 10 MiB more.
pub const KINESIS_BUFFER_BYTES: u64 = 64 * 1024 * 1024;

/// Longest time that a request to Kinesis may take.
pub const KINESIS_REQUEST_TIMEOUT_MS: u64 = 30_000;

/// How long a subscription to a shard of Kinesis may say nothing. The service speaks every five seconds, also when there are no records.
pub const KINESIS_SUBSCRIPTION_SILENCE_MS: u64 = 35_000;

/// Most ids of records that a shard of a de-duplicating Kinesis source remembers: 24 bytes each, in memory and in checkpoints.
pub const KINESIS_REMEMBERED_IDS: usize = 65_536;

/// Of how many of the shards before it a new shard of a de-duplicating Kinesis source remembers ids.
pub const KINESIS_REMEMBERED_ANCESTORS: usize = 64;

/// Longest id of a record that a Kinesis sink writes, in bytes.
pub const KINESIS_MAX_ID_BYTES: usize = 256;

/// Most shards that one listing brings at a time; more come in pages.
pub const KINESIS_LIST_SHARDS: i32 = 1_000;

/// Most records of one request that writes to Kinesis, which sets it.
pub const KINESIS_MAX_RECORDS_PER_WRITE: usize = 500;

/// Most bytes of one request that writes to Kinesis, keys included.
pub const KINESIS_MAX_BYTES_PER_WRITE: usize = 5 * 1024 * 1024;

/// Largest record of Kinesis, its key included.
pub const KINESIS_MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Bytes that a subtask of a sink to Kinesis or Firehose holds that the service has not taken, above which it takes no more.
pub const AWS_SINK_UNSENT_BYTES: usize = 64 * 1024 * 1024;

/// Most records of one request that writes to Firehose, which sets it.
pub const FIREHOSE_MAX_RECORDS_PER_WRITE: usize = 500;

/// Most bytes of one request that writes to Firehose.
pub const FIREHOSE_MAX_BYTES_PER_WRITE: usize = 4 * 1024 * 1024;

/// Largest record of Firehose.
pub const FIREHOSE_MAX_RECORD_BYTES: usize = 1_000 * 1024;
