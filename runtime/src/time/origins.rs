//! The origins of a stream in one subtask, and the watermark of all of them together: one for each split of a source, or a single one.
//! Pure: the caller says what time it is.
//!
//! On a watermark's way this stands between generators and the operator that passes their watermarks on. Invariants: each origin has its
//! own generator; an origin from which nothing has come for as long as the strategy says is idle, and becomes so only behind what its
//! generator still had to say; splits that are at their end hold nobody back, and have said all before they go.

use std::collections::HashMap;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::id::OperatorId;

use super::NO_WATERMARK;
use super::generators::{WatermarkGenerator, WatermarkOutput};
use super::inquiry::{OriginTime, TaskTime};
use super::merger::{Merged, WatermarkMerger};
use super::splits::OpenSplits;
use crate::event::WatermarkStatus;

/// The origins of one subtask.
pub(crate) struct Origins<G> {
    prototype: G,
    idleness: Option<Duration>,
    /// By their input of the merger.
    origins: Vec<Option<Origin<G>>>,
    by_split: HashMap<String, usize>,
    merger: WatermarkMerger,
}

struct Origin<G> {
    split: Option<String>,
    generator: G,
    /// When its last record came, or when it began.
    last_record: Duration,
    /// Whether nothing has come for so long that it counts as idle.
    is_timed_out: bool,
    /// Since when it must not be read, because it is ahead of other sources.
    held_since: Option<Duration>,
}

impl<G> Origin<G> {
    fn can_time_out(&self) -> bool {
        !self.is_timed_out && self.held_since.is_none()
    }
}

impl<G: Clone> Origins<G> {
    /// A single one, until there are [splits](Self::set_splits).
    pub(crate) fn single(prototype: G, idleness: Option<Duration>, now: Duration) -> Self {
        let (origins, by_split) = (Vec::new(), HashMap::new());
        let mut single = Self { prototype, idleness, origins, by_split, merger: WatermarkMerger::open() };
        single.add(None, now);
        single
    }

    fn add(&mut self, split: Option<String>, now: Duration) -> usize {
        let index = self.merger.add();
        let generator = self.prototype.clone();
        let origin = Origin { split, generator, last_record: now, is_timed_out: false, held_since: None };
        if index == self.origins.len() {
            self.origins.push(Some(origin));
        } else {
            self.origins[index] = Some(origin);
        }
        index
    }

    /// These splits are there now, and no others. Without any, but with some to come, there is an origin for those that come.
    pub(crate) fn set_splits<T>(&mut self, open: OpenSplits<'_>, now: Duration) -> Changes
    where
        G: WatermarkGenerator<T>,
    {
        let mut changes = Changes::default();
        for split in open.splits {
            self.of_split(split, now);
        }
        let awaits_first = open.is_expecting && open.splits.is_empty();
        for index in 0..self.origins.len() {
            let Some(origin) = &self.origins[index] else { continue };
            if origin.split.as_ref().map_or(awaits_first, |split| open.splits.contains(split)) {
                continue;
            }
            changes.append(self.emit_one::<T>(index));
            if let Some(split) = self.origins[index].take().and_then(|origin| origin.split) {
                self.by_split.remove(&split);
            }
            self.merger.remove(index);
        }
        // Behind what the others had to say, which it would hold back.
        if awaits_first && self.origins.iter().flatten().all(|origin| origin.split.is_some()) {
            self.add(None, now);
        }
        changes.add(self.merger.settle());
        changes
    }

    /// The origin of a split, which may be a new one.
    pub(crate) fn of_split(&mut self, split: &str, now: Duration) -> usize {
        if let Some(index) = self.by_split.get(split) {
            return *index;
        }
        let index = self.add(Some(split.to_owned()), now);
        self.by_split.insert(split.to_owned(), index);
        index
    }

    /// Records come from an origin.
    pub(crate) fn touch(&mut self, origin: usize, now: Duration) -> Merged {
        let Some(Some(touched)) = self.origins.get_mut(origin) else { return Merged::default() };
        touched.last_record = now;
        if std::mem::take(&mut touched.is_timed_out) {
            self.merger.on_status(origin, WatermarkStatus::Active)
        } else {
            Merged::default()
        }
    }

    /// The generator of an origin.
    pub(crate) fn generator(&mut self, origin: usize) -> Option<&mut G> {
        self.origins.get_mut(origin)?.as_mut().map(|origin| &mut origin.generator)
    }

    /// The generator of an origin has said something.
    pub(crate) fn say(&mut self, origin: usize, output: WatermarkOutput) -> Changes {
        let mut changes = Changes::default();
        if let Some(watermark) = output.watermark {
            changes.add(self.merger.on_status(origin, WatermarkStatus::Active));
            changes.add(self.merger.on_watermark(origin, watermark));
        }
        if let Some(status) = output.status {
            changes.add(self.merger.on_status(origin, status));
        }
        changes
    }

    /// Asks all generators whose origins have not timed out.
    pub(crate) fn emit<T>(&mut self) -> Changes
    where
        G: WatermarkGenerator<T>,
    {
        let mut changes = Changes::default();
        for index in 0..self.origins.len() {
            changes.append(self.emit_one::<T>(index));
        }
        changes
    }

    fn emit_one<T>(&mut self, index: usize) -> Changes
    where
        G: WatermarkGenerator<T>,
    {
        let Some(origin) = self.origins[index].as_mut().filter(|origin| !origin.is_timed_out) else {
            return Changes::default();
        };
        let mut output = WatermarkOutput::default();
        origin.generator.on_periodic_emit(&mut output);
        self.say(index, output)
    }

    /// Marks as idle from which nothing has come for too long.
    pub(crate) fn time_out<T>(&mut self, now: Duration) -> Changes
    where
        G: WatermarkGenerator<T>,
    {
        let mut changes = Changes::default();
        let Some(idleness) = self.idleness else { return changes };
        for index in 0..self.origins.len() {
            let is_due =
                |origin: &&mut Origin<G>| origin.can_time_out() && now >= origin.last_record + idleness;
            if self.origins[index].as_mut().filter(is_due).is_none() {
                continue;
            }
            changes.append(self.emit_one::<T>(index));
            changes.add(self.merger.on_status(index, WatermarkStatus::Idle));
            if let Some(origin) = &mut self.origins[index] {
                origin.is_timed_out = true;
            }
        }
        changes
    }

    /// When the next origin will count as idle, if nothing comes.
    pub(crate) fn times_out_at(&self) -> Option<Duration> {
        let idleness = self.idleness?;
        let waiting = self.origins.iter().flatten().filter(|origin| origin.can_time_out());
        waiting.map(|origin| origin.last_record + idleness).min()
    }

    /// So long nothing could come, because the output was full: that does not count.
    pub(crate) fn excuse(&mut self, time: Duration) {
        // For those that are held it does not pass anyway.
        for origin in self.origins.iter_mut().flatten().filter(|origin| origin.held_since.is_none()) {
            origin.last_record += time;
        }
    }

    /// Those that must not be read now, by their watermark: no time passes for them, so that they do not become idle by that.
    pub(crate) fn hold(&mut self, is_held: impl Fn(Timestamp) -> bool, now: Duration) {
        for (index, origin) in self.origins.iter_mut().enumerate() {
            let Some(origin) = origin else { continue };
            if is_held(self.merger.input(index).0) {
                origin.held_since.get_or_insert(now);
            } else if let Some(since) = origin.held_since.take() {
                origin.last_record += now.saturating_sub(since);
            }
        }
    }

    /// The watermark of each split.
    pub(crate) fn watermarks(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.origins.iter().enumerate().filter_map(|(index, origin)| {
            let split = origin.as_ref()?.split.as_deref()?;
            Some((split, self.merger.input(index).0))
        })
    }

    /// Tells what each of them knows, for this operator.
    pub(crate) fn tell_time(
        &self,
        operator_id: OperatorId,
        now: Duration,
        now_ms: Timestamp,
        told: &mut TaskTime,
    ) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (index, origin) in self.origins.iter().enumerate() {
            let Some(origin) = origin else { continue };
            let (watermark, is_idle, _) = self.merger.input(index);
            told.origins.push(OriginTime {
                operator_id,
                split: origin.split.clone(),
                watermark: Some(watermark).filter(|watermark| *watermark != NO_WATERMARK),
                is_idle,
                last_record_ms: now_ms.saturating_sub_unsigned(ms(now.saturating_sub(origin.last_record))),
                idleness_ms: self.idleness.map(ms),
                waits_for_others: origin.held_since.is_some(),
            });
        }
    }

    /// The watermark of all together.
    pub(crate) fn watermark(&self) -> Timestamp {
        self.merger.watermark()
    }

    /// The status of all together.
    pub(crate) fn status(&self) -> WatermarkStatus {
        self.merger.status()
    }
}

/// What is to be passed on, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    list: Vec<Merged>,
}

impl Changes {
    /// Of watermarks in a row, only the last one counts.
    fn add(&mut self, merged: Merged) {
        match self.list.last_mut() {
            _ if merged.is_nothing() => {}
            Some(last) if last.status.is_none() && merged.status.is_none() => *last = merged,
            _ => self.list.push(merged),
        }
    }

    fn append(&mut self, changes: Self) {
        changes.list.into_iter().for_each(|merged| self.add(merged));
    }
}

impl IntoIterator for Changes {
    type Item = Merged;
    type IntoIter = std::vec::IntoIter<Merged>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
#[path = "origins_tests.rs"]
mod tests;
