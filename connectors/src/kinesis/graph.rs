//! Which shards of a stream are read, and which wait for others. Pure.
//!
//! Stands in the enumerator, between what a stream lists and the splits that are dealt. Invariants: a shard is given out once, and only when
//! all of its parents that are known are read to their end, so that records of a key keep their order over splits and merges; a shard that
//! came about while the source ran is read from its beginning; what is forgotten is at its end and no longer listed.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::{Record, Timestamp};

use super::position::{InitialPosition, Position};
use super::shard::{Shard, ShardSplit};

/// The shards of all streams of a source.
#[derive(Record, Debug, Clone, PartialEq, Eq, Default)]
#[record(crate = thalweg_common)]
pub struct ShardGraph {
    /// Streams that were listed.
    streams: Vec<String>,
    known: Vec<Known>,
}

#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
struct Known {
    split: ShardSplit,
    stage: Stage,
}

/// How far a shard is.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq)]
#[record(crate = thalweg_common)]
enum Stage {
    /// Nobody has it.
    Waiting,
    /// It was given out.
    Read,
    /// It is read to its end, or nothing of it was to be read.
    Ended,
}

/// A shard as a stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) shard: Shard,
    /// Whether it was split or merged, so that nothing more is written to it.
    pub(super) is_closed: bool,
}

impl ShardGraph {
    /// Whether a stream was listed before.
    pub(super) fn has_listed(&self, stream: &str) -> bool {
        self.streams.iter().any(|listed| listed == stream)
    }

    /// Whether nothing is known at all.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A stream lists all of its shards.
    pub(super) fn listed(
        &mut self,
        stream: &str,
        shards: Vec<Listed>,
        initial: InitialPosition,
        now_ms: Timestamp,
    ) {
        let is_first = !self.has_listed(stream);
        if is_first {
            self.streams.push(stream.to_owned());
        }
        let there: BTreeSet<&str> = shards.iter().map(|listed| listed.shard.id.as_str()).collect();
        self.known.retain(|Known { split: ShardSplit { shard, .. }, stage }| {
            shard.stream != stream || *stage != Stage::Ended || there.contains(shard.id.as_str())
        });
        let known: BTreeSet<String> = self.known.iter().map(|known| known.split.shard.split_id()).collect();
        let new = shards.into_iter().filter(|listed| !known.contains(&listed.shard.split_id()));
        self.known.extend(new.map(|Listed { shard, is_closed }| {
            // What is closed already has nothing that is still to come.
            let is_over = is_first && is_closed && initial == InitialPosition::Latest;
            let position = if is_first { initial.position(now_ms) } else { Position::TrimHorizon };
            let split = ShardSplit { shard, position, is_discovered: !is_first, seen: None };
            Known { split, stage: if is_over { Stage::Ended } else { Stage::Waiting } }
        }));
    }

    /// These splits are read to their end.
    pub(super) fn ended(&mut self, splits: &[String]) {
        for known in &mut self.known {
            if splits.contains(&known.split.shard.split_id()) {
                known.stage = Stage::Ended;
            }
        }
    }

    /// Whether one of these shards is at its end and none of its children is known yet.
    pub(super) fn has_unknown_children(&self, splits: &[String]) -> bool {
        let shards = self.known.iter().map(|known| &known.split.shard);
        let parents: BTreeSet<(&str, &str)> = shards
            .flat_map(|shard| shard.parents.iter().map(|parent| (shard.stream.as_str(), parent.as_str())))
            .collect();
        let of =
            |id: &str| self.known.iter().map(|known| &known.split.shard).find(|shard| shard.split_id() == id);
        splits.iter().filter_map(|id| of(id)).any(|shard| !parents.contains(&(&shard.stream, &shard.id)))
    }

    /// Gives out what may be read now.
    pub(super) fn take_ready(&mut self) -> Vec<ShardSplit> {
        let unfinished: BTreeMap<&str, BTreeSet<&str>> =
            self.known.iter().fold(BTreeMap::new(), |mut all, known| {
                if known.stage != Stage::Ended {
                    let Shard { stream, id, .. } = &known.split.shard;
                    all.entry(stream.as_str()).or_insert_with(BTreeSet::new).insert(id.as_str());
                }
                all
            });
        let waits_for = |shard: &Shard| {
            let of_stream = unfinished.get(shard.stream.as_str());
            of_stream.is_some_and(|ids| shard.parents.iter().any(|parent| ids.contains(parent.as_str())))
        };
        let is_ready: Vec<bool> = self
            .known
            .iter()
            .map(|known| known.stage == Stage::Waiting && !waits_for(&known.split.shard))
            .collect();
        let mut ready = Vec::new();
        for (known, is_ready) in self.known.iter_mut().zip(is_ready) {
            if is_ready {
                known.stage = Stage::Read;
                ready.push(known.split.clone());
            }
        }
        ready
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
