//! Job managers: where they are and what they keep, how they deal slots, and when somebody counts as lost.

use super::kind::{ConfigKey, DURATION, POSITIVE_DURATION, ValueKind};

keys! {
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

    /// Time from one sign of life of the leading job manager to the next.
    LEADER_HEARTBEAT_INTERVAL: "high-availability.heartbeat-interval", POSITIVE_DURATION, default "50 ms";
    /// Job managers that heard nothing of their leader elect another one, the first of them after this time.
    ELECTION_TIMEOUT_MIN: "high-availability.election-timeout.min", POSITIVE_DURATION, default "150 ms";
    /// Job managers that heard nothing of their leader elect another one, the last of them after this time.
    ELECTION_TIMEOUT_MAX: "high-availability.election-timeout.max", POSITIVE_DURATION, default "300 ms";
}
