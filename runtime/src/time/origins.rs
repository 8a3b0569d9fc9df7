//! The origins of a stream in one subtask, and the watermark of all of them together: one for each split of a source, or a single one.
//! Pure: the caller says what time it is.
//!
//! On a watermark's way this stands between generators and the operator that passes their watermarks on. Invariants: each origin has its
//! own generator; an origin from which nothing has come for as long as the strategy says is idle, and becomes so only behind what its
//! generator still had to say; splits that are at their end hold nobody back, and have said all before they go.

use std::collections::HashMap;
use std::time::Duration;

use super::generators::{WatermarkGenerator, WatermarkOutput};
use super::merger::{Merged, WatermarkMerger};
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
        let origin = Origin { split, generator, last_record: now, is_timed_out: false };
        if index == self.origins.len() {
            self.origins.push(Some(origin));
        } else {
            self.origins[index] = Some(origin);
        }
        index
    }

    /// These splits are there now, and no others.
    pub(crate) fn set_splits<T>(&mut self, splits: &[String], now: Duration) -> Changes
    where
        G: WatermarkGenerator<T>,
    {
        let mut changes = Changes::default();
        for split in splits {
            self.of_split(split, now);
        }
        for index in 0..self.origins.len() {
            let Some(origin) = &self.origins[index] else { continue };
            if origin.split.as_ref().is_some_and(|split| splits.contains(split)) {
                continue;
            }
            changes.append(self.emit_one::<T>(index));
            if let Some(split) = self.origins[index].take().and_then(|origin| origin.split) {
                self.by_split.remove(&split);
            }
            self.merger.remove(index);
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
                |origin: &&mut Origin<G>| !origin.is_timed_out && now >= origin.last_record + idleness;
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
        let waiting = self.origins.iter().flatten().filter(|origin| !origin.is_timed_out);
        waiting.map(|origin| origin.last_record + idleness).min()
    }

    /// So long nothing could come, because the output was full: that does not count.
    pub(crate) fn excuse(&mut self, time: Duration) {
        for origin in self.origins.iter_mut().flatten() {
            origin.last_record += time;
        }
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
