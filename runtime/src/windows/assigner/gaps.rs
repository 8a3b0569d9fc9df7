//! Sessions: windows of a key that end when nothing came for a while.

use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::{InvalidWindows, WindowAssigner, WindowTime, milliseconds};
use crate::operator::{Key, KeyedProcess};
use crate::windows::aggregate::WindowAggregate;
use crate::windows::late::Lateness;
use crate::windows::output::WindowOutput;
use crate::windows::session::SessionsByGap;
use crate::windows::time_window::TimeWindow;

/// Windows that end when nothing came for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindows {
    gap_ms: i64,
    time: WindowTime,
}

impl SessionWindows {
    /// When nothing came for this long.
    pub fn with_gap(gap: Duration) -> Self {
        Self { gap_ms: milliseconds(gap), time: WindowTime::Event }
    }

    /// By the clock of the machine in place of the timestamps of the records.
    #[must_use]
    pub fn processing_time(mut self) -> Self {
        self.time = WindowTime::Processing;
        self
    }
}

/// Sessions where each record says how long it keeps its session open.
#[derive(Debug, Clone, Copy)]
pub struct DynamicSessionWindows<G> {
    gap: G,
    time: WindowTime,
}

impl<G> DynamicSessionWindows<G> {
    /// `gap(record)` is how long nothing may come behind the record.
    pub fn with_gap<In>(gap: G) -> Self
    where
        G: Fn(&In) -> Duration + Clone + Send + Sync + 'static,
    {
        Self { gap, time: WindowTime::Event }
    }

    /// By the clock of the machine in place of the timestamps of the records.
    #[must_use]
    pub fn processing_time(mut self) -> Self {
        self.time = WindowTime::Processing;
        self
    }
}

/// The window that a record alone would have.
pub(crate) trait Gap<In>: Clone + Send + Sync + 'static {
    fn window(&self, record: &In, timestamp: Timestamp) -> Result<TimeWindow, Failure>;

    /// What a plan says of them.
    fn words(&self) -> String;
}

impl<In> Gap<In> for SessionWindows {
    #[inline]
    fn window(&self, _: &In, timestamp: Timestamp) -> Result<TimeWindow, Failure> {
        Ok(TimeWindow::new(timestamp, timestamp.saturating_add(self.gap_ms)))
    }

    fn words(&self) -> String {
        format!("session window with a gap of {:?}", Duration::from_millis(self.gap_ms.unsigned_abs()))
    }
}

impl<In, G> Gap<In> for DynamicSessionWindows<G>
where
    G: Fn(&In) -> Duration + Clone + Send + Sync + 'static,
{
    #[inline]
    fn window(&self, record: &In, timestamp: Timestamp) -> Result<TimeWindow, Failure> {
        let gap_ms = milliseconds((self.gap)(record));
        if gap_ms < 1 {
            let message = "the gap of a session is less than a millisecond: the function of dynamic_session has to give more";
            return Err(Failure::user(message).permanent());
        }
        Ok(TimeWindow::new(timestamp, timestamp.saturating_add(gap_ms)))
    }

    fn words(&self) -> String {
        "session window with a gap by record".to_owned()
    }
}

/// The assigner of either kind of sessions.
macro_rules! sessions {
    () => {
        fn assign(
            &self,
            record: &In,
            timestamp: Timestamp,
            windows: &mut Vec<TimeWindow>,
        ) -> Result<(), Failure> {
            windows.push(self.window(record, timestamp)?);
            Ok(())
        }

        fn time(&self) -> WindowTime {
            self.time
        }

        fn is_merging(&self) -> bool {
            true
        }

        fn name(&self) -> &'static str {
            "Session Window"
        }

        fn describe(&self) -> String {
            Gap::<In>::words(self) + self.time.suffix()
        }

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
            let time = self.time;
            SessionsByGap::new(self, time, aggregate, output, lateness)
        }
    };
}

impl<In> WindowAssigner<In> for SessionWindows {
    fn check(&self) -> Result<(), InvalidWindows> {
        if self.gap_ms > 0 {
            return Ok(());
        }
        Err(InvalidWindows::new("the gap of sessions is less than a millisecond: it has to be 1 ms at least"))
    }

    sessions!();
}

impl<In, G> WindowAssigner<In> for DynamicSessionWindows<G>
where
    G: Fn(&In) -> Duration + Clone + Send + Sync + 'static,
{
    sessions!();
}
