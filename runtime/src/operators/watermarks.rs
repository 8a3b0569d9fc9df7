//! The operator behind `watermarks`: gives records their timestamps, and makes the watermarks of the stream.
//!
//! On a watermark's way this is its beginning. Directly behind a source that tells of its splits it keeps time for each of them, elsewhere
//! for its subtask. Invariants: a watermark is behind the records that it is about, and in front of all others; watermarks from before end
//! here, but for that of the end of the input, which is the last one; while the output is full nothing is emitted and no time passes
//! for idleness, nor for what waits for other sources.

use std::iter;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, OperatorId};

use super::factory;
use crate::batch::{Batch, NO_TIMESTAMP};
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::program::{OperatorContext, OperatorFactory};
use crate::snapshot::SnapshotBuilder;
use crate::stores::Draining;
use crate::time::alignment::Alignment;
use crate::time::inquiry::Inquiry;
use crate::time::origins::{Changes, Origins};
use crate::time::splits::SharedSplits;
use crate::time::{
    MAX_WATERMARK, Merged, TimestampAssigner, WatermarkAlignment, WatermarkGenerator, WatermarkOutput,
    WatermarkStrategy,
};

/// Timestamps and watermarks as this strategy says.
pub fn watermarks<T, G, A>(strategy: WatermarkStrategy<G, A>) -> Arc<dyn OperatorFactory>
where
    T: Send + 'static,
    G: WatermarkGenerator<T>,
    A: TimestampAssigner<T>,
{
    factory::operator(move |context, next| {
        Ok(Box::new(Watermarks::<T, G, A>::open(&strategy, context, next)?))
    })
}

struct Watermarks<T, G, A> {
    name: String,
    operator_id: OperatorId,
    assigner: A,
    origins: Origins<G>,
    /// What the source before this operator tells, and the version of its splits that was seen.
    splits: Option<(SharedSplits, u64)>,
    /// How far this source is among others, if it is aligned with them.
    alignment: Option<Alignment>,
    /// Nothing if generators are never asked by the clock.
    interval: Option<Duration>,
    next_emission: Duration,
    /// Generators are asked whenever there is nothing more to read: see [`TimeSettings`](crate::time::TimeSettings).
    is_by_hand: bool,
    /// Since when the output is full.
    blocked_since: Option<Duration>,
    /// The last watermark has passed.
    has_ended: bool,
    /// What generators have said behind the record of this number, while a batch is looked at.
    said: Vec<(usize, Merged)>,
    alarm: Draining,
    inquiry: Inquiry,
    clock: SharedClock,
    next: Box<dyn Link<T>>,
    records: PhantomData<fn(T)>,
}

impl<T, G, A> Watermarks<T, G, A>
where
    G: WatermarkGenerator<T>,
    A: TimestampAssigner<T>,
{
    fn open(
        strategy: &WatermarkStrategy<G, A>,
        context: &OperatorContext,
        next: Box<dyn Link<T>>,
    ) -> Result<Self, Failure> {
        let WatermarkStrategy { mut generator, mut assigner, idleness, alignment } = strategy.clone();
        let alignment = alignment.map(|alignment| aligned(&alignment, context)).transpose()?;
        generator.open(&context.open);
        assigner.open(&context.open);
        let now = context.open.clock.monotonic();
        if let Some(splits) = &context.splits {
            splits.want();
        }
        let is_by_hand = context.time.is_by_hand;
        let interval = context.time.auto_watermark_interval;
        let interval = Some(interval).filter(|interval| !interval.is_zero() && !is_by_hand);
        Ok(Self {
            name: context.open.operator_name.clone(),
            operator_id: context.open.operator_id,
            assigner,
            origins: Origins::single(generator, idleness, now),
            splits: context.splits.clone().map(|splits| (splits, 0)),
            alignment,
            interval,
            next_emission: now + interval.unwrap_or_default(),
            is_by_hand,
            blocked_since: None,
            has_ended: false,
            said: Vec::new(),
            alarm: context.stores.draining(),
            inquiry: context.counters.inquiry(),
            clock: Arc::clone(&context.open.clock),
            next,
            records: PhantomData,
        })
    }
}

/// How the source before this operator is aligned with others.
fn aligned(alignment: &WatermarkAlignment, context: &OperatorContext) -> Result<Alignment, Failure> {
    let misplaced = |what: &str| {
        let message =
            format!("{what}; put one strategy with_watermark_alignment() directly behind the source");
        Failure::user(message).permanent().context(&context.open.operator_name)
    };
    let splits = context.splits.as_ref();
    let splits =
        splits.ok_or_else(|| misplaced("there is something between the source and its alignment"))?;
    let alignment = Alignment::new(alignment);
    if !splits.align(alignment.clone()) {
        return Err(misplaced("the source is aligned twice"));
    }
    context.counters.add_alignment(alignment.clone());
    Ok(alignment)
}

impl<T, G, A> Watermarks<T, G, A>
where
    G: WatermarkGenerator<T>,
    A: TimestampAssigner<T>,
{
    /// From which origins the records of a batch are, in their order.
    fn origins_of(&mut self, records: usize, now: Duration) -> Result<Vec<(usize, usize)>, Failure> {
        let Some((splits, _)) = &self.splits else { return Ok(vec![(0, records)]) };
        let report = splits.lock();
        if !report.is_told() {
            return Ok(vec![(0, records)]);
        }
        let Some(told) = report.of_batch(records) else {
            let message = "the reader of this source has not told the splits of exactly the records that it gave; tell each of them \
                 in `tell_splits`";
            return Err(Failure::user(message).context(&self.name));
        };
        Ok(told.iter().map(|(split, count)| (self.origins.of_split(split, now), *count)).collect())
    }

    /// Lets the generator of an origin see these records of a batch, and notes what it says.
    fn show(&mut self, origin: usize, batch: &Batch<T>, range: Range<usize>, now: Duration) {
        let touched = self.origins.touch(origin, now);
        self.said.extend(Some((range.start, touched)).filter(|(_, merged)| !merged.is_nothing()));
        let Some(generator) = self.origins.generator(origin) else { return };
        let mut outputs = Vec::new();
        let records = &batch.records()[range.clone()];
        match batch.timestamps().get(range.clone()) {
            Some(timestamps) => {
                listen(generator, records.iter().zip(timestamps.iter().copied()), &mut outputs);
            }
            None => listen(generator, records.iter().zip(iter::repeat(NO_TIMESTAMP)), &mut outputs),
        }
        for (at, output) in outputs {
            let changes = self.origins.say(origin, output);
            self.said.extend(changes.into_iter().map(|merged| (range.start + at, merged)));
        }
    }

    /// Hands the records on, and what was said in its place among them.
    fn hand_on(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if self.said.is_empty() {
            let result = self.next.process(batch);
            batch.clear();
            return result;
        }
        let (records, timestamps) = std::mem::take(batch).into_parts();
        let (mut records, mut timestamps, mut done) = (records.into_iter(), timestamps.into_iter(), 0);
        for (at, merged) in self.said.drain(..) {
            let count = at - done;
            done = at;
            let timestamps = timestamps.by_ref().take(count).collect();
            let mut piece = Batch::from_parts(records.by_ref().take(count).collect(), timestamps);
            if !piece.is_empty() {
                self.next.process(&mut piece)?;
            }
            merged.pass_to(self.next.as_mut())?;
        }
        let mut rest = Batch::from_parts(records.collect(), timestamps.collect());
        if rest.is_empty() { Ok(()) } else { self.next.process(&mut rest) }
    }

    /// Keeps time for the splits that the source has now.
    fn follow_splits(&mut self, now: Duration) -> Result<bool, Failure> {
        let Some((splits, version)) = &mut self.splits else { return Ok(false) };
        let changes = match splits.lock().open_since(*version) {
            Some((open, newer)) => {
                *version = newer;
                self.origins.set_splits::<T>(open, now)
            }
            None => return Ok(false),
        };
        self.pass_on(changes)
    }

    /// Says whether there was something.
    fn pass_on(&mut self, changes: Changes) -> Result<bool, Failure> {
        let mut has_passed = false;
        for merged in changes {
            has_passed = true;
            merged.pass_to(self.next.as_mut())?;
        }
        Ok(has_passed)
    }

    /// Says how far this source is, and sees what of it must wait for others.
    fn align(&mut self, now: Duration) {
        let Some(alignment) = &self.alignment else { return };
        let is_out = self.has_ended || self.origins.status() == WatermarkStatus::Idle;
        alignment.set(self.origins.watermark(), is_out);
        let (limit, all_wait) = (alignment.limit(), alignment.is_ahead());
        let mut can_pause = false;
        if let Some((splits, _)) = &self.splits {
            let mut report = splits.lock();
            can_pause = report.can_pause();
            if can_pause {
                let watermarks = self.origins.watermarks();
                report.set_watermarks(watermarks.map(|(split, watermark)| (split.to_owned(), watermark)));
            }
        }
        self.origins.hold(|watermark| all_wait || (can_pause && watermark > limit), now);
    }

    /// Does what is due by the clock, and says whether something was passed on. With `is_caught_up` there is nothing more to read, so
    /// that who says nothing may be idle.
    fn tick(&mut self, is_caught_up: bool) -> Result<bool, Failure> {
        let now = self.clock.monotonic();
        if let Some(since) = self.blocked_since.take() {
            self.origins.excuse(now.saturating_sub(since));
        }
        let mut has_passed = self.follow_splits(now)?;
        if self.is_by_hand && is_caught_up {
            let changes = self.origins.emit::<T>();
            has_passed |= self.pass_on(changes)?;
        }
        if let Some(interval) = self.interval {
            if now >= self.next_emission {
                self.next_emission = now + interval;
                let changes = self.origins.emit::<T>();
                has_passed |= self.pass_on(changes)?;
            }
            self.alarm.flush_at(self.next_emission);
        }
        self.align(now);
        if is_caught_up {
            let changes = self.origins.time_out::<T>(now);
            has_passed |= self.pass_on(changes)?;
            self.align(now);
        }
        // Who is due already is looked at when there is nothing more to read.
        if let Some(at) = self.origins.times_out_at().filter(|at| *at > now) {
            self.alarm.flush_at(at);
        }
        Ok(has_passed)
    }
}

/// Lets a generator see records; what it says is noted with how many of them it had seen.
fn listen<'a, T: 'a, G: WatermarkGenerator<T>>(
    generator: &mut G,
    records: impl Iterator<Item = (&'a T, Timestamp)>,
    outputs: &mut Vec<(usize, WatermarkOutput)>,
) {
    let mut output = WatermarkOutput::default();
    for (at, (record, timestamp)) in records.enumerate() {
        generator.on_event(record, timestamp, &mut output);
        if !output.is_empty() {
            outputs.push((at + 1, std::mem::take(&mut output)));
        }
    }
}

impl<T, G, A> Link<T> for Watermarks<T, G, A>
where
    T: Send,
    G: WatermarkGenerator<T>,
    A: TimestampAssigner<T>,
{
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.assigner.assign(batch);
        let (now, mut start) = (self.clock.monotonic(), 0);
        for (origin, records) in self.origins_of(batch.len(), now)? {
            self.show(origin, batch, start..start + records, now);
            start += records;
        }
        self.hand_on(batch)?;
        self.follow_splits(now)?;
        self.align(now);
        Ok(())
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        if timestamp < MAX_WATERMARK {
            return Ok(());
        }
        self.has_ended = true;
        self.align(self.clock.monotonic());
        let is_idle = self.origins.status() == WatermarkStatus::Idle;
        let status = is_idle.then_some(WatermarkStatus::Active);
        Merged { watermark: Some(timestamp), status }.pass_to(self.next.as_mut())
    }

    fn watermark_status(&mut self, _status: WatermarkStatus) -> Result<(), Failure> {
        // Whether records come, this operator sees for itself.
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.inquiry.tell(|told| {
            let (now, now_ms) = (self.clock.monotonic(), self.clock.now_ms());
            self.origins.tell_time(self.operator_id, now, now_ms, told);
        });
        let flushed = self.next.flush(partial)?;
        if self.has_ended {
            return Ok(flushed);
        }
        if flushed == Flushed::Blocked {
            self.blocked_since.get_or_insert(self.clock.monotonic());
            return Ok(flushed);
        }
        // What was due may have made the operators behind produce something.
        if self.tick(partial)? { self.next.flush(partial) } else { Ok(flushed) }
    }
}

#[cfg(test)]
#[path = "watermarks_tests.rs"]
mod tests;
