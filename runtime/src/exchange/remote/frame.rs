//! The payload of frames: whole records behind their count, or one event. Pure, and independent of the transport.
//!
//! On a record's way this is where it becomes bytes, once, and where it is a record again, once. A batch's payload is
//! the number of records as `u32`, little-endian, then their encodings, then their timestamps if they have some
//! (`timestamped.rs`); all of this may be one LZ4 block. Invariants: a payload has at most
//! [`MAX_FRAME_BYTES`] and [`MAX_FRAME_RECORDS`]; what is decoded has filled its payload exactly; rubbish is an error and
//! never reserves more memory than it has bytes to justify, compressed or not.

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::limits::{MAX_FRAME_BYTES, MAX_FRAME_RECORDS};
use thalweg_common::record::{DecodeError, Record};

use super::Compression;
use super::timestamped::decode_batch;
use crate::batch::Batch;
use crate::event::Event;

pub(super) const HEADER_BYTES: usize = size_of::<u32>();

/// Most records for which room is made before they were seen.
const MAX_RESERVED_RECORDS: usize = 4_096;

/// An LZ4 block does not become more than this many times as long: a byte of it stands for 255 bytes at most.
const LZ4_MAX_RATIO: usize = 255;

/// Encodes records from the front until the payload reaches `target_bytes`. Returns how many; at least one if there is one.
///
/// # Errors
/// When the first record alone does not fit into a frame.
pub(super) fn encode_records<T: Record>(
    records: &[T],
    target_bytes: usize,
    payload: &mut Vec<u8>,
) -> Result<usize, Failure> {
    payload.clear();
    payload.extend_from_slice(&[0; HEADER_BYTES]);
    let mut count = 0;
    for record in records.iter().take(MAX_FRAME_RECORDS) {
        let start = payload.len();
        record.encode(payload);
        if payload.len() > MAX_FRAME_BYTES {
            if count == 0 {
                return Err(too_large::<T>(payload.len() - start));
            }
            // It goes into the next frame.
            payload.truncate(start);
            break;
        }
        count += 1;
        if payload.len() >= target_bytes {
            break;
        }
    }
    // Below MAX_FRAME_RECORDS, so it fits.
    payload[..HEADER_BYTES].copy_from_slice(&(count as u32).to_le_bytes());
    Ok(count)
}

pub(super) fn too_large<T>(record_bytes: usize) -> Failure {
    let limit_bytes = MAX_FRAME_BYTES - HEADER_BYTES;
    Failure::user(format!(
        "a record of type {} takes {record_bytes} bytes, more than the {limit_bytes} bytes that fit into a frame between two \
         workers; split it, or send a reference to where it is stored",
        std::any::type_name::<T>()
    ))
}

/// Decodes a payload of records and appends them to `records`.
///
/// # Errors
/// When the payload is not what [`encode_records`] makes of records of this type.
pub(super) fn decode_records<T: Record>(payload: &[u8], records: &mut Vec<T>) -> Result<(), DecodeError> {
    let Some((header, rest)) = payload.split_first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::new::<T>(format!("a frame of {} bytes has no record count", payload.len())));
    };
    let count = u32::from_le_bytes(*header) as usize;
    decode_counted(count, rest, records)
}

/// Decodes so many records, which fill `rest` exactly, and appends them to `records`.
///
/// # Errors
/// When they are too many, or not what [`encode_records`] makes of records of this type.
pub(super) fn decode_counted<T: Record>(
    count: usize,
    mut rest: &[u8],
    records: &mut Vec<T>,
) -> Result<(), DecodeError> {
    if count > MAX_FRAME_RECORDS {
        return Err(DecodeError::new::<T>(format!(
            "a frame announces {count} records, the limit is {MAX_FRAME_RECORDS}"
        )));
    }
    records.reserve(count.min(rest.len().saturating_add(1)).min(MAX_RESERVED_RECORDS));
    for _ in 0..count {
        records.push(T::decode(&mut rest)?);
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(DecodeError::new::<T>(format!("{} bytes follow the {count} records of a frame", rest.len())))
}

/// The payload of a batch as it travels: as it is, or compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::exchange) struct Payload {
    pub(in crate::exchange) bytes: Bytes,
    pub(in crate::exchange) compression: Compression,
}

impl Payload {
    /// What a payload came with, if it can be decompressed within the limits. Nothing is decompressed here.
    ///
    /// # Errors
    /// When it, or what it claims to become, is larger than a frame may be, or larger than its bytes can become.
    pub(in crate::exchange) fn received(
        bytes: Bytes,
        compression: Compression,
    ) -> Result<Self, PayloadError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(PayloadError::TooLarge(bytes.len()));
        }
        if compression == Compression::Lz4 {
            let (claimed, block) = split_lz4(&bytes)?;
            if claimed > MAX_FRAME_BYTES {
                return Err(PayloadError::TooLarge(claimed));
            }
            if claimed > block.len().saturating_mul(LZ4_MAX_RATIO) {
                return Err(PayloadError::Lz4(format!("{} bytes cannot become {claimed}", block.len())));
            }
        }
        Ok(Self { bytes, compression })
    }

    /// Decodes the records and appends them to `batch`; `scratch` is a buffer for what was compressed.
    ///
    /// # Errors
    /// When the payload is not what a sender of records of this type makes.
    pub(in crate::exchange) fn decode<T: Record>(
        &self,
        scratch: &mut Vec<u8>,
        batch: &mut Batch<T>,
    ) -> Result<(), PayloadError> {
        if self.compression == Compression::None {
            return Ok(decode_batch(&self.bytes, batch)?);
        }
        let (claimed, block) = split_lz4(&self.bytes)?;
        scratch.clear();
        scratch.resize(claimed.min(MAX_FRAME_BYTES), 0);
        let decompressed = lz4_flex::block::decompress_into(block, scratch)
            .map_err(|error| PayloadError::Lz4(error.to_string()))?;
        if decompressed != claimed {
            return Err(PayloadError::Lz4(format!("{decompressed} bytes instead of {claimed}")));
        }
        Ok(decode_batch(scratch, batch)?)
    }
}

/// A payload that no sender makes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::exchange) enum PayloadError {
    #[error("a frame of {0} bytes came, the limit is {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    #[error("a frame cannot be decompressed: {0}")]
    Lz4(String),
    #[error(transparent)]
    Records(#[from] DecodeError),
}

fn split_lz4(payload: &[u8]) -> Result<(usize, &[u8]), PayloadError> {
    match payload.split_first_chunk::<HEADER_BYTES>() {
        Some((length, block)) => Ok((u32::from_le_bytes(*length) as usize, block)),
        None => Err(PayloadError::Lz4(format!("it has only {} bytes", payload.len()))),
    }
}

/// Compresses a payload with LZ4 if that makes it smaller. Its length comes first.
pub(super) fn compress(payload: &[u8], compressed: &mut Vec<u8>) -> bool {
    let largest = HEADER_BYTES + lz4_flex::block::get_maximum_output_size(payload.len());
    compressed.clear();
    compressed.resize(largest, 0);
    // Below MAX_FRAME_BYTES, so it fits.
    compressed[..HEADER_BYTES].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    match lz4_flex::block::compress_into(payload, &mut compressed[HEADER_BYTES..]) {
        Ok(length) if HEADER_BYTES + length < payload.len() => {
            compressed.truncate(HEADER_BYTES + length);
            true
        }
        // What would not fit is not smaller either.
        _ => false,
    }
}

/// Encodes an event.
pub(super) fn encode_event(event: Event) -> Vec<u8> {
    let mut payload = Vec::new();
    event.encode(&mut payload);
    payload
}

/// Decodes an event that fills `payload` exactly.
///
/// # Errors
/// When it does not.
pub(super) fn decode_event(mut payload: &[u8]) -> Result<Event, DecodeError> {
    let event = Event::decode(&mut payload)?;
    if payload.is_empty() {
        return Ok(event);
    }
    Err(DecodeError::new::<Event>(format!("{} bytes follow the event", payload.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Barrier, WatermarkStatus};
    use proptest::prelude::*;
    use thalweg_common::failure::Fault;

    fn frames<T: Record>(records: &[T], target_bytes: usize) -> Vec<Vec<u8>> {
        let (mut frames, mut sent) = (Vec::new(), 0);
        while sent < records.len() {
            let mut payload = Vec::new();
            sent += encode_records(&records[sent..], target_bytes, &mut payload).expect("they fit");
            frames.push(payload);
        }
        frames
    }

    proptest! {
        #[test]
        fn records_survive(
            records in proptest::collection::vec((any::<u64>(), ".{0,40}"), 0..200),
            target_bytes in 1usize..2_000,
        ) {
            let frames = frames(&records, target_bytes);
            let mut decoded: Vec<(u64, String)> = Vec::new();
            for (number, frame) in frames.iter().enumerate() {
                let before = decoded.len();
                prop_assert_eq!(decode_records(frame, &mut decoded), Ok(()));
                prop_assert!(decoded.len() > before, "no frame is empty");
                prop_assert!(frame.len() >= target_bytes || number + 1 == frames.len(), "only the last is short");
            }
            prop_assert_eq!(decoded, records);
        }

        #[test]
        fn rubbish_is_an_error_or_a_value_but_never_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_records::<(u64, String)>(&payload, &mut Vec::new());
            let _ = decode_records::<()>(&payload, &mut Vec::new());
            let _ = decode_event(&payload);
            let mut claims = (payload.len() as u32 * 3).to_le_bytes().to_vec();
            claims.extend_from_slice(&payload);
            if let Ok(payload) = Payload::received(claims.into(), Compression::Lz4) {
                let _ = payload.decode::<(u64, String)>(&mut Vec::new(), &mut Batch::default());
            }
        }
    }

    #[test]
    fn damaged_payloads_are_refused() {
        let mut payload = Vec::new();
        assert_eq!(encode_records(&[1u64, 2, 3], 1_000, &mut payload), Ok(3));
        for end in 0..payload.len() {
            assert!(decode_records::<u64>(&payload[..end], &mut Vec::new()).is_err(), "cut to {end} bytes");
        }
        payload.push(0);
        assert!(decode_records::<u64>(&payload, &mut Vec::new()).is_err());
        let many = u32::MAX.to_le_bytes();
        let error = decode_records::<()>(&many, &mut Vec::new()).expect_err("too many");
        assert!(error.to_string().contains("4294967295 records"), "{error}");
    }

    #[test]
    fn a_frame_holds_a_bounded_number_of_records_that_take_no_bytes() {
        let frames = frames(&[(); MAX_FRAME_RECORDS + 1], 1_000);
        assert_eq!(frames.len(), 2);
        let mut decoded = Vec::new();
        frames.iter().for_each(|frame| decode_records::<()>(frame, &mut decoded).expect("decodes"));
        assert_eq!(decoded.len(), MAX_FRAME_RECORDS + 1);
    }

    #[test]
    fn the_largest_record_fits_and_a_larger_one_names_the_limit() {
        // A string has its length before it.
        let largest = "x".repeat(MAX_FRAME_BYTES - HEADER_BYTES - 8);
        let mut payload = Vec::new();
        assert_eq!(encode_records(&["y".to_owned(), largest.clone()], MAX_FRAME_BYTES, &mut payload), Ok(1));
        assert_eq!(encode_records(std::slice::from_ref(&largest), 1, &mut payload), Ok(1));
        assert_eq!(payload.len(), MAX_FRAME_BYTES);

        let failure = encode_records(&[largest + "x"], 1, &mut payload).expect_err("it does not fit");
        assert_eq!(failure.fault, Fault::User);
        assert!(failure.message.contains("16777213 bytes"), "{failure}");
        assert!(failure.message.contains("16777212 bytes"), "{failure}");
    }

    #[test]
    fn a_payload_is_compressed_if_it_gets_smaller() {
        let records: Vec<(u64, String)> = (0..100).map(|number| (number, "text ".repeat(10))).collect();
        let (mut payload, mut compressed) = (Vec::new(), Vec::new());
        assert_eq!(encode_records(&records, MAX_FRAME_BYTES, &mut payload), Ok(100));
        assert!(compress(&payload, &mut compressed));
        assert!(compressed.len() < payload.len() / 4, "{} of {} bytes", compressed.len(), payload.len());
        let received = Payload::received(compressed.into(), Compression::Lz4).expect("it is one");
        let mut decoded: Batch<(u64, String)> = Batch::default();
        assert_eq!(received.decode(&mut Vec::new(), &mut decoded), Ok(()));
        assert_eq!(decoded.records(), records);

        let noise: Vec<u8> =
            (0..1_000u64).map(|at| (at * at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[1]).collect();
        assert!(!compress(&noise, &mut Vec::new()));
        assert!(!compress(&[], &mut Vec::new()));
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_memory() {
        let lz4 = |claimed: usize, block: &[u8]| {
            let payload = [&(claimed as u32).to_le_bytes(), block].concat();
            Payload::received(payload.into(), Compression::Lz4)
        };
        assert_eq!(lz4(MAX_FRAME_BYTES + 1, &[0; 100]), Err(PayloadError::TooLarge(MAX_FRAME_BYTES + 1)));
        assert!(matches!(lz4(25_501, &[0; 100]), Err(PayloadError::Lz4(_))));
        assert!(lz4(25_500, &[0; 100]).is_ok());
        assert!(Payload::received(vec![1, 2].into(), Compression::Lz4).is_err());
        let large = Payload::received(vec![0; MAX_FRAME_BYTES + 1].into(), Compression::None);
        assert_eq!(large, Err(PayloadError::TooLarge(MAX_FRAME_BYTES + 1)));
    }

    #[test]
    fn events_survive() {
        let barrier =
            Event::Barrier(Barrier { id: 9, timestamp_ms: -1, is_final: true, is_savepoint: false });
        let idle = Event::Status(WatermarkStatus::Idle);
        for event in [barrier, Event::EndOfInput, Event::Watermark(-5), idle] {
            let mut payload = encode_event(event);
            assert_eq!(decode_event(&payload), Ok(event));
            payload.push(1);
            assert!(decode_event(&payload).is_err());
        }
    }
}
