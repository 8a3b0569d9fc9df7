//! When a file is complete and the next one begins. Pure.

use std::time::Duration;

/// When a part of a bucket is rolled: closed, to become visible with the next checkpoint. Flink's `DefaultRollingPolicy`, and its
/// `OnCheckpointRollingPolicy`.
///
/// By default at 128 MiB, a minute after it was begun, and a minute after the last record, which is looked after once in a minute. So a
/// file becomes visible with the first checkpoint behind that: for larger files raise both times *and* the interval of checkpoints.
///
/// ```
/// use std::time::Duration;
/// use thalweg_connectors::files::RollingPolicy;
///
/// let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
/// let policy = RollingPolicy::default().rollover(minutes(8)).inactivity(minutes(5)).max_part_bytes(1 << 30);
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollingPolicy {
    max_part_bytes: u64,
    rollover_ms: i64,
    inactivity_ms: i64,
    check: Duration,
    on_checkpoint: bool,
}

impl Default for RollingPolicy {
    fn default() -> Self {
        Self {
            max_part_bytes: 128 * 1024 * 1024,
            rollover_ms: 60_000,
            inactivity_ms: 60_000,
            check: Duration::from_secs(60),
            on_checkpoint: false,
        }
    }
}

impl RollingPolicy {
    /// At every checkpoint, and at the same size; time does not matter. What bulk formats use always.
    #[must_use]
    pub fn on_checkpoint() -> Self {
        Self { on_checkpoint: true, rollover_ms: i64::MAX, inactivity_ms: i64::MAX, ..Self::default() }
    }

    /// Rolls a part that has so many bytes.
    #[must_use]
    pub fn max_part_bytes(mut self, bytes: u64) -> Self {
        self.max_part_bytes = bytes.max(1);
        self
    }

    /// Rolls a part so long after it was begun.
    #[must_use]
    pub fn rollover(mut self, interval: Duration) -> Self {
        self.rollover_ms = ms(interval);
        self
    }

    /// Rolls a part so long after its last record.
    #[must_use]
    pub fn inactivity(mut self, interval: Duration) -> Self {
        self.inactivity_ms = ms(interval);
        self
    }

    /// Looks at this interval whether a part is to be rolled by its times: Flink's `bucketCheckInterval`.
    #[must_use]
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check = interval.max(Duration::from_millis(1));
        self
    }

    pub(super) fn interval(&self) -> Duration {
        self.check
    }

    pub(super) fn rolls_on_checkpoint(&self) -> bool {
        self.on_checkpoint
    }

    /// The same at every checkpoint.
    pub(super) fn and_on_checkpoint(self) -> Self {
        Self { on_checkpoint: true, ..self }
    }

    /// Whether a part of this size takes no more records.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        bytes >= self.max_part_bytes
    }

    /// Whether a part is to be rolled by its times, all in milliseconds since the epoch.
    pub(super) fn is_due(&self, begun_ms: i64, written_ms: i64, now_ms: i64) -> bool {
        now_ms.saturating_sub(begun_ms) >= self.rollover_ms
            || now_ms.saturating_sub(written_ms) >= self.inactivity_ms
    }
}

fn ms(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_rolled_by_size_age_or_silence() {
        let policy = RollingPolicy::default();
        assert!(!policy.is_full(128 * 1024 * 1024 - 1) && policy.is_full(134_217_728));
        assert!(!policy.is_due(0, 59_999, 59_999), "neither old nor silent");
        assert!(policy.is_due(0, 59_999, 60_000), "old");
        let patient = policy.rollover(Duration::from_secs(300));
        assert!(!patient.is_due(0, 10_000, 69_999) && patient.is_due(0, 10_000, 70_000), "silent");
        assert!(patient.is_due(0, 299_999, 300_000));
        let at_checkpoints = RollingPolicy::on_checkpoint();
        assert!(at_checkpoints.rolls_on_checkpoint() && !at_checkpoints.is_due(0, 0, i64::MAX - 1));
        assert!(!policy.rolls_on_checkpoint() && policy.and_on_checkpoint().rolls_on_checkpoint());
    }
}
