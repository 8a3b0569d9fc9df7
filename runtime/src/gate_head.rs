//! The head of a chain that begins with an input gate.

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::record::Record;

use crate::event::Barrier;
use crate::exchange::{Input, InputGate};
use crate::link::{Flushed, Link};
use crate::program::{Head, Polled};
use crate::snapshot::SnapshotBuilder;
use crate::task::counters::Counters;
use crate::time::Merged;
use crate::time::inquiry::Inquiry;

/// Reads a gate and runs its batches through the chain.
pub(crate) struct GateHead<T> {
    gate: InputGate<T>,
    link: Box<dyn Link<T>>,
    counters: Counters,
    inquiry: Inquiry,
}

impl<T: Record> GateHead<T> {
    pub(crate) fn new(gate: InputGate<T>, link: Box<dyn Link<T>>, counters: Counters) -> Self {
        let inquiry = counters.inquiry();
        Self { gate, link, counters, inquiry }
    }

    fn tell_time(&mut self, merged: Merged) -> Result<(), Failure> {
        if let Some(watermark) = merged.watermark {
            self.counters.set_input_watermark(watermark);
        }
        merged.pass_to(self.link.as_mut())
    }
}

impl<T: Record> Head for GateHead<T> {
    fn poll(&mut self) -> Result<Polled, Failure> {
        match self.gate.poll()? {
            Input::Batch(mut batch) => {
                self.link.process(&mut batch)?;
                self.gate.recycle(batch);
                Ok(Polled::Progress)
            }
            Input::Time(merged) => {
                self.tell_time(merged)?;
                Ok(Polled::Progress)
            }
            Input::Barrier { barrier, alignment } => Ok(Polled::Barrier { barrier, alignment }),
            Input::EndOfInput => Ok(Polled::EndOfInput),
            Input::Idle => Ok(Polled::Idle { retry_after: self.gate.overtakes_in() }),
        }
    }

    fn look(&mut self) -> Result<Polled, Failure> {
        Ok(match self.gate.look()? {
            Some(Input::Barrier { barrier, alignment }) => Polled::Barrier { barrier, alignment },
            _ => Polled::Idle { retry_after: self.gate.overtakes_in() },
        })
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let end = self.gate.take_end_of_time();
        self.tell_time(end)?;
        self.link.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        // First, so that the barrier is on its way when what it has overtaken is recorded.
        self.link.snapshot(barrier, snapshot)?;
        self.gate.snapshot(barrier, snapshot);
        Ok(())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.link.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.gate.abort(checkpoint);
        self.link.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.inquiry.tell(|told| self.gate.tell_time(told));
        self.link.flush(partial)
    }
}
