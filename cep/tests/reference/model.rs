//! The plain matcher: every sequence of single events that a pattern stands for, every choice of events for it, and a look at everything
//! between two of them.

use std::collections::BTreeSet;

use crate::spec::{Element, Event, How, Spec};

/// One event of a sequence, and what is asked of it and of the events since the one before.
#[derive(Debug, Clone, Default)]
struct Step {
    name: String,
    letters: u8,
    is_iterative: bool,
    how: Option<How>,
    /// Letters that must not come since the event before, up to and with this one.
    never: Vec<Letters>,
    /// Letters that must not come directly behind the event before.
    not_at_once: Vec<Letters>,
    /// Letters that this event must not have.
    not_this: Vec<Letters>,
    /// Greedy elements that are left: their letters must not come, unless the others have come before.
    greedy: Vec<(Letters, Option<u8>)>,
}

/// What fits an element.
#[derive(Debug, Clone, Copy)]
struct Letters {
    letters: u8,
    is_iterative: bool,
}

impl Letters {
    fn fit(self, event: Event, taken: usize) -> bool {
        self.letters & 1 << event.0 != 0 && (!self.is_iterative || taken % 2 == usize::from(event.0 % 2))
    }
}

fn plain(letters: u8) -> Letters {
    Letters { letters, is_iterative: false }
}

/// What is asked of the next event because of what was left behind.
#[derive(Debug, Clone, Default)]
struct Pending {
    never: Vec<Letters>,
    not_at_once: Vec<Letters>,
    greedy: Vec<(Letters, Option<u8>)>,
}

type Sequence = (Vec<Step>, Pending);

/// All sequences that the elements stand for, continuing `before`; those that are longer than `limit` may be cut.
fn sequences(
    elements: &[Element],
    path: &str,
    entry: How,
    before: Vec<Sequence>,
    limit: usize,
) -> Vec<Sequence> {
    let mut all = before;
    for (index, element) in elements.iter().enumerate() {
        if element.is_not() {
            let letters = Letters { letters: element.letters, is_iterative: element.is_iterative };
            for (_, pending) in &mut all {
                let list =
                    if element.how == How::NotNext { &mut pending.not_at_once } else { &mut pending.never };
                list.push(letters);
            }
            continue;
        }
        let nots: Vec<&Element> =
            elements[index + 1..].iter().take_while(|element| element.is_not()).collect();
        let how = if index == 0 { entry } else { element.how };
        all = all
            .into_iter()
            .flat_map(|before| repeated(element, &format!("{path}{index}"), how, &nots, before, limit))
            .collect();
    }
    all
}

/// An element as often as it may come.
fn repeated(
    element: &Element,
    name: &str,
    entry: How,
    nots: &[&Element],
    before: Sequence,
    limit: usize,
) -> Vec<Sequence> {
    if before.0.len() >= limit {
        // Too long for the events: only its beginning counts, for partial matches.
        return vec![before];
    }
    let letters = Letters { letters: element.letters, is_iterative: element.is_iterative };
    let is_greedy = element.is_greedy && element.to != Some(element.from);
    let behind = |pending: &mut Pending| {
        if is_greedy {
            pending.greedy.push((letters, element.until));
        }
    };
    let mut results = Vec::new();
    if element.is_optional {
        let mut skipped = before.clone();
        behind(&mut skipped.1);
        results.push(skipped);
    }
    let mut all = vec![before];
    for time in 1..=element.to.unwrap_or(limit as u32) {
        let how = if time == 1 { entry } else { element.inner };
        let mut next = Vec::new();
        for (mut steps, mut pending) in all {
            let begin = steps.len();
            if time > 1 {
                let of = |how, list: &mut Vec<Letters>| {
                    let nots = nots.iter().filter(|not| not.how == how);
                    list.extend(
                        nots.map(|not| Letters { letters: not.letters, is_iterative: not.is_iterative }),
                    );
                };
                of(How::NotFollowed, &mut pending.never);
                if time > element.from {
                    of(How::NotNext, &mut pending.not_at_once);
                }
            }
            if element.group.is_empty() {
                let Pending { mut never, not_at_once, greedy } = std::mem::take(&mut pending);
                let mut not_this = Vec::new();
                if let Some(until) = element.until {
                    if time > 1 { &mut never } else { &mut not_this }.push(plain(until));
                }
                let (letters, is_iterative) = (element.letters, element.is_iterative);
                let how = Some(how);
                let name = name.to_string();
                steps.push(Step { name, letters, is_iterative, how, never, not_at_once, not_this, greedy });
                next.push((steps, pending));
            } else {
                let path = format!("{name}.");
                for (mut steps, pending) in
                    sequences(&element.group, &path, how, vec![(steps, pending)], limit)
                {
                    for step in &mut steps[begin..] {
                        step.never.extend(element.until.map(plain));
                    }
                    next.push((steps, pending));
                }
            }
        }
        if time >= element.from {
            results.extend(next.iter().cloned().map(|(steps, mut pending)| {
                behind(&mut pending);
                (steps, pending)
            }));
        }
        all = next;
    }
    results
}

/// A match, or a partial one: positions of events with their names.
pub(crate) type Assigned = Vec<(String, usize)>;

#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// When it is complete (time, whether by the window, position), and what it is.
    pub(crate) matches: BTreeSet<(usize, (bool, usize), i64, Assigned)>,
    /// When, and what.
    pub(crate) timed_out: BTreeSet<(i64, Assigned)>,
}

struct Search<'a> {
    spec: &'a Spec,
    events: &'a [(i64, Event)],
    expected: Expected,
    /// Partial matches that end as a match when their window ends, which therefore do not time out.
    ended: BTreeSet<Assigned>,
}

impl Search<'_> {
    /// Whether the events behind the last taken one, from position `from` to `to`, can be skipped on the way to a step.
    fn can_skip(&self, step: &Step, taken: usize, from: usize, to: usize) -> bool {
        let letters = Letters { letters: step.letters, is_iterative: step.is_iterative };
        (from..to).all(|at| match step.how {
            Some(How::Strict) => false,
            Some(How::Relaxed) => !letters.fit(self.events[at].1, taken),
            _ => true,
        }) && self.leaves_open(step, taken, from, to)
    }

    /// Whether nothing has come from `from` to `to` that must not.
    fn leaves_open(&self, step: &Step, taken: usize, from: usize, to: usize) -> bool {
        let fit = |letters: &Letters, at: usize| letters.fit(self.events[at].1, taken);
        let is_lifted = |until: Option<u8>, at: usize| {
            until.is_some_and(|until| (from..=at).any(|at| plain(until).fit(self.events[at].1, taken)))
        };
        let is_closed = |at: usize| {
            step.never.iter().any(|letters| fit(letters, at))
                || (at == from && step.not_at_once.iter().any(|letters| fit(letters, at)))
                || step.greedy.iter().any(|(letters, until)| fit(letters, at) && !is_lifted(*until, at))
        };
        !(from..to).any(is_closed)
    }

    fn end_of_window(&self, first: usize) -> Option<i64> {
        self.spec.window.map(|window| self.events[first].0 + window)
    }

    /// The position of the first event behind the window.
    fn behind_window(&self, first: usize) -> usize {
        let end = self.end_of_window(first).unwrap_or(i64::MAX);
        self.events.iter().position(|(timestamp, _)| *timestamp >= end).unwrap_or(self.events.len())
    }

    fn sequence(&mut self, steps: &[Step], end: &Pending, assigned: &mut Assigned) {
        let taken = assigned.len();
        let last_not =
            self.spec.elements.last().filter(|element| element.is_not()).map(|element| element.how);
        let Some(step) = steps.get(taken) else {
            self.complete(last_not, end, assigned);
            return;
        };
        let from = assigned.last().map_or(0, |(_, position)| position + 1);
        let to = assigned.first().map_or(self.events.len(), |(_, first)| self.behind_window(*first));
        for at in from..to {
            let event = self.events[at].1;
            let letters = Letters { letters: step.letters, is_iterative: step.is_iterative };
            let begins = taken == 0;
            let fits = letters.fit(event, taken)
                && !step.not_this.iter().any(|letters| letters.fit(event, taken))
                && if begins {
                    self.leaves_open(step, taken, at, at + 1)
                } else {
                    self.can_skip(step, taken, from, at) && self.leaves_open(step, taken, from, at + 1)
                };
            if fits {
                assigned.push((step.name.clone(), at));
                self.sequence(steps, end, assigned);
                assigned.pop();
            }
        }
        if let (Some((_, first)), Some(_)) = (assigned.first(), self.spec.window)
            && self.can_skip(step, taken, from, to)
        {
            let timeout = self.end_of_window(*first).unwrap();
            self.expected.timed_out.insert((timeout, assigned.clone()));
        }
    }

    fn complete(&mut self, last_not: Option<How>, end: &Pending, assigned: &Assigned) {
        let Pending { never, not_at_once, greedy } = end.clone();
        let rest = Step { never, not_at_once, greedy, ..Step::default() };
        let (Some((_, first)), Some((_, last))) = (assigned.first(), assigned.last()) else { return };
        let (first, taken, behind) = (*first, assigned.len(), self.behind_window(*first));
        let mut insert =
            |order, timestamp| self.expected.matches.insert((first, order, timestamp, assigned.clone()));
        match last_not {
            None => {
                insert((false, *last), self.events[*last].0);
            }
            Some(How::NotNext) => {
                let next = last + 1;
                if next < behind {
                    if self.leaves_open(&rest, taken, next, next + 1) {
                        let timestamp = self.events[next].0;
                        self.expected.matches.insert((first, (false, next), timestamp, assigned.clone()));
                    }
                } else if let Some(timeout) = self.end_of_window(first) {
                    self.expected.timed_out.insert((timeout, assigned.clone()));
                }
            }
            Some(_) => {
                if self.leaves_open(&rest, taken, last + 1, behind) {
                    let timeout = self.end_of_window(first).unwrap();
                    self.expected.matches.insert((first, (true, 0), timeout, assigned.clone()));
                    self.ended.insert(assigned.clone());
                }
            }
        }
    }
}

pub(crate) fn expected(spec: &Spec, events: &[(i64, Event)]) -> Expected {
    // One step more than there are events, for partial matches that wait for it.
    let begin = vec![(Vec::new(), Pending::default())];
    let all = sequences(&spec.elements, "p", How::Relaxed, begin, events.len() + 1);
    let mut search = Search { spec, events, expected: Expected::default(), ended: BTreeSet::new() };
    for (steps, end) in all.iter().filter(|(steps, _)| !steps.is_empty()) {
        search.sequence(steps, end, &mut Vec::new());
    }
    let ended = search.ended;
    search.expected.timed_out.retain(|(_, assigned)| !ended.contains(assigned));
    search.expected
}

/// The matches that the skip strategy leaves, in their order.
pub(crate) fn after_skipping(spec: &Spec, expected: &Expected) -> Vec<(i64, Assigned)> {
    let mut begin = 0;
    let mut left = Vec::new();
    let mut all: Vec<_> = expected.matches.iter().collect();
    let positions = |assigned: &Assigned| assigned.iter().map(|(_, position)| *position).collect::<Vec<_>>();
    all.sort_by_key(|(first, order, _, assigned)| (*first, *order, positions(assigned)));
    for (first, _, timestamp, assigned) in all {
        if *first < begin {
            continue;
        }
        let name = format!("p{}", spec.skip.1);
        let mut named = assigned.iter().filter(|(known, _)| *known == name).map(|(_, position)| *position);
        let to = match spec.skip.0 {
            0 => None,
            1 => Some(first + 1),
            2 => assigned.last().map(|(_, position)| position + 1),
            3 => named.next(),
            _ => named.next_back(),
        };
        begin = begin.max(to.unwrap_or(0));
        left.push((*timestamp, assigned.clone()));
    }
    left
}
