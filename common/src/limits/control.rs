//! The control plane: messages, the replicated log, REST, security.

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

// ---- REST --------------------------------------------------------------------------------------------------------

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

// ---- Security ----------------------------------------------------------------------------------------------------

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
