//! `Pattern`: what to look for in a stream of events, said in the order in which it is to happen.
//!
//! Stands at the beginning of a pattern's way: the builder collects what is said and the first mistake; [`compile`](Pattern::compile)
//! makes the automaton of it, or says what is wrong.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::compile;
use crate::condition::{Condition, Earlier};
use crate::error::PatternError;
use crate::nfa::Nfa;
use crate::skip::SkipStrategy;

/// A sequence of events to look for: Flink CEP's `Pattern`.
///
/// It begins with [`begin`](Self::begin) and goes on with one method for each further event, which says how near it must be. Conditions,
/// quantifiers and options that follow are about that event:
///
/// | between two events | other events between them |
/// | --- | --- |
/// | [`next`](Self::next) (strict) | none |
/// | [`followed_by`](Self::followed_by) (relaxed) | those that do not fit: the first one that fits is taken |
/// | [`followed_by_any`](Self::followed_by_any) (non-deterministic relaxed) | any: each one that fits makes a match of its own |
/// | [`not_next`](Self::not_next) | the next one must not fit |
/// | [`not_followed_by`](Self::not_followed_by) | none may fit, up to what follows in the pattern, or up to the end of the window |
///
/// | how often | |
/// | --- | --- |
/// | [`times`](Self::times), [`times_range`](Self::times_range) | so many times |
/// | [`one_or_more`](Self::one_or_more), [`times_or_more`](Self::times_or_more) | so many times or more; each number of them matches |
/// | [`optional`](Self::optional) | or not at all |
/// | [`greedy`](Self::greedy) | no event that fits may be left out before what follows |
/// | [`consecutive`](Self::consecutive), [`allow_combinations`](Self::allow_combinations) | how near they are to each other; relaxed otherwise |
///
/// ```
/// use std::time::Duration;
/// use thalweg_cep::Pattern;
///
/// # #[derive(Clone)]
/// struct Login { failed: bool, country: &'static str }
///
/// let pattern = Pattern::<Login>::begin("failures")
///     .where_(|login| login.failed)
///     .times_or_more(3)
///     .followed_by("success")
///     .where_(|login| !login.failed)
///     .where_iterative(|login, earlier| earlier.of("failures").all(|failure| failure.country != login.country))
///     .within(Duration::from_secs(600));
/// assert!(pattern.compile().is_ok());
/// ```
///
/// Every match is told once, in whatever ways a repeated group may divide its events. Where Flink's automaton does not do what its
/// documentation says, this one does: an event that a greedy pattern accepts is never left out, also where an optional pattern stands
/// behind it, and a partial match that times out is told once, although it may wait for several patterns. A group may neither begin with an
/// optional pattern nor end with a NOT pattern, because it is open what that should mean.
pub struct Pattern<T> {
    items: Vec<Item<T>>,
    within: Option<Duration>,
    skip: SkipStrategy,
    error: Option<PatternError>,
}

/// One event of a sequence, or a group of them.
pub(crate) struct Item<T> {
    pub(crate) link: Link,
    pub(crate) body: Body<T>,
    pub(crate) times: Times,
    pub(crate) until: Option<Condition<T>>,
}

/// How an event stands to what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Begin,
    To(Contiguity),
    NotNext,
    NotFollowedBy,
}

impl Link {
    pub(crate) fn is_not(self) -> bool {
        matches!(self, Self::NotNext | Self::NotFollowedBy)
    }
}

/// Which events may be between two that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contiguity {
    /// None.
    Strict,
    /// Those that do not fit.
    Relaxed,
    /// Any.
    Any,
}

pub(crate) enum Body<T> {
    Event { name: String, condition: Condition<T> },
    Group(Vec<Item<T>>),
}

impl<T> Body<T> {
    /// What messages call it: a group by its first pattern.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Event { name, .. } => name,
            Self::Group(items) => items.first().map_or("", |item| item.body.name()),
        }
    }
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) from: u32,
    /// No end if there is none.
    pub(crate) to: Option<u32>,
    pub(crate) is_optional: bool,
    pub(crate) is_greedy: bool,
    /// Between two of them.
    pub(crate) inner: Contiguity,
    /// Whether it was said.
    pub(crate) is_said: bool,
    inner_is_said: bool,
}

impl Times {
    const ONCE: Self = Self {
        from: 1,
        to: Some(1),
        is_optional: false,
        is_greedy: false,
        inner: Contiguity::Relaxed,
        is_said: false,
        inner_is_said: false,
    };
}

impl<T: 'static> Pattern<T> {
    /// Begins a pattern with an event. Without a condition any event fits.
    #[must_use]
    pub fn begin(name: &str) -> Self {
        Self::of(Item::event(Link::Begin, name))
    }

    /// Begins a pattern with a group, which may have its own quantifier.
    #[must_use]
    pub fn begin_with(group: Self) -> Self {
        let mut pattern = Self { items: Vec::new(), within: None, skip: SkipStrategy::NoSkip, error: None };
        pattern.push_group(Link::Begin, group);
        pattern
    }

    /// The next event must fit (strict contiguity).
    #[must_use]
    pub fn next(self, name: &str) -> Self {
        self.push(Link::To(Contiguity::Strict), name)
    }

    /// The first event from here that fits is taken; others are skipped (relaxed contiguity).
    #[must_use]
    pub fn followed_by(self, name: &str) -> Self {
        self.push(Link::To(Contiguity::Relaxed), name)
    }

    /// Every event from here that fits is taken, each in a match of its own (non-deterministic relaxed contiguity).
    #[must_use]
    pub fn followed_by_any(self, name: &str) -> Self {
        self.push(Link::To(Contiguity::Any), name)
    }

    /// The next event must not fit. At the end of a pattern the next event decides, so that there is no match before it has come.
    #[must_use]
    pub fn not_next(self, name: &str) -> Self {
        self.push_not(Link::NotNext, name)
    }

    /// No event from here to what follows may fit. At the end of a pattern it is nothing within the window, which
    /// [`within`](Self::within) must give: the match is told when the window is over.
    #[must_use]
    pub fn not_followed_by(self, name: &str) -> Self {
        self.push_not(Link::NotFollowedBy, name)
    }

    /// A group at once (strict contiguity).
    #[must_use]
    pub fn next_pattern(mut self, group: Self) -> Self {
        self.push_group(Link::To(Contiguity::Strict), group);
        self
    }

    /// A group from here on (relaxed contiguity).
    #[must_use]
    pub fn followed_by_pattern(mut self, group: Self) -> Self {
        self.push_group(Link::To(Contiguity::Relaxed), group);
        self
    }

    /// A group from here on, with every event that can begin it (non-deterministic relaxed contiguity).
    #[must_use]
    pub fn followed_by_any_pattern(mut self, group: Self) -> Self {
        self.push_group(Link::To(Contiguity::Any), group);
        self
    }

    /// The event must satisfy this, and all else that is asked of it.
    #[must_use]
    pub fn where_(self, test: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.restrict("where_", |condition| condition.and(Condition::Simple(Arc::new(test))))
    }

    /// The same with a look at what the partial match has taken before. Such patterns cost more, because partial matches with the same
    /// last event cannot be kept together.
    #[must_use]
    pub fn where_iterative(self, test: impl Fn(&T, &Earlier<'_, T>) -> bool + Send + Sync + 'static) -> Self {
        self.restrict("where_iterative", |condition| condition.and(Condition::Iterative(Arc::new(test))))
    }

    /// The event must satisfy this, or what was asked of it so far.
    #[must_use]
    pub fn or(self, test: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.restrict("or", |condition| condition.or(Condition::Simple(Arc::new(test))))
    }

    /// The same with a look at what the partial match has taken before.
    #[must_use]
    pub fn or_iterative(self, test: impl Fn(&T, &Earlier<'_, T>) -> bool + Send + Sync + 'static) -> Self {
        self.restrict("or_iterative", |condition| condition.or(Condition::Iterative(Arc::new(test))))
    }

    /// Exactly so many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        self.quantify("times", times, Some(times))
    }

    /// From so many to so many times; from 0 is [`optional`](Self::optional) from 1.
    #[must_use]
    pub fn times_range(self, times: RangeInclusive<u32>) -> Self {
        self.quantify("times_range", *times.start(), Some(*times.end()))
    }

    /// So many times or more. Say [`until`](Self::until) or [`within`](Self::within) too, or partial matches are kept for ever.
    #[must_use]
    pub fn times_or_more(self, times: u32) -> Self {
        self.quantify("times_or_more", times, None)
    }

    /// Once or more. Say [`until`](Self::until) or [`within`](Self::within) too, or partial matches are kept for ever.
    #[must_use]
    pub fn one_or_more(self) -> Self {
        self.quantify("one_or_more", 1, None)
    }

    /// Or not at all.
    #[must_use]
    pub fn optional(self) -> Self {
        self.option("optional", |times, name| {
            if times.is_optional {
                return Err(PatternError::Contradiction { name, option: "optional" });
            }
            times.is_optional = true;
            Ok(())
        })
    }

    /// As many as there are: before what follows, no event that fits here is left out. At the end of a pattern it changes nothing, because
    /// nobody knows how many more will come.
    #[must_use]
    pub fn greedy(mut self) -> Self {
        if let Some(Item { body: Body::Group(_), .. }) = self.items.last() {
            self.fail(PatternError::GreedyGroup);
            return self;
        }
        self.option("greedy", |times, name| {
            if !times.is_said {
                return Err(PatternError::NeedsQuantifier { name, option: "greedy" });
            }
            if times.is_greedy || times.inner == Contiguity::Any {
                return Err(PatternError::Contradiction { name, option: "greedy" });
            }
            times.is_greedy = true;
            Ok(())
        })
    }

    /// Strict contiguity between the events of this pattern.
    #[must_use]
    pub fn consecutive(self) -> Self {
        self.inner("consecutive", Contiguity::Strict)
    }

    /// Non-deterministic relaxed contiguity between the events of this pattern: every selection of them is a match.
    #[must_use]
    pub fn allow_combinations(self) -> Self {
        self.inner("allow_combinations", Contiguity::Any)
    }

    /// Ends a pattern that could go on for ever: an event that satisfies this is not taken, nor is one after it.
    #[must_use]
    pub fn until(self, test: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.end(Condition::Simple(Arc::new(test)))
    }

    /// The same with a look at what the partial match has taken before.
    #[must_use]
    pub fn until_iterative(self, test: impl Fn(&T, &Earlier<'_, T>) -> bool + Send + Sync + 'static) -> Self {
        self.end(Condition::Iterative(Arc::new(test)))
    }

    /// All events of a match lie within this time: the last one is less than it behind the first one. In milliseconds; the smallest one
    /// counts if it is said several times.
    #[must_use]
    pub fn within(mut self, window: Duration) -> Self {
        if window < Duration::from_millis(1) {
            self.fail(PatternError::EmptyWindow);
        }
        self.within = Some(self.within.map_or(window, |before| before.min(window)));
        self
    }

    /// What becomes of other matches when one is found.
    #[must_use]
    pub fn after_match(mut self, skip: SkipStrategy) -> Self {
        self.skip = skip;
        self
    }

    /// The automaton that finds this pattern.
    ///
    /// # Errors
    /// The first thing in the pattern that has no meaning.
    pub fn compile(self) -> Result<Nfa<T>, PatternError> {
        match self.error {
            Some(error) => Err(error),
            None => compile::compile(&self.items, self.within, self.skip),
        }
    }

    fn of(item: Item<T>) -> Self {
        Self { items: vec![item], within: None, skip: SkipStrategy::NoSkip, error: None }
    }

    fn fail(&mut self, error: PatternError) {
        self.error.get_or_insert(error);
    }

    fn push(mut self, link: Link, name: &str) -> Self {
        self.items.push(Item::event(link, name));
        self
    }

    fn push_not(mut self, link: Link, name: &str) -> Self {
        if self.items.last().is_some_and(|before| before.times.is_optional) {
            self.fail(PatternError::NotBehindOptional { name: name.to_string() });
        }
        self.push(link, name)
    }

    fn push_group(&mut self, link: Link, group: Self) {
        if let Some(error) = group.error {
            self.fail(error);
        }
        if group.within.is_some() {
            self.fail(PatternError::OptionOfGroup { option: "within" });
        }
        if group.skip != SkipStrategy::NoSkip {
            self.fail(PatternError::OptionOfGroup { option: "after_match" });
        }
        self.items.push(Item { link, body: Body::Group(group.items), times: Times::ONCE, until: None });
    }

    fn restrict(mut self, option: &'static str, change: impl FnOnce(Condition<T>) -> Condition<T>) -> Self {
        match self.items.last_mut() {
            Some(Item { body: Body::Event { condition, .. }, .. }) => {
                *condition = change(std::mem::replace(condition, Condition::Always));
            }
            _ => self.fail(PatternError::ConditionOfGroup { option }),
        }
        self
    }

    /// Changes how often the last event comes.
    fn option(
        mut self,
        option: &'static str,
        change: impl FnOnce(&mut Times, String) -> Result<(), PatternError>,
    ) -> Self {
        let Some(item) = self.items.last_mut() else { return self };
        let name = item.body.name().to_string();
        let changed = if item.link.is_not() {
            Err(PatternError::Not { name, option })
        } else {
            change(&mut item.times, name)
        };
        if let Err(error) = changed {
            self.fail(error);
        }
        self
    }

    fn quantify(self, option: &'static str, from: u32, to: Option<u32>) -> Self {
        self.option(option, |times, name| {
            if times.is_said {
                return Err(PatternError::SecondQuantifier { name, option });
            }
            let optional_from = if option == "times_range" { from.max(1) } else { from };
            if optional_from == 0 || to.is_some_and(|to| to < optional_from) {
                return Err(PatternError::Times { name, from, to: to.unwrap_or(u32::MAX) });
            }
            let is_optional = times.is_optional || from == 0;
            *times = Times { from: optional_from, to, is_optional, is_said: true, ..*times };
            Ok(())
        })
    }

    fn inner(self, option: &'static str, contiguity: Contiguity) -> Self {
        self.option(option, |times, name| {
            if !times.is_said {
                return Err(PatternError::NeedsQuantifier { name, option });
            }
            if times.inner_is_said || (times.is_greedy && contiguity == Contiguity::Any) {
                return Err(PatternError::Contradiction { name, option });
            }
            (times.inner, times.inner_is_said) = (contiguity, true);
            Ok(())
        })
    }

    fn end(mut self, until: Condition<T>) -> Self {
        let Some(item) = self.items.last_mut() else { return self };
        let name = item.body.name().to_string();
        if item.link.is_not() || item.times.to.is_some() {
            self.fail(PatternError::UntilWithoutLoop { name });
        } else if item.until.is_some() {
            self.fail(PatternError::Contradiction { name, option: "until" });
        } else {
            item.until = Some(until);
        }
        self
    }
}

impl<T> Item<T> {
    fn event(link: Link, name: &str) -> Self {
        let body = Body::Event { name: name.to_string(), condition: Condition::Always };
        Self { link, body, times: Times::ONCE, until: None }
    }
}

impl<T> fmt::Debug for Pattern<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.items.iter().map(|item| item.body.name()).collect();
        write!(f, "Pattern({})", names.join(", "))
    }
}
