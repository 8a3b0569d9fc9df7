//! Formats: how records become bytes and bytes become records.
//!
//! On a record's way this stands inside a connector: a source gives a [`Decoder`] the bytes that it has read, a sink asks an
//! [`Encoder`] for those it writes. Row formats know one record from the next (a line, a message); a [`BulkFormat`] writes
//! many records together, as Parquet does. All of them are prototypes: every subtask works with a clone. Invariants: a decoder that
//! fails has given nothing of that message; what becomes of bad records says one policy, [`BadRecords`], for all formats.
//!
//! Each format is a feature: `json`, `csv`, `avro`, `parquet`. Strings and bytes are always there.

#[cfg(feature = "avro")]
pub mod avro;
mod bad;
#[cfg(feature = "csv")]
pub mod csv;
mod decoding;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;
mod text;
pub mod timestamp;

use std::fmt;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;

#[cfg(feature = "avro")]
pub use avro::{Avro, AvroFile};
pub use bad::{BadRecord, BadRecords};
#[cfg(feature = "csv")]
pub use csv::Csv;
pub use decoding::Decoding;
#[cfg(feature = "json")]
pub use json::{Json, JsonValue};
#[cfg(feature = "parquet")]
pub use parquet::Parquet;
pub use text::{Raw, Text};

/// Makes records of bytes: Flink's `DeserializationSchema`.
pub trait Decoder: Clone + Send + Sync + 'static {
    /// What it makes.
    type Out: Record;

    /// Whether an empty line of a file is no record at all.
    const SKIPS_EMPTY_LINES: bool = true;

    /// Appends the records of one message (a line of a file, the data of a record in a stream) to `out`: as a rule one, perhaps none or
    /// several.
    ///
    /// # Errors
    /// If the message is not in this format; then nothing was appended.
    fn decode(&mut self, message: &[u8], out: &mut Batch<Self::Out>) -> Result<(), Malformed>;
}

/// Makes bytes of records: Flink's `SerializationSchema`. What separates records is not its business.
pub trait Encoder<T>: Clone + Send + Sync + 'static {
    /// Appends the bytes of a record to `out`.
    ///
    /// # Errors
    /// If the record cannot be written in this format.
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed>;
}

/// Writes files of many records, which have a beginning and an end: Flink's `BulkWriter.Factory`.
pub trait BulkFormat<T>: Clone + Send + Sync + 'static {
    /// Writes one file.
    type Writer: BulkWriter<T>;

    /// Begins a file.
    ///
    /// # Errors
    /// If records of this type cannot be written.
    fn begin(&self) -> Result<Self::Writer, Malformed>;
}

/// A file that is being written. Its bytes go to `out` as they come, and never change afterwards.
pub trait BulkWriter<T>: Send {
    /// Adds a record, which may stay in memory for a while.
    ///
    /// # Errors
    /// If the record cannot be written; the file is of no use then.
    fn write(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed>;

    /// Bytes that it holds in memory, about.
    fn buffered_bytes(&self) -> u64;

    /// Gives the rest of the file, with its end.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn finish(self, out: &mut Vec<u8>) -> Result<(), Malformed>;
}

/// Why bytes are not of a format, or a record cannot be written in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    reason: String,
}

impl Malformed {
    /// For this reason. Of a text with several lines only the first is kept: the others quote the input.
    pub fn new(reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self { reason: reason.lines().next().unwrap_or("no reason is given").trim_end().to_owned() }
    }

    /// The failure of a record that cannot be written.
    #[must_use]
    pub fn writing(self, format: &str) -> Failure {
        Failure::user(format!(
            "a record cannot be written as {format}: {}; change its type, or filter it out",
            self.reason
        ))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Malformed {}
