//! Parquet: columns of many records, in row groups.
//!
//! The columns of a file are the fields of the record type, which its [`Schema`](thalweg_common::schema::Schema) tells: so any type with
//! `#[derive(Record)]` is written and read without another description. A record passes through its own encoding: [`columns`] take it
//! apart, [`rows`] put it together.
//!
//! | Rust | Parquet |
//! | --- | --- |
//! | `bool`, integers to 64 bits, `f32`, `f64` | the same, with their sign |
//! | `String`, `char`, enums without fields | UTF-8 |
//! | `Vec<u8>`, `Bytes` | binary |
//! | `Option<T>` | nullable |
//! | structs, tuples, arrays | group; fields of tuples are called `0`, `1`, ... |
//! | `Vec<T>`, sets | list |
//! | maps | map |
//!
//! 128-bit integers, enums with fields and types that only serde knows have no column type; the error names them.

mod columns;
mod dictionaries;
mod layout;
#[cfg(feature = "files")]
mod piece;
mod rows;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use thalweg_common::record::Record;

use self::columns::Columns;
use self::layout::Layout;
use super::{BulkFormat, BulkWriter, Malformed};

#[cfg(feature = "files")]
pub(crate) use self::piece::Piece;
pub(crate) use self::rows::{RowGroup, RowGroups, Rows};

/// Records that become columns at once: few enough for a core's own cache.
const RECORDS_AT_ONCE: usize = 2_048;

/// Values of a page, before compression: what is encoded is still in a core's own cache when it is compressed.
const PAGE_BYTES: usize = 128 * 1024;

/// Encoded bytes of a row group, about.
const ROW_GROUP_BYTES: usize = 128 * 1024 * 1024;

/// Parquet files of records of `T`; the codec is Snappy unless set.
///
/// ```
/// use thalweg_common::Record;
/// use thalweg_connectors::formats::{BulkFormat, BulkWriter, Parquet};
///
/// #[derive(Record, Clone)]
/// # #[record(crate = thalweg_common)]
/// struct Click {
///     url: String,
///     spend: Option<f64>,
/// }
///
/// let (mut writer, mut file) = (Parquet::<Click>::new().begin()?, Vec::new());
/// writer.write(&Click { url: "/buy".into(), spend: None }, &mut file)?;
/// BulkWriter::<Click>::finish(writer, &mut file)?;
/// assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
/// # Ok::<(), thalweg_connectors::formats::Malformed>(())
/// ```
pub struct Parquet<T> {
    compression: Compression,
    row_group_bytes: usize,
    records: PhantomData<fn() -> T>,
}

impl<T> Parquet<T> {
    /// The format, with Snappy.
    #[must_use]
    pub const fn new() -> Self {
        Self { compression: Compression::SNAPPY, row_group_bytes: ROW_GROUP_BYTES, records: PhantomData }
    }

    /// Compresses by zstd, smaller and slower.
    #[must_use]
    pub fn zstd(mut self) -> Self {
        self.compression = Compression::ZSTD(ZstdLevel::default());
        self
    }

    /// Compresses nothing.
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.compression = Compression::UNCOMPRESSED;
        self
    }

    /// Ends a row group when its columns take about so many bytes in memory, in place of 128 MiB. A reader reads a row group at a time.
    #[must_use]
    pub fn row_group_bytes(mut self, bytes: usize) -> Self {
        self.row_group_bytes = bytes.max(1);
        self
    }
}

impl<T> Default for Parquet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Parquet<T> {
    fn clone(&self) -> Self {
        Self { compression: self.compression, row_group_bytes: self.row_group_bytes, records: PhantomData }
    }
}

impl<T> std::fmt::Debug for Parquet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parquet").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl<T: Record> BulkFormat<T> for Parquet<T> {
    type Writer = ParquetWriter;

    fn begin(&self) -> Result<ParquetWriter, Malformed> {
        let layout = Layout::of(&T::schema())?;
        let properties = WriterProperties::builder()
            .set_compression(self.compression)
            .set_max_row_group_row_count(None)
            .set_data_page_size_limit(PAGE_BYTES)
            .set_created_by(concat!("thalweg ", env!("CARGO_PKG_VERSION")).to_owned());
        Ok(ParquetWriter {
            columns: Columns::new(&layout),
            schema: Arc::new(layout.arrow_schema()),
            properties,
            writer: None,
            in_progress_bytes: 0,
            row_group_bytes: self.row_group_bytes,
        })
    }
}

/// A Parquet file that is being written.
pub struct ParquetWriter {
    /// Records that are not with the writer yet.
    columns: Columns,
    schema: SchemaRef,
    properties: WriterPropertiesBuilder,
    /// Begins with the first columns, which decide about dictionaries.
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// What the writer holds of the row group.
    in_progress_bytes: usize,
    row_group_bytes: usize,
}

impl std::fmt::Debug for ParquetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetWriter").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl ParquetWriter {
    /// Gives the writer what became columns, and `out` what has become bytes.
    fn hand_on(&mut self, out: &mut Vec<u8>) -> Result<&mut ArrowWriter<Vec<u8>>, Malformed> {
        let records = self.columns.take(&self.schema)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                none.insert(begin(&self.schema, self.properties.clone(), &records).map_err(Malformed::new)?)
            }
        };
        writer.write(&records).map_err(Malformed::new)?;
        self.in_progress_bytes = writer.in_progress_size();
        if self.in_progress_bytes >= self.row_group_bytes {
            write_to(out, writer, ArrowWriter::flush).map_err(Malformed::new)?;
            self.in_progress_bytes = 0;
        }
        Ok(writer)
    }
}

/// Lets the writer end its row group, or the file, and append the bytes to `out`: a row group is large, and copied once only.
fn write_to<T>(
    out: &mut Vec<u8>,
    writer: &mut ArrowWriter<Vec<u8>>,
    write: impl FnOnce(&mut ArrowWriter<Vec<u8>>) -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    out.reserve(writer.in_progress_size());
    std::mem::swap(writer.inner_mut(), out);
    let written = write(writer).and_then(|written| {
        writer.sync()?;
        Ok(written)
    });
    std::mem::swap(writer.inner_mut(), out);
    written
}

/// Begins a file whose first records are these.
fn begin(
    schema: &SchemaRef,
    mut properties: WriterPropertiesBuilder,
    first: &RecordBatch,
) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let columns = ArrowSchemaConverter::new().convert(schema)?;
    for (column, pays) in columns.columns().iter().zip(dictionaries::pay(first)) {
        properties = properties.set_column_dictionary_enabled(column.path().clone(), pays);
    }
    ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties.build()))
}

impl<T: Record> BulkWriter<T> for ParquetWriter {
    fn write(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.columns.append(record);
        if self.columns.records() >= RECORDS_AT_ONCE || self.columns.bytes() >= self.row_group_bytes {
            self.hand_on(out)?;
        }
        Ok(())
    }

    fn buffered_bytes(&self) -> u64 {
        (self.columns.bytes() + self.in_progress_bytes) as u64
    }

    fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let writer = self.hand_on(out)?;
        write_to(out, writer, ArrowWriter::finish).map_err(Malformed::new)?;
        Ok(())
    }
}
