//! Events that are due at fixed times, and the source that makes them: each event carries the time at which it was due.
//!
//! Stands at the beginning of a record's way. The schedule never waits for the job: an event that could not be given out
//! in time keeps its due time, so that what it waited counts (coordinated omission is corrected). Invariants: events are
//! given out in order, all that are due at each poll, up to what a batch holds; none before it is due.

use std::str::FromStr;
use std::time::Duration;

use thalweg::Record;
use thalweg::batch::Batch;
use thalweg::operator::{Source, SourceContext, SourceStatus};
use thalweg::prelude::Failure;

use crate::monotonic::now_ns;
use crate::nexmark::text::splitmix;
use crate::submitted::refuse_restart;

/// How many different keys the events have.
pub const KEYS: u64 = 10_000;

/// How often a source that has nothing is asked again, as one that looks into a folder or asks a broker.
const SILENT_RETRY: Duration = Duration::from_secs(1);

/// How often at most a source that has nothing due is asked again: what is due in between comes together, and late by that.
const MIN_RETRY: Duration = Duration::from_micros(20);

const NS_PER_SECOND: u128 = 1_000_000_000;

/// An event on its way.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What it is partitioned by.
    pub key: u64,
    /// When it was due, in nanoseconds of the machine's monotonic clock.
    pub due_ns: u64,
}

/// How many events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// So many in a second.
    PerSecond(u64),
    /// As many as are taken; each is due when it is made.
    Unlimited,
    /// None.
    Silent,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            "silent" => Ok(Self::Silent),
            number => match number.parse() {
                Ok(rate) if rate > 0 => Ok(Self::PerSecond(rate)),
                _ => Err(format!(
                    "`{number}` is no rate; give a whole number of events per second above 0, `unlimited` or `silent`"
                )),
            },
        }
    }
}

/// When which event is due. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// When event 0 is due.
    start_ns: u64,
    per_second: u64,
}

impl Schedule {
    /// Event 0 is due at `start_ns`, the others evenly after it. `per_second` is above 0.
    pub fn new(start_ns: u64, per_second: u64) -> Self {
        Self { start_ns, per_second: per_second.max(1) }
    }

    /// When this event is due.
    pub fn due_ns(&self, event: u64) -> u64 {
        self.start_ns + (u128::from(event) * NS_PER_SECOND / u128::from(self.per_second)) as u64
    }

    /// When the events from this one on are due, one after the other: without a division for each.
    pub fn due_ns_from(&self, event: u64) -> impl Iterator<Item = u64> + use<> {
        let (start_ns, per_second) = (self.start_ns, u128::from(self.per_second));
        let elapsed = u128::from(event) * NS_PER_SECOND;
        let (mut due_ns, mut rest) =
            (start_ns + (elapsed / per_second) as u64, (elapsed % per_second) as u64);
        let (step_ns, step_rest) = ((NS_PER_SECOND / per_second) as u64, (NS_PER_SECOND % per_second) as u64);
        let per_second = self.per_second;
        std::iter::repeat_with(move || {
            let due = due_ns;
            (due_ns, rest) = (due_ns + step_ns, rest + step_rest);
            if rest >= per_second {
                (due_ns, rest) = (due_ns + 1, rest - per_second);
            }
            due
        })
    }

    /// How many events are due at this time.
    pub fn due(&self, now_ns: u64) -> u64 {
        match now_ns.checked_sub(self.start_ns) {
            // Event n is due if the whole nanoseconds up to it are at most those that have passed.
            Some(passed) => {
                ((u128::from(passed) + 1) * u128::from(self.per_second)).div_ceil(NS_PER_SECOND) as u64
            }
            None => 0,
        }
    }
}

/// Makes events at a rate. Runs in one subtask.
#[derive(Debug, Clone)]
pub struct PacedSource {
    rate: Rate,
    schedule: Option<Schedule>,
    next: u64,
}

impl PacedSource {
    /// Events at this rate from the first poll on.
    pub fn new(rate: Rate) -> Self {
        Self { rate, schedule: None, next: 0 }
    }

    /// What there is to say at this time.
    fn poll_at(&mut self, now_ns: u64, out: &mut impl Extend<Event>, max: u64) -> SourceStatus {
        let event = |number, due_ns| Event { key: splitmix(number) % KEYS, due_ns };
        let from = self.next;
        match self.rate {
            Rate::Silent => SourceStatus::Idle { retry_after: SILENT_RETRY },
            Rate::Unlimited => {
                self.next += max;
                out.extend((from..self.next).map(|number| event(number, now_ns)));
                SourceStatus::Ready
            }
            Rate::PerSecond(rate) => {
                let schedule = *self.schedule.get_or_insert(Schedule::new(now_ns, rate));
                self.next = schedule.due(now_ns).min(from + max);
                let due = schedule.due_ns_from(from);
                out.extend((from..self.next).zip(due).map(|(number, due_ns)| event(number, due_ns)));
                let wait = schedule.due_ns(self.next).saturating_sub(now_ns);
                if wait == 0 {
                    return SourceStatus::Ready;
                }
                SourceStatus::Idle { retry_after: Duration::from_nanos(wait).max(MIN_RETRY) }
            }
        }
    }
}

impl Source for PacedSource {
    type Out = Event;

    fn open(&mut self, context: &SourceContext, _restored: Option<&[u8]>) -> Result<(), Failure> {
        if context.parallelism != 1 {
            return Err(
                Failure::user("a paced source has one schedule; set its parallelism to 1").permanent()
            );
        }
        refuse_restart(context)
    }

    fn poll(&mut self, out: &mut Batch<Event>, max: usize) -> Result<SourceStatus, Failure> {
        Ok(self.poll_at(now_ns(), out, max as u64))
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        let mut position = Vec::new();
        self.next.encode(&mut position);
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_due_from_its_time_on() {
        for per_second in [1, 3, 7, 1_000, 50_000, 333_333, 1_000_000] {
            let schedule = Schedule::new(1_000, per_second);
            assert_eq!((schedule.due(999), schedule.due(1_000), schedule.due_ns(0)), (0, 1, 1_000));
            for event in [1, 2, 3, 999, 1_000, 49_999, 1_000_003] {
                let at = schedule.due_ns(event);
                assert_eq!(schedule.due(at), event + 1, "{event} at {per_second}/s");
                assert_eq!(schedule.due(at - 1), event, "{event} at {per_second}/s");
                let from_there: Vec<u64> = schedule.due_ns_from(event).take(5).collect();
                let each: Vec<u64> = (event..event + 5).map(|event| schedule.due_ns(event)).collect();
                assert_eq!(from_there, each, "{event} at {per_second}/s");
            }
            assert_eq!(schedule.due_ns(per_second), 1_000 + 1_000_000_000);
        }
    }

    #[test]
    fn everything_that_is_due_is_given_out_with_its_own_time() {
        let mut source = PacedSource::new(Rate::PerSecond(1_000));
        let mut poll = |now_ns, max| {
            let mut out = Vec::new();
            let status = source.poll_at(now_ns, &mut out, max);
            let due: Vec<u64> = out.iter().map(|event| event.due_ns).collect();
            (due, status)
        };
        let idle = |ns| SourceStatus::Idle { retry_after: Duration::from_nanos(ns) };
        assert_eq!(poll(5, 10), (vec![5], idle(1_000_000)));
        assert_eq!(poll(1_000_004, 10), (vec![], idle(20_000)));
        // Late by more than two events: both keep the time at which they were due.
        assert_eq!(poll(3_500_005, 2), (vec![1_000_005, 2_000_005], SourceStatus::Ready));
        assert_eq!(poll(3_500_006, 2), (vec![3_000_005], idle(499_999)));
    }

    #[test]
    fn other_rates_have_no_schedule() {
        let mut out = Vec::new();
        assert_eq!(PacedSource::new(Rate::Unlimited).poll_at(7, &mut out, 3), SourceStatus::Ready);
        assert_eq!(out.iter().map(|event| event.due_ns).collect::<Vec<_>>(), [7, 7, 7]);
        out.clear();
        let silent = PacedSource::new(Rate::Silent).poll_at(7, &mut out, 3);
        assert_eq!((silent, out.len()), (SourceStatus::Idle { retry_after: SILENT_RETRY }, 0));
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for rate in [Rate::PerSecond(50_000), Rate::Unlimited, Rate::Silent] {
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        for wrong in ["0", "-1", "1.5", "fast", ""] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
