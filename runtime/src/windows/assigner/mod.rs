//! Assigners: which windows a record belongs to, and which function runs an aggregation over them.

mod aligned;
mod gaps;
mod global;

use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::aggregate::WindowAggregate;
use super::contents::{Accumulated, Listed};
use super::general::GeneralWindows;
use super::late::Lateness;
use super::output::WindowOutput;
use super::time_window::TimeWindow;
use super::triggers::DefaultTrigger;
use crate::operator::{Key, KeyedProcess};

pub use aligned::{CumulateWindows, SlidingWindows, TumblingWindows};
pub(crate) use gaps::Gap;
pub use gaps::{DynamicSessionWindows, SessionWindows};
pub use global::{CountWindows, GlobalWindows, SlidingCountWindows};

/// The time that windows are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowTime {
    /// The timestamps of the records; windows fire by watermarks.
    Event,
    /// The clock of the machine; windows fire by it, and nothing is late.
    Processing,
}

impl WindowTime {
    /// What a plan says behind windows over it.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Event => "",
            Self::Processing => ", by processing time",
        }
    }
}

/// Windows that cannot be: cause and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidWindows(String);

impl InvalidWindows {
    /// With a sentence for people.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A duration in milliseconds, as windows count them.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Decides which windows a record belongs to: Flink's `WindowAssigner`.
pub trait WindowAssigner<In>: Clone + Send + Sync + 'static {
    /// Appends the windows of a record; `timestamp` is its own or that of the clock, as [`time`](Self::time) says.
    ///
    /// # Errors
    /// If a function of the job does not give what it should; the task fails with it.
    fn assign(&self, record: &In, timestamp: Timestamp, windows: &mut Vec<TimeWindow>)
    -> Result<(), Failure>;

    /// The time that the windows are over.
    fn time(&self) -> WindowTime {
        WindowTime::Event
    }

    /// Whether windows that touch become one.
    fn is_merging(&self) -> bool {
        false
    }

    /// The trigger if none is given.
    fn default_trigger(&self) -> DefaultTrigger {
        self.time().trigger()
    }

    /// Whether there can be such windows.
    ///
    /// # Errors
    /// If not: cause and cure.
    fn check(&self) -> Result<(), InvalidWindows> {
        Ok(())
    }

    /// What the plan calls them.
    fn name(&self) -> &'static str {
        "Window"
    }

    /// What the plan tells of them, with their lengths.
    fn describe(&self) -> String {
        self.name().to_lowercase()
    }

    /// The function that aggregates over these windows with their default trigger.
    fn aggregated<K, A, O>(
        self,
        aggregate: A,
        output: O,
        lateness: Lateness<In>,
    ) -> impl KeyedProcess<K, In, Out = O::Out>
    where
        In: Record,
        K: Key,
        A: WindowAggregate<In>,
        O: WindowOutput<K, A::Out>,
    {
        let trigger = self.default_trigger();
        GeneralWindows::new(self, trigger, Accumulated(aggregate), output, lateness)
    }

    /// The function that shows all elements of these windows when their default trigger fires.
    fn listed<K, O>(self, output: O, lateness: Lateness<In>) -> impl KeyedProcess<K, In, Out = O::Out>
    where
        In: Record,
        K: Key,
        O: WindowOutput<K, Vec<In>>,
    {
        let trigger = self.default_trigger();
        GeneralWindows::new(self, trigger, Listed, output, lateness)
    }
}

/// Windows that share no record and never become one: an aggregate needs no `merge`.
#[diagnostic::on_unimplemented(
    message = "these windows share slices or merge, so that an aggregate over them needs `merge`",
    note = "implement `MergeAggregate` in place of `Aggregate`"
)]
pub trait NoMerging {}

impl NoMerging for TumblingWindows {}
impl NoMerging for GlobalWindows {}
impl NoMerging for CountWindows {}
