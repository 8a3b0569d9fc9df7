//! Drives a single operator, source or sink without a runtime: for the tests of operators and connectors.
//!
//! ```
//! use thalweg_runtime::operators;
//! use thalweg_runtime::testing::{OperatorHarness, Setup};
//!
//! let double = operators::map(|number: u64| number * 2);
//! let mut harness = OperatorHarness::<u64, u64>::open(double.as_ref(), Setup::default()).unwrap();
//! harness.push(vec![1, 2, 3]).unwrap();
//! assert_eq!(harness.output(), [2, 4, 6]);
//! ```

mod captured;
mod clock;
mod enumerated;
mod frozen;
mod job;
mod metrics;
mod savepoint;
mod scripted;

use std::sync::Arc;

pub use self::enumerated::{EnumeratedHarness, EnumeratedSnapshot};
pub use self::frozen::Frozen;
use self::frozen::{Writers, aligned, take_snapshot};
pub use self::job::{JobSnapshot, ManualJob};
pub use self::savepoint::through_savepoint;
pub use self::scripted::{Gathered, Script};
use thalweg_common::Timestamp;
use thalweg_common::clock::{Clock as _, ManualClock, SharedClock};
use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, JobId, OperatorId};
use thalweg_common::key_group::groups_of;
use thalweg_common::record::Record;
use thalweg_common::storage::StorageFactory;
use thalweg_state::Drained;

pub(crate) use self::captured::Captured;
use self::clock::HarnessClock;
use crate::batch::Batch;
use crate::event::{Barrier, Event, WatermarkStatus};
use crate::exchange::TaskParker;
use crate::io::Io;
use crate::link::{Flushed, Link};
use crate::operator::{Key, KeyedProcess, OpenContext, OperatorMetrics};
use crate::operators;
use crate::program::{AnyLink, Head, OperatorContext, OperatorFactory, Polled, SourceFactory, SplitWires};
use crate::side_output::{CapturedSides, OutputTag, SideOutputs};
use crate::snapshot::OperatorSnapshot;
use crate::stores::{Draining, TaskStores};
use crate::task::counters::Counters;
use crate::time::TimeSettings;

/// The only operator of a harness.
pub(crate) const OPERATOR: OperatorId = OperatorId(1);

/// Where the operator believes to run. By default the only subtask, started from nothing, on a clock that stands still.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The subtask, from 0.
    pub subtask_index: u32,
    /// How many subtasks there are.
    pub parallelism: u32,
    /// The execution attempt, from 1.
    pub attempt: Attempt,
    /// How many key groups there are.
    pub max_parallelism: u32,
    /// What is restored; several snapshots after a change of parallelism.
    pub restored: Vec<OperatorSnapshot>,
    /// The time.
    pub clock: SharedClock,
    /// How it asks the outside: not at all by default.
    pub io: Io,
    /// The storages that it finds.
    pub storages: StorageFactory,
    /// Where keyed state is; [`Setup::on_disk`] changes it.
    pub state: HarnessState,
}

/// Where the keyed state of a tested operator is: in memory, unless it was put on disk.
#[derive(Debug, Clone, Default)]
pub struct HarnessState {
    stores: TaskStores,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            subtask_index: 0,
            parallelism: 1,
            attempt: 1,
            max_parallelism: 128,
            restored: Vec::new(),
            clock: Arc::new(ManualClock::new(0)),
            io: Io::default(),
            storages: StorageFactory::default(),
            state: HarnessState::default(),
        }
    }
}

impl Setup {
    /// Restores this snapshot.
    #[must_use]
    pub fn restoring(mut self, snapshot: OperatorSnapshot) -> Self {
        self.restored.push(snapshot);
        self
    }

    /// Is subtask `index` of `parallelism`.
    #[must_use]
    pub fn subtask(mut self, index: u32, parallelism: u32) -> Self {
        (self.subtask_index, self.parallelism) = (index, parallelism);
        self
    }

    /// Keeps keyed state in RocksDB below `directory`, where no other harness has its own, with this much memory. Its snapshots
    /// are restored while their directories are there.
    #[cfg(feature = "rocksdb")]
    #[must_use]
    pub fn on_disk(mut self, directory: &std::path::Path, managed_bytes: u64) -> Self {
        self.state.stores = TaskStores::on_disk(directory, managed_bytes);
        self
    }

    /// Keeps copies of checkpoints in the directory of a job.
    #[cfg(all(test, feature = "rocksdb"))]
    pub(crate) fn with_copies(mut self, job: &std::path::Path) -> Self {
        self.state.stores = self.state.stores.with_copies(job);
        self
    }

    /// The stores of the operator's task.
    #[cfg(test)]
    pub(crate) fn stores(&self) -> TaskStores {
        self.state.stores.clone()
    }

    /// What a source, sink or function is told when it is opened.
    pub fn open_context(&self) -> OpenContext {
        OpenContext {
            job_id: JobId(1),
            job_name: "test job".into(),
            attempt: self.attempt,
            operator_id: OPERATOR,
            operator_name: "tested".into(),
            subtask_index: self.subtask_index,
            parallelism: self.parallelism,
            max_parallelism: self.max_parallelism,
            is_local: true,
            clock: Arc::clone(&self.clock),
            metrics: OperatorMetrics::default(),
            io: self.io.clone(),
            storages: self.storages.clone(),
        }
    }

    pub(crate) fn operator_context(self) -> OperatorContext {
        OperatorContext {
            open: self.open_context(),
            owned: groups_of(self.subtask_index, self.parallelism, self.max_parallelism),
            restored: self.restored,
            side_outputs: SideOutputs::default(),
            checkpoint_mode: CheckpointMode::ExactlyOnce,
            counters: Counters::default(),
            stores: self.state.stores,
            timer_delay_ms: 0,
            debloat_target: None,
            time: TimeSettings::default(),
            splits: None,
            wires: SplitWires::none(TaskParker::new().waker()),
        }
    }
}

/// Drives an operator from `In` to `Out`.
pub struct OperatorHarness<In, Out = ()> {
    link: Box<dyn Link<In>>,
    captured: Captured<Out>,
    side_outputs: CapturedSides,
    draining: Draining,
    clock: Arc<HarnessClock>,
    metrics: OperatorMetrics,
    late_records_taken: u64,
    /// Behind the operator, which they wait for.
    writers: Writers,
}

impl<In: 'static, Out: Record> OperatorHarness<In, Out> {
    /// Opens an operator with an output.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open(factory: &dyn OperatorFactory, mut setup: Setup) -> Result<Self, Failure> {
        let captured = Captured::default();
        let next = AnyLink::new::<Out>(Box::new(captured.clone()));
        let draining = setup.state.stores.draining();
        let side_outputs = CapturedSides::default();
        let clock = HarnessClock::over(&mut setup.clock);
        let mut context = setup.operator_context();
        context.side_outputs = SideOutputs::captured(side_outputs.clone());
        let metrics = context.open.metrics.clone();
        let link = factory.build(&mut context, Some(next))?.typed()?;
        Ok(Self {
            link,
            captured,
            side_outputs,
            draining,
            clock,
            metrics,
            late_records_taken: 0,
            writers: Writers::default(),
        })
    }
}

impl<In: Send + 'static, Out: Record> OperatorHarness<In, Out> {
    /// Opens the operator that runs a function on a stream keyed by `key`.
    ///
    /// # Errors
    /// When it does not open.
    pub fn keyed<K: Key, P: KeyedProcess<K, In, Out = Out>>(
        key: impl Fn(&In) -> K + Clone + Send + Sync + 'static,
        process: P,
        setup: Setup,
    ) -> Result<Self, Failure> {
        Self::open(operators::keyed_process(key, process).as_ref(), setup)
    }
}

impl<In: 'static> OperatorHarness<In> {
    /// Opens a sink.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open_sink(factory: &dyn OperatorFactory, mut setup: Setup) -> Result<Self, Failure> {
        let draining = setup.state.stores.draining();
        let clock = HarnessClock::over(&mut setup.clock);
        let mut context = setup.operator_context();
        let metrics = context.open.metrics.clone();
        let link = factory.build(&mut context, None)?.typed()?;
        let (captured, side_outputs) = Default::default();
        Ok(Self {
            link,
            captured,
            side_outputs,
            draining,
            clock,
            metrics,
            late_records_taken: 0,
            writers: Writers::default(),
        })
    }
}

impl<In, Out> OperatorHarness<In, Out> {
    /// Gives it a batch of these records.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn push(&mut self, records: Vec<In>) -> Result<(), Failure> {
        self.push_batch(Batch::from(records))
    }

    /// Gives it this batch, perhaps with timestamps.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn push_batch(&mut self, mut batch: Batch<In>) -> Result<(), Failure> {
        self.link.process(&mut batch)
    }

    /// Lets a watermark reach it: fires its timers of event time until then, as far as the channel behind it takes what they emit.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn watermark(&mut self, at: Timestamp) -> Result<(), Failure> {
        self.link.watermark(at)?;
        self.fire().map(drop)
    }

    /// Tells it that its input has become idle, or active again.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.link.watermark_status(status)
    }

    /// Moves the clock forward to `now_ms`, in milliseconds since the epoch, and fires its timers of processing time until then, that time
    /// included. (In a job a timer waits until its millisecond is over.)
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn processing_time(&mut self, now_ms: Timestamp) -> Result<(), Failure> {
        self.clock.move_to(now_ms);
        self.fire().map(drop)
    }

    /// Fires the timers that are due, as far as the channel behind it takes what they emit: those of processing time by the clock, and what a
    /// watermark has left when the channel was full.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn fire(&mut self) -> Result<Flushed, Failure> {
        loop {
            self.draining.begin();
            let flushed = self.link.flush(false)?;
            // Its turn was over, and it wants another one.
            let is_called = self.draining.alarm().is_some_and(|time| time <= self.clock.monotonic());
            if flushed == Flushed::All || !is_called {
                return Ok(flushed);
            }
        }
    }

    /// Lets a barrier reach it and returns its snapshot.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn barrier(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot, Failure> {
        let frozen = self.freeze(checkpoint)?;
        frozen.finish(|| self.encode())
    }

    /// Lets the barrier of a savepoint reach it with which its job stops.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn stop(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot, Failure> {
        let barrier = Barrier { id: checkpoint, timestamp_ms: 0, is_final: true, is_savepoint: true };
        let frozen = take_snapshot(barrier, |barrier, builder| self.link.snapshot(barrier, builder))?;
        frozen.leaving_to(&self.writers).finish(|| self.encode())
    }

    /// Lets it encode a slice of what is frozen, and says whether that was all.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn encode(&mut self) -> Result<bool, Failure> {
        self.draining.begin();
        self.link.flush(false)?;
        Ok(self.draining.left() == Drained::All)
    }

    /// Lets a barrier reach it, and leaves to the caller what is beside the processing.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn freeze(&mut self, checkpoint: CheckpointId) -> Result<Frozen, Failure> {
        let frozen =
            take_snapshot(aligned(checkpoint), |barrier, builder| self.link.snapshot(barrier, builder))?;
        Ok(frozen.leaving_to(&self.writers))
    }

    /// Says that a checkpoint is durable.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.link.completed(checkpoint)
    }

    /// Says that a checkpoint will never complete.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.link.aborted(checkpoint)
    }

    /// Ends its input.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn end(&mut self) -> Result<(), Failure> {
        self.link.finish()
    }

    /// Says that there is nothing more to read at the moment.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn flush(&mut self) -> Result<Flushed, Failure> {
        self.link.flush(true)
    }

    /// Takes out what it has emitted.
    pub fn output(&mut self) -> Vec<Out> {
        self.output_batch().into_parts().0
    }

    /// The same as one batch, with timestamps if there are any.
    pub fn output_batch(&mut self) -> Batch<Out> {
        self.captured.take()
    }

    /// Takes out what it has emitted to a side output, with timestamps if there are any.
    pub fn side_output<T: Record>(&mut self, tag: &OutputTag<T>) -> Batch<T> {
        self.side_outputs.take(tag)
    }

    /// The events that it has passed on.
    pub fn events(&self) -> Vec<Event> {
        self.captured.events()
    }

    /// Whether the channel behind the operator is full.
    pub fn set_blocked(&mut self, is_blocked: bool) {
        self.captured.set_blocked(is_blocked);
    }
}

/// Drives a source of `Out`.
pub struct SourceHarness<Out> {
    head: Box<dyn Head>,
    captured: Captured<Out>,
}

impl<Out: Record> SourceHarness<Out> {
    /// Opens a source.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open(factory: &dyn SourceFactory, setup: Setup) -> Result<Self, Failure> {
        let captured = Captured::default();
        let next = AnyLink::new::<Out>(Box::new(captured.clone()));
        let head = factory.build(&mut setup.operator_context(), next)?;
        Ok(Self { head, captured })
    }

    /// Reads at most one batch.
    ///
    /// # Errors
    /// What the source fails with.
    pub fn poll(&mut self) -> Result<Polled, Failure> {
        self.head.poll()
    }

    /// Reads until there is nothing at the moment, or for good, and returns which.
    ///
    /// # Errors
    /// What the source fails with.
    pub fn poll_all(&mut self) -> Result<Polled, Failure> {
        loop {
            let polled = self.head.poll()?;
            if polled != Polled::Progress {
                return Ok(polled);
            }
        }
    }

    /// Triggers a checkpoint and returns the source's snapshot.
    ///
    /// # Errors
    /// What the source fails with.
    pub fn barrier(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot, Failure> {
        Ok(take_snapshot(aligned(checkpoint), |barrier, builder| self.head.snapshot(barrier, builder))?
            .snapshot)
    }

    /// Takes out what it has emitted.
    pub fn output(&mut self) -> Vec<Out> {
        self.output_batch().into_parts().0
    }

    /// The same as one batch, with timestamps if there are any.
    pub fn output_batch(&mut self) -> Batch<Out> {
        self.captured.take()
    }
}
