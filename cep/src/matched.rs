//! `Match`: the events that a pattern has found, by the names of the pattern.

use std::fmt;
use std::ops::Index;

use thalweg_common::Timestamp;

use crate::nfa::Names;
use crate::partial::PartialMatches;

/// A match, or a partial match that has timed out: events by the names of their patterns, in their order.
///
/// `found["click"]` is the first event of the pattern `click`.
pub struct Match<'a, T> {
    names: &'a Names,
    partial: &'a PartialMatches<T>,
    /// Its nodes, the last one first.
    path: &'a [u32],
    timestamp: Timestamp,
}

impl<'a, T> Match<'a, T> {
    pub(crate) fn new(
        names: &'a Names,
        partial: &'a PartialMatches<T>,
        path: &'a [u32],
        timestamp: Timestamp,
    ) -> Self {
        Self { names, partial, path, timestamp }
    }

    /// The events of the pattern of this name, in order. None if it is optional and has taken none, if the match is partial and has not
    /// come so far, or if there is no such pattern.
    pub fn of(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a T> + use<'a, T> {
        let (name, names, partial) = (self.names.find(name), self.names, self.partial);
        let nodes = self.path.iter().rev().map(|node| partial.node(*node));
        nodes
            .filter(move |node| Some(names.of_place(node.place)) == name)
            .map(|node| &partial.event(node).event)
    }

    /// The first event of the pattern of this name.
    pub fn get(&self, name: &str) -> Option<&'a T> {
        self.of(name).next()
    }

    /// All events with the names of their patterns, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a str, &'a T)> + use<'a, T> {
        let (names, partial) = (self.names, self.partial);
        self.path.iter().rev().map(move |node| {
            let node = partial.node(*node);
            (names.text(names.of_place(node.place)), &partial.event(node).event)
        })
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.path.len()
    }

    /// Whether it has no events; no match is so.
    pub fn is_empty(&self) -> bool {
        self.path.is_empty()
    }

    /// When it was complete, in milliseconds since the epoch: the time of its last event; behind `not_next` that of the event that
    /// decided; behind `not_followed_by` and of one that has timed out the end of the window, which is its first event's time and the
    /// length of the window.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// When its first event happened, in milliseconds since the epoch.
    pub fn start(&self) -> Timestamp {
        self.time_of(self.path.last())
    }

    /// When its last event happened, in milliseconds since the epoch.
    pub fn end(&self) -> Timestamp {
        self.time_of(self.path.first())
    }

    fn time_of(&self, node: Option<&u32>) -> Timestamp {
        node.map_or(self.timestamp, |node| self.partial.event(self.partial.node(*node)).timestamp)
    }

    /// The number of the event at a place of the path, counted from the last one.
    pub(crate) fn numbers(&self) -> impl DoubleEndedIterator<Item = (u16, u64)> + '_ {
        self.path.iter().rev().map(|node| {
            let node = self.partial.node(*node);
            (self.names.of_place(node.place), self.partial.event(node).number)
        })
    }
}

/// The first event of a pattern.
///
/// # Panics
/// If the match has no event of this name, which a match can only lack if the pattern is optional, or if there is no such pattern. Ask
/// [`get`](Match::get) then.
impl<T> Index<&str> for Match<'_, T> {
    type Output = T;

    fn index(&self, name: &str) -> &T {
        self.get(name).expect(
            "the match has no event of this name; ask get(..) for an optional pattern, and look at the name",
        )
    }
}

impl<T: fmt::Debug> fmt::Debug for Match<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
