//! How a task spends its time: busy, idle or back-pressured.
//!
//! Stands beside the thread of a slot, which writes before and after a task's turn: nothing here costs anything per record.
//! Invariant: the three times that are read add up to the time since the task began to run, also while it is in the middle
//! of something long, because the time that is not accounted yet belongs to what it does at the moment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use thalweg_common::clock::Stopwatch;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It does not run: not yet, or no more.
    None,
    /// It has something to do: it runs, or waits for its turn to run.
    Busy,
    /// It waits because there is nothing to read.
    Idle,
    /// It waits because an output is full.
    BackPressured,
}

/// Totals of a task's time. Written by the task alone.
#[derive(Default)]
pub(super) struct Times {
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    back_pressured_ns: AtomicU64,
    /// What it does at the moment.
    activity: AtomicU8,
    /// Runs since the task began to.
    total: OnceLock<Stopwatch>,
}

const BUSY: u8 = Activity::Busy as u8;
const IDLE: u8 = Activity::Idle as u8;
const BACK_PRESSURED: u8 = Activity::BackPressured as u8;

/// What the times showed at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub(super) busy_ns: u64,
    pub(super) idle_ns: u64,
    pub(super) back_pressured_ns: u64,
}

impl Times {
    pub(super) fn add(&self, activity: Activity, time: Duration) {
        let total = match activity {
            Activity::None => return,
            Activity::Busy => &self.busy_ns,
            Activity::Idle => &self.idle_ns,
            Activity::BackPressured => &self.back_pressured_ns,
        };
        // Only the thread of the task's slot adds, so this needs no atomic addition.
        total.store(total.load(Ordering::Relaxed) + nanoseconds(time), Ordering::Relaxed);
    }

    /// The task begins to run, and `total` with it.
    pub(super) fn begin(&self, total: Stopwatch) {
        // A task begins once.
        let _ = self.total.set(total);
        self.enter(Activity::Busy);
    }

    /// What it does from now on. The time until now has been added.
    pub(super) fn enter(&self, activity: Activity) {
        // Whoever sees the new activity sees the time of the old one, too, and does not add it to the new one.
        self.activity.store(activity as u8, Ordering::Release);
    }

    /// What was added, and what has passed since then.
    pub(super) fn read(&self) -> Spent {
        let activity = self.activity.load(Ordering::Acquire);
        let mut spent = Spent {
            busy_ns: self.busy_ns.load(Ordering::Relaxed),
            idle_ns: self.idle_ns.load(Ordering::Relaxed),
            back_pressured_ns: self.back_pressured_ns.load(Ordering::Relaxed),
        };
        let total_ns = self.total.get().map_or(0, |total| nanoseconds(total.elapsed()));
        let open_ns = total_ns.saturating_sub(spent.busy_ns + spent.idle_ns + spent.back_pressured_ns);
        match activity {
            BUSY => spent.busy_ns += open_ns,
            IDLE => spent.idle_ns += open_ns,
            BACK_PRESSURED => spent.back_pressured_ns += open_ns,
            _ => {}
        }
        spent
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::counters::Counters;
    use std::sync::Arc;
    use thalweg_common::clock::{ManualClock, SharedClock};

    const MS: u64 = 1_000_000;

    /// Busy, idle and back-pressured milliseconds.
    fn read_ms(counters: &Counters) -> [u64; 3] {
        let counted = counters.read();
        [counted.busy_ns, counted.idle_ns, counted.back_pressured_ns].map(|ns| ns / MS)
    }

    #[test]
    fn what_is_added_is_read() {
        let counters = Counters::default();
        let ms = Duration::from_millis;
        counters.add_time(Activity::Busy, ms(5));
        counters.add_time(Activity::Idle, ms(3));
        counters.add_time(Activity::BackPressured, ms(2));
        counters.add_time(Activity::None, ms(9));
        counters.clone().add_time(Activity::Busy, ms(1));
        assert_eq!(read_ms(&counters), [6, 3, 2]);
    }

    #[test]
    fn times_add_up_at_every_moment() {
        let manual = Arc::new(ManualClock::new(0));
        let clock: SharedClock = manual.clone();
        let pass = |ms| {
            manual.advance(Duration::from_millis(ms));
            Duration::from_millis(ms)
        };
        let counters = Counters::default();
        pass(1_000);
        assert_eq!(read_ms(&counters), [0, 0, 0], "it does not run yet");

        counters.begin(Stopwatch::start(&clock));
        counters.add_time(Activity::Busy, pass(7));
        let later = pass(3);
        assert_eq!(read_ms(&counters), [10, 0, 0], "in the middle of something long");
        counters.add_time(Activity::Busy, later);
        counters.enter(Activity::Idle);
        assert_eq!(read_ms(&counters), [10, 0, 0]);
        let parked = pass(50);
        assert_eq!(read_ms(&counters), [10, 50, 0], "parked without a word");
        counters.add_time(Activity::Idle, parked);
        counters.enter(Activity::BackPressured);
        let parked = pass(20);
        assert_eq!(read_ms(&counters), [10, 50, 20]);
        counters.add_time(Activity::BackPressured, parked);
        counters.enter(Activity::None);
        pass(1_000);
        assert_eq!(read_ms(&counters), [10, 50, 20], "it runs no more");
    }
}
