//! What the output must be, computed from the numbers of the events alone, and how the output differs from it.
//!
//! Knows nothing of the engine: a table of keys, filled in the order of the events. Every event has one line, and the lines of
//! a key must be the updates 1, 2, 3, ... with the digests that follow from its events in order. Where that is not known, the digests tell it,
//! and each event must be in it once.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::events::{REMEMBERED, event_between, forgets, key_of, next_digest, trace};

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

    /// An update that must be there once is there so often.
    fn count(&mut self, copies: u64, update: impl FnOnce() -> String) {
        if copies == 0 {
            self.lost += 1;
            self.example(self.lost, || format!("lost: {}", update()));
        } else if copies > 1 {
            self.duplicated += copies - 1;
            self.example(self.duplicated, || format!("duplicated: {} is there {copies} times", update()));
        }
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

/// Compares lines of output with what `events` events of `keys` keys must give, in whatever order the lines are. With `in_order` the events
/// of each key came in their order; otherwise in any, which is told by the digests.
pub fn judge<'a>(
    events: u64,
    keys: u64,
    in_order: bool,
    lines: impl IntoIterator<Item = &'a str>,
) -> Verdict {
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
    match in_order {
        true => compare_in_order(events, keys, &mut found, &mut verdict),
        false => compare_in_any_order(events, keys, &mut found, &mut verdict),
    }
    for (key, updates) in &found {
        for (update, _) in updates.iter().filter(|(_, is_explained)| !is_explained) {
            verdict.wrong += 1;
            verdict.example(verdict.wrong, || format!("wrong: key {key} has {update:x?}"));
        }
    }
    verdict
}

/// Every line is known beforehand.
fn compare_in_order(
    events: u64,
    keys: u64,
    found: &mut HashMap<u64, Vec<(Update, bool)>>,
    verdict: &mut Verdict,
) {
    let mut table = vec![Key::default(); usize::try_from(keys).unwrap_or(usize::MAX)];
    for event in 0..events {
        let key = key_of(event, keys);
        let Some(state) = table.get_mut(key as usize) else { continue };
        let expected = state.see(key, event);
        let updates = found.get_mut(&key).map(Vec::as_mut_slice).unwrap_or_default();
        let begin = updates.partition_point(|(update, _)| *update < expected);
        let copies = updates.iter_mut().skip(begin).take_while(|(update, _)| *update == expected);
        let copies = copies.map(|(_, is_explained)| *is_explained = true).count() as u64;
        verdict.count(copies, || format!("event {event}, update {} of key {key}", expected.count));
    }
}

/// The lines of each key must be its updates 1, 2, 3, ... to the number of its events, each with another one of these: that which makes its
/// digest of the one before.
fn compare_in_any_order(
    events: u64,
    keys: u64,
    found: &mut HashMap<u64, Vec<(Update, bool)>>,
    verdict: &mut Verdict,
) {
    let mut expected = vec![0_u64; usize::try_from(keys).unwrap_or(usize::MAX)];
    for event in 0..events {
        if let Some(count) = expected.get_mut(key_of(event, keys) as usize) {
            *count += 1;
        }
    }
    for (key, expected) in (0..keys).zip(expected) {
        let updates = found.get_mut(&key).map(Vec::as_mut_slice).unwrap_or_default();
        // Unknown behind an update that is missing or wrong.
        let mut state = Some(Key::default());
        let mut seen = HashSet::new();
        for count in 1..=expected {
            let begin = updates.partition_point(|(update, _)| update.count < count);
            let Some((first, _)) = updates.get(begin).copied().filter(|(update, _)| update.count == count)
            else {
                verdict.count(0, || format!("update {count} of key {key}"));
                state = None;
                continue;
            };
            let (is_explained, next) = match state.take() {
                // Something was missing or wrong before, which is told already.
                None => (true, None),
                Some(mut state) => {
                    let event = event_between(state.digest, first.digest);
                    let is_new = event < events && key_of(event, keys) == key && seen.insert(event);
                    let is_explained = is_new && state.see(key, event) == first;
                    (is_explained, is_explained.then_some(state))
                }
            };
            state = next;
            let copies = updates.iter_mut().skip(begin).take_while(|(update, _)| *update == first);
            let copies = copies.map(|(_, explained)| *explained = is_explained).count() as u64;
            verdict.count(copies, || format!("update {count} of key {key}"));
        }
    }
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
    use super::super::events::{PARALLELISM, line};
    use super::*;

    const EVENTS: u64 = 5_000;
    const KEYS: u64 = 80;

    /// The lines of a job that does everything right, made in another way than the oracle does: key by key.
    fn output() -> Vec<String> {
        output_of(|_| {})
    }

    /// The same with the events of each key in another order.
    fn output_of(order: impl Fn(&mut Vec<u64>)) -> Vec<String> {
        let mut lines = Vec::new();
        for key in 0..KEYS {
            let mut own: Vec<u64> = (0..EVENTS).filter(|event| key_of(*event, KEYS) == key).collect();
            order(&mut own);
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
        verdict_of(true, lines)
    }

    fn verdict_of(in_order: bool, lines: &[String]) -> (u64, u64, u64) {
        let verdict = judge(EVENTS, KEYS, in_order, lines.iter().map(String::as_str));
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

    #[test]
    fn events_in_another_order_are_exact_where_no_order_was_promised() {
        let orders: [fn(&mut Vec<u64>); 3] = [|_| {}, |own| own.reverse(), |own| own.rotate_left(7)];
        for order in orders {
            let lines = output_of(order);
            assert_eq!(verdict_of(false, &lines), (0, 0, 0));
        }
        assert_ne!(verdict(&output_of(|own| own.reverse())), (0, 0, 0));
    }

    #[test]
    fn in_any_order_too_nothing_may_be_missing_doubled_or_seen_twice() {
        let lines = output_of(|own| own.reverse());
        let mut less = lines.clone();
        let gone = less.remove(77);
        assert_eq!(verdict_of(false, &less), (1, 0, 0));
        less.extend([gone.clone(), gone]);
        assert_eq!(verdict_of(false, &less), (0, 1, 0));
        // The last event of each key takes the place of the one before it: that was seen twice, and another one never.
        let twice = output_of(|own| {
            let last = own.len() - 1;
            own[last] = own[last - 1];
        });
        assert_eq!(verdict_of(false, &twice), (0, 0, KEYS));
        let once_more = output_of(|own| own.push(own[0]));
        assert_eq!(verdict_of(false, &once_more), (0, 0, KEYS), "more updates than there may be");
        let of_others = output_of(|own| own[3] += PARALLELISM * KEYS);
        assert!(verdict_of(false, &of_others).2 > 0);
    }
}
