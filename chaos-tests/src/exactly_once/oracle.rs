//! What the output must be, computed from the numbers of the events alone, and how the output differs from it.
//!
//! Knows nothing of the engine: a table of keys, filled in the order of the events. Every event has one line, and the lines of
//! a key must be the updates 1, 2, 3, ... with the digests that follow from its events in order.

use std::collections::HashMap;

use serde::Serialize;

use super::events::{REMEMBERED, forgets, key_of, next_digest, trace};

/// Examples that a verdict has of each kind of difference.
const EXAMPLES: usize = 5;

/// How the output differs from what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verdict {
    /// Updates of which there is no line.
    pub lost: u64,
    /// Lines that are there again.
    pub duplicated: u64,
    /// Lines that no sequence of the events explains.
    pub wrong: u64,
    /// Some of them, for whoever looks for the cause.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether each update is there exactly once, and nothing else.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        (self.lost, self.duplicated, self.wrong) == (0, 0, 0)
    }

    fn example(&mut self, of_its_kind: u64, text: impl FnOnce() -> String) {
        if of_its_kind <= EXAMPLES as u64 {
            self.examples.push(text());
        }
    }
}

/// What a line says, but its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Update {
    count: u64,
    digest: u64,
    remembered: u64,
}

/// What a key has to remember.
#[derive(Debug, Clone, Default)]
struct Key {
    count: u64,
    digest: u64,
    remembered: Vec<(u64, u64)>,
}

impl Key {
    fn see(&mut self, key: u64, event: u64) -> Update {
        self.count += 1;
        self.digest = next_digest(self.digest, event);
        if forgets(key, self.count) {
            self.remembered.clear();
        }
        self.remembered.push((self.count, event));
        if self.remembered.len() > REMEMBERED as usize {
            self.remembered.remove(0);
        }
        let remembered = self.remembered.iter().map(|(count, event)| trace(*count, *event));
        Update { count: self.count, digest: self.digest, remembered: remembered.fold(0, u64::wrapping_add) }
    }
}

/// Compares lines of output with what `events` events of `keys` keys must give, in whatever order the lines are.
pub fn judge<'a>(events: u64, keys: u64, lines: impl IntoIterator<Item = &'a str>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut found: HashMap<u64, Vec<(Update, bool)>> = HashMap::new();
    for line in lines {
        match parse(line) {
            Some((key, update)) => found.entry(key).or_default().push((update, false)),
            None => {
                verdict.wrong += 1;
                verdict.example(verdict.wrong, || format!("wrong: `{line}` is no line of this job"));
            }
        }
    }
    for updates in found.values_mut() {
        updates.sort_unstable();
    }
    let mut table = vec![Key::default(); usize::try_from(keys).unwrap_or(usize::MAX)];
    for event in 0..events {
        let key = key_of(event, keys);
        let Some(state) = table.get_mut(key as usize) else { continue };
        let expected = state.see(key, event);
        let updates = found.get_mut(&key).map(Vec::as_mut_slice).unwrap_or_default();
        let begin = updates.partition_point(|(update, _)| *update < expected);
        let copies = updates.iter_mut().skip(begin).take_while(|(update, _)| *update == expected);
        let copies = copies.map(|(_, is_explained)| *is_explained = true).count() as u64;
        if copies == 0 {
            verdict.lost += 1;
            verdict.example(verdict.lost, || {
                format!("lost: event {event}, update {} of key {key}", expected.count)
            });
        } else if copies > 1 {
            verdict.duplicated += copies - 1;
            verdict.example(verdict.duplicated, || {
                format!(
                    "duplicated: event {event}, update {} of key {key} is there {copies} times",
                    expected.count
                )
            });
        }
    }
    for (key, updates) in &found {
        for (update, _) in updates.iter().filter(|(_, is_explained)| !is_explained) {
            verdict.wrong += 1;
            verdict.example(verdict.wrong, || format!("wrong: key {key} has {update:x?}"));
        }
    }
    verdict
}

fn parse(line: &str) -> Option<(u64, Update)> {
    let mut words = line.split(' ');
    let key = words.next()?.parse().ok()?;
    let count = words.next()?.parse().ok()?;
    let digest = u64::from_str_radix(words.next()?, 16).ok()?;
    let remembered = u64::from_str_radix(words.next()?, 16).ok()?;
    words.next().is_none().then_some((key, Update { count, digest, remembered }))
}

#[cfg(test)]
mod tests {
    use super::super::events::line;
    use super::*;

    const EVENTS: u64 = 5_000;
    const KEYS: u64 = 80;

    /// The lines of a job that does everything right, made in another way than the oracle does: key by key.
    fn output() -> Vec<String> {
        let mut lines = Vec::new();
        for key in 0..KEYS {
            let own: Vec<u64> = (0..EVENTS).filter(|event| key_of(*event, KEYS) == key).collect();
            let mut begin = 0;
            for last in 0..own.len() {
                let count = last as u64 + 1;
                if forgets(key, count) {
                    begin = last;
                }
                let digest = own[..=last].iter().fold(0, |digest, event| next_digest(digest, *event));
                let from = begin.max((last + 1).saturating_sub(REMEMBERED as usize));
                let traces = (from..=last).map(|place| trace(place as u64 + 1, own[place]));
                lines.push(line(key, count, digest, traces.fold(0, u64::wrapping_add)));
            }
        }
        lines
    }

    fn verdict(lines: &[String]) -> (u64, u64, u64) {
        let verdict = judge(EVENTS, KEYS, lines.iter().map(String::as_str));
        assert_eq!(verdict.is_exact(), verdict.examples.is_empty(), "{verdict:?}");
        (verdict.lost, verdict.duplicated, verdict.wrong)
    }

    #[test]
    fn right_output_is_exact_in_any_order() {
        let mut lines = output();
        assert_eq!(lines.len() as u64, EVENTS);
        assert_eq!(verdict(&lines), (0, 0, 0));
        lines.reverse();
        assert_eq!(verdict(&lines), (0, 0, 0));
    }

    #[test]
    fn every_line_that_is_missing_or_doubled_is_counted() {
        let lines = output();
        for place in [0, 77, lines.len() - 1] {
            let mut less = lines.clone();
            let gone = less.remove(place);
            assert_eq!(verdict(&less), (1, 0, 0));
            less.extend([lines[5].clone(), lines[5].clone(), gone]);
            assert_eq!(verdict(&less), (0, 2, 0));
        }
        assert_eq!(verdict(&lines[..lines.len() - 100]), (100, 0, 0), "a tail that never came");
        assert_eq!(verdict(&[]), (EVENTS, 0, 0));
    }

    #[test]
    fn an_event_that_is_seen_twice_makes_all_later_updates_of_its_key_wrong() {
        let mut lines = output();
        let place = lines.iter().position(|line| line.starts_with("6 3 ")).expect("key 6 has three updates");
        lines[place] = line(6, 3, next_digest(1, 2), 9);
        assert_eq!(verdict(&lines), (1, 0, 1));
        lines[place] = "6 3".into();
        assert_eq!(verdict(&lines), (1, 0, 1));
        lines[place] = line(KEYS, 1, 0, 0);
        assert_eq!(verdict(&lines), (1, 0, 1));
    }
}
