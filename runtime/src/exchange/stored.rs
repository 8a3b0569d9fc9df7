//! Batches as a checkpoint stores them while they are on their way.
//!
//! Beside a record's way: made of a batch where a barrier overtakes it, read again in front of everything else when the checkpoint is
//! restored. What waits as a frame stays one, which costs no copy; what waits as a batch is encoded without the
//! limits of frames. Invariant: what is decoded has filled its bytes exactly.

use std::fmt;

use bytes::Bytes;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::{DecodeError, Record};

use super::remote::{Compression, Payload, PayloadError};
use crate::batch::Batch;

/// A batch, encoded.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBatch {
    form: Form,
    #[serde(serialize_with = "write_block", deserialize_with = "read_block")]
    bytes: Bytes,
}

/// How it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Form {
    /// All records as a list, and all timestamps as one.
    Lists,
    /// The payload of a frame.
    Frame,
    /// The same, compressed.
    Lz4Frame,
}

impl StoredBatch {
    /// Encodes a batch.
    #[must_use]
    pub fn of<T: Record>(batch: &Batch<T>) -> Self {
        let mut bytes = Vec::new();
        encode_list(batch.records(), &mut bytes);
        encode_list(batch.timestamps(), &mut bytes);
        Self { form: Form::Lists, bytes: bytes.into() }
    }

    /// A frame that has not been read.
    pub(super) fn of_frame(payload: &Payload) -> Self {
        let form = match payload.compression {
            Compression::None => Form::Frame,
            Compression::Lz4 => Form::Lz4Frame,
        };
        Self { form, bytes: payload.bytes.clone() }
    }

    /// Its size, encoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch again.
    ///
    /// # Errors
    /// When it holds no records of this type.
    pub fn decode<T: Record>(&self) -> Result<Batch<T>, Failure> {
        let decoded = match self.form {
            Form::Lists => decode_lists(&self.bytes).map_err(PayloadError::from),
            Form::Frame => self.decode_frame(Compression::None),
            Form::Lz4Frame => self.decode_frame(Compression::Lz4),
        };
        decoded
            .map_err(|error| Failure::internal(format!("records on their way cannot be restored: {error}")))
    }

    fn decode_frame<T: Record>(&self, compression: Compression) -> Result<Batch<T>, PayloadError> {
        let mut batch = Batch::default();
        Payload::received(self.bytes.clone(), compression)?.decode(&mut Vec::new(), &mut batch)?;
        Ok(batch)
    }
}

/// As a `Vec` is encoded.
fn encode_list<R: Record>(values: &[R], out: &mut Vec<u8>) {
    (values.len() as u64).encode(out);
    R::encode_all(values, out);
}

fn decode_lists<T: Record>(mut bytes: &[u8]) -> Result<Batch<T>, DecodeError> {
    let records = Vec::<T>::decode(&mut bytes)?;
    let timestamps = Vec::<Timestamp>::decode(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(DecodeError::new::<T>(format!("{} bytes follow a stored batch", bytes.len())));
    }
    Ok(Batch::from_parts(records, timestamps))
}

impl fmt::Debug for StoredBatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} of {} bytes", self.form, self.bytes.len())
    }
}

// As one block, and not byte by byte.
fn write_block<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn read_block<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    struct Block;

    impl Visitor<'_> for Block {
        type Value = Bytes;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(bytes.into())
        }
    }

    deserializer.deserialize_byte_buf(Block)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use thalweg_common::codec;

    type Item = (u64, String);

    proptest! {
        #[test]
        fn batches_survive(
            records in proptest::collection::vec((any::<u64>(), ".{0,40}"), 0..50),
            timestamps in proptest::collection::vec(any::<Timestamp>(), 0..50),
            rubbish in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let timestamps = timestamps.into_iter().take(records.len()).collect();
            let batch: Batch<Item> = Batch::from_parts(records, timestamps);
            let stored = StoredBatch::of(&batch);
            let read: StoredBatch = codec::from_bytes(&codec::to_bytes(&stored).unwrap()).unwrap();
            prop_assert_eq!(&read, &stored);
            prop_assert_eq!(read.decode::<Item>().unwrap(), batch);
            for form in [Form::Lists, Form::Frame, Form::Lz4Frame] {
                // An error or a value, never a panic.
                let _ = StoredBatch { form, bytes: rubbish.clone().into() }.decode::<Item>();
            }
        }
    }

    #[test]
    fn a_record_that_fits_into_no_frame_is_stored() {
        let batch = Batch::from(vec!["x".repeat(thalweg_common::limits::MAX_FRAME_BYTES + 1)]);
        assert_eq!(StoredBatch::of(&batch).decode::<String>().unwrap(), batch);
    }
}
