//! Records on their way: batches, frames, channels, watermarks, patterns.

// ---- Records on their way ----------------------------------------------------------------------------------------

/// Records in a full batch. A batch is sent when it is full or when its producer has nothing more to read.
pub const BATCH_RECORDS: usize = 1_024;

/// Size at which a batch is full before it has [`BATCH_RECORDS`] records, by the size of its record type in memory: about what
/// stays in a core's cache between two operators.
pub const BATCH_TARGET_BYTES: usize = 64 * 1024;

/// Records which a batch has room for, however large they are.
pub const MIN_BATCH_RECORDS: usize = 64;

/// Records in the first batch of a task whose pace is not known yet.
pub const FIRST_BATCH_RECORDS: usize = 8;

/// Keys in the table of a combiner: it is emptied when so many wait in it. Small enough for a core's own cache.
pub const COMBINER_KEYS: usize = 4_096;

/// Records behind the keys in the table of a combiner: it is emptied behind the batch that brings it there, so that
/// accumulators which grow with every record are bounded too.
pub const COMBINER_RECORDS: usize = 64 * BATCH_RECORDS;

/// Longest time for which a combiner that has more to read holds a record back, in milliseconds; one that has not holds none.
pub const COMBINER_LATENCY_MS: u64 = 5;

/// Size at which the outgoing frame of a remote channel is full.
pub const FRAME_TARGET_BYTES: usize = 128 * 1024;

/// Largest frame at all. A single record that does not fit fails its task with a message that names this limit.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that the receiver of a remote channel always has for it alone (default of
/// `taskmanager.network.memory.channel-credit`).
pub const CHANNEL_CREDIT_BYTES: usize = 256 * 1024;

/// Bytes that a worker lends to remote channels which need more than that (default of
/// `taskmanager.network.memory.floating-credit`).
pub const FLOATING_CREDIT_BYTES: usize = 16 * 1024 * 1024;

/// Most of them that one channel borrows: more makes nothing faster, unless far away.
pub const MAX_CHANNEL_FLOATING_BYTES: u64 = 2 * 1024 * 1024;

/// Least that buffer debloating leaves on its way in a remote channel, and what it begins with.
pub const MIN_CHANNEL_WINDOW_BYTES: u64 = 1024;

/// Largest credit of one remote channel, its own and borrowed; also the most that may be configured.
pub const MAX_CHANNEL_CREDIT_BYTES: usize = 256 * 1024 * 1024;

/// Batches that wait in a channel between two tasks of the same process.
pub const LOCAL_CHANNEL_BATCHES: usize = 8;

/// Events for which a full channel between two tasks of the same process still has room. More are kept as well, on a slower
/// way: of those that follow each other without a batch between, only the last barrier.
pub const LOCAL_CHANNEL_EVENTS: usize = 4;

/// While a task with several channels has records to read, it is told of risen watermarks no more often than this. It passes each of them on
/// to all channels behind it, with whatever was collected for them until then; and with a hundred channels in front of it the least of
/// their watermarks may rise a hundred times in an `auto-watermark-interval`.
pub const WATERMARK_PAUSE_MS: u64 = 10;

/// Largest HTTP/2 frame that a receiver of data frames announces.
pub const HTTP2_FRAME_BYTES: u32 = 256 * 1024;

/// What a data frame costs in credit beside its payload: about what it takes to keep it, so that credit also
/// bounds how many tiny frames wait.
pub const FRAME_OVERHEAD_BYTES: usize = 64;

/// Most records in one data frame.
pub const MAX_FRAME_RECORDS: usize = 16 * BATCH_RECORDS;

/// HTTP/2 flow-control window of one channel. Credit is what holds a sender back, so this is only wide enough.
pub const EXCHANGE_STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// HTTP/2 flow-control window of all channels of one connection between two workers.
pub const EXCHANGE_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Longest time in which a connection to another worker must come about.
pub const EXCHANGE_CONNECT_TIMEOUT_MS: u64 = 10_000;

/// Longest time for which a sender that opens a channel waits for the receiving task to be deployed.
pub const OPEN_CHANNEL_TIMEOUT_MS: u64 = 10_000;

/// Time between two signs of life on a connection between workers, and how long an answer may take before the connection
/// counts as lost. Only for hosts that vanish; a process that dies closes its connections.
pub const EXCHANGE_KEEP_ALIVE_MS: u64 = 10_000;

// ---- Watermark alignment -----------------------------------------------------------------------------------------

/// Shortest time between two looks at a group of aligned sources.
pub const MIN_ALIGNMENT_INTERVAL_MS: u64 = 10;

/// How long sources go by what the leader said last of their group: so long a cluster may need for another leader.
pub const ALIGNMENT_LEASE_MS: u64 = 5_000;

/// The same in update intervals, if these are longer.
pub const ALIGNMENT_LEASE_INTERVALS: u32 = 3;

// ---- Patterns of events ------------------------------------------------------------------------------------------

/// Most events that a pattern tells apart: one for each of its patterns, and for each time that it must or may occur.
pub const MAX_PATTERN_PLACES: usize = 10_000;

/// Most ways in which a match can go on behind one event: the bits of a word.
pub const MAX_PATTERN_WAYS: usize = 64;

/// Nodes of partial matches below which nobody looks for those that are not needed any more.
pub const MIN_COLLECTED_NODES: usize = 32;
