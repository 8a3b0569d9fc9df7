//! What is wrong with a pattern; Flink's `MalformedPatternException`.

use thalweg_common::limits::{MAX_PATTERN_PLACES, MAX_PATTERN_WAYS};

/// A pattern that cannot be searched for. Each message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Two patterns with one name.
    #[error(
        "two patterns are called `{name}`; a name finds the events of one pattern in a match: give each its own"
    )]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A pattern without a name.
    #[error("a pattern has an empty name; a match is asked for its events by name: give it one")]
    EmptyName,
    /// Something that a NOT pattern cannot have.
    #[error("`{name}` is a NOT pattern, which takes no event: `{option}` has no meaning there; leave it out")]
    Not {
        /// The pattern.
        name: String,
        /// The method.
        option: &'static str,
    },
    /// A NOT pattern behind an optional one.
    #[error(
        "`{name}` is a NOT pattern behind an optional one, so that it is open from where it counts; make the pattern before it \
         mandatory, or search for two patterns, with and without it"
    )]
    NotBehindOptional {
        /// The NOT pattern.
        name: String,
    },
    /// Nothing ends the wait for what must not come.
    #[error(
        "the pattern ends with not_followed_by(\"{name}\"), so that it matches when time is over; say when with within(..)"
    )]
    NotAtEndWithoutWithin {
        /// The NOT pattern.
        name: String,
    },
    /// A NOT pattern at an end of a group.
    #[error("a group begins or ends with the NOT pattern `{name}`; put it before or behind the group")]
    NotAtEdgeOfGroup {
        /// The NOT pattern.
        name: String,
    },
    /// A group that begins with an optional pattern.
    #[error(
        "a group begins with the optional pattern `{name}`, so that it is open what the group's contiguity is for; make that pattern \
         mandatory, or begin the group with the one behind it"
    )]
    OptionalAtBeginOfGroup {
        /// The pattern.
        name: String,
    },
    /// Two quantifiers.
    #[error("`{name}` already says how often it occurs; leave out `{option}` or what stands before it")]
    SecondQuantifier {
        /// The pattern.
        name: String,
        /// The method.
        option: &'static str,
    },
    /// An option said twice, or beside its opposite.
    #[error("`{option}` of `{name}` repeats or contradicts what stands before it; leave one of them out")]
    Contradiction {
        /// The pattern.
        name: String,
        /// The method.
        option: &'static str,
    },
    /// An option of patterns that occur several times.
    #[error(
        "`{option}` of `{name}` is about several events; say before it how often it occurs, with times(..) or one_or_more()"
    )]
    NeedsQuantifier {
        /// The pattern.
        name: String,
        /// The method.
        option: &'static str,
    },
    /// An end of what has an end.
    #[error(
        "until(..) of `{name}` ends a pattern that could go on for ever; use it behind one_or_more() or times_or_more(..)"
    )]
    UntilWithoutLoop {
        /// The pattern.
        name: String,
    },
    /// A greedy group.
    #[error("a group cannot be greedy; make the patterns in it greedy")]
    GreedyGroup,
    /// A condition of a group.
    #[error(
        "`{option}` stands behind a group, which takes no event itself; put it behind a pattern of the group"
    )]
    ConditionOfGroup {
        /// The method.
        option: &'static str,
    },
    /// A number of times that cannot be.
    #[error(
        "`{name}` occurs {from} to {to} times; the second number must be at least 1 and not below the first"
    )]
    Times {
        /// The pattern.
        name: String,
        /// At least.
        from: u32,
        /// At most.
        to: u32,
    },
    /// A window of no length.
    #[error("within(..) needs a duration of at least a millisecond")]
    EmptyWindow,
    /// A time limit or skip strategy of a part.
    #[error("`{option}` is a property of the whole pattern; move it from the group to the outermost pattern")]
    OptionOfGroup {
        /// The method.
        option: &'static str,
    },
    /// A skip strategy to nowhere.
    #[error(
        "the skip strategy names the pattern `{name}`, which there is not, or which is a NOT pattern; name one that takes events"
    )]
    UnknownSkipTarget {
        /// The name.
        name: String,
    },
    /// Too many events.
    #[error(
        "the pattern takes up to {found} events before it repeats, and at most {MAX_PATTERN_PLACES} are allowed; lower its numbers of times"
    )]
    TooLong {
        /// At least so many.
        found: usize,
    },
    /// Too many ways to go on.
    #[error(
        "behind an event of `{name}` the pattern can go on in more than {MAX_PATTERN_WAYS} ways; make fewer of the patterns behind it optional"
    )]
    TooWide {
        /// The pattern.
        name: String,
    },
}
