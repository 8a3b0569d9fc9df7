//! Tells matches: which of those that are complete, in which order, and what goes with them.

use std::collections::BTreeSet;

use thalweg_common::Timestamp;

use crate::matched::Match;
use crate::matcher::{Found, Scratch, Stretch};
use crate::nfa::{Nfa, Target};
use crate::partial::{Completed, PartialMatches, Run};
use crate::skip::SkipStrategy;

/// A key whose matches are told.
pub(crate) struct Settling<'a, T> {
    pub(crate) nfa: &'a Nfa<T>,
    pub(crate) partial: &'a mut PartialMatches<T>,
    pub(crate) scratch: &'a mut Scratch,
}

impl<T> Settling<'_, T> {
    /// Tells what is complete, as far as nothing that began earlier may still come.
    pub(crate) fn settle(&mut self, tell: &mut impl FnMut(Found<'_, '_, T>)) {
        if self.nfa.skip == SkipStrategy::NoSkip {
            let mut known = Known::of(self.nfa);
            for Completed { node, timestamp, from, to, .. } in std::mem::take(&mut self.partial.completed) {
                let range = (from, to);
                self.tell_paths(node, range, timestamp, &mut known, |found| tell(Found::Complete(found)));
            }
            return;
        }
        while let Some(start) = self.next_start() {
            self.find_from(start);
            self.tell_found(start, tell);
        }
    }

    /// The first event of the matches to be told next, if nothing that began earlier may still come.
    fn next_start(&mut self) -> Option<u64> {
        let Self { partial, scratch: Scratch { earliest, .. }, .. } = self;
        let (mut next, mut completed) = (u64::MAX, std::mem::take(&mut partial.completed));
        completed.retain_mut(|Completed { node, from, is_next, to, .. }| {
            if !*is_next || *from < partial.live_from {
                partial.earliest_starts((*from).max(partial.live_from), earliest);
                (*from, *is_next) = (earliest[*node as usize], true);
            }
            next = if *from < *to { next.min(*from) } else { next };
            *from < *to
        });
        partial.completed = completed;
        if partial.completed.is_empty() {
            return None;
        }
        partial.earliest_starts(partial.live_from, earliest);
        let of_runs = partial.runs.iter().map(|run| earliest[run.node as usize]).min();
        of_runs.is_none_or(|of_runs| next <= of_runs).then_some(next)
    }

    /// Takes out the matches that begin with an event: as they became complete, then in the order of their events.
    fn find_from(&mut self, start: u64) {
        let Self { nfa, partial, scratch: Scratch { earliest, walk, found, nodes, .. } } = self;
        partial.earliest_starts(start, earliest);
        found.clear();
        nodes.clear();
        let mut completed = std::mem::take(&mut partial.completed);
        for match_ in completed.iter_mut().filter(|match_| match_.from == start) {
            (match_.from, match_.is_next) = (start + 1, false);
            let Completed { node, timestamp, order, .. } = *match_;
            walk.paths(partial, node, (start, start + 1), earliest, |_, path| {
                found.push(Stretch { from: nodes.len(), length: path.len(), timestamp, order });
                nodes.extend_from_slice(path);
            });
        }
        partial.completed = completed;
        let mut known = Known::of(nfa);
        found.retain(|Stretch { from, length, timestamp, .. }| {
            known.is_new(&Match::new(&nfa.names, partial, &nodes[*from..][..*length], *timestamp))
        });
        // The pattern decides between matches with the same events.
        let path = |stretch: &Stretch| {
            nodes[stretch.from..][..stretch.length].iter().rev().map(|node| partial.node(*node))
        };
        let numbers = |stretch: &Stretch| path(stretch).map(|node| partial.event(node).number);
        let names = |stretch: &Stretch| path(stretch).map(|node| nfa.names.of_place(node.place));
        found.sort_by(|one, other| {
            let by_events = || numbers(one).cmp(numbers(other)).then_with(|| names(one).cmp(names(other)));
            one.order.cmp(&other.order).then_with(by_events)
        });
    }

    /// Tells the matches that were taken out, until one discards the others.
    fn tell_found(&mut self, start: u64, tell: &mut impl FnMut(Found<'_, '_, T>)) {
        for index in 0..self.scratch.found.len() {
            if self.partial.live_from > start {
                return;
            }
            let Stretch { from, length, timestamp, .. } = self.scratch.found[index];
            let path = &self.scratch.nodes[from..][..length];
            let found = Match::new(&self.nfa.names, self.partial, path, timestamp);
            let discarded = discarded(self.nfa, &found);
            tell(Found::Complete(&found));
            self.partial.discard_before(discarded);
        }
    }

    /// The window of everything is over that began with an event: the earliest one of all that is left.
    pub(crate) fn time_out(
        &mut self,
        start: u64,
        end: Timestamp,
        tells: bool,
        tell: &mut impl FnMut(Found<'_, '_, T>),
    ) {
        let range = (start, start + 1);
        self.partial.earliest_starts(start, &mut self.scratch.earliest);
        let earliest = std::mem::take(&mut self.scratch.earliest);
        let runs = self.partial.runs.iter().filter(|run| reaches(self.partial, run.node, start, &earliest));
        let (ending, going): (Vec<Run>, Vec<Run>) = runs.copied().partition(|run| self.ends_with_window(run));
        self.scratch.earliest = earliest;
        let mut known = Known::of(self.nfa);
        for run in &ending {
            self.partial.complete(run.node, end, range);
            if tells && known.is_needed() {
                // What is a match has not timed out, in whatever other way its events could have gone on.
                self.tell_paths(run.node, range, end, &mut known, |_| ());
            }
        }
        for run in going.iter().filter(|_| tells) {
            self.tell_paths(run.node, range, end, &mut known, |found| tell(Found::TimedOut(found)));
        }
        self.partial.next_order();
        self.settle(tell);
        self.partial.discard_before(start + 1);
        // What began later and waited for this.
        self.settle(tell);
    }

    fn ends_with_window(&self, run: &Run) -> bool {
        let ways = &self.nfa.places[usize::from(self.partial.node(run.node).place)].ways;
        (0..).zip(ways).any(|(index, way)| run.open & 1 << index != 0 && way.target == Target::Window)
    }

    fn tell_paths(
        &mut self,
        node: u32,
        range: (u64, u64),
        timestamp: Timestamp,
        known: &mut Known,
        mut tell: impl FnMut(&Match<'_, T>),
    ) {
        let Self { nfa, partial, scratch } = self;
        let range = (range.0.max(partial.live_from), range.1);
        scratch.walk.paths(partial, node, range, &[], |_, path| {
            let found = Match::new(&nfa.names, partial, path, timestamp);
            if known.is_new(&found) {
                tell(&found);
            }
        });
    }
}

/// The matches that were told of one event, if the same ones may come twice.
struct Known(Option<BTreeSet<Vec<(u16, u64)>>>);

impl Known {
    fn of<T>(nfa: &Nfa<T>) -> Self {
        Self(nfa.is_ambiguous.then(BTreeSet::new))
    }

    fn is_needed(&self) -> bool {
        self.0.is_some()
    }

    fn is_new<T>(&mut self, found: &Match<'_, T>) -> bool {
        self.0.as_mut().is_none_or(|known| known.insert(found.numbers().collect()))
    }
}

/// Whether a path may lead from a first event to a node.
fn reaches<T>(partial: &PartialMatches<T>, node: u32, start: u64, earliest: &[u64]) -> bool {
    earliest[node as usize] <= start && partial.node(node).latest_start >= start
}

/// The first event that may still begin a match when one is told.
fn discarded<T>(nfa: &Nfa<T>, found: &Match<'_, T>) -> u64 {
    let of = |name: &str| {
        let name = nfa.names.find(name);
        found.numbers().filter(move |(of, _)| Some(*of) == name).map(|(_, number)| number)
    };
    let first = match &nfa.skip {
        SkipStrategy::NoSkip => None,
        SkipStrategy::SkipToNext => found.numbers().next().map(|(_, number)| number + 1),
        SkipStrategy::SkipPastLastEvent => found.numbers().next_back().map(|(_, number)| number + 1),
        SkipStrategy::SkipToFirst(name) => of(name).next(),
        SkipStrategy::SkipToLast(name) => of(name).next_back(),
    };
    first.unwrap_or(0)
}
