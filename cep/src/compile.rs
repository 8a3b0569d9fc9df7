//! From a pattern to its automaton: each pattern becomes as many places as it can have distinct events, and where one place can follow
//! another there is a way.
//!
//! The construction is Glushkov's: a part of the pattern is its first places, its last places, and whether it may be left out. What
//! stands between two places (contiguity, NOT patterns, greedy patterns that are left) is collected in the note of the way. Pure.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use thalweg_common::limits::{MAX_PATTERN_PLACES, MAX_PATTERN_WAYS};
use xxhash_rust::xxh3::xxh3_64;

use crate::condition::Condition;
use crate::error::PatternError;
use crate::nfa::{ConditionIndex, Greedy, Names, Nfa, Note, Place, Target, Way};
use crate::pattern::{Body, Contiguity, Item, Link};
use crate::skip::SkipStrategy;

pub(crate) fn compile<T>(
    items: &[Item<T>],
    within: Option<Duration>,
    skip: SkipStrategy,
) -> Result<Nfa<T>, PatternError> {
    let mut names = Vec::new();
    check_names(items, &mut names)?;
    if let Some(name) = skip.target().filter(|name| !names.contains(&(*name, false))) {
        return Err(PatternError::UnknownSkipTarget { name: name.to_string() });
    }
    let mut compiler = Compiler::default();
    let (part, nots) = compiler.sequence(items, Contiguity::Relaxed)?;
    compiler.end(&part.lasts, &nots, within.is_some())?;
    let starts: Vec<Way> = part.firsts.into_iter().map(First::into_way).collect();
    let Compiler { names, conditions, mut places, .. } = compiler;
    for (index, place) in places.iter_mut().enumerate() {
        lift(place).map_err(|()| PatternError::TooWide {
            name: names.text(names.of_place(index as u16)).to_string(),
        })?;
    }
    let ways = || places.iter().flat_map(|place| &place.ways);
    let is_relaxed = ways().all(|way| {
        way.contiguity != Contiguity::Strict
            && way.note.closes_at_once.is_empty()
            && way.target != Target::Next
    });
    let mut text = String::from("1 ");
    describe(items, &mut text);
    Ok(Nfa {
        merges: !conditions.iter().any(Condition::is_iterative),
        window_ms: within.map(|within| i64::try_from(within.as_millis()).unwrap_or(i64::MAX)),
        fingerprint: xxh3_64(text.as_bytes()),
        names,
        conditions,
        places,
        starts,
        is_ambiguous: repeats_group(items),
        skip,
        is_relaxed,
    })
}

fn repeats_group<T>(items: &[Item<T>]) -> bool {
    items.iter().any(|item| match &item.body {
        Body::Event { .. } => false,
        Body::Group(items) => item.times.is_said || repeats_group(items),
    })
}

/// All names, with whether they are those of NOT patterns.
fn check_names<'a, T>(items: &'a [Item<T>], names: &mut Vec<(&'a str, bool)>) -> Result<(), PatternError> {
    for item in items {
        match &item.body {
            Body::Group(items) => check_names(items, names)?,
            Body::Event { name, .. } if name.is_empty() => return Err(PatternError::EmptyName),
            Body::Event { name, .. } if names.iter().any(|(known, _)| known == name) => {
                return Err(PatternError::DuplicateName { name: name.clone() });
            }
            Body::Event { name, .. } => names.push((name, item.link.is_not())),
        }
    }
    Ok(())
}

/// The structure of a pattern, as far as partial matches depend on it. Partial matches in savepoints are found by its hash.
fn describe<T>(items: &[Item<T>], text: &mut String) {
    for item in items {
        text.push_str(match item.link {
            Link::Begin => "begin ",
            Link::To(contiguity) => code(contiguity),
            Link::NotNext => "!, ",
            Link::NotFollowedBy => "!.. ",
        });
        match &item.body {
            Body::Group(items) => {
                text.push('(');
                describe(items, text);
                text.push(')');
            }
            Body::Event { name, condition } => {
                // Writing to a string does not fail.
                let _ = write!(text, "{name:?}{}", if condition.is_iterative() { "*" } else { "" });
            }
        }
        let times = &item.times;
        let _ = write!(text, "{{{}..{:?}", times.from, times.to);
        text.push_str(code(times.inner));
        text.push_str(if times.is_optional { "?" } else { "" });
        text.push_str(if times.is_greedy { "g" } else { "" });
        if let Some(until) = &item.until {
            text.push_str(if until.is_iterative() { "u*" } else { "u" });
        }
        text.push('}');
    }
}

fn code(contiguity: Contiguity) -> &'static str {
    match contiguity {
        Contiguity::Strict => ", ",
        Contiguity::Relaxed => ".. ",
        Contiguity::Any => ".* ",
    }
}

/// A part of the pattern.
struct Part {
    firsts: Vec<First>,
    lasts: Vec<Last>,
    /// If it may be left out: what is on the way past it.
    past: Option<Note>,
}

/// A place that can take the first event of a part, and what is on the way to it.
#[derive(Clone)]
struct First {
    place: u16,
    contiguity: Contiguity,
    note: Note,
}

impl First {
    fn into_way(self) -> Way {
        let lifted = Vec::new();
        Way { target: Target::Place(self.place), contiguity: self.contiguity, note: self.note, lifted }
    }
}

/// A place that can take the last event of a part, and what is on the way from it.
#[derive(Clone)]
struct Last {
    place: u16,
    note: Note,
}

/// The NOT patterns between two parts.
#[derive(Default)]
struct Nots {
    note: Note,
    /// The last of them.
    end: Option<(Link, String)>,
}

struct Compiler<T> {
    names: Names,
    conditions: Vec<Condition<T>>,
    /// By where they are in the pattern: one that counts in several places is asked once for each event.
    known: HashMap<*const Condition<T>, ConditionIndex>,
    places: Vec<Place>,
}

impl<T> Default for Compiler<T> {
    fn default() -> Self {
        let (names, conditions, known) = (Names::default(), Vec::new(), HashMap::new());
        Self { names, conditions, known, places: Vec::new() }
    }
}

impl<T> Compiler<T> {
    fn condition(&mut self, condition: &Condition<T>) -> Result<ConditionIndex, PatternError> {
        if let Some(known) = self.known.get(&std::ptr::from_ref(condition)) {
            return Ok(*known);
        }
        let found = self.conditions.len();
        let index = ConditionIndex::try_from(found).map_err(|_| PatternError::TooLong { found })?;
        self.conditions.push(condition.clone());
        self.known.insert(condition, index);
        Ok(index)
    }

    /// The items in turn, and the NOT patterns behind the last one that is none. The first item is entered as `entry` says.
    fn sequence(&mut self, items: &[Item<T>], entry: Contiguity) -> Result<(Part, Nots), PatternError> {
        let mut whole: Option<Part> = None;
        let mut nots = Nots::default();
        for (index, item) in items.iter().enumerate() {
            if item.link.is_not() {
                self.add_not(item, &mut nots)?;
                continue;
            }
            let contiguity = if let Link::To(contiguity) = item.link { contiguity } else { entry };
            // What must not come is looked for from the first event of a pattern on.
            let following = self.nots_behind(items, index)?;
            let part = self.item(item, contiguity, &following)?;
            whole = Some(match whole {
                None => part,
                Some(before) => self.join(before, &std::mem::take(&mut nots).note, part),
            });
        }
        let whole = whole.ok_or(PatternError::EmptyName)?;
        Ok((whole, nots))
    }

    fn add_not(&mut self, item: &Item<T>, nots: &mut Nots) -> Result<(), PatternError> {
        if let Body::Event { name, condition } = &item.body {
            let condition = self.condition(condition)?;
            let into = match item.link {
                Link::NotNext => &mut nots.note.closes_at_once,
                _ => &mut nots.note.closes,
            };
            into.push(condition);
            nots.end = Some((item.link, name.clone()));
        }
        Ok(())
    }

    /// The NOT patterns directly behind an item.
    fn nots_behind(&mut self, items: &[Item<T>], index: usize) -> Result<Note, PatternError> {
        let mut nots = Nots::default();
        for item in items[index + 1..].iter().take_while(|item| item.link.is_not()) {
            self.add_not(item, &mut nots)?;
        }
        Ok(nots.note)
    }

    /// Two parts, one behind the other.
    fn join(&mut self, before: Part, between: &Note, after: Part) -> Part {
        for last in &before.lasts {
            let leaving = last.note.then(between);
            for first in &after.firsts {
                self.connect(last.place, &leaving, first);
            }
        }
        let mut firsts = before.firsts;
        if let Some(past) = &before.past {
            let behind = after.firsts.iter().cloned();
            firsts.extend(behind.map(|first| First { note: past.then(&first.note), ..first }));
        }
        let mut lasts = after.lasts;
        if let Some(past) = &after.past {
            let earlier = before.lasts.into_iter();
            lasts.extend(earlier.map(|last| Last { note: last.note.then(between).then(past), ..last }));
        }
        let past = before.past.zip(after.past).map(|(one, other)| one.then(&other));
        Part { firsts, lasts, past }
    }

    fn connect(&mut self, place: u16, leaving: &Note, first: &First) {
        let way = First { note: leaving.then(&first.note), ..first.clone() }.into_way();
        let ways = &mut self.places[usize::from(place)].ways;
        if !ways.contains(&way) {
            ways.push(way);
        }
    }

    /// A pattern or a group as often as it may occur.
    fn item(&mut self, item: &Item<T>, entry: Contiguity, following: &Note) -> Result<Part, PatternError> {
        let times = &item.times;
        let until = item.until.as_ref().map(|until| self.condition(until)).transpose()?;
        let condition = match &item.body {
            Body::Event { condition, .. } => Some(self.condition(condition)?),
            Body::Group(_) => None,
        };
        let inner = self.places.len();
        let copies = times.to.unwrap_or(times.from);
        let (mut firsts, mut lasts, mut before) = (Vec::new(), Vec::new(), Vec::<Last>::new());
        for copy in 1..=copies {
            let contiguity = if copy == 1 { entry } else { times.inner };
            let part = self.copy(item, condition, contiguity)?;
            for last in &before {
                // From where the pattern may end, the next event counts for what must not be next.
                let at_once = if copy > times.from { following.closes_at_once.clone() } else { Vec::new() };
                let between =
                    Note { closes: following.closes.clone(), closes_at_once: at_once, ..Note::default() };
                part.firsts
                    .iter()
                    .for_each(|first| self.connect(last.place, &last.note.then(&between), first));
            }
            if copy >= times.from {
                lasts.extend(part.lasts.iter().cloned());
            }
            if times.to.is_none() && copy == copies {
                for last in &part.lasts {
                    for first in &part.firsts {
                        let again = First { contiguity: times.inner, ..first.clone() };
                        self.connect(last.place, &last.note.then(following), &again);
                    }
                }
            }
            if copy == 1 {
                firsts = part.firsts;
            }
            before = part.lasts;
        }
        if let Some(until) = until {
            let ways = self.places[inner..].iter_mut().flat_map(|place| &mut place.ways);
            ways.for_each(|way| way.note.closes.push(until));
            let is_group = condition.is_none();
            for First { note, .. } in &mut firsts {
                if is_group { &mut note.closes } else { &mut note.leaves }.push(until);
            }
        }
        let mut behind = Note::default();
        if let Some(condition) = condition.filter(|_| times.is_greedy && times.to != Some(times.from)) {
            behind.greedy.push(Greedy { condition, until });
            for last in &mut lasts {
                last.note = last.note.then(&behind);
            }
        }
        Ok(Part { firsts, lasts, past: times.is_optional.then_some(behind) })
    }

    /// One occurrence of a pattern or a group.
    fn copy(
        &mut self,
        item: &Item<T>,
        condition: Option<ConditionIndex>,
        entry: Contiguity,
    ) -> Result<Part, PatternError> {
        match &item.body {
            Body::Event { name, .. } => {
                let found = self.places.len() + 1;
                if found > MAX_PATTERN_PLACES {
                    return Err(PatternError::TooLong { found });
                }
                let place = (found - 1) as u16;
                self.names.add(name);
                let condition = condition.unwrap_or_default();
                self.places.push(Place { condition, is_accepting: false, ways: Vec::new(), open: 0 });
                let firsts = vec![First { place, contiguity: entry, note: Note::default() }];
                Ok(Part { firsts, lasts: vec![Last { place, note: Note::default() }], past: None })
            }
            Body::Group(items) => {
                if let Some(first) = items.first().filter(|first| first.times.is_optional) {
                    return Err(PatternError::OptionalAtBeginOfGroup { name: first.body.name().to_string() });
                }
                let (part, nots) = self.sequence(items, entry)?;
                match nots.end {
                    Some((_, name)) => Err(PatternError::NotAtEdgeOfGroup { name }),
                    None => Ok(part),
                }
            }
        }
    }

    /// The end of the whole pattern.
    fn end(&mut self, lasts: &[Last], nots: &Nots, has_window: bool) -> Result<(), PatternError> {
        let target = match &nots.end {
            None => None,
            Some((Link::NotNext, _)) => Some(Target::Next),
            Some(_) if has_window => Some(Target::Window),
            Some((_, name)) => return Err(PatternError::NotAtEndWithoutWithin { name: name.clone() }),
        };
        for last in lasts {
            let place = &mut self.places[usize::from(last.place)];
            match target {
                None => place.is_accepting = true,
                Some(target) => place.ways.push(Way {
                    target,
                    contiguity: Contiguity::Any,
                    note: last.note.then(&nots.note),
                    lifted: Vec::new(),
                }),
            }
        }
        Ok(())
    }
}

/// Adds the ways that are open when a greedy pattern has met its end, behind those that are open at first.
fn lift(place: &mut Place) -> Result<(), ()> {
    let at_first = place.ways.len();
    let mut index = 0;
    while index < place.ways.len() {
        if place.ways.len() > MAX_PATTERN_WAYS {
            return Err(());
        }
        let mut lifted = Vec::new();
        for (greedy, Greedy { until, .. }) in place.ways[index].note.greedy.clone().into_iter().enumerate() {
            if until.is_none() {
                lifted.push(None);
                continue;
            }
            let mut way = place.ways[index].clone();
            way.note.greedy.remove(greedy);
            way.lifted = Vec::new();
            let same = |known: &Way| {
                known.target == way.target && known.contiguity == way.contiguity && known.note == way.note
            };
            let known = place.ways.iter().position(same).unwrap_or_else(|| {
                place.ways.push(way);
                place.ways.len() - 1
            });
            lifted.push(Some(known as u8));
        }
        place.ways[index].lifted = lifted;
        index += 1;
    }
    place.open = (0..at_first).fold(0, |open, way| open | 1 << way);
    Ok(())
}
