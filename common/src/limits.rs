//! Every bound of the system, by name, in one place.
//!
//! Whatever comes from outside a process (a file, a frame, a request, a child's output) and whatever queues inside
//! one is checked against a constant of this module, so that a look at this page answers "how large can it get?".
//! A limit which a user may change is a configuration key instead (see [`crate::config`]); the value here is then
//! its hard ceiling or its default. Sizes end in `_BYTES`, durations in `_MS`, everything else is a count.
//!
//! ```
//! use thalweg_common::limits;
//!
//! // A frame always fits into a channel's credit many times over, or a channel could never be filled.
//! assert!(limits::CHANNEL_CREDIT_BYTES >= 2 * limits::FRAME_TARGET_BYTES);
//! ```

// ---- Jobs and their binaries -------------------------------------------------------------------------------------

/// Largest job binary that a job manager accepts.
pub const MAX_BINARY_BYTES: u64 = 512 * 1024 * 1024;

/// Size of one piece of a job binary when it is uploaded, replicated or fetched.
pub const UPLOAD_CHUNK_BYTES: usize = 1024 * 1024;

/// Longest name of a job, in bytes of UTF-8.
pub const MAX_JOB_NAME_BYTES: usize = 256;

/// Longest name or uid of an operator, in bytes of UTF-8.
pub const MAX_OPERATOR_NAME_BYTES: usize = 512;

/// Largest encoded plan (job graph) that a job binary may print in plan mode.
pub const MAX_PLAN_BYTES: usize = 16 * 1024 * 1024;

/// Most operators in one job graph.
pub const MAX_OPERATORS: usize = 10_000;

/// Most bytes of job arguments (everything after `--`) in one submission.
pub const MAX_JOB_ARGUMENTS_BYTES: usize = 256 * 1024;

/// Most jobs, finished ones included, that a cluster remembers; the oldest finished ones are forgotten first.
pub const MAX_REMEMBERED_JOBS: usize = 1_000;

/// Most state changes that are remembered of one job.
pub const MAX_JOB_HISTORY: usize = 256;

/// Most failures that are remembered of one job.
pub const MAX_JOB_FAILURES: usize = 16;

/// Most failure times that the failure-rate restart strategy remembers of one job; also the highest rate it can allow.
pub const MAX_RESTART_TIMES: usize = 1_024;

/// Longest text of a failure that is stored or sent; longer ones are cut in the middle.
pub const MAX_FAILURE_TEXT_BYTES: usize = 16 * 1024;

/// Most bytes of settings in one submission.
pub const MAX_JOB_CONFIGURATION_BYTES: usize = 256 * 1024;

/// Most property groups of a job, as with the managed service for Flink, and properties of one group.
pub const MAX_PROPERTY_GROUPS: usize = 50;
/// See [`MAX_PROPERTY_GROUPS`].
pub const MAX_PROPERTIES_PER_GROUP: usize = 50;

/// Longest id of a property group.
pub const MAX_PROPERTY_GROUP_ID_CHARACTERS: usize = 50;

/// Longest key and longest value of a runtime property.
pub const MAX_PROPERTY_CHARACTERS: usize = 2_048;

/// Most bytes of a job's runtime properties as JSON: they are a variable in the environment of each worker, which has 128 KiB at most.
pub const MAX_RUNTIME_PROPERTIES_BYTES: usize = 64 * 1024;

/// Largest file of runtime properties, with all of its white space.
pub const MAX_PROPERTIES_FILE_BYTES: u64 = 1024 * 1024;

/// How long the storage of a job's checkpoints may take to answer when the job is submitted. If it takes longer the job is accepted with a
/// warning.
pub const STORAGE_CHECK_TIMEOUT_MS: u64 = 10_000;

/// Last bytes of a job binary's standard error that a refusal of its plan shows.
pub const PLAN_STDERR_TAIL_BYTES: usize = 4 * 1024;

/// Job binaries that no remembered job needs and that are kept nevertheless, the last used ones, so that submitting them
/// again is quick.
pub const RETAINED_BLOBS: usize = 32;

/// Submissions that one job manager works on at the same time.
pub const MAX_CONCURRENT_SUBMISSIONS: usize = 16;

/// Parallelisms of a job whose plans the adaptive scheduler remembers.
pub const MAX_KNOWN_LAYOUTS: usize = 32;

// ---- Parallelism -------------------------------------------------------------------------------------------------

/// Highest parallelism and highest max parallelism (number of key groups) of an operator, as in Flink.
pub const MAX_PARALLELISM: u32 = 32_768;

/// Lowest max parallelism that is chosen for an operator for which none is set, as in Flink.
pub const DEFAULT_MAX_PARALLELISM_MIN: u32 = 128;

/// Most slots of one task manager.
pub const MAX_TASK_SLOTS: u32 = 4_096;

/// Most task managers of one cluster.
pub const MAX_TASK_MANAGERS: usize = 10_000;

/// Task managers that have no tasks of a job and fetch its binary in advance, so that the job can move there quickly.
pub const STANDBY_TASK_MANAGERS: usize = 4;

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

// ---- Control messages --------------------------------------------------------------------------------------------

/// Messages that wait in front of an actor.
pub const ACTOR_MAILBOX: usize = 1_024;

/// Largest single gRPC message of the control plane (a plan, a deployment, a checkpoint acknowledgement).
pub const GRPC_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Commands in flight on one control stream between a job manager and a task manager.
pub const CONTROL_STREAM_MESSAGES: usize = 256;

/// State changes kept for a watcher of a job that reads slowly, before it is told to start over.
pub const WATCH_BACKLOG: usize = 1_024;

/// Most attempts to follow the address of a new leader before a client gives up on one request.
pub const MAX_LEADER_REDIRECTS: usize = 16;

// ---- Replicated log ----------------------------------------------------------------------------------------------

/// Most job managers of one cluster, those that are catching up included.
pub const MAX_JOB_MANAGERS: usize = 15;

/// Largest encoded command. It has to travel within one heartbeat's interval, also over a slow network.
pub const RAFT_MAX_COMMAND_BYTES: usize = 4 * 1024 * 1024;

/// Most commands that share one entry of the log.
pub const RAFT_ENTRY_COMMANDS: usize = 128;

/// Size at which an entry, and a request with several entries, is full. A single command may be larger.
pub const RAFT_APPEND_BYTES: usize = 1024 * 1024;

/// Most entries in one request to a follower.
pub const RAFT_APPEND_ENTRIES: u64 = 256;

/// Size of one piece of a snapshot on its way to a follower.
pub const RAFT_SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// Largest snapshot that a follower takes.
pub const RAFT_MAX_SNAPSHOT_BYTES: usize = 512 * 1024 * 1024;

/// Longest time between two pieces of a snapshot before the follower gives it up.
pub const RAFT_SNAPSHOT_CHUNK_TIMEOUT_MS: u64 = 10_000;

/// Longest time for sending and installing a whole snapshot.
pub const RAFT_SNAPSHOT_TIMEOUT_MS: u64 = 120_000;

/// Longest wait for a majority to accept a command or a change of members.
pub const RAFT_PROPOSE_TIMEOUT_MS: u64 = 10_000;

/// Longest wait for a new job manager to catch up.
pub const RAFT_CATCH_UP_TIMEOUT_MS: u64 = 60_000;

// ---- Checkpoints and storage -------------------------------------------------------------------------------------

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

/// Keys that leave a full cache at once.
pub const EVICTED_ROWS: usize = 16 * 1024;

/// Timers of a key group that are read from disk at once, if there is memory for four times as many.
pub const TIMERS_READ: usize = 256;

/// Part of a store's cache that timers may take: one in so many. As much again while what was frozen is not written.
pub const TIMERS_SHARE: u64 = 4;

/// Memory that the timers of a store may take at least, for each of what is soonest and what has changed.
pub const MIN_TIMER_BYTES: usize = 2 * 1024;

/// Timers that fire in one turn of a task at the most, before it looks at its mail again.
pub const TIMERS_PER_TURN: usize = 4 * 1024;

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

// ---- Processes and their output ----------------------------------------------------------------------------------

/// How long a task whose neighbour is gone waits to be cancelled before it reports that as its own failure, in
/// milliseconds: the neighbour's failure is the cause, and a dead worker is reported within 100 ms.
pub const CONSEQUENCE_GRACE_MS: u64 = 200;

/// Last lines of a worker's standard error which are reported when it dies.
pub const STDERR_TAIL_LINES: usize = 50;

/// Longest line of a child's output; the rest of a longer one is dropped.
pub const MAX_LOG_LINE_BYTES: usize = 16 * 1024;

/// Lines of a worker's output which its task manager keeps for `GetLogs`.
pub const RETAINED_LOG_LINES: usize = 10_000;

/// Largest configuration file.
pub const MAX_CONFIG_FILE_BYTES: u64 = 1024 * 1024;

/// How deeply the keys of a configuration file may be nested: more than any key has parts.
pub const MAX_CONFIG_DEPTH: usize = 16;

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

/// Log lines that wait to be written; more are dropped and counted, so that nobody who logs waits for who reads.
pub const LOG_QUEUE_LINES: usize = 4_096;

/// Longest log line that is sent elsewhere; a longer one is cut.
pub const MAX_COPIED_LINE_BYTES: usize = 64 * 1024;

/// Most metrics that the functions of one operator may register: all of them travel with every report of its tasks.
pub const MAX_USER_METRICS: usize = 200;

/// Most groups around a metric of a user.
pub const MAX_METRIC_GROUPS: usize = 16;

/// Longest name of a metric or of a group of a user, as in the managed service for Apache Flink.
pub const MAX_METRIC_NAME_CHARACTERS: usize = 116;

/// Turns in which the tasks of a job that a test drives by hand must have come to rest.
pub const MANUAL_JOB_TURNS: u64 = 100_000;

// ---- REST ----------------------------------------------------------------------------------------------------------

/// Largest body of a request, but for uploads, which are job binaries.
pub const REST_MAX_BODY_BYTES: usize = 1024 * 1024;

/// Requests that a job manager answers by REST at the same time.
pub const REST_MAX_REQUESTS: usize = 256;

/// Savepoints, stops, deletions and rescalings of which the leading job manager remembers what has become of them.
pub const REST_MAX_OPERATIONS: usize = 1_000;

/// Job binaries that are uploaded by REST and kept to be run later.
pub const REST_MAX_UPLOADS: usize = 20;

/// Most bytes of a job's logs that one answer has.
pub const REST_MAX_LOG_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of each log that the dashboard asks for.
pub const DASHBOARD_LOG_TAIL_BYTES: u64 = 64 * 1024;

/// Points of the last hour that the leader notes of each job.
pub const CHARTED_POINTS: usize = 360;

/// Most jobs whose last hour is noted.
pub const CHARTED_JOBS: usize = 32;

/// Most vertices of a job of which that is done one by one, the first ones.
pub const CHARTED_VERTICES: usize = 32;

// ---- Connectors ----------------------------------------------------------------------------------------------------

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

// ---- Security ------------------------------------------------------------------------------------------------------

/// Least time between two looks whether certificates were replaced.
pub const CERTIFICATE_CHECK_INTERVAL_MS: u64 = 1_000;

/// A certificate that expires sooner is warned of: 30 days.
pub const CERTIFICATE_WARNING_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Longest time that the two ends of a connection may take to agree on TLS.
pub const TLS_HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

/// Connections of one port that may agree on TLS at the same time; others wait.
pub const TLS_HANDSHAKES: usize = 64;

/// Different complaints about those who connect that a port remembers, so that it repeats none within a minute.
pub const REMEMBERED_COMPLAINTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The relations between limits that other code relies on.
    #[test]
    fn limits_fit_together() {
        const {
            assert!(MIN_BATCH_RECORDS <= BATCH_RECORDS);
            assert!(FRAME_TARGET_BYTES <= MAX_FRAME_BYTES);
            assert!(MAX_FRAME_BYTES < GRPC_MAX_MESSAGE_BYTES, "a frame and its envelope fit into a message");
            assert!(MAX_PLAN_BYTES < GRPC_MAX_MESSAGE_BYTES, "a plan and its envelope fit into a message");
            assert!(UPLOAD_CHUNK_BYTES < GRPC_MAX_MESSAGE_BYTES);
            assert!(RAFT_APPEND_BYTES + RAFT_MAX_COMMAND_BYTES < GRPC_MAX_MESSAGE_BYTES / 2);
            assert!(RAFT_SNAPSHOT_CHUNK_BYTES < GRPC_MAX_MESSAGE_BYTES);
            assert!(FRAME_TARGET_BYTES < HTTP2_FRAME_BYTES as usize);
            assert!(CHANNEL_CREDIT_BYTES <= MAX_CHANNEL_CREDIT_BYTES);
            assert!(MAX_TEXT_LINE_BYTES < MAX_FRAME_BYTES, "a line passes a remote channel");
            assert!(INLINE_STATE_BYTES < MAX_CHECKPOINT_METADATA_BYTES);
            assert!(DEFAULT_MAX_PARALLELISM_MIN <= MAX_PARALLELISM && MAX_PARALLELISM.is_power_of_two());
        }
    }
}
