//! Runs the automaton: an event, or time, and what becomes of the partial matches of a key.
//!
//! Pure. Invariants: a run is one step further behind each event, or closed; what began first times out first; every match is told
//! once, and all that it discards is gone before the next one is told.

use std::sync::Arc;

use thalweg_common::Timestamp;

use crate::condition::Earlier;
use crate::matched::Match;
use crate::nfa::{ConditionIndex, Nfa, Target, Way};
use crate::partial::{PartialMatches, Run, START};
use crate::paths::Walk;
use crate::pattern::Contiguity;
use crate::settle::Settling;

/// What the matcher has found.
pub enum Found<'m, 'a, T> {
    /// A match.
    Complete(&'m Match<'a, T>),
    /// A partial match that has timed out. Those that only wait for more of what a match may do without are among them.
    TimedOut(&'m Match<'a, T>),
}

/// The automaton with memory to work in. One serves all keys.
pub struct Matcher<T> {
    nfa: Arc<Nfa<T>>,
    tells_timed_out: bool,
    scratch: Scratch,
}

impl<T> Clone for Matcher<T> {
    fn clone(&self) -> Self {
        let (nfa, tells_timed_out) = (Arc::clone(&self.nfa), self.tells_timed_out);
        Self { nfa, tells_timed_out, scratch: Scratch::default() }
    }
}

/// What an event was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    place: u16,
    /// The node of the run, or [`START`].
    before: u32,
}

#[derive(Default)]
pub(crate) struct Scratch {
    answers: Vec<Answer>,
    taken: Vec<Taken>,
    path: Vec<u32>,
    pub(crate) walk: Walk,
    pub(crate) earliest: Vec<u64>,
    /// Matches that were found together, and the nodes of their paths.
    pub(crate) found: Vec<Stretch>,
    pub(crate) nodes: Vec<u32>,
    places: Vec<u32>,
}

/// Where the path of a match is among the nodes of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) from: usize,
    pub(crate) length: usize,
    pub(crate) timestamp: Timestamp,
    pub(crate) order: u64,
}

/// Whether a condition that looks at the event alone holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Unknown,
    Yes,
    No,
}

impl<T> Matcher<T> {
    /// A matcher that tells of partial matches that time out, or does not.
    pub fn new(nfa: Arc<Nfa<T>>, tells_timed_out: bool) -> Self {
        Self { nfa, tells_timed_out, scratch: Scratch::default() }
    }

    /// The automaton.
    pub fn nfa(&self) -> &Nfa<T> {
        &self.nfa
    }

    /// Whether an event can begin a match. Where there are no partial matches, one that cannot changes nothing.
    pub fn begins(&mut self, event: &T) -> bool {
        let nothing = PartialMatches::default();
        let mut asking = Asking::new(&self.nfa, event, &mut self.scratch.answers, &mut self.scratch.path);
        self.nfa.starts.iter().any(|way| asking.begins(&nothing, way).is_some())
    }

    /// Whether an event can make any difference to any partial match: not if none may be interrupted, and it satisfies no condition.
    pub fn matters(&mut self, event: &T) -> bool {
        let nothing = PartialMatches::default();
        let mut asking = Asking::new(&self.nfa, event, &mut self.scratch.answers, &mut self.scratch.path);
        let mut indices = 0..self.nfa.conditions.len() as ConditionIndex;
        !self.nfa.is_relaxed
            || indices.any(|index| {
                self.nfa.conditions[usize::from(index)].is_iterative() || asking.holds(&nothing, index, START)
            })
    }

    /// The next event of a key. Time must have been told before, with [`advance`](Self::advance).
    pub fn process(
        &mut self,
        partial: &mut PartialMatches<T>,
        event: T,
        timestamp: Timestamp,
        mut tell: impl FnMut(Found<'_, '_, T>),
    ) {
        let Self { nfa, scratch, .. } = self;
        let taken = &mut scratch.taken;
        taken.clear();
        let mut runs = std::mem::take(&mut partial.runs);
        let mut asking = Asking::new(nfa, &event, &mut scratch.answers, &mut scratch.path);
        runs.retain_mut(|run| {
            if asking.step(partial, run, taken) {
                partial.complete(run.node, timestamp, (partial.live_from, u64::MAX));
            }
            run.open != 0
        });
        for way in &nfa.starts {
            if let Some(place) = asking.begins(partial, way) {
                taken.push(Taken { place, before: START });
            }
        }
        partial.runs = runs;
        if !taken.is_empty() {
            // Sorting keeps nodes and matches in the same order, whatever the order of the runs.
            taken.sort_unstable();
            taken.dedup();
            partial.keep(event, timestamp);
            let same = |one: &Taken, other: &Taken| nfa.merges && one.place == other.place;
            for group in taken.chunk_by(same) {
                add(nfa, partial, group, timestamp);
            }
        }
        if !partial.completed.is_empty() {
            partial.next_order();
            Settling { nfa, partial, scratch }.settle(&mut tell);
        }
        partial.collect(&mut scratch.places);
    }

    /// Time has come so far: what began too long ago is over.
    pub fn advance(
        &mut self,
        partial: &mut PartialMatches<T>,
        now: Timestamp,
        mut tell: impl FnMut(Found<'_, '_, T>),
    ) {
        let Self { nfa, tells_timed_out, scratch } = self;
        let is_over = |start: Timestamp| nfa.end_of(start).is_some_and(|end| end <= now);
        if !partial.earliest_start().is_some_and(is_over) {
            return;
        }
        let over: Vec<_> =
            partial.starts(partial.live_from).take_while(|(_, start)| is_over(*start)).collect();
        let needs_paths = *tells_timed_out || nfa.ends_with_window() || !partial.completed.is_empty();
        if needs_paths {
            for (number, start) in &over {
                if *number >= partial.live_from {
                    let end = nfa.end_of(*start).unwrap_or(now);
                    let mut settling = Settling { nfa, partial, scratch };
                    settling.time_out(*number, end, *tells_timed_out, &mut tell);
                }
            }
        } else if let Some((number, _)) = over.last() {
            partial.discard_before(number + 1);
        }
        partial.collect(&mut scratch.places);
    }
}

/// Adds a node for an event that runs have taken in the same place, and what comes of it.
fn add<T>(nfa: &Nfa<T>, partial: &mut PartialMatches<T>, group: &[Taken], timestamp: Timestamp) {
    let Some(Taken { place, .. }) = group.first().copied() else { return };
    let node = partial.add_node(place, group.iter().map(|taken| taken.before));
    let place = &nfa.places[usize::from(place)];
    if place.is_accepting {
        partial.complete(node, timestamp, (partial.live_from, u64::MAX));
    }
    if place.open != 0 {
        partial.runs.push(Run { node, open: place.open, is_fresh: true });
    }
}

/// Asks conditions about one event. Those that look at the event alone are asked once for all partial matches.
struct Asking<'a, T> {
    nfa: &'a Nfa<T>,
    event: &'a T,
    answers: &'a mut [Answer],
    path: &'a mut Vec<u32>,
}

impl<'a, T> Asking<'a, T> {
    fn new(nfa: &'a Nfa<T>, event: &'a T, answers: &'a mut Vec<Answer>, path: &'a mut Vec<u32>) -> Self {
        answers.clear();
        answers.resize(nfa.conditions.len(), Answer::Unknown);
        Self { nfa, event, answers, path }
    }

    /// Whether a condition holds for the partial match that ends with a node, or for none at all.
    fn holds(&mut self, partial: &PartialMatches<T>, index: ConditionIndex, node: u32) -> bool {
        let (condition, answer) =
            (&self.nfa.conditions[usize::from(index)], &mut self.answers[usize::from(index)]);
        match *answer {
            Answer::Yes => true,
            Answer::No => false,
            Answer::Unknown => {
                let is_iterative = condition.is_iterative();
                self.path.clear();
                if is_iterative {
                    // Without merging every node has one edge.
                    let before =
                        |node: &u32| partial.edges_of(*node).first().copied().filter(|node| *node != START);
                    self.path.extend(std::iter::successors(Some(node).filter(|node| *node != START), before));
                    self.path.reverse();
                }
                let holds = condition.holds(self.event, &Earlier::new(&self.nfa.names, partial, self.path));
                if !is_iterative {
                    *answer = if holds { Answer::Yes } else { Answer::No };
                }
                holds
            }
        }
    }

    /// The place that takes the event as the first one of a match, if it does.
    fn begins(&mut self, partial: &PartialMatches<T>, way: &Way) -> Option<u16> {
        let Target::Place(place) = way.target else { return None };
        let condition = self.nfa.places[usize::from(place)].condition;
        let begins = self.holds(partial, condition, START)
            && !way.note.leaves.iter().any(|leaves| self.holds(partial, *leaves, START))
            && !matches!(self.closing(partial, way, START, true), Closing::Closed);
        begins.then_some(place)
    }

    /// Takes a run over the event, and says whether the event completes it. What takes the event is added to `taken`.
    fn step(&mut self, partial: &PartialMatches<T>, run: &mut Run, taken: &mut Vec<Taken>) -> bool {
        let nfa = self.nfa;
        let ways = &nfa.places[usize::from(partial.node(run.node).place)].ways;
        let (mut left, mut open, mut completes) = (run.open, 0_u64, false);
        while left != 0 {
            let index = left.trailing_zeros();
            left &= left - 1;
            let way = &ways[index as usize];
            let bit = match self.closing(partial, way, run.node, run.is_fresh) {
                Closing::Closed => continue,
                Closing::Open => 1 << index,
                Closing::Lifted(other) => 1 << other,
            };
            let Target::Place(place) = way.target else {
                if way.target == Target::Next {
                    completes = true;
                } else {
                    open |= bit;
                }
                continue;
            };
            let fits = self.holds(partial, nfa.places[usize::from(place)].condition, run.node);
            if fits && !way.note.leaves.iter().any(|leaves| self.holds(partial, *leaves, run.node)) {
                taken.push(Taken { place, before: run.node });
            }
            let stays = match way.contiguity {
                Contiguity::Strict => false,
                Contiguity::Relaxed => !fits,
                Contiguity::Any => true,
            };
            open |= if stays { bit } else { 0 };
        }
        (run.open, run.is_fresh) = (open, false);
        completes
    }

    /// What the event does to a way, whether or not it is taken.
    fn closing(&mut self, partial: &PartialMatches<T>, way: &Way, node: u32, is_fresh: bool) -> Closing {
        let note = &way.note;
        let at_once: &[ConditionIndex] = if is_fresh { &note.closes_at_once } else { &[] };
        if note.closes.iter().chain(at_once).any(|closes| self.holds(partial, *closes, node)) {
            return Closing::Closed;
        }
        let mut closing = Closing::Open;
        for (index, greedy) in note.greedy.iter().enumerate() {
            if greedy.until.is_some_and(|until| self.holds(partial, until, node)) {
                if let Some(other) = way.lifted.get(index).copied().flatten() {
                    closing = Closing::Lifted(other);
                }
            } else if self.holds(partial, greedy.condition, node) {
                return Closing::Closed;
            }
        }
        closing
    }
}

enum Closing {
    Closed,
    Open,
    /// The way goes on as another one.
    Lifted(u8),
}
