//! Windows that no time ends: the global one, and those over so many records.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::{InvalidWindows, WindowAssigner, WindowTime};
use crate::operator::{Key, KeyedProcess};
use crate::windows::aggregate::WindowAggregate;
use crate::windows::contents::{Evicted, Listed};
use crate::windows::count::Counting;
use crate::windows::counted::CountedWindows;
use crate::windows::evictor::CountEvictor;
use crate::windows::general::GeneralWindows;
use crate::windows::late::Lateness;
use crate::windows::output::WindowOutput;
use crate::windows::time_window::TimeWindow;
use crate::windows::triggers::{CountTrigger, DefaultTrigger, PurgingTrigger};

/// One window for all records of a key, which never ends. Without a trigger it shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GlobalWindows;

impl<In> WindowAssigner<In> for GlobalWindows {
    fn assign(&self, _: &In, _: Timestamp, windows: &mut Vec<TimeWindow>) -> Result<(), Failure> {
        windows.push(TimeWindow::GLOBAL);
        Ok(())
    }

    /// By the clock, so that no record has to have a timestamp and none is late.
    fn time(&self) -> WindowTime {
        WindowTime::Processing
    }

    fn default_trigger(&self) -> DefaultTrigger {
        DefaultTrigger::Never
    }

    fn name(&self) -> &'static str {
        "Global Window"
    }
}

/// The assigner of windows over so many records. For a trigger or evictor they are global ones.
macro_rules! counted {
    ($name:ident, $trigger:expr, $contents:expr) => {
        impl<In> WindowAssigner<In> for $name {
            fn assign(&self, _: &In, _: Timestamp, windows: &mut Vec<TimeWindow>) -> Result<(), Failure> {
                windows.push(TimeWindow::GLOBAL);
                Ok(())
            }

            fn time(&self) -> WindowTime {
                WindowTime::Processing
            }

            fn default_trigger(&self) -> DefaultTrigger {
                DefaultTrigger::Never
            }

            fn check(&self) -> Result<(), InvalidWindows> {
                let (size, slide) = self.shape();
                if size > 0 && slide > 0 {
                    return Ok(());
                }
                let message = format!("windows of {size} records every {slide}: both have to be 1 at least");
                Err(InvalidWindows::new(message))
            }

            fn name(&self) -> &'static str {
                "Count Window"
            }

            fn describe(&self) -> String {
                let (size, slide) = self.shape();
                match size == slide {
                    true => format!("count window of {size} records"),
                    false => format!("count window of {size} records every {slide}"),
                }
            }

            fn aggregated<K, A, O>(
                self,
                aggregate: A,
                output: O,
                _: Lateness<In>,
            ) -> impl KeyedProcess<K, In, Out = O::Out>
            where
                In: Record,
                K: Key,
                A: WindowAggregate<In>,
                O: WindowOutput<K, A::Out>,
            {
                let (size, slide) = self.shape();
                CountedWindows::new(Counting::new(size, slide), aggregate, output)
            }

            fn listed<K, O>(self, output: O, lateness: Lateness<In>) -> impl KeyedProcess<K, In, Out = O::Out>
            where
                In: Record,
                K: Key,
                O: WindowOutput<K, Vec<In>>,
            {
                let (size, slide) = self.shape();
                let contents = ($contents)(usize::try_from(size).unwrap_or(usize::MAX));
                GeneralWindows::new(
                    GlobalWindows,
                    ($trigger)(CountTrigger::of(slide)),
                    contents,
                    output,
                    lateness,
                )
            }
        }
    };
}

/// Windows over so many records of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWindows {
    records: u64,
}

impl CountWindows {
    /// Of so many records.
    pub fn of(records: u64) -> Self {
        Self { records }
    }

    fn shape(self) -> (u64, u64) {
        (self.records, self.records)
    }
}

/// Windows over the last records of a key, every so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingCountWindows {
    records: u64,
    slide: u64,
}

impl SlidingCountWindows {
    /// Of the last `records`, after every `slide` of them.
    pub fn of(records: u64, slide: u64) -> Self {
        Self { records, slide }
    }

    fn shape(self) -> (u64, u64) {
        (self.records, self.slide)
    }
}

counted!(CountWindows, PurgingTrigger::of, |_| Listed);
counted!(SlidingCountWindows, std::convert::identity, |size| Evicted(CountEvictor::of(size)));
