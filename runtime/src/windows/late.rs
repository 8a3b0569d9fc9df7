//! Late records: how long windows wait for them, and where they go when it is too late.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::assigner::WindowTime;
use crate::operator::{Context, Key};
use crate::side_output::OutputTag;

/// What a window does with late records: by default it drops and counts them.
#[derive(Debug)]
pub struct Lateness<In> {
    pub(crate) allowed_ms: i64,
    output: Option<OutputTag<In>>,
}

impl<In> Clone for Lateness<In> {
    fn clone(&self) -> Self {
        Self { allowed_ms: self.allowed_ms, output: self.output }
    }
}

impl<In> Default for Lateness<In> {
    fn default() -> Self {
        Self { allowed_ms: 0, output: None }
    }
}

impl<In: Record> Lateness<In> {
    /// Windows are kept for so many milliseconds behind their end.
    #[must_use]
    pub fn allowed(mut self, allowed_ms: i64) -> Self {
        self.allowed_ms = allowed_ms;
        self
    }

    /// What comes later still goes to this side output.
    #[must_use]
    pub fn output(mut self, tag: OutputTag<In>) -> Self {
        self.output = Some(tag);
        self
    }

    /// How long windows are kept: those over processing time know no lateness.
    pub(crate) fn kept_ms(&self, time: WindowTime) -> i64 {
        if time == WindowTime::Event { self.allowed_ms } else { 0 }
    }

    /// A record that no window takes.
    #[cold]
    pub(crate) fn refuse<K: Key, Out>(&self, record: In, context: &mut Context<'_, K, Out>) {
        match &self.output {
            Some(tag) => context.output(tag, record),
            None => context.open_context().metrics.count_late_record(),
        }
    }
}

impl WindowTime {
    /// Up to where windows have fired: as the watermark says, which begins anew behind a restart, and as the key remembers. Nothing is
    /// late by the clock.
    #[inline]
    pub(crate) fn latest(self, now: Timestamp, fired: Timestamp) -> Timestamp {
        if self == Self::Event { now.max(fired) } else { now }
    }
}

/// The time of the record at hand by which its windows are found, and the time up to which windows have fired.
#[inline]
pub(crate) fn times<K: Key, Out>(
    time: WindowTime,
    context: &mut Context<'_, K, Out>,
) -> Result<(Timestamp, Timestamp), Failure> {
    match time {
        WindowTime::Event => match context.timestamp() {
            Some(timestamp) => Ok((timestamp, context.current_watermark())),
            None => Err(without_timestamp(context)),
        },
        // Nothing is late by the clock, and timers fire all windows.
        WindowTime::Processing => Ok((context.current_processing_time(), Timestamp::MIN)),
    }
}

#[cold]
fn without_timestamp<K: Key, Out>(context: &Context<'_, K, Out>) -> Failure {
    Failure::user(format!(
        "`{}` has windows over event time and got a record without a timestamp: assign timestamps behind the source, or use \
         windows over processing time",
        context.open_context().operator_name
    ))
    .permanent()
}
