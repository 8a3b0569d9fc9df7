//! How a task spends its time: busy, idle or back-pressured.
//!
//! Stands beside the task loop, which writes when it parks and when it is woken, and never in between: nothing here costs
//! anything per record, and one clock read per change. Invariant: the three times that are read add up to the time since
//! the task began to run, also while it is in the middle of something long, because the time that is not accounted yet
//! belongs to what it does at the moment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use thalweg_common::clock::{SharedClock, Stopwatch};

use super::counters::Counters;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
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
    /// What it does at the moment: [`NOTHING`] before it begins to run and after its end.
    activity: AtomicU8,
    /// Runs since the task began to.
    total: OnceLock<Stopwatch>,
}

const NOTHING: u8 = 0;
const BUSY: u8 = 1;
const IDLE: u8 = 2;
const BACK_PRESSURED: u8 = 3;

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
            Activity::Busy => &self.busy_ns,
            Activity::Idle => &self.idle_ns,
            Activity::BackPressured => &self.back_pressured_ns,
        };
        total.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// The task begins to run, and `total` with it.
    fn start(&self, total: Stopwatch) {
        // A task begins once.
        let _ = self.total.set(total);
        self.enter(BUSY);
    }

    /// What it does from now on. The time until now has been added.
    fn enter(&self, activity: u8) {
        // Whoever sees the new activity sees the time of the old one, too, and does not add it to the new one.
        self.activity.store(activity, Ordering::Release);
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

/// The task's own hand in its times. Dropping it is the end of them.
pub(crate) struct Timesheet<'a> {
    counters: &'a Counters,
    /// Runs since the task entered its present activity.
    lap: Stopwatch,
    activity: Activity,
}

impl<'a> Timesheet<'a> {
    /// The task is busy from now on.
    pub(crate) fn start(counters: &'a Counters, clock: &SharedClock) -> Self {
        let lap = Stopwatch::start(clock);
        counters.times().start(lap.clone());
        Self { counters, lap, activity: Activity::Busy }
    }

    /// The task does this from now on.
    pub(crate) fn enter(&mut self, activity: Activity) {
        self.account();
        self.activity = activity;
        self.counters.times().enter(match activity {
            Activity::Busy => BUSY,
            Activity::Idle => IDLE,
            Activity::BackPressured => BACK_PRESSURED,
        });
    }

    fn account(&mut self) {
        let time = self.lap.restart();
        match self.activity {
            Activity::Busy => self.counters.add_busy(time),
            Activity::Idle => self.counters.add_idle(time),
            Activity::BackPressured => self.counters.add_back_pressured(time),
        }
    }
}

impl Drop for Timesheet<'_> {
    fn drop(&mut self) {
        self.account();
        self.counters.times().enter(NOTHING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use thalweg_common::clock::ManualClock;

    const MS: u64 = 1_000_000;

    /// Busy, idle and back-pressured milliseconds.
    fn read_ms(counters: &Counters) -> [u64; 3] {
        let counted = counters.read();
        [counted.busy_ns, counted.idle_ns, counted.back_pressured_ns].map(|ns| ns / MS)
    }

    #[test]
    fn what_is_added_is_read() {
        let counters = Counters::default();
        counters.add_busy(Duration::from_millis(5));
        counters.add_idle(Duration::from_millis(3));
        counters.add_back_pressured(Duration::from_millis(2));
        counters.clone().add_busy(Duration::from_millis(1));
        assert_eq!(read_ms(&counters), [6, 3, 2]);
    }

    #[test]
    fn times_add_up_at_every_moment() {
        let manual = Arc::new(ManualClock::new(0));
        let clock: SharedClock = manual.clone();
        let pass = |ms| manual.advance(Duration::from_millis(ms));
        let counters = Counters::default();
        pass(1_000);
        assert_eq!(read_ms(&counters), [0, 0, 0], "it does not run yet");

        let mut timesheet = Timesheet::start(&counters, &clock);
        pass(7);
        assert_eq!(read_ms(&counters), [7, 0, 0], "in the middle of something long");
        timesheet.enter(Activity::Idle);
        assert_eq!(read_ms(&counters), [7, 0, 0]);
        pass(50);
        assert_eq!(read_ms(&counters), [7, 50, 0], "parked without a word");
        timesheet.enter(Activity::Busy);
        pass(1);
        timesheet.enter(Activity::BackPressured);
        pass(20);
        assert_eq!(read_ms(&counters), [8, 50, 20]);
        pass(20);
        timesheet.enter(Activity::Busy);
        pass(2);
        drop(timesheet);
        assert_eq!(read_ms(&counters), [10, 50, 40]);

        pass(1_000);
        assert_eq!(read_ms(&counters), [10, 50, 40], "it runs no more");
    }
}
