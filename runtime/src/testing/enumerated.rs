//! Drives a source with an enumerator without a runtime: the enumerator and its readers, with real channels between them, in one thread.

use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::ManualClock;
use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Failure;
use thalweg_common::id::{ChannelId, CheckpointId};
use thalweg_common::record::Record;

use super::{Captured, OPERATOR, Setup, aligned, take_snapshot};
use crate::edge::{EdgeCode, KeptOpen, SendingEnd};
use crate::erased::{AnyReceiver, AnySender};
use crate::event::{Barrier, Event};
use crate::exchange::{TaskParker, TaskWaker, local_channel};
use crate::operator::OperatorMetrics;
use crate::operators::AnySource;
use crate::program::{AnyLink, Calls, Head, NodeCode, OperatorFactory, Polled, SplitWires};
use crate::record_type::ReceivingEnd;
use crate::side_output::{CapturedSides, OutputTag, SideOutputs};
use crate::snapshot::{OperatorSnapshot, SnapshotBuilder};
use crate::split::EnumeratedSource;
use crate::split::message::Assignment;
use crate::task::counters::Counters;
use crate::time::splits::SharedSplits;

/// Polls of everything, one after the other, without anything new before it counts as quiet: a word of a reader needs one, the answer another.
const QUIET_ROUNDS: usize = 3;

/// Looks at the input behind which a source that does not end is given up.
const MOST_LOOKS: usize = 10_000;

/// Drives a source with an enumerator. Its clock stands still unless it is [advanced](Self::advance), and the enumerator is called in turn
/// with everything else, so that a test is the same each time.
pub struct EnumeratedHarness<Out> {
    enumerator: Box<dyn Head>,
    pub(super) readers: Vec<Reader<Out>>,
    clock: Arc<ManualClock>,
    side_outputs: CapturedSides,
    has_ended: bool,
    _kept_open: KeptOpen,
}

pub(super) struct Reader<Out> {
    head: Box<dyn Head>,
    captured: Captured<Out>,
    pub(super) metrics: OperatorMetrics,
    has_ended: bool,
}

/// What a checkpoint has of a source with an enumerator.
#[derive(Debug, Clone)]
pub struct EnumeratedSnapshot {
    /// Of the enumerator.
    pub enumerator: OperatorSnapshot,
    /// Of its readers, by subtask.
    pub readers: Vec<OperatorSnapshot>,
}

impl EnumeratedSnapshot {
    /// What so many readers are given that restore it as a savepoint.
    ///
    /// # Errors
    /// When splits cannot be divided.
    pub fn through_savepoint(&self, readers: u32) -> Result<Self, Failure> {
        let readers = super::through_savepoint(&self.readers, readers)?;
        Ok(Self { enumerator: self.enumerator.clone(), readers })
    }
}

impl<Out: Record> EnumeratedHarness<Out> {
    /// Opens a source with so many readers, new or from a checkpoint, perhaps one with another number of readers.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open<S>(source: S, readers: u32, restored: Option<&EnumeratedSnapshot>) -> Result<Self, Failure>
    where
        S: EnumeratedSource<Out = Out>,
    {
        Self::open_in(Setup::default(), source, readers, restored)
    }

    /// The same for a source that asks the outside, by what the setup has for that.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open_in<S>(
        setup: Setup,
        source: S,
        readers: u32,
        restored: Option<&EnumeratedSnapshot>,
    ) -> Result<Self, Failure>
    where
        S: EnumeratedSource<Out = Out>,
    {
        Self::open_before(setup, source, readers, restored, None)
    }

    /// The same with an operator directly behind each reader, such as a watermark strategy.
    ///
    /// # Errors
    /// When one of them does not open.
    pub fn open_before<S>(
        setup: Setup,
        source: S,
        readers: u32,
        restored: Option<&EnumeratedSnapshot>,
        behind: Option<&dyn OperatorFactory>,
    ) -> Result<Self, Failure>
    where
        S: EnumeratedSource<Out = Out>,
    {
        let clock = Arc::new(ManualClock::new(0));
        let waker = TaskParker::new().waker();
        let missing = || Failure::internal("the source has no enumerator");
        let code = AnySource::enumerator(&source).ok_or_else(missing)?;
        let ends = (0..readers).map(|to| local_channel::<Assignment>(ChannelId { edge: 0, from: 0, to }));
        let (senders, receivers): (Vec<_>, Vec<_>) = ends.unzip();
        let (next, kept_open) =
            output(&code.edge, senders.into_iter().map(AnySender::new).collect(), &waker)?;

        let setup = Setup { clock: clock.clone(), ..setup };
        let side_outputs = CapturedSides::default();
        let own = restored.map(|snapshot| snapshot.enumerator.clone()).into_iter().collect();
        let mut context = Setup { restored: own, ..setup.clone() }.operator_context();
        let notes = kept_open.notes.clone();
        context.wires = SplitWires { notes, calls: Calls::InTurn, ..SplitWires::none(waker.clone()) };
        let NodeCode::Source(factory) = &code.node.code else { return Err(missing()) };
        let enumerator = factory.build(&mut context, next)?;

        let factory = source.factory();
        let mut opened = Vec::new();
        for (index, receiver) in (0..).zip(receivers) {
            let restored = restored.map_or_else(Vec::new, |snapshot| snapshot.readers.clone());
            let mut context = Setup { restored, ..setup.clone() }.subtask(index, readers).operator_context();
            let end = receiving_end(&waker, &clock);
            context.wires.input = Some((end, vec![AnyReceiver::new(receiver)]));
            context.side_outputs = SideOutputs::captured(side_outputs.clone());
            let captured = Captured::default();
            let mut next = AnyLink::new::<Out>(Box::new(captured.clone()));
            context.splits = Some(SharedSplits::default());
            if let Some(behind) = behind {
                next = behind.build(&mut context, Some(next))?;
            }
            // Each subtask counts for itself.
            context.open.metrics = OperatorMetrics::default();
            let metrics = context.open.metrics.clone();
            let head = factory.build(&mut context, next)?;
            opened.push(Reader { head, captured, metrics, has_ended: false });
        }
        Ok(Self { enumerator, readers: opened, side_outputs, clock, has_ended: false, _kept_open: kept_open })
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Lets the enumerator see what there is to see, and sends what it assigns. Says whether there was anything to do.
    ///
    /// # Errors
    /// What the enumerator fails with.
    pub fn enumerate(&mut self) -> Result<bool, Failure> {
        if self.has_ended {
            return Ok(false);
        }
        let polled = self.enumerator.poll()?;
        if polled == Polled::EndOfInput {
            self.has_ended = true;
            self.enumerator.finish()?;
        }
        self.enumerator.flush(true)?;
        Ok(polled == Polled::Progress || self.has_ended)
    }

    /// Lets a reader read a batch at the most. Says whether there was anything to do.
    ///
    /// # Errors
    /// What the reader fails with.
    pub fn read(&mut self, reader: usize) -> Result<bool, Failure> {
        let Some(reader) = self.readers.get_mut(reader).filter(|reader| !reader.has_ended) else {
            return Ok(false);
        };
        let polled = reader.head.poll()?;
        if polled == Polled::EndOfInput {
            reader.has_ended = true;
            reader.head.finish()?;
        }
        Ok(matches!(polled, Polled::Progress | Polled::EndOfInput))
    }

    /// Reads until there is nothing more at this time.
    ///
    /// # Errors
    /// What any of them fails with.
    pub fn settle(&mut self) -> Result<(), Failure> {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            let mut has_done = self.enumerate()?;
            for reader in 0..self.readers.len() {
                has_done |= self.read(reader)?;
            }
            quiet = if has_done { 0 } else { quiet + 1 };
        }
        Ok(())
    }

    /// Reads a bounded source to its end; time passes while there is nothing to read.
    ///
    /// # Errors
    /// What any of them fails with, and when there is no end.
    pub fn read_all(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_LOOKS {
            self.settle()?;
            if self.has_ended() {
                return Ok(());
            }
            self.advance(Duration::from_secs(1));
        }
        Err(Failure::internal("the source does not come to its end"))
    }

    /// Whether everything was read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended && self.readers.iter().all(|reader| reader.has_ended)
    }

    /// Takes a checkpoint: the barrier goes from the enumerator to the readers.
    ///
    /// # Errors
    /// What any of them fails with.
    pub fn checkpoint(&mut self, checkpoint: CheckpointId) -> Result<EnumeratedSnapshot, Failure> {
        self.pass(aligned(checkpoint))
    }

    /// Stops the job with a savepoint, which completes. Nothing is read behind it.
    ///
    /// # Errors
    /// What any of them fails with.
    pub fn stop(&mut self, checkpoint: CheckpointId) -> Result<EnumeratedSnapshot, Failure> {
        let snapshot = self.pass(Barrier { is_final: true, is_savepoint: true, ..aligned(checkpoint) })?;
        self.enumerator.completed(checkpoint)?;
        for reader in &mut self.readers {
            reader.head.completed(checkpoint)?;
        }
        Ok(snapshot)
    }

    fn pass(&mut self, barrier: Barrier) -> Result<EnumeratedSnapshot, Failure> {
        let head = &mut self.enumerator;
        let enumerator = take_snapshot(barrier, |barrier, builder| head.snapshot(barrier, builder))?;
        head.flush(true)?;
        let mut readers = Vec::new();
        for reader in &mut self.readers {
            let Polled::Barrier { barrier, .. } = reader.head.poll()? else {
                return Err(Failure::internal("a reader does not see the barrier before it reads on"));
            };
            readers.push(snapshot(reader.head.as_mut(), barrier)?);
        }
        Ok(EnumeratedSnapshot { enumerator: enumerator.snapshot, readers })
    }

    /// Lets the operators behind a reader do what is due by the clock, as a task with nothing to read does.
    ///
    /// # Errors
    /// What they fail with.
    pub fn flush(&mut self, reader: usize) -> Result<(), Failure> {
        let reader = self.readers.get_mut(reader);
        reader.map_or(Ok(()), |reader| reader.head.flush(true).map(drop))
    }

    /// The events behind a reader, from the beginning.
    #[must_use]
    pub fn events(&self, reader: usize) -> Vec<Event> {
        self.readers.get(reader).map_or_else(Vec::new, |reader| reader.captured.events())
    }

    /// Takes out what a reader has emitted to a side output, where there is only one.
    pub fn side_output<T: Record>(&mut self, tag: &OutputTag<T>) -> Vec<T> {
        self.side_outputs.take(tag).into_parts().0
    }

    /// Takes out what one reader has read.
    pub fn output_of(&mut self, reader: usize) -> Vec<Out> {
        self.readers.get(reader).map_or_else(Vec::new, |reader| reader.captured.take().into_parts().0)
    }

    /// Takes out what all readers have read.
    pub fn output(&mut self) -> Vec<Out> {
        self.readers.iter().flat_map(|reader| reader.captured.take().into_parts().0).collect()
    }
}

fn snapshot(head: &mut dyn Head, barrier: Barrier) -> Result<OperatorSnapshot, Failure> {
    let mut builder = SnapshotBuilder::default();
    head.snapshot(barrier, &mut builder)?;
    Ok(builder.build().operators.remove(&OPERATOR).unwrap_or_default())
}

fn output(
    edge: &EdgeCode,
    senders: Vec<AnySender>,
    waker: &TaskWaker,
) -> Result<(AnyLink, KeptOpen), Failure> {
    let end = SendingEnd {
        subtask_index: 0,
        target_max_parallelism: 128,
        waker: waker.clone(),
        counters: Counters::default(),
        overtakes: None,
        restored: Vec::new(),
    };
    edge.output(&end, senders)
}

fn receiving_end(waker: &TaskWaker, clock: &Arc<ManualClock>) -> ReceivingEnd {
    ReceivingEnd {
        checkpoint_mode: CheckpointMode::ExactlyOnce,
        waker: waker.clone(),
        clock: Arc::<ManualClock>::clone(clock),
        counters: Counters::default(),
        debloat_target: None,
        overtakes: None,
        restored: Vec::new(),
    }
}
