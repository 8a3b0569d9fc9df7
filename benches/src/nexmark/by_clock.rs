//! Q12: how many bids each bidder makes in every ten seconds by the clock of the machine. As a job, and as the plain loop that it is compared
//! with.
//!
//! Which window a bid is in depends on when it comes, so that a run can only be compared by what all windows of a bidder have together: the
//! digest of a result is a multiple of its count. A window by the clock that has not ended when the input does is never shown, as in Flink.
//! So the source of the job is idle at its end for longer than a window is.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::aggregates::Count;
use thalweg::batch::Batch;
use thalweg::operator::{Source, SourceContext, SourceStatus};
use thalweg::prelude::*;
use thalweg_common::clock::{SharedClock, SystemClock};

use super::generator::{Bid, Event, Generator};
use super::text::splitmix;
use crate::tally::{Digest, Tally, TallySink};

/// How long the windows of Q12 are.
pub(crate) const SIZE: Duration = Duration::from_secs(10);

/// How much longer than a window the source is idle: so long after the last event was made it is surely counted.
const MARGIN: Duration = Duration::from_secs(1);

/// How many bids a bidder has in a window.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Bids {
    bidder: u64,
    count: u64,
}

/// The sum over several windows of a bidder is that of one window with all of its bids.
impl Digest for Bids {
    #[inline]
    fn digest(&self) -> u64 {
        splitmix(self.bidder).wrapping_mul(self.count)
    }
}

/// The events, and then nothing for a while.
#[derive(Clone)]
pub(crate) struct LingeringEvents {
    generator: Generator,
    events: u64,
    lingers: Duration,
    /// The number of the next event of this subtask; the one behind it is that of the next round of all subtasks.
    next: u64,
    step: u64,
    ends_at: Option<Duration>,
    clock: SharedClock,
}

impl LingeringEvents {
    /// The first `events` events, with windows of this size behind them.
    pub(crate) fn new(generator: Generator, events: u64, size: Duration) -> Self {
        let (lingers, clock) = (size + MARGIN, SystemClock::shared());
        Self { generator, events, lingers, next: 0, step: 1, ends_at: None, clock }
    }
}

impl Source for LingeringEvents {
    type Out = Event;

    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        self.step = u64::from(context.parallelism);
        self.next = u64::from(context.subtask_index);
        if let Some(position) = restored {
            let position = position.try_into().or_failure("the position of the source is no number")?;
            self.next = u64::from_le_bytes(position);
        }
        self.clock = context.clock.clone();
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Event>, max: usize) -> Result<SourceStatus, Failure> {
        let left = self.events.saturating_sub(self.next).div_ceil(self.step);
        if left == 0 {
            let now = self.clock.monotonic();
            let ends_at = *self.ends_at.get_or_insert(now + self.lingers);
            let retry_after = ends_at.saturating_sub(now);
            let has_ended = retry_after.is_zero();
            return Ok(if has_ended { SourceStatus::Finished } else { SourceStatus::Idle { retry_after } });
        }
        let (first, step, generator) = (self.next, self.step, self.generator);
        let count = left.min(max as u64);
        out.extend((0..count).map(|index| generator.event(first + index * step)));
        self.next += count * step;
        Ok(SourceStatus::Ready)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(self.next.to_le_bytes().to_vec())
    }
}

/// Q12 as a job, with windows of any size.
pub(crate) fn bids_by_clock(bids: &DataStream<Bid>, size: Duration, sink: TallySink) -> StreamSink {
    let bidders = bids.map(|bid| bid.bidder).key_by(|bidder| *bidder);
    let counts = bidders
        .window(tumbling(size).processing_time())
        .aggregate_with(Count, |bidder, _, count| [Bids { bidder: *bidder, count }]);
    counts.uid("bids of bidders").sink("bids by the clock", sink)
}

/// Q12 as a loop: all bids of a bidder at once.
pub(crate) fn plain_bids(bids: impl Iterator<Item = Bid>, tally: &mut Tally) {
    let mut counts: HashMap<u64, u64, FixedState> = HashMap::default();
    bids.for_each(|bid| *counts.entry(bid.bidder).or_default() += 1);
    counts.into_iter().for_each(|(bidder, count)| tally.add(&Bids { bidder, count }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::run_job;
    use crate::tally::Tallies;

    const EVENTS: u64 = 300_000;

    #[test]
    fn all_windows_of_a_bidder_have_all_bids() {
        let generator = Generator::default();
        let events = (0..EVENTS).map(|number| generator.event(number));
        let mut expected = Tally::default();
        plain_bids(events.filter_map(Event::bid), &mut expected);
        for (parallelism, interval) in [(1, Some(millis(20))), (2, None)] {
            let job = |env: &Environment| {
                let (tallies, size) = (Tallies::default(), millis(10));
                let events = env.source("events", LingeringEvents::new(generator, EVENTS, size));
                bids_by_clock(&events.flat_map(Event::bid), size, tallies.sink()).uid("results");
                tallies
            };
            let tally = run_job(parallelism, interval, job).expect("the job ends");
            assert_eq!(tally.sum, expected.sum, "at parallelism {parallelism}");
            assert!(tally.count >= expected.count, "{tally:?} has no result for some bidder of {expected:?}");
        }
    }
}
