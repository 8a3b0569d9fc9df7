//! A sink that drops what comes.

use thalweg_common::failure::Failure;

use crate::batch::Batch;
use crate::operator::{Sink, SinkContext};

/// Drops all records: Flink's `DiscardingSink`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiscardSink;

impl<T> Sink<T> for DiscardSink {
    type Committable = ();

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        batch.clear();
        Ok(())
    }
}
