//! Jobs: what is submitted, how wide it may be, the processes that run it and what they say.

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

/// How long a process that runs jobs and allocates by mimalloc keeps memory that it has freed: the next window, checkpoint or file takes it again, which
/// costs less than to give it back and to fetch it anew. `MIMALLOC_PURGE_DELAY` of whoever starts it takes precedence.
pub const FREED_MEMORY_KEPT_MS: u64 = 10_000;

// ---- Logs and metrics --------------------------------------------------------------------------------------------

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

// ---- Jobs that a test drives by hand -----------------------------------------------------------------------------

/// Turns in which the tasks of a job that a test drives by hand must have come to rest.
pub const MANUAL_JOB_TURNS: u64 = 100_000;
