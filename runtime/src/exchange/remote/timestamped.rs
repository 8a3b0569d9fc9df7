//! The payload of frames whose records have timestamps. Pure.
//!
//! On a record's way this is the same place as `frame.rs`, which it leaves alone where there are no timestamps. Where there
//! are, the highest bit of the record count is set, and behind the records come as many timestamps, 8 bytes each,
//! little-endian. Invariants: those of `frame.rs`, with the timestamps counted in.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::limits::{MAX_FRAME_BYTES, MAX_FRAME_RECORDS};
use thalweg_common::record::{DecodeError, Record};

use super::frame::{HEADER_BYTES, decode_counted, decode_records, encode_records, too_large};
use crate::batch::{Batch, NO_TIMESTAMP};

const TIMESTAMP_BYTES: usize = size_of::<Timestamp>();

/// Says in the record count that there are timestamps.
const HAS_TIMESTAMPS: u32 = 1 << 31;

const _: () = assert!(MAX_FRAME_RECORDS < HAS_TIMESTAMPS as usize, "the count needs another bit");
const _: () = assert!(MAX_FRAME_RECORDS * TIMESTAMP_BYTES < MAX_FRAME_BYTES, "timestamps alone fit");

/// Encodes the records behind the first `from` ones until the payload has about `target_bytes`. Returns how many; at least
/// one if there is one.
///
/// # Errors
/// When the first record alone does not fit into a frame.
pub(super) fn encode_batch<T: Record>(
    batch: &Batch<T>,
    from: usize,
    target_bytes: usize,
    payload: &mut Vec<u8>,
) -> Result<usize, Failure> {
    let records = &batch.records()[from..];
    match (records.first(), batch.timestamps().get(from..)) {
        (Some(first), Some(timestamps)) if !timestamps.is_empty() => {
            payload.clear();
            first.encode(payload);
            let record_bytes = payload.len();
            let target_bytes = target_bytes.saturating_mul(record_bytes) / (record_bytes + TIMESTAMP_BYTES);
            encode_timestamped(records, timestamps, target_bytes, payload)
        }
        _ => encode_records(records, target_bytes, payload),
    }
}

/// Encodes records until they alone have `target_bytes`, and their timestamps behind them.
fn encode_timestamped<T: Record>(
    records: &[T],
    timestamps: &[Timestamp],
    target_bytes: usize,
    payload: &mut Vec<u8>,
) -> Result<usize, Failure> {
    let mut most = records.len();
    let count = loop {
        let count = encode_records(&records[..most], target_bytes, payload)?;
        if payload.len() + count * TIMESTAMP_BYTES <= MAX_FRAME_BYTES {
            break count;
        }
        // Rare: only near the largest size of a frame.
        if count == 1 {
            return Err(too_large::<T>(payload.len() - HEADER_BYTES + TIMESTAMP_BYTES));
        }
        most = count / 2;
    };
    // Below MAX_FRAME_RECORDS, so it fits.
    payload[..HEADER_BYTES].copy_from_slice(&(count as u32 | HAS_TIMESTAMPS).to_le_bytes());
    Timestamp::encode_all(&timestamps[..count], payload);
    Ok(count)
}

/// Decodes a payload of records, with timestamps or without, and appends them to `batch`.
///
/// # Errors
/// When the payload is not what [`encode_batch`] makes of records of this type. Nothing is left in the batch then.
pub(super) fn decode_batch<T: Record>(payload: &[u8], batch: &mut Batch<T>) -> Result<(), DecodeError> {
    let (mut records, mut timestamps) = std::mem::take(batch).into_parts();
    match split_count(payload) {
        Some((count, rest)) => {
            let section = rest.len().checked_sub(count.saturating_mul(TIMESTAMP_BYTES));
            let Some((encoded, section)) = section.and_then(|at| rest.split_at_checked(at)) else {
                let bytes = rest.len();
                return Err(DecodeError::new::<T>(format!(
                    "a frame announces {count} timestamps and has {bytes} bytes"
                )));
            };
            timestamps.resize(records.len(), NO_TIMESTAMP);
            decode_counted(count, encoded, &mut records)?;
            let (section, _) = section.as_chunks::<TIMESTAMP_BYTES>();
            timestamps.extend(section.iter().map(|bytes| Timestamp::from_le_bytes(*bytes)));
        }
        None => decode_records(payload, &mut records)?,
    }
    *batch = Batch::from_parts(records, timestamps);
    Ok(())
}

/// The number of records and what is behind it, if the payload says that there are timestamps.
fn split_count(payload: &[u8]) -> Option<(usize, &[u8])> {
    let (header, rest) = payload.split_first_chunk::<HEADER_BYTES>()?;
    let count = u32::from_le_bytes(*header);
    (count & HAS_TIMESTAMPS != 0).then_some(((count & !HAS_TIMESTAMPS) as usize, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use thalweg_common::failure::Fault;

    type Item = (u64, String);

    fn frames<T: Record>(batch: &Batch<T>, target_bytes: usize) -> Vec<Vec<u8>> {
        let (mut frames, mut sent) = (Vec::new(), 0);
        while sent < batch.len() {
            let mut payload = Vec::new();
            sent += encode_batch(batch, sent, target_bytes, &mut payload).expect("they fit");
            frames.push(payload);
        }
        frames
    }

    proptest! {
        #[test]
        fn timestamps_survive(
            records in proptest::collection::vec((any::<u64>(), ".{0,40}"), 0..200),
            timestamps in proptest::collection::vec(any::<Timestamp>(), 0..200),
            target_bytes in 1usize..2_000,
        ) {
            let batch: Batch<Item> = Batch::from_parts(records, timestamps);
            let mut decoded = Batch::default();
            for frame in frames(&batch, target_bytes) {
                prop_assert_eq!(decode_batch(&frame, &mut decoded), Ok(()));
            }
            prop_assert_eq!(decoded, batch);
        }

        #[test]
        fn without_timestamps_a_frame_is_what_it_was(
            records in proptest::collection::vec((any::<u64>(), ".{0,40}"), 0..200),
            from in 0usize..200,
            target_bytes in 1usize..2_000,
        ) {
            let from = from.min(records.len());
            let (mut plain, mut payload) = (Vec::new(), Vec::new());
            let count = encode_records(&records[from..], target_bytes, &mut plain);
            prop_assert_eq!(encode_batch(&Batch::from(records), from, target_bytes, &mut payload), count);
            prop_assert_eq!(payload, plain);
        }

        #[test]
        fn rubbish_is_an_error_or_a_value_but_never_a_panic(
            count in 0u32..40,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let payload = [&(count | HAS_TIMESTAMPS).to_le_bytes()[..], &payload].concat();
            let _ = decode_batch::<Item>(&payload, &mut Batch::default());
            let mut units = Batch::default();
            let decoded = decode_batch::<()>(&payload, &mut units);
            prop_assert_eq!(decoded.is_ok(), payload.len() == HEADER_BYTES + count as usize * TIMESTAMP_BYTES);
        }
    }

    #[test]
    fn damaged_payloads_are_refused() {
        let batch = Batch::from_parts(vec![1u64, 2, 3], vec![4, 5, 6]);
        let mut payload = frames(&batch, 1_000).concat();
        assert_eq!(payload.len(), HEADER_BYTES + 3 * (8 + TIMESTAMP_BYTES));
        for end in 0..payload.len() {
            assert!(
                decode_batch::<u64>(&payload[..end], &mut Batch::default()).is_err(),
                "cut to {end} bytes"
            );
        }
        payload.push(0);
        assert!(decode_batch::<u64>(&payload, &mut Batch::default()).is_err());
        for count in [u32::MAX, HAS_TIMESTAMPS | (MAX_FRAME_RECORDS as u32 + 1)] {
            let rubbish =
                [&count.to_le_bytes()[..], &vec![0; (MAX_FRAME_RECORDS + 1) * TIMESTAMP_BYTES]].concat();
            assert!(decode_batch::<()>(&rubbish, &mut Batch::default()).is_err(), "{count}");
        }
    }

    #[test]
    fn frames_with_timestamps_have_about_the_target_size() {
        let batch = Batch::from_parts(vec![7u64; 10_000], vec![8; 10_000]);
        let frames = frames(&batch, 16_384);
        let sizes: Vec<usize> = frames.iter().map(Vec::len).collect();
        let (last, full) = sizes.split_last().expect("frames");
        assert!(full.iter().all(|size| (16_300..16_500).contains(size)) && *last < 16_500, "{sizes:?}");
    }

    #[test]
    fn no_frame_is_too_large() {
        // Records and timestamps together pass the limit, the records alone do not.
        let text = "x".repeat(MAX_FRAME_BYTES / 4 - 13);
        let batch = Batch::from_parts(vec![text; 4], vec![1; 4]);
        let frames = frames(&batch, MAX_FRAME_BYTES);
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME_BYTES));

        let largest = "x".repeat(MAX_FRAME_BYTES - HEADER_BYTES - 8 - TIMESTAMP_BYTES);
        let mut payload = Vec::new();
        let batch = Batch::from_parts(vec![largest.clone()], vec![1]);
        assert_eq!(encode_batch(&batch, 0, 1, &mut payload), Ok(1));
        assert_eq!(payload.len(), MAX_FRAME_BYTES);
        let batch = Batch::from_parts(vec![largest + "x"], vec![1]);
        let failure = encode_batch(&batch, 0, 1, &mut payload).expect_err("it does not fit");
        assert_eq!(failure.fault, Fault::User);
        assert!(failure.message.contains("16777213 bytes, more than the 16777212 bytes"), "{failure}");
    }
}
