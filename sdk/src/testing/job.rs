//! `JobHarness`: a whole topology in the thread of the test.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::record::Record;
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::testing::{Gathered, JobSnapshot, ManualJob, Script};

use super::setup::{JobSetup, side_output_name};
use super::stand_ins::{AnyGathered, AnyScript, End, Ends, StandIns};
use crate::environment::Environment;
use crate::error::{Error, Result};

use super::JOB_NAME;

/// Runs a topology in the thread of the test, without cluster, threads, sockets or sleeping, on a clock that the test moves.
///
/// What runs is the job: its chains, its channels with their partitioning by key, its gates and barriers, snapshots as they would be
/// stored. What is replaced are its ends:
///
/// - **Sources.** Each with a name or uid reads what [`feed`](Self::feed) gives it, as a source with a single split does: in its first subtask,
///   while the others are idle. [`feed_subtask`](Self::feed_subtask) gives another one a split. Those that [`from_iter`](Environment::from_iter) and [`generate`](Environment::generate) make without a name run as they are.
/// - **Sinks.** Each keeps what comes to it for [`output`](Self::output), at once, whatever checkpoints say; `print`, whose name is `Print
///   to Std. Out`, and `discard` too.
///
/// [`JobSetup::keeping`] leaves one as it is.
///
/// Every method lets the job go on until it rests: until nothing is left to do before records come or time passes. Then generators of
/// watermarks are asked too (a job asks them every `pipeline.auto-watermark-interval`), so that behind [`feed`](Self::feed) the watermark
/// of what was fed has passed. A timer of the clock fires at its time (in a job when its millisecond is over).
///
/// The same calls give the same results, except that the order of results of different keys at the same time is open, as in any job:
/// sort them. After a failure all calls return it.
///
/// Limits: state is in memory; barriers are aligned, so that nothing is ever on its way in a snapshot; requests of
/// [`async_map`](crate::DataStream::async_map) run without a tokio runtime, so that they must not use its sockets and timers. For these, and for
/// failures and restarts, there is [`LocalCluster`](super::LocalCluster). The [module](super) has an example.
pub struct JobHarness {
    job: ManualJob,
    sources: Vec<Fed>,
    sinks: Vec<End<dyn AnyGathered>>,
}

/// A source and what it was given.
struct Fed {
    end: End<dyn AnyScript>,
    /// Subtasks with a split.
    subtasks: BTreeSet<u32>,
    watermark: Option<Timestamp>,
}

impl fmt::Debug for JobHarness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHarness")
            .field("sources", &names(self.sources.iter().map(|source| &source.end)))
            .field("sinks", &names(self.sinks.iter()))
            .field("now_ms", &self.job.now_ms())
            .finish_non_exhaustive()
    }
}

impl JobHarness {
    /// Deploys the job that a topology declares, and lets it go on until it rests.
    ///
    /// # Errors
    /// A wrong setting, a mistake in the topology, with its file and line, or a snapshot that the job cannot go on with.
    pub fn open(topology: impl FnOnce(&mut Environment) -> Result<()>, setup: JobSetup) -> Result<Self> {
        let JobSetup { arguments, configuration, kept, side_outputs, start_ms, restored, first_error } =
            setup;
        if let Some(error) = first_error {
            return Err(error);
        }
        let stand_ins = StandIns::keeping(kept);
        let mut environment = Environment::with_stand_ins(&arguments, stand_ins).under(&configuration);
        topology(&mut environment)?;
        let read: Result<Vec<()>> = side_outputs.into_iter().map(|read| read(&environment)).collect();
        let Ends { sources, sinks } = environment.replaced();
        let program = environment.build(&configuration, JOB_NAME)?;
        // Behind the mistakes of the topology, of which this may be a consequence.
        read?;
        let now_ms = start_ms.or(restored.as_ref().map(JobSnapshot::now_ms)).unwrap_or(0);
        let job = ManualJob::start(program, now_ms, restored.as_ref())?;
        let fed = |end| Fed { end, subtasks: BTreeSet::from([0]), watermark: None };
        Ok(Self { job, sources: sources.into_iter().map(fed).collect(), sinks })
    }

    /// Gives records to the source with this name or uid, and lets them go through the job.
    ///
    /// # Errors
    /// When no source has that name, or it reads other records; and whatever the job fails with.
    pub fn feed<T: Record>(&mut self, source: &str, records: impl IntoIterator<Item = T>) -> Result<()> {
        self.feed_subtask(source, 0, records)
    }

    /// The same for one subtask of the source, from 0. It holds back the watermark of the others from now on, as one with a split does.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); and when there is no such subtask.
    pub fn feed_subtask<T: Record>(
        &mut self,
        source: &str,
        subtask: u32,
        records: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        self.give(source, subtask, records.into_iter().map(|record| (record, None)))
    }

    /// As [`feed`](Self::feed) for records that the source knows the time of, in milliseconds since the epoch: for streams without
    /// [`watermarks`](crate::DataStream::watermarks), or with a strategy that takes the timestamps of the source.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn feed_timestamped<T: Record>(
        &mut self,
        source: &str,
        records: impl IntoIterator<Item = (T, Timestamp)>,
    ) -> Result<()> {
        self.give(source, 0, records.into_iter().map(|(record, timestamp)| (record, Some(timestamp))))
    }

    /// Lets the source with this name or uid say that no record with this timestamp or an earlier one comes any more.
    ///
    /// # Errors
    /// When no source has that name, or it has said a later one before; when the stream has a strategy for
    /// [`watermarks`](crate::DataStream::watermarks), which makes them from the records; and whatever the job fails with.
    pub fn watermark(&mut self, source: &str, timestamp: Timestamp) -> Result<()> {
        let fed = self.source(source)?;
        if fed.end.has_strategy {
            return Err(Error::new(format!(
                "watermarks of the source `{source}` end at watermarks(..) behind it, which makes its own from the records: feed a record \
                 that lets it, or end the input"
            )));
        }
        if fed.watermark.is_some_and(|before| before >= timestamp) {
            return Err(Error::new(format!(
                "the source `{source}` has said a watermark of {timestamp} or a later one before"
            )));
        }
        fed.watermark = Some(timestamp);
        fed.subtasks.iter().for_each(|subtask| fed.end.stand_in.watermark(*subtask, timestamp));
        Ok(self.job.wake_sources()?)
    }

    /// Ends the input of all sources, as `thalweg stop --drain` does: timers of event time fire, windows show what they have, sinks commit,
    /// and the job is over.
    ///
    /// # Errors
    /// Whatever the job fails with.
    pub fn end_input(&mut self) -> Result<()> {
        Ok(self.job.end_input()?)
    }

    /// Moves the clock forward, with a stop at each time at which something is due.
    ///
    /// # Errors
    /// Whatever the job fails with.
    pub fn advance(&mut self, by: Duration) -> Result<()> {
        let by_ms = Timestamp::try_from(by.as_millis()).unwrap_or(Timestamp::MAX);
        self.advance_to(self.now_ms().saturating_add(by_ms))
    }

    /// Moves the clock forward to this time, in milliseconds since the epoch.
    ///
    /// # Errors
    /// Whatever the job fails with.
    pub fn advance_to(&mut self, now_ms: Timestamp) -> Result<()> {
        Ok(self.job.advance_to(now_ms)?)
    }

    /// The time, in milliseconds since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> Timestamp {
        self.job.now_ms()
    }

    /// Takes a checkpoint, which completes: sinks that were [kept](JobSetup::keeping) commit. [`JobSetup::restoring`] goes on from it.
    ///
    /// # Errors
    /// When the job is over; and whatever it fails with.
    pub fn snapshot(&mut self) -> Result<JobSnapshot> {
        Ok(self.job.snapshot()?)
    }

    /// Takes out what has come to the sink with this name or uid since the last call, in the order in which it came.
    ///
    /// # Errors
    /// When no sink has that name, several have it, or it takes other records.
    pub fn output<T: Record>(&mut self, sink: &str) -> Result<Vec<T>> {
        Ok(self.output_timestamped(sink)?.into_iter().map(|(record, _)| record).collect())
    }

    /// The same with the timestamps of the records, in milliseconds since the epoch.
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn output_timestamped<T: Record>(&mut self, sink: &str) -> Result<Vec<(T, Option<Timestamp>)>> {
        let end = self.sink(sink)?;
        let gathered = end.stand_in.any().downcast_ref::<Gathered<T>>();
        let found = gathered.ok_or_else(|| other_type::<T>("sink", sink, end.stand_in.records()))?;
        Ok(found.take())
    }

    /// Takes out what an operator has emitted to a side output that was named by [`JobSetup::reading_side_output`].
    ///
    /// # Errors
    /// When it was not.
    pub fn side_output<T: Record>(&mut self, operator: &str, tag: &OutputTag<T>) -> Result<Vec<T>> {
        self.output(&side_output_name(operator, tag))
    }

    /// The watermark that has come to all subtasks of the sink with this name or uid; nothing before the first one.
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn watermark_at(&self, sink: &str) -> Result<Option<Timestamp>> {
        Ok(self.sink(sink)?.stand_in.watermark())
    }

    /// How many late records its windows and joins have dropped so far: `numLateRecordsDropped`.
    #[must_use]
    pub fn late_records_dropped(&self) -> u64 {
        self.job.late_records_dropped()
    }

    /// How many records each subtask has read of the task in which the operator with this name or uid runs: as many numbers as the operator
    /// has subtasks.
    ///
    /// # Errors
    /// When there is no such operator.
    pub fn records_read(&self, operator: &str) -> Result<Vec<u64>> {
        let read = self.job.records_read(operator);
        if read.is_empty() {
            return Err(Error::new(format!("no operator has the name or uid `{operator}`")));
        }
        Ok(read)
    }

    /// Whether the job has finished: all its input has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.job.is_finished()
    }

    fn give<T: Record>(
        &mut self,
        source: &str,
        subtask: u32,
        records: impl IntoIterator<Item = (T, Option<Timestamp>)>,
    ) -> Result<()> {
        let subtasks = self.job.records_read(source).len();
        let (fed, script) = self.script::<T>(source)?;
        if subtask as usize >= subtasks {
            let message =
                format!("the source `{source}` has {subtasks} subtasks, from 0 on, and no {subtask}");
            return Err(Error::new(message));
        }
        fed.subtasks.insert(subtask);
        script.records(subtask, records);
        Ok(self.job.wake_sources()?)
    }

    fn script<T: Record>(&mut self, name: &str) -> Result<(&mut Fed, Script<T>)> {
        let fed = self.source(name)?;
        let script = fed.end.stand_in.any().downcast_ref::<Script<T>>().cloned();
        let script = script.ok_or_else(|| other_type::<T>("source", name, fed.end.stand_in.records()))?;
        Ok((fed, script))
    }

    fn source(&mut self, name: &str) -> Result<&mut Fed> {
        let known = names(self.sources.iter().map(|source| &source.end));
        let found = self.sources.iter_mut().find(|source| is_called(&source.end, name));
        found.ok_or_else(|| Error::new(format!("no source called `{name}` was replaced; there are: {known}")))
    }

    fn sink(&self, name: &str) -> Result<&End<dyn AnyGathered>> {
        let mut found = self.sinks.iter().filter(|sink| is_called(sink, name));
        match (found.next(), found.next()) {
            (Some(sink), None) => Ok(sink),
            (None, _) => {
                let known = names(self.sinks.iter());
                Err(Error::new(format!("no sink called `{name}` was replaced; there are: {known}")))
            }
            (Some(_), Some(_)) => Err(Error::new(format!(
                "several sinks are called `{name}`; give the one that is meant another name, as in .print().name(\"alerts\")"
            ))),
        }
    }
}

fn is_called<A: ?Sized>(end: &End<A>, name: &str) -> bool {
    end.name == name || end.uid.as_deref() == Some(name)
}

fn names<'a, A: ?Sized + 'a>(ends: impl Iterator<Item = &'a End<A>>) -> String {
    let names: Vec<String> = ends.map(|end| format!("`{}`", end.name)).collect();
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

fn other_type<T>(what: &str, name: &str, found: &str) -> Error {
    let asked = std::any::type_name::<T>();
    Error::new(format!("the {what} `{name}` has records of `{found}`, and not of `{asked}`"))
}
