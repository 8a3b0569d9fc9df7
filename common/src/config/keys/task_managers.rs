//! Task managers: their slots and directories, their memory, and the exchange between their workers.

use crate::limits::{
    CHANNEL_CREDIT_BYTES, FLOATING_CREDIT_BYTES, FRAME_TARGET_BYTES, MAX_CHANNEL_CREDIT_BYTES, MAX_TASK_SLOTS,
};

use super::kind::{ConfigKey, POSITIVE_DURATION, ValueKind};

keys! {
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
}

// The defaults are written out for people; they must stay the constants.
const _: () = assert!(CHANNEL_CREDIT_BYTES == 256 << 10);
const _: () = assert!(FLOATING_CREDIT_BYTES == 16 << 20 && FRAME_TARGET_BYTES == 128 << 10);
