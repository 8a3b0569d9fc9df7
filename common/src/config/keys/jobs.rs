//! How a job runs: its parallelism, its state, its time, and what becomes of it when it fails.

use crate::limits::MAX_PARALLELISM;

use super::kind::{COUNT_MAX, ConfigKey, DURATION, POSITIVE_DURATION, ValueKind};

keys! {
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
}
