//! The pace of a task: how many records a batch may hold so that a slow task is not buried in what waits for it. Pure.
//!
//! On a record's way this stands beside a gate, which tells it to the senders of its local channels, and beside a source,
//! which reads no more at once than its chain takes in a moment. Together with the windows of remote channels it holds what
//! is on its way to what is consumed in the target time of buffer debloating, and so a barrier passes soon even where
//! a record takes long. Invariants: the first batches are small, because nothing is known yet; a batch is at most twice as
//! large as the one before; only time that passed behind a batch counts, never time without input.

use std::time::Duration;

use thalweg_common::limits::FIRST_BATCH_RECORDS;

use super::debloat::Debloater;

/// The pace of one task.
#[derive(Debug)]
pub(crate) struct Pace {
    debloater: Debloater,
    records: usize,
    full: usize,
}

impl Pace {
    /// A task that is to get through a batch in `target`. A full batch has `full` records.
    pub(crate) fn new(target: Duration, full: usize) -> Self {
        let records = FIRST_BATCH_RECORDS.min(full);
        Self { debloater: Debloater::new(target), records, full }
    }

    /// How many records the next batch may hold; at least one.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Whether a batch was taken and not yet measured: only then is the time of interest.
    pub(crate) fn is_waiting(&self) -> bool {
        self.debloater.is_working()
    }

    /// At `now` the task gets a batch.
    pub(crate) fn begin(&mut self, records: usize, now: Duration) {
        self.debloater.begin(records as u64, now);
    }

    /// At `now` the task is through with its batch and everything that came of it is on its way.
    pub(crate) fn end(&mut self, now: Duration) {
        if !self.debloater.is_working() {
            return;
        }
        self.debloater.end(now);
        if let Some(fitting) = self.debloater.amount() {
            let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
            self.records = fitting.min(self.records.saturating_mul(2)).clamp(1, self.full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    /// Batches as large as they may be, and the time for each of their records. Returns the size of each.
    fn batches(pace: &mut Pace, count: usize, time_per_record: Duration) -> Vec<usize> {
        let mut now = Duration::from_secs(9);
        let mut sizes = Vec::new();
        for _ in 0..count {
            let records = pace.records();
            pace.begin(records, now);
            now += time_per_record * records as u32;
            pace.end(now);
            sizes.push(records);
            // Time without input.
            now += Duration::from_secs(3);
        }
        sizes
    }

    #[test]
    fn a_fast_task_soon_has_full_batches() {
        let mut pace = Pace::new(TARGET, 1_024);
        let sizes = batches(&mut pace, 9, Duration::from_nanos(100));
        assert_eq!(sizes, [8, 16, 32, 64, 128, 256, 512, 1_024, 1_024]);
    }

    #[test]
    fn a_slow_task_has_batches_that_take_the_target_time() {
        let mut pace = Pace::new(TARGET, 1_024);
        assert_eq!(batches(&mut pace, 4, Duration::from_millis(10)), [8, 10, 10, 10]);
        assert_eq!(Pace::new(TARGET, 5).records(), 5);
    }

    #[test]
    fn a_task_that_takes_longer_than_the_target_for_a_record_gets_one_at_a_time() {
        let mut pace = Pace::new(TARGET, 1_024);
        assert_eq!(batches(&mut pace, 3, Duration::from_secs(1)), [8, 1, 1]);
    }

    #[test]
    fn it_follows_a_task_that_slows_down_and_recovers() {
        let mut pace = Pace::new(TARGET, 1_024);
        batches(&mut pace, 20, Duration::from_nanos(100));
        let sizes = batches(&mut pace, 4, Duration::from_millis(1));
        assert_eq!(sizes[0], 1_024);
        assert!((90..=200).contains(&sizes[3]), "{sizes:?}");
        // Half a second of work.
        let sizes = batches(&mut pace, 20_000, Duration::from_nanos(100));
        assert_eq!(sizes.last(), Some(&1_024));
    }

    #[test]
    fn without_a_measurement_nothing_changes() {
        let mut pace = Pace::new(TARGET, 1_024);
        pace.end(Duration::from_secs(1));
        assert!(!pace.is_waiting());
        pace.begin(7, Duration::from_secs(1));
        assert!(pace.is_waiting());
        pace.end(Duration::from_secs(1));
        assert_eq!(pace.records(), FIRST_BATCH_RECORDS, "no time has passed");
    }
}
