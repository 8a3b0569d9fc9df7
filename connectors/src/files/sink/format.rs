//! What the bytes of a part are: one line per record, or a file of a bulk format.

use std::marker::PhantomData;

use crate::formats::{BulkFormat, BulkWriter, Encoder, Malformed};

/// Makes the bytes of parts.
pub trait PartFormat<T>: Clone + Send + Sync + 'static {
    /// Makes those of one part.
    type Part: PartBytes<T>;

    /// Whether a part is only complete with its end, so that it cannot be carried over a checkpoint.
    const IS_BULK: bool;

    /// Its name, for messages.
    const NAME: &'static str;

    /// Begins a part.
    ///
    /// # Errors
    /// If records of this type cannot be written.
    fn begin(&self) -> Result<Self::Part, Malformed>;
}

/// Makes the bytes of one part.
pub trait PartBytes<T>: Send {
    /// Appends those of a record to `out`, at once or later.
    ///
    /// # Errors
    /// If the record cannot be written.
    fn write(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed>;

    /// Bytes that it keeps for later.
    fn kept(&self) -> u64;

    /// Appends the rest.
    ///
    /// # Errors
    /// If the part cannot be written.
    fn finish(self, out: &mut Vec<u8>) -> Result<(), Malformed>;
}

/// A record is a line: what its encoder gives, and `\n`.
#[derive(Debug, Clone)]
pub struct Rows<E>(pub(super) E);

/// The lines of one part.
#[derive(Debug)]
pub struct RowPart<E>(E);

impl<T, E: Encoder<T>> PartFormat<T> for Rows<E> {
    type Part = RowPart<E>;

    const IS_BULK: bool = false;
    const NAME: &'static str = "a line";

    fn begin(&self) -> Result<RowPart<E>, Malformed> {
        Ok(RowPart(self.0.clone()))
    }
}

impl<T, E: Encoder<T>> PartBytes<T> for RowPart<E> {
    fn write(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.0.encode(record, out)?;
        out.push(b'\n');
        Ok(())
    }

    fn kept(&self) -> u64 {
        0
    }

    fn finish(self, _: &mut Vec<u8>) -> Result<(), Malformed> {
        Ok(())
    }
}

/// A part is a file of a bulk format.
#[derive(Debug)]
pub struct Bulk<B> {
    pub(super) format: B,
}

impl<B: Clone> Clone for Bulk<B> {
    fn clone(&self) -> Self {
        Self { format: self.format.clone() }
    }
}

/// One file of a bulk format.
#[derive(Debug)]
pub struct BulkPart<T, W> {
    writer: W,
    records: PhantomData<fn(T)>,
}

impl<T: 'static, B: BulkFormat<T>> PartFormat<T> for Bulk<B> {
    type Part = BulkPart<T, B::Writer>;

    const IS_BULK: bool = true;
    const NAME: &'static str = "a file of its format";

    fn begin(&self) -> Result<Self::Part, Malformed> {
        Ok(BulkPart { writer: self.format.begin()?, records: PhantomData })
    }
}

impl<T, W: BulkWriter<T>> PartBytes<T> for BulkPart<T, W> {
    fn write(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.writer.write(record, out)
    }

    fn kept(&self) -> u64 {
        self.writer.buffered_bytes()
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.writer.finish(out)
    }
}
