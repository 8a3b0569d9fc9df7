//! The automaton of a pattern: places that take an event each, and ways from one to the next.
//!
//! It is the position automaton of Glushkov: no empty steps, so that a partial match is the place of its last event and the ways that
//! are still open to it. That keeps every partial match in one piece, where an automaton with empty steps splits it at the first
//! event that is skipped.

use thalweg_common::Timestamp;

use crate::condition::Condition;
use crate::pattern::Contiguity;
use crate::skip::SkipStrategy;

/// The position of a condition.
pub(crate) type ConditionIndex = u16;

/// The automaton of a [`Pattern`](crate::Pattern). It has no state: that of a key is its
/// [`PartialMatches`](crate::PartialMatches).
pub struct Nfa<T> {
    pub(crate) names: Names,
    pub(crate) conditions: Vec<Condition<T>>,
    pub(crate) places: Vec<Place>,
    /// Ways to the places that can be first.
    pub(crate) starts: Vec<Way>,
    pub(crate) window_ms: Option<i64>,
    pub(crate) skip: SkipStrategy,
    /// Whether partial matches with the same last event in the same place have the same future.
    pub(crate) merges: bool,
    /// Whether an event that satisfies no condition changes nothing.
    pub(crate) is_relaxed: bool,
    /// Whether the same events may be the same match in several ways, because a group that is repeated divides them in several ways.
    pub(crate) is_ambiguous: bool,
    pub(crate) fingerprint: u64,
}

/// The names of a pattern, and whose the places are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    texts: Vec<String>,
    /// The name of each place.
    of_places: Vec<u16>,
}

impl Names {
    pub(crate) fn find(&self, text: &str) -> Option<u16> {
        self.texts.iter().position(|known| known == text).map(|index| index as u16)
    }

    pub(crate) fn of_place(&self, place: u16) -> u16 {
        self.of_places[usize::from(place)]
    }

    pub(crate) fn text(&self, name: u16) -> &str {
        &self.texts[usize::from(name)]
    }

    /// Adds a place of the name, and the name if it is new.
    pub(crate) fn add(&mut self, text: &str) {
        let name = self.find(text).unwrap_or_else(|| {
            self.texts.push(text.to_string());
            (self.texts.len() - 1) as u16
        });
        self.of_places.push(name);
    }
}

/// Where a match takes one event.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What the event must satisfy.
    pub(crate) condition: ConditionIndex,
    /// Whether a match may end here.
    pub(crate) is_accepting: bool,
    /// How it can go on; a bit each in a partial match.
    pub(crate) ways: Vec<Way>,
    /// The ways that are open at first.
    pub(crate) open: u64,
}

/// How a match goes on from one place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Way {
    pub(crate) target: Target,
    /// Which events may be skipped on it.
    pub(crate) contiguity: Contiguity,
    pub(crate) note: Note,
    /// For each greedy pattern of the note that has an end: the same way without it.
    pub(crate) lifted: Vec<Option<u8>>,
}

/// What a way leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The next event.
    Place(u16),
    /// The end, if the next event may come.
    Next,
    /// The end, when the window is over.
    Window,
}

/// What events do to a way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Note {
    /// Any event that satisfies one of them closes the way.
    pub(crate) closes: Vec<ConditionIndex>,
    /// So does the next event.
    pub(crate) closes_at_once: Vec<ConditionIndex>,
    /// An event that satisfies one of them is not taken.
    pub(crate) leaves: Vec<ConditionIndex>,
    /// Greedy patterns that are behind on this way.
    pub(crate) greedy: Vec<Greedy>,
}

/// A greedy pattern that a way leaves or leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greedy {
    /// An event that satisfies it closes the way.
    pub(crate) condition: ConditionIndex,
    /// From the first event on that satisfies this, it does not.
    pub(crate) until: Option<ConditionIndex>,
}

impl Note {
    /// This one and another one behind it.
    pub(crate) fn then(&self, other: &Self) -> Self {
        fn both<I: Copy + PartialEq>(one: &[I], other: &[I]) -> Vec<I> {
            let mut all = one.to_vec();
            all.extend(other.iter().filter(|item| !one.contains(item)));
            all
        }
        Self {
            closes: both(&self.closes, &other.closes),
            closes_at_once: both(&self.closes_at_once, &other.closes_at_once),
            leaves: both(&self.leaves, &other.leaves),
            greedy: both(&self.greedy, &other.greedy),
        }
    }
}

impl<T> Nfa<T> {
    /// When the window of what began then is over, if there is one; in milliseconds since the epoch.
    pub fn end_of(&self, start: Timestamp) -> Option<Timestamp> {
        self.window_ms.map(|window| start.saturating_add(window))
    }

    /// Whether matches may come of what began and found no end, so that the end of the window must not be missed.
    pub(crate) fn ends_with_window(&self) -> bool {
        self.places.iter().flat_map(|place| &place.ways).any(|way| way.target == Target::Window)
    }

    /// A number that differs when partial matches of one pattern mean something else in the other: names, order, contiguity and
    /// quantifiers. What conditions ask nobody can see; the length of the window and the skip strategy may change.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}
