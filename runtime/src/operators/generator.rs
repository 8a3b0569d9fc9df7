//! A source that makes its records: a pure function of the sequence number, at a limited rate.
//!
//! As the function is pure, the numbers that are left are all the state there is. Subtask i of p makes the records i, i + p, i + 2p,
//! ..., until the job is restored with another parallelism: then each takes a share of what was left.

use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::numbers::{NumberSplit, Numbers};
use crate::batch::Batch;
use crate::operator::{SourceContext, SourceStatus};
use crate::split::{SourceReader, SplitSource};

/// Makes records from sequence numbers.
#[derive(Debug, Clone)]
pub struct GeneratorSource<F> {
    generate: F,
    /// How many records all subtasks make together.
    count: Option<u64>,
    /// How many records all subtasks make together in a second.
    records_per_second: Option<f64>,
}

impl<F> GeneratorSource<F> {
    /// Makes `generate(0)`, `generate(1)`, ... without end and as fast as they are taken.
    pub fn new(generate: F) -> Self {
        Self { generate, count: None, records_per_second: None }
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
}

impl<T, F> SplitSource for GeneratorSource<F>
where
    T: Record,
    F: Fn(u64) -> T + Clone + Send + Sync + 'static,
{
    type Out = T;
    type Split = NumberSplit;
    type Reader = GeneratorReader<F>;

    fn splits(&self, context: &SourceContext) -> Result<Vec<NumberSplit>, Failure> {
        Ok(context.share_of(NumberSplit::all(context.parallelism)).collect())
    }

    fn reader(&self, context: &SourceContext) -> Result<GeneratorReader<F>, Failure> {
        let pace = match self.records_per_second {
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
        Ok(GeneratorReader {
            generate: self.generate.clone(),
            end: self.count.unwrap_or(u64::MAX),
            numbers: Numbers::default(),
            pace,
            clock: context.clock.clone(),
        })
    }
}

/// Makes the records of one subtask.
pub struct GeneratorReader<F> {
    generate: F,
    /// The first number of which there is no record.
    end: u64,
    numbers: Numbers,
    pace: Option<Pace>,
    clock: SharedClock,
}

impl<T, F> SourceReader for GeneratorReader<F>
where
    T: Record,
    F: Fn(u64) -> T + Send + 'static,
{
    type Out = T;
    type Split = NumberSplit;

    fn add_splits(&mut self, splits: Vec<NumberSplit>) -> Result<(), Failure> {
        self.numbers.add(splits);
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<T>, max: usize) -> Result<SourceStatus, Failure> {
        let left = self.numbers.left(self.end, max as u64);
        if left == 0 {
            return Ok(SourceStatus::Finished);
        }
        let records = match &mut self.pace {
            Some(pace) => match pace.take(self.clock.monotonic(), left) {
                Ok(records) => records,
                Err(retry_after) => return Ok(SourceStatus::Idle { retry_after }),
            },
            None => left,
        };
        self.numbers.take(records, |run| out.extend(run.map(&self.generate)));
        let has_ended = self.numbers.left(self.end, 1) == 0;
        Ok(if has_ended { SourceStatus::Finished } else { SourceStatus::Ready })
    }

    fn snapshot(&mut self) -> Result<Vec<NumberSplit>, Failure> {
        Ok(self.numbers.snapshot(self.end))
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
