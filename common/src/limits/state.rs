//! State: checkpoints, savepoints, stores and the storage below them.

/// State up to this size is put into the checkpoint's metadata instead of a file of its own.
pub const INLINE_STATE_BYTES: usize = 64 * 1024;

/// Largest metadata file of a checkpoint.
pub const MAX_CHECKPOINT_METADATA_BYTES: usize = 256 * 1024 * 1024;

/// Most completed checkpoints that a job keeps; each is an entry in the replicated state.
pub const MAX_RETAINED_CHECKPOINTS: usize = 1_000;

/// Most checkpoints of one job that are in progress at the same time.
pub const MAX_CONCURRENT_CHECKPOINTS: usize = 16;

/// Checkpoints that have ended, completed or not, of which the leader remembers the times of every subtask.
pub const CHECKPOINT_HISTORY: usize = 10;

/// Completed savepoints of a job that the cluster remembers. Those beyond are forgotten, not deleted.
pub const MAX_JOB_SAVEPOINTS: usize = 100;

/// Most shared files of one subtask's snapshot.
pub const MAX_SHARED_FILES: usize = 100_000;

/// Most elements without any content in a list of stored state: such a list has a length and no bytes that bear it out.
pub const MAX_EMPTY_ELEMENTS: usize = 1024 * 1024;

/// Places of the tables of a memory store that are looked at for expired values with a batch, if it has as many keys.
pub const EXPIRY_PLACES: usize = 64;

/// Bytes of entries in a full block of a savepoint, before compression. A block is what is read and checked at once.
pub const SAVEPOINT_BLOCK_BYTES: usize = 256 * 1024;

/// Largest block of a savepoint: one entry may be larger than a full block.
pub const MAX_SAVEPOINT_BLOCK_BYTES: usize = 1024 * 1024 * 1024;

/// Size at which a data file of a savepoint is full. Small enough to be held in memory as a whole by whoever writes or reads it.
pub const SAVEPOINT_FILE_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of entries which the state tool holds in memory when it compares or counts.
pub const STATE_TOOL_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Longest line of entries that the state tool reads.
pub const MAX_STATE_LINE_BYTES: usize = 64 * 1024 * 1024;

/// Longest path of an object in the blob storage, in bytes; the limit of S3.
pub const MAX_STORAGE_PATH_BYTES: usize = 1_024;

/// Size of the pieces in which files are copied to and from the storage.
pub const STORAGE_COPY_BYTES: usize = 1024 * 1024;

/// Room that deleting objects in a directory gives back to the file system before it pauses. Where freed blocks are discarded, as on most
/// machines in a cloud, the disk answers no read meanwhile.
pub const STORAGE_FREED_AT_ONCE_BYTES: u64 = 32 * 1024 * 1024;

/// The pause of deletions in a directory after [`STORAGE_FREED_AT_ONCE_BYTES`]: 640 MB/s are freed at most.
pub const STORAGE_FREED_PAUSE_MS: u64 = 50;

/// Smallest part of an object on S3 but the last; the limit of S3.
pub const S3_MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

/// Size of the parts in which large objects are written to and read from S3 (default of `s3.upload.min.part.size`).
pub const S3_PART_BYTES: u64 = 8 * 1024 * 1024;

/// Most parts of an object on S3; the limit of S3. Very large objects have larger parts.
pub const S3_MAX_PARTS: u64 = 10_000;

/// Parts that a process writes to or reads from S3 at the same time (default of `s3.upload.max.concurrent.uploads`).
pub const S3_PARTS_UNDER_WAY: usize = 8;

/// Most objects that one request to S3 deletes; the limit of S3.
pub const S3_DELETE_OBJECTS: usize = 1_000;

/// Retries that a process may spend at once on S3, shared by everything it does there. Requests that succeed earn them back.
pub const S3_RETRY_BUDGET: u32 = 100;

/// Retries that the budget earns back in a second when nothing succeeds: the most that a store which is down is asked, beside
/// the first tries.
pub const S3_RETRY_BUDGET_PER_SECOND: u32 = 2;

/// Longest pause between two tries of a request to S3, in milliseconds.
pub const S3_MAX_BACKOFF_MS: u64 = 5_000;

/// Longest answer of a store that an error repeats.
pub const S3_ERROR_TEXT_BYTES: usize = 512;

/// Size at which what a task encodes of its changed state is handed to the writer of a checkpoint.
pub const EPOCH_BATCH_BYTES: usize = 1024 * 1024;

/// Batches of changed state that wait for that writer; a task whose writer is behind encodes no more.
pub const EPOCH_BATCHES: usize = 4;

/// Changed state which that writer sorts and writes at once.
pub const EPOCH_CHUNK_BYTES: usize = 32 * 1024 * 1024;

/// Longest time for which a task waits for the writer of a checkpoint because its cache is full, in milliseconds.
pub const EPOCH_WAIT_MS: u64 = 60_000;

/// Bytes of a frozen epoch that a task encodes between two batches: about a tenth of a millisecond.
pub const EPOCH_SLICE_BYTES: usize = 64 * 1024;

/// How long a task that has nothing else to do waits for the writer of an epoch, in milliseconds.
pub const EPOCH_PAUSE_MS: u64 = 1;

/// Shared files that a task uploads or downloads at the same time.
pub const SHARED_FILES_UNDER_WAY: usize = 8;

/// Snapshots that a task reads at the same time when it restores those of several subtasks. It keeps its part of each, so that this many
/// are in memory as a whole.
pub const SNAPSHOTS_UNDER_WAY: usize = 2;

/// Entries, by their bytes, that go into one file when state is restored with other key groups.
pub const MAX_RESTORED_FILE_BYTES: usize = 64 * 1024 * 1024;

/// Keys that leave a full cache at once, at most.
pub const EVICTED_ROWS: usize = 16 * 1024;

/// Their memory, at most: its task stands still meanwhile, for about a millisecond a megabyte.
pub const EVICTED_BYTES: usize = 4 * 1024 * 1024;

/// Timers of a key group that are read from disk at once, if there is memory for four times as many.
pub const TIMERS_READ: usize = 256;

/// Part of a store's cache that timers may take: one in so many. As much again while what was frozen is not written.
pub const TIMERS_SHARE: u64 = 4;

/// Memory that the timers of a store may take at least, for each of what is soonest and what has changed.
pub const MIN_TIMER_BYTES: usize = 2 * 1024;

/// Timers that fire in one turn of a task at the most, before it looks at its mail again.
pub const TIMERS_PER_TURN: usize = 4 * 1024;
