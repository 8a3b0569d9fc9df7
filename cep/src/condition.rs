//! Conditions: what an event must be like to be taken by a pattern, and what such a condition may look at.

use std::sync::Arc;

use crate::nfa::Names;
use crate::partial::PartialMatches;

/// Looks at the event alone.
type Simple<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// Looks at the event, and at those that the partial match has taken before.
type Iterative<T> = Arc<dyn Fn(&T, &Earlier<'_, T>) -> bool + Send + Sync>;

/// What an event must be like.
pub(crate) enum Condition<T> {
    /// Everything fits.
    Always,
    Simple(Simple<T>),
    Iterative(Iterative<T>),
    Both(Box<Condition<T>>, Box<Condition<T>>),
    Either(Box<Condition<T>>, Box<Condition<T>>),
}

impl<T> Clone for Condition<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Always => Self::Always,
            Self::Simple(test) => Self::Simple(Arc::clone(test)),
            Self::Iterative(test) => Self::Iterative(Arc::clone(test)),
            Self::Both(left, right) => Self::Both(left.clone(), right.clone()),
            Self::Either(left, right) => Self::Either(left.clone(), right.clone()),
        }
    }
}

impl<T> Condition<T> {
    /// Both must hold. Nothing asked for so far leaves the other one.
    pub(crate) fn and(self, other: Self) -> Self {
        match self {
            Self::Always => other,
            this => Self::Both(Box::new(this), Box::new(other)),
        }
    }

    /// One of both must hold. Nothing asked for so far leaves the other one.
    pub(crate) fn or(self, other: Self) -> Self {
        match self {
            Self::Always => other,
            this => Self::Either(Box::new(this), Box::new(other)),
        }
    }

    /// Whether it depends on anything but the event.
    pub(crate) fn is_iterative(&self) -> bool {
        match self {
            Self::Always | Self::Simple(_) => false,
            Self::Iterative(_) => true,
            Self::Both(left, right) | Self::Either(left, right) => {
                left.is_iterative() || right.is_iterative()
            }
        }
    }

    pub(crate) fn holds(&self, event: &T, earlier: &Earlier<'_, T>) -> bool {
        match self {
            Self::Always => true,
            Self::Simple(test) => test(event),
            Self::Iterative(test) => test(event, earlier),
            Self::Both(left, right) => left.holds(event, earlier) && right.holds(event, earlier),
            Self::Either(left, right) => left.holds(event, earlier) || right.holds(event, earlier),
        }
    }
}

/// The events that a partial match has taken so far: what an iterative condition looks at beside the event at hand.
pub struct Earlier<'a, T> {
    names: &'a Names,
    partial: &'a PartialMatches<T>,
    /// The nodes of the partial match, the oldest first.
    path: &'a [u32],
}

impl<'a, T> Earlier<'a, T> {
    pub(crate) fn new(names: &'a Names, partial: &'a PartialMatches<T>, path: &'a [u32]) -> Self {
        Self { names, partial, path }
    }

    /// The events taken by the pattern of this name, in order. None if it has taken none yet, or if there is no such pattern.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let (name, names, partial) = (self.names.find(name), self.names, self.partial);
        let taken = self.path.iter().map(|node| partial.node(*node));
        taken
            .filter(move |node| Some(names.of_place(node.place)) == name)
            .map(|node| &partial.event(node).event)
    }

    /// All events taken so far, each with the name of its pattern, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a T)> + use<'a, T> {
        let (names, partial) = (self.names, self.partial);
        self.path.iter().map(move |node| {
            let node = partial.node(*node);
            (names.text(names.of_place(node.place)), &partial.event(node).event)
        })
    }
}
