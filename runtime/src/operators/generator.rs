//! A source that makes its records: a pure function of the sequence number, at a limited rate.
//!
//! As the function is pure, the next sequence number is all the state there is. Subtask i of p makes the records
//! i, i + p, i + 2p, ...

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use crate::batch::Batch;
use crate::operator::{Source, SourceContext, SourceStatus};

/// Makes records from sequence numbers.
#[derive(Clone)]
pub struct GeneratorSource<F> {
    generate: F,
    /// How many records all subtasks make together.
    count: Option<u64>,
    /// How many records all subtasks make together in a second.
    records_per_second: Option<f64>,
    next: u64,
    step: u64,
    pace: Option<Pace>,
    context: Option<SourceContext>,
}

impl<F> GeneratorSource<F> {
    /// Makes `generate(0)`, `generate(1)`, ... without end and as fast as they are taken.
    pub fn new(generate: F) -> Self {
        Self { generate, count: None, records_per_second: None, next: 0, step: 1, pace: None, context: None }
    }

    /// Ends after this many records, counted over all subtasks.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Makes at most this many records in a second, counted over all subtasks.
    #[must_use]
    pub fn records_per_second(mut self, records_per_second: f64) -> Self {
        self.records_per_second = Some(records_per_second);
        self
    }

    /// How many of the next `max` records there are.
    fn left(&self, max: u64) -> u64 {
        match self.count {
            Some(count) => count.saturating_sub(self.next).div_ceil(self.step).min(max),
            None => max,
        }
    }
}

impl<T, F> Source for GeneratorSource<F>
where
    T: Record,
    F: Fn(u64) -> T + Send,
{
    type Out = T;

    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        self.step = u64::from(context.parallelism);
        self.next = match restored {
            Some(mut position) => u64::decode(&mut position)?,
            None => u64::from(context.subtask_index),
        };
        self.pace = match self.records_per_second {
            Some(rate) if rate > 0.0 && rate.is_finite() => {
                Some(Pace::new(rate / f64::from(context.parallelism), context.clock.monotonic()))
            }
            Some(rate) => {
                let message =
                    format!("{rate} is no rate for a generator; give a number of records above zero");
                return Err(Failure::user(message).permanent());
            }
            None => None,
        };
        self.context = Some(context.clone());
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<T>, max: usize) -> Result<SourceStatus, Failure> {
        let left = self.left(max as u64);
        if left == 0 {
            return Ok(SourceStatus::Finished);
        }
        let records = match (&mut self.pace, &self.context) {
            (Some(pace), Some(context)) => match pace.take(context.clock.monotonic(), left) {
                Ok(records) => records,
                Err(retry_after) => return Ok(SourceStatus::Idle { retry_after }),
            },
            _ => left,
        };
        let numbers = (0..records).map(|index| self.next + index * self.step);
        out.extend(numbers.map(&self.generate));
        self.next += records * self.step;
        Ok(if self.left(1) == 0 { SourceStatus::Finished } else { SourceStatus::Ready })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        let mut position = Vec::new();
        self.next.encode(&mut position);
        Ok(position)
    }
}

/// Says how many records may be made until now. Pure.
#[derive(Debug, Clone)]
struct Pace {
    records_per_second: f64,
    /// When the count began.
    origin: Duration,
    /// Records made since then.
    made: u64,
}

impl Pace {
    /// What was missed while the output was full is made up for, up to the records of this time.
    const LONGEST_BURST: Duration = Duration::from_secs(1);
    /// At high rates the source makes the records of this time at once, instead of waking for each of them.
    const SHORTEST_WAIT: Duration = Duration::from_millis(1);

    fn new(records_per_second: f64, now: Duration) -> Self {
        Self { records_per_second, origin: now, made: 0 }
    }

    /// Takes up to `wanted` records, at least one, or says how long there are none.
    fn take(&mut self, now: Duration, wanted: u64) -> Result<u64, Duration> {
        let mut due = self.due(now).saturating_sub(self.made);
        let burst = (self.records_per_second * Self::LONGEST_BURST.as_secs_f64()) as u64;
        if due > burst.max(1) {
            // Too far behind: the count starts over with a full burst.
            due = burst.max(1);
            (self.origin, self.made) = (now.saturating_sub(Self::LONGEST_BURST), 0);
            self.made = self.due(now).saturating_sub(due);
        }
        if due == 0 {
            let next = Duration::from_secs_f64((self.made as f64) / self.records_per_second);
            let wait = (self.origin + next).saturating_sub(now);
            return Err(wait.max(Self::SHORTEST_WAIT));
        }
        let taken = due.min(wanted);
        self.made += taken;
        Ok(taken)
    }

    /// Records that may have been made since the origin: the first one at once.
    fn due(&self, now: Duration) -> u64 {
        let elapsed = now.saturating_sub(self.origin).as_secs_f64();
        (elapsed * self.records_per_second) as u64 + 1
    }
}
