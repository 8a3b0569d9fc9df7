//! Checkpoints and savepoints: when, how and where.

use crate::limits::{MAX_CONCURRENT_CHECKPOINTS, MAX_RETAINED_CHECKPOINTS};

use super::kind::{COUNT_MAX, ConfigKey, DURATION, POSITIVE_DURATION, ValueKind};

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
    /// Whether a checkpoint of state in RocksDB uploads only the files that are new since the last one.
    CHECKPOINTING_INCREMENTAL: "execution.checkpointing.incremental" | "state.backend.incremental",
        ValueKind::Boolean, default "true";
}
