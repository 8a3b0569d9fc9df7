//! What becomes of other matches when one is found; Flink's `AfterMatchSkipStrategy`.

/// What becomes of other matches, partial and complete ones, when one is found.
///
/// All but the first tell the matches of a key in the order of their first events, so that a match waits while a partial match that
/// began earlier may still become one. They discard by the first event: what begins too early goes.
///
/// With the pattern `b+ c`, everything strict, and the events `b1 b2 b3 c`:
///
/// | strategy | matches |
/// | --- | --- |
/// | `NoSkip`, `SkipToNext`, `SkipToFirst("b")` | `b1 b2 b3 c`, `b2 b3 c`, `b3 c` |
/// | `SkipPastLastEvent` | `b1 b2 b3 c` |
/// | `SkipToLast("b")` | `b1 b2 b3 c`, `b3 c` |
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SkipStrategy {
    /// Every match is told.
    #[default]
    NoSkip,
    /// Discards what began with the first event of the match.
    SkipToNext,
    /// Discards what began with any event up to the last one of the match.
    SkipPastLastEvent,
    /// Discards what began before the first event that the match has of this pattern. Nothing if it has none.
    SkipToFirst(String),
    /// Discards what began before the last event that the match has of this pattern. Nothing if it has none.
    SkipToLast(String),
}

impl SkipStrategy {
    /// Discards what began before the first event that the match has of this pattern.
    #[must_use]
    pub fn skip_to_first(name: &str) -> Self {
        Self::SkipToFirst(name.to_string())
    }

    /// Discards what began before the last event that the match has of this pattern.
    #[must_use]
    pub fn skip_to_last(name: &str) -> Self {
        Self::SkipToLast(name.to_string())
    }

    /// The pattern that it names.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            Self::SkipToFirst(name) | Self::SkipToLast(name) => Some(name),
            Self::NoSkip | Self::SkipToNext | Self::SkipPastLastEvent => None,
        }
    }
}
