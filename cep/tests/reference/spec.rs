//! Patterns as data, the same for the automaton, and random ones.

use proptest::prelude::*;
use thalweg_cep::{Earlier, Pattern, SkipStrategy};

/// A letter from 0 to 3, and a number that tells events apart.
pub(crate) type Event = (u8, u32);

/// How near, or that it must not come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum How {
    Strict,
    Relaxed,
    Any,
    NotNext,
    NotFollowed,
}

#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub(crate) how: How,
    /// The letters that fit, a bit each. A group has elements.
    pub(crate) letters: u8,
    /// Whether the number of events taken before must have the parity of the letter.
    pub(crate) is_iterative: bool,
    pub(crate) group: Vec<Element>,
    pub(crate) from: u32,
    pub(crate) to: Option<u32>,
    pub(crate) is_said: bool,
    pub(crate) is_optional: bool,
    pub(crate) is_greedy: bool,
    pub(crate) inner: How,
    pub(crate) until: Option<u8>,
}

impl Element {
    pub(crate) fn is_not(&self) -> bool {
        matches!(self.how, How::NotNext | How::NotFollowed)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) elements: Vec<Element>,
    pub(crate) window: Option<i64>,
    /// 0 to 4; the last two name the element with the number.
    pub(crate) skip: (u8, usize),
}

pub(crate) fn build(elements: &[Element], path: &str) -> Pattern<Event> {
    let mut pattern: Option<Pattern<Event>> = None;
    for (index, element) in elements.iter().enumerate() {
        let name = format!("{path}{index}");
        let is_group = !element.group.is_empty();
        let group = || build(&element.group, &format!("{name}."));
        let mut next = match (pattern, element.how) {
            (None, _) if is_group => Pattern::begin_with(group()),
            (None, _) => Pattern::begin(&name),
            (Some(before), How::Strict) if is_group => before.next_pattern(group()),
            (Some(before), How::Any) if is_group => before.followed_by_any_pattern(group()),
            (Some(before), _) if is_group => before.followed_by_pattern(group()),
            (Some(before), How::Strict) => before.next(&name),
            (Some(before), How::Relaxed) => before.followed_by(&name),
            (Some(before), How::Any) => before.followed_by_any(&name),
            (Some(before), How::NotNext) => before.not_next(&name),
            (Some(before), How::NotFollowed) => before.not_followed_by(&name),
        };
        if !is_group {
            let letters = element.letters;
            next = next.where_(move |event: &Event| letters & 1 << event.0 != 0);
            if element.is_iterative {
                next = next.where_iterative(|event: &Event, earlier: &Earlier<'_, Event>| {
                    earlier.iter().count() % 2 == usize::from(event.0 % 2)
                });
            }
        }
        if element.is_said {
            next = match (element.from, element.to) {
                (1, None) => next.one_or_more(),
                (from, None) => next.times_or_more(from),
                (from, Some(to)) if from == to => next.times(from),
                (from, Some(to)) => next.times_range(from..=to),
            };
            next = match element.inner {
                How::Strict => next.consecutive(),
                How::Any => next.allow_combinations(),
                _ => next,
            };
        }
        next = if element.is_optional { next.optional() } else { next };
        next = if element.is_greedy { next.greedy() } else { next };
        if let Some(until) = element.until {
            next = next.until(move |event: &Event| until & 1 << event.0 != 0);
        }
        pattern = Some(next);
    }
    pattern.unwrap()
}

pub(crate) fn skip(spec: &Spec) -> SkipStrategy {
    let name = format!("p{}", spec.skip.1);
    match spec.skip.0 {
        0 => SkipStrategy::NoSkip,
        1 => SkipStrategy::SkipToNext,
        2 => SkipStrategy::SkipPastLastEvent,
        3 => SkipStrategy::SkipToFirst(name),
        _ => SkipStrategy::SkipToLast(name),
    }
}

fn element(depth: u32) -> BoxedStrategy<Element> {
    let how = prop_oneof![
        3 => Just(How::Strict), 4 => Just(How::Relaxed), 3 => Just(How::Any), 1 => Just(How::NotNext), 1 => Just(How::NotFollowed)
    ];
    let times = prop_oneof![
        4 => Just((1, Some(1), false)),
        2 => (1..4_u32).prop_map(|from| (from, Some(from), true)),
        2 => (1..3_u32, 1..3_u32).prop_map(|(from, more)| (from, Some(from + more), true)),
        2 => (1..3_u32).prop_map(|from| (from, None, true)),
    ];
    let group = if depth == 0 {
        Just(Vec::new()).boxed()
    } else {
        prop_oneof![4 => Just(Vec::new()), 1 => elements(0, 2)].boxed()
    };
    let inner = prop_oneof![Just(How::Strict), Just(How::Relaxed), Just(How::Any)];
    let rest =
        (any::<bool>(), any::<bool>(), proptest::option::weighted(0.3, 1..16_u8), prop::bool::weighted(0.1));
    (how, 1..16_u8, times, group, inner, rest)
        .prop_map(
            |(
                how,
                letters,
                (from, to, is_said),
                group,
                inner,
                (is_optional, is_greedy, until, is_iterative),
            )| {
                let until = until.filter(|_| to.is_none());
                Element {
                    how,
                    letters,
                    is_iterative,
                    group,
                    from,
                    to,
                    is_said,
                    is_optional,
                    is_greedy,
                    inner,
                    until,
                }
            },
        )
        .boxed()
}

/// Elements that make a pattern, with what has no meaning taken away.
fn elements(depth: u32, most: usize) -> BoxedStrategy<Vec<Element>> {
    proptest::collection::vec(element(depth), 1..=most)
        .prop_map(move |mut elements| {
            for index in 0..elements.len() {
                let is_inside = depth == 0 && most == 2;
                let is_last = index + 1 == elements.len();
                let element = &mut elements[index];
                if index == 0 || (is_inside && is_last) {
                    element.how = if element.is_not() { How::Relaxed } else { element.how };
                }
                if element.is_not() {
                    let how = element.how;
                    let (letters, is_iterative) = (element.letters, element.is_iterative);
                    *element = Element {
                        how,
                        letters,
                        is_iterative,
                        group: Vec::new(),
                        from: 1,
                        to: Some(1),
                        is_said: false,
                        is_optional: false,
                        is_greedy: false,
                        inner: How::Relaxed,
                        until: None,
                    };
                    elements[index - 1].is_optional = false;
                    continue;
                }
                element.inner = if element.is_said { element.inner } else { How::Relaxed };
                element.is_greedy &= element.is_said && element.inner != How::Any && element.group.is_empty();
                if is_inside && index == 0 {
                    element.is_optional = false;
                }
            }
            elements
        })
        .boxed()
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    (elements(1, 4), proptest::option::weighted(0.7, 1..20_i64), 0..5_u8, 0..4_usize).prop_map(
        |(elements, window, kind, target)| {
            let mut window = window;
            if kind != 0 || elements.last().is_some_and(|last| last.how == How::NotFollowed) {
                window = window.or(Some(12));
            }
            let target = target % elements.len();
            let is_target = !elements[target].is_not() && elements[target].group.is_empty();
            let kind = if kind >= 3 && !is_target { 1 } else { kind };
            Spec { elements, window, skip: (kind, target) }
        },
    )
}

pub(crate) fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    proptest::collection::vec((0..4_i64, 0..4_u8), 0..9).prop_map(|steps| {
        let mut time = 0;
        (0..)
            .zip(steps)
            .map(|(number, (step, letter))| {
                time += step;
                (time, (letter, number))
            })
            .collect()
    })
}
