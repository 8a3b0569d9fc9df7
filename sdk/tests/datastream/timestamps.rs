//! Timestamps through a job: given by a source, seen by a function on keys and by a sink.

use std::sync::{Arc, Mutex};

use thalweg::batch::Batch;
use thalweg::operator::{Sink, SinkContext, Source, SourceContext, SourceStatus};
use thalweg::prelude::*;
use thalweg::testing::LocalCluster;

const RECORDS: u64 = 20_000;
const KEYS: u64 = 10;

/// When a number happened; every fifth one does not say.
fn time_of(number: u64) -> Option<Timestamp> {
    (!number.is_multiple_of(5)).then_some(1_700_000_000_000 + number as Timestamp * 3)
}

/// Each number once, by one subtask or another.
#[derive(Clone, Default)]
struct Numbers {
    next: u64,
    step: u64,
}

impl Source for Numbers {
    type Out = u64;

    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        assert!(restored.is_none(), "nothing fails in this test");
        (self.next, self.step) = (context.subtask_index.into(), context.parallelism.into());
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<u64>, max: usize) -> Result<SourceStatus, Failure> {
        while self.next < RECORDS && out.len() < max {
            match time_of(self.next) {
                Some(timestamp) => out.push_with_timestamp(self.next, timestamp),
                None => out.push(self.next),
            }
            self.next += self.step;
        }
        Ok(if self.next < RECORDS { SourceStatus::Ready } else { SourceStatus::Finished })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

/// Records and their times.
type Pairs<T> = Vec<(T, Option<Timestamp>)>;

/// What a sink was given, with the times.
struct Seen<T>(Arc<Mutex<Pairs<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Send> Sink<T> for Seen<T> {
    type Committable = ();

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.0.lock().unwrap().extend(batch.drain_with_timestamps());
        Ok(())
    }
}

/// Emits each number with the time that the context tells, and the latest time of its key so far.
#[derive(State, Clone, Default)]
struct Latest {
    latest: ValueState<Timestamp>,
}

impl KeyedProcess<u64, u64> for Latest {
    type Out = (u64, Option<Timestamp>, Timestamp);

    fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let timestamp = context.timestamp();
        let before = self.latest.get(context).copied().unwrap_or_default();
        let latest = before.max(timestamp.unwrap_or_default());
        self.latest.set(context, latest);
        context.emit((number, timestamp, latest));
        Ok(())
    }
}

#[test]
fn timestamps_come_from_the_source_to_the_sink() {
    let (processed, reduced, combined) = (Seen::default(), Seen::default(), Seen::default());
    let sinks = (processed.clone(), reduced.clone(), combined.clone());
    let cluster = LocalCluster::new().configure("parallelism.default", 2);
    cluster
        .run(|env| {
            let numbers = env.source("numbers", Numbers::default()).flat_map(|number| [number, number]);
            let keyed = numbers.map(|number| number).filter(|_| true).key_by(|number| number % KEYS);
            keyed.process(Latest::default()).rebalance().sink("processed", sinks.0);
            keyed.reduce(|_, later| later).sink("reduced", sinks.1);
            keyed.reduce_associative(u64::max).sink("combined", sinks.2);
            Ok(())
        })
        .unwrap();

    let mut processed = std::mem::take(&mut *processed.0.lock().unwrap());
    processed.sort_unstable();
    assert_eq!(processed.len() as u64, 2 * RECORDS);
    for (position, ((number, told, latest), timestamp)) in (0..).zip(&processed) {
        assert_eq!(*number, position / 2);
        assert_eq!((*told, *timestamp), (time_of(*number), time_of(*number)));
        assert!(*latest >= timestamp.unwrap_or_default());
    }

    let mut reduced = std::mem::take(&mut *reduced.0.lock().unwrap());
    reduced.sort_unstable();
    let twice = (0..RECORDS).flat_map(|number| [(number, time_of(number)); 2]);
    assert_eq!(reduced, twice.collect::<Vec<_>>(), "every update has the time of its record");

    // What was combined has the latest time of its records, so the last value of a key has the time of its last record.
    let combined = std::mem::take(&mut *combined.0.lock().unwrap());
    for key in 0..KEYS {
        let last = RECORDS - KEYS + key;
        let times: Vec<_> =
            combined.iter().filter(|(number, _)| *number == last).map(|(_, timestamp)| *timestamp).collect();
        assert!(times.contains(&time_of(last)), "{last}: {times:?}");
        assert!(times.iter().flatten().all(|timestamp| Some(*timestamp) <= time_of(last)));
    }
}
