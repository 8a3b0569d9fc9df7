//! Avro: single records, as in streams with a schema that both sides know, and object container files.
//!
//! Records of an older or newer schema are read as those of the reader's schema by the rules of the Avro specification ("Schema
//! Resolution"): fields that are missing get their default, those that nobody asks for are left out, numbers are widened.

use std::io::Read;
use std::marker::PhantomData;
use std::sync::Arc;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Codec, Reader, Schema, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;

use super::{BulkFormat, BulkWriter, Decoder, Encoder, Malformed};

/// Encoded records that make a block of a file.
const BLOCK_BYTES: usize = 64 * 1024;

/// Length of the mark behind each block.
const MARKER_BYTES: usize = 16;

/// Avro records one by one, without a header: schema of the writer, perhaps another one of the reader.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use thalweg_common::Record;
/// use thalweg_connectors::formats::{Avro, Decoder, Encoder};
/// use thalweg_runtime::batch::Batch;
///
/// #[derive(Record, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// # #[record(crate = thalweg_common)]
/// struct Click {
///     url: String,
///     device: String,
/// }
///
/// let first = r#"{"type":"record","name":"Click","fields":[{"name":"url","type":"string"}]}"#;
/// let second = r#"{"type":"record","name":"Click","fields":[
///     {"name":"url","type":"string"}, {"name":"device","type":"string","default":"unknown"}]}"#;
///
/// let mut clicks = Batch::default();
/// Avro::<Click>::new(first)?.read_as(second)?.decode(b"\x08/buy", &mut clicks)?;
/// assert_eq!(clicks.records(), [Click { url: "/buy".into(), device: "unknown".into() }]);
/// # Ok::<(), thalweg_connectors::formats::Malformed>(())
/// ```
pub struct Avro<T> {
    schema: Arc<Schema>,
    read_as: Option<Arc<Schema>>,
    records: PhantomData<fn() -> T>,
}

impl<T> Avro<T> {
    /// Reads and writes records of this schema, in its JSON form.
    ///
    /// # Errors
    /// If it is no schema.
    pub fn new(schema: &str) -> Result<Self, Malformed> {
        Ok(Self { schema: Arc::new(parse(schema)?), read_as: None, records: PhantomData })
    }

    /// Reads what was written by the schema so far as records of this one.
    ///
    /// # Errors
    /// If it is no schema.
    pub fn read_as(self, schema: &str) -> Result<Self, Malformed> {
        Ok(Self { read_as: Some(Arc::new(parse(schema)?)), ..self })
    }
}

impl<T> Clone for Avro<T> {
    fn clone(&self) -> Self {
        Self { schema: Arc::clone(&self.schema), read_as: self.read_as.clone(), records: PhantomData }
    }
}

impl<T> std::fmt::Debug for Avro<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Avro").field("schema", &self.schema.name()).finish_non_exhaustive()
    }
}

impl<T: Record + DeserializeOwned> Decoder for Avro<T> {
    type Out = T;

    fn decode(&mut self, message: &[u8], out: &mut Batch<T>) -> Result<(), Malformed> {
        let reader =
            GenericDatumReader::builder(&self.schema).maybe_reader_schema(self.read_as.as_deref()).build();
        let mut rest = message;
        let value = reader.and_then(|reader| reader.read_value(&mut rest)).map_err(Malformed::new)?;
        if !rest.is_empty() {
            return Err(Malformed::new(format_args!("{} bytes follow the record", rest.len())));
        }
        out.push(apache_avro::from_value(&value).map_err(Malformed::new)?);
        Ok(())
    }
}

impl<T: 'static, R: Serialize> Encoder<R> for Avro<T> {
    fn encode(&mut self, record: &R, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let begin = out.len();
        let writer = GenericDatumWriter::builder(&self.schema).build();
        let written = writer.and_then(|writer| writer.write_ser(out, record));
        written.map(drop).map_err(|error| {
            out.truncate(begin);
            Malformed::new(error)
        })
    }
}

/// Avro's object container files: the schema in front, then blocks of records. Codec: deflate.
///
/// Written by a file sink as a bulk format; read by a file source as files that are not split.
pub struct AvroFile<T> {
    schema: Arc<Schema>,
    records: PhantomData<fn() -> T>,
}

impl<T> AvroFile<T> {
    /// Files of this schema, in its JSON form. What is read is brought to it by the schema in each file.
    ///
    /// # Errors
    /// If it is no schema.
    pub fn new(schema: &str) -> Result<Self, Malformed> {
        Ok(Self { schema: Arc::new(parse(schema)?), records: PhantomData })
    }

    /// Reads all records of a file.
    ///
    /// # Errors
    /// If it is no such file, or a record cannot be read: the ones before it were given.
    pub(crate) fn read(&self, file: impl Read, mut give: impl FnMut(T)) -> Result<(), Malformed>
    where
        T: DeserializeOwned,
    {
        let reader = Reader::builder(file).reader_schema(&self.schema).build().map_err(Malformed::new)?;
        for value in reader {
            give(apache_avro::from_value(&value.map_err(Malformed::new)?).map_err(Malformed::new)?);
        }
        Ok(())
    }
}

impl<T> Clone for AvroFile<T> {
    fn clone(&self) -> Self {
        Self { schema: Arc::clone(&self.schema), records: PhantomData }
    }
}

impl<T> std::fmt::Debug for AvroFile<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AvroFile").field("schema", &self.schema.name()).finish_non_exhaustive()
    }
}

impl<T: 'static, R: Serialize> BulkFormat<R> for AvroFile<T> {
    type Writer = AvroWriter;

    fn begin(&self) -> Result<AvroWriter, Malformed> {
        // A file of no records: its header, which ends with the mark.
        let mut writer = Writer::with_codec(&self.schema, Vec::new(), codec()).map_err(Malformed::new)?;
        writer.flush().map_err(Malformed::new)?;
        let header = writer.into_inner().map_err(Malformed::new)?;
        let marker = header.last_chunk::<MARKER_BYTES>().copied();
        let marker = marker.ok_or_else(|| Malformed::new("the header of an Avro file is empty"))?;
        Ok(AvroWriter { schema: Arc::clone(&self.schema), header, marker, block: Vec::new(), records: 0 })
    }
}

/// An object container file that is being written.
#[derive(Debug)]
pub struct AvroWriter {
    schema: Arc<Schema>,
    /// Until it is written.
    header: Vec<u8>,
    marker: [u8; MARKER_BYTES],
    /// Encoded records of the next block.
    block: Vec<u8>,
    records: i64,
}

impl AvroWriter {
    /// Writes a block: count, length, records and mark.
    fn end_block(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.append(&mut self.header);
        if self.records == 0 {
            return Ok(());
        }
        codec().compress(&mut self.block).map_err(Malformed::new)?;
        put_long(self.records, out);
        put_long(self.block.len() as i64, out);
        out.append(&mut self.block);
        out.extend_from_slice(&self.marker);
        self.records = 0;
        Ok(())
    }
}

impl<R: Serialize> BulkWriter<R> for AvroWriter {
    fn write(&mut self, record: &R, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let writer = GenericDatumWriter::builder(&self.schema).build().map_err(Malformed::new)?;
        writer.write_ser(&mut self.block, record).map_err(Malformed::new)?;
        self.records += 1;
        if self.block.len() >= BLOCK_BYTES { self.end_block(out) } else { Ok(()) }
    }

    fn buffered_bytes(&self) -> u64 {
        self.block.len() as u64
    }

    fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.end_block(out)
    }
}

fn codec() -> Codec {
    Codec::Deflate(apache_avro::DeflateSettings::default())
}

/// Avro's `long`: zigzag, seven bits in a byte.
fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn parse(schema: &str) -> Result<Schema, Malformed> {
    Schema::parse_str(schema).map_err(|error| Malformed::new(format_args!("this is no Avro schema: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde::Deserialize;
    use thalweg_common::Record;

    use super::*;

    #[derive(Record, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[record(crate = thalweg_common)]
    struct Trade {
        ticker: String,
        price: f64,
        lots: Option<i64>,
    }

    const SCHEMA: &str = r#"{"type":"record","name":"Trade","fields":[{"name":"ticker","type":"string"},
        {"name":"price","type":"double"},{"name":"lots","type":["null","long"],"default":null}]}"#;
    const OLDER: &str = r#"{"type":"record","name":"Trade","fields":[{"name":"price","type":"float"},
        {"name":"gone","type":"int"},{"name":"ticker","type":"string"}]}"#;

    #[derive(Serialize)]
    struct OlderTrade {
        price: f32,
        gone: i32,
        ticker: String,
    }

    fn trade(number: i64) -> Trade {
        Trade {
            ticker: format!("T{number}"),
            price: number as f64 / 4.0,
            lots: (number % 2 == 0).then_some(number),
        }
    }

    #[test]
    fn records_come_back_also_those_of_an_older_schema() {
        let mut avro = Avro::<Trade>::new(SCHEMA).unwrap();
        let (mut bytes, mut out) = (Vec::new(), Batch::default());
        avro.encode(&trade(2), &mut bytes).unwrap();
        avro.decode(&bytes, &mut out).unwrap();
        let mut evolved = Avro::<Trade>::new(OLDER).unwrap().read_as(SCHEMA).unwrap();
        bytes.clear();
        evolved.encode(&OlderTrade { price: 0.5, gone: 1, ticker: "old".into() }, &mut bytes).unwrap();
        evolved.decode(&bytes, &mut out).unwrap();
        assert_eq!(out.records(), [trade(2), Trade { ticker: "old".into(), price: 0.5, lots: None }]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let mut avro = Avro::<Trade>::new(SCHEMA).unwrap();
        let mut out = Batch::default();
        assert!(avro.decode(b"\x04ab", &mut out).is_err());
        let mut bytes = Vec::new();
        avro.encode(&trade(1), &mut bytes).unwrap();
        bytes.push(0);
        assert_eq!(avro.decode(&bytes, &mut out).unwrap_err().to_string(), "1 bytes follow the record");
        assert!(out.is_empty());
        assert!(Avro::<Trade>::new("{").unwrap_err().to_string().starts_with("this is no Avro schema: "));
    }

    #[test]
    fn files_have_many_blocks_and_another_library_reads_them() {
        let format = AvroFile::<Trade>::new(SCHEMA).unwrap();
        let mut writer = BulkFormat::<Trade>::begin(&format).unwrap();
        let (mut file, all) = (Vec::new(), 20_000);
        for number in 0..all {
            writer.write(&trade(number), &mut file).unwrap();
        }
        assert!(file.len() > BLOCK_BYTES, "blocks leave while it is written");
        BulkWriter::<Trade>::finish(writer, &mut file).unwrap();
        let mut read = Vec::new();
        format.read(file.as_slice(), |trade| read.push(trade)).unwrap();
        assert!(read.into_iter().eq((0..all).map(trade)));
        assert!(format.read(&file[..file.len() - 1], |_| ()).is_err(), "it is cut off");
        let mut empty = Vec::new();
        BulkWriter::<Trade>::finish(BulkFormat::<Trade>::begin(&format).unwrap(), &mut empty).unwrap();
        format.read(empty.as_slice(), |_: Trade| panic!("there is none")).unwrap();
    }
}
