//! Runs a pattern over a whole list of events, as the function of a keyed stream does it for one key.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;

use thalweg_cep::{Found, Matcher, Nfa, PartialMatches};
use thalweg_common::Timestamp;
use thalweg_common::record::Record;

/// Events of a match, each with the name of its pattern.
pub type Named<T> = Vec<(String, T)>;

/// What was found, in its order, with its times.
#[derive(Debug, Clone, PartialEq)]
pub struct Results<T> {
    pub matches: Vec<(Timestamp, Named<T>)>,
    pub timed_out: Vec<(Timestamp, Named<T>)>,
}

/// A key with its partial matches.
pub struct Run<T> {
    matcher: Matcher<T>,
    pub partial: PartialMatches<T>,
    pub results: Results<T>,
}

impl<T: Record> Run<T> {
    pub fn new(nfa: Nfa<T>) -> Self {
        let results = Results { matches: Vec::new(), timed_out: Vec::new() };
        Self { matcher: Matcher::new(Arc::new(nfa), true), partial: PartialMatches::default(), results }
    }

    pub fn push(&mut self, timestamp: Timestamp, event: T) {
        self.advance(timestamp);
        // What the function of a keyed stream saves, too.
        let is_needless = self.partial.is_empty() && !self.matcher.begins(&event);
        if is_needless || !self.matcher.matters(&event) {
            return;
        }
        let results = &mut self.results;
        self.matcher.process(&mut self.partial, event, timestamp, |found| note(results, found));
        self.drop_if_empty();
    }

    pub fn advance(&mut self, now: Timestamp) {
        let results = &mut self.results;
        self.matcher.advance(&mut self.partial, now, |found| note(results, found));
        self.drop_if_empty();
    }

    /// Through a snapshot.
    pub fn restore(&mut self) {
        let mut bytes = Vec::new();
        self.partial.encode(&mut bytes);
        let mut rest = bytes.as_slice();
        self.partial = PartialMatches::decode(&mut rest).unwrap();
        assert!(rest.is_empty());
    }

    fn drop_if_empty(&mut self) {
        if self.partial.is_empty() {
            assert!(self.partial.size() == (0, 0), "what has no partial matches has no nodes");
            self.partial = PartialMatches::default();
        }
    }
}

fn note<T: Clone>(results: &mut Results<T>, found: Found<'_, '_, T>) {
    let (list, found) = match found {
        Found::Complete(found) => (&mut results.matches, found),
        Found::TimedOut(found) => (&mut results.timed_out, found),
    };
    let events = found.iter().map(|(name, event)| (name.to_string(), event.clone())).collect();
    list.push((found.timestamp(), events));
}
