//! User records that Amazon's producer library has put together into one record, so that they cost less. Pure.
//!
//! Such a record begins with a magic number and ends with the MD5 of what is between, a message of Protocol Buffers. What is not exactly so
//! is an ordinary record. A sink that gives records ids writes each of them so, alone, with its id beside it as a tag: whoever takes such records
//! apart, as Amazon's consumer libraries and Flink do, reads the record and does not notice the id. Invariant: a user record whose hash key is not
//! one of the shard's is left out: the producer saw it in the wrong shard after a split, and has sent it again to the right one.

use std::ops::RangeInclusive;

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST_BYTES: usize = 16;

/// The tag that has a record's id.
const ID_TAG: &str = "thalweg-record-id";

#[derive(Clone, PartialEq, Message)]
struct Aggregated {
    #[prost(string, repeated, tag = "1")]
    partition_keys: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Inner>,
}

#[derive(Clone, PartialEq, Message)]
struct Inner {
    #[prost(uint64, required, tag = "1")]
    partition_key: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
    #[prost(message, repeated, tag = "4")]
    tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Message)]
struct Tag {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// One of the records in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserRecord {
    /// Its place among all that are aggregated there, from 0.
    pub(super) number: u64,
    pub(super) partition_key: String,
    pub(super) data: Bytes,
    /// What tells it from all others, if who has written it says so.
    pub(super) id: Option<String>,
}

/// A record with its id.
pub(super) fn with_id(
    id: String,
    partition_key: &str,
    explicit_hash_key: Option<&str>,
    data: Vec<u8>,
) -> Bytes {
    let tags = vec![Tag { key: ID_TAG.to_owned(), value: Some(id) }];
    let explicit = explicit_hash_key.map(|_| 0);
    let message = Aggregated {
        partition_keys: vec![partition_key.to_owned()],
        explicit_hash_keys: explicit_hash_key.map(str::to_owned).into_iter().collect(),
        records: vec![Inner { partition_key: 0, explicit_hash_key: explicit, data: data.into(), tags }],
    };
    framed(&message)
}

fn framed(message: &Aggregated) -> Bytes {
    let body = message.encode_to_vec();
    let digest = Md5::digest(&body);
    [&MAGIC[..], &body, &digest[..]].concat().into()
}

/// The user records of a record, without those of other shards; nothing if it is an ordinary one.
pub(super) fn user_records(data: &Bytes, hash_keys: &RangeInclusive<u128>) -> Option<Vec<UserRecord>> {
    let body = data.strip_prefix(&MAGIC)?;
    let (_, digest) = body.split_at_checked(body.len().checked_sub(DIGEST_BYTES)?)?;
    let message = data.slice(MAGIC.len()..data.len() - DIGEST_BYTES);
    if Md5::digest(&message)[..] != *digest {
        return None;
    }
    let Aggregated { partition_keys, explicit_hash_keys, records } = Aggregated::decode(message).ok()?;
    let mut found = Vec::with_capacity(records.len());
    for (number, Inner { partition_key, explicit_hash_key, data, tags }) in (0..).zip(records) {
        let partition_key = partition_keys.get(usize::try_from(partition_key).ok()?)?;
        let hash_key = match explicit_hash_key {
            Some(index) => explicit_hash_keys.get(usize::try_from(index).ok()?)?.parse().ok()?,
            None => hash_key(partition_key),
        };
        if hash_keys.contains(&hash_key) {
            let id = tags.into_iter().find(|tag| tag.key == ID_TAG).and_then(|tag| tag.value);
            found.push(UserRecord { number, partition_key: partition_key.clone(), data, id });
        }
    }
    Some(found)
}

/// The number by which a record's shard is found: the MD5 of its partition key.
pub(super) fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const ALL: RangeInclusive<u128> = 0..=u128::MAX;

    fn inner(partition_key: u64, data: &'static str) -> Inner {
        Inner { partition_key, explicit_hash_key: None, data: data.into(), tags: Vec::new() }
    }

    #[test]
    fn an_id_is_beside_the_record_and_the_shard_is_that_of_its_keys() {
        let half = 1_u128 << 127;
        for (explicit, range) in [(None, half..=u128::MAX), (Some("5"), 0..=half - 1)] {
            let record = with_id("order-7".into(), "partitionkey", explicit, b"x".to_vec());
            let found = user_records(&record, &range).unwrap();
            let expected = UserRecord {
                number: 0,
                partition_key: "partitionkey".into(),
                data: Bytes::from_static(b"x"),
                id: Some("order-7".into()),
            };
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn a_known_record_is_taken_apart() {
        // As the library writes it: field 1 "a", field 3 { 1: 0, 3: "x" }, field 3 { 1: 0, 3: "y" }.
        let body = b"\x0a\x01a\x1a\x05\x08\x00\x1a\x01x\x1a\x05\x08\x00\x1a\x01y";
        let record: Bytes = [&MAGIC[..], body, &Md5::digest(body)[..]].concat().into();
        let found = user_records(&record, &ALL).unwrap();
        let shown: Vec<_> =
            found.iter().map(|record| (record.number, &*record.partition_key, &record.data[..])).collect();
        assert_eq!(shown, [(0, "a", &b"x"[..]), (1, "a", &b"y"[..])]);
    }

    #[test]
    fn records_of_other_shards_are_left_out() {
        // The constant key of the samples is in the upper half, and the explicit one in the lower.
        let message = Aggregated {
            partition_keys: vec!["partitionkey".into()],
            explicit_hash_keys: vec!["5".into()],
            records: vec![inner(0, "high"), Inner { explicit_hash_key: Some(0), ..inner(0, "low") }],
        };
        assert_eq!(hash_key("partitionkey"), 0xd1da_5603_cbb7_4ce1_6070_cd2d_9c84_faf5);
        let half = 1_u128 << 127;
        for (range, expected) in [(half..=u128::MAX, (0, "high")), (0..=half - 1, (1, "low"))] {
            let found = user_records(&framed(&message), &range).unwrap();
            let shown: Vec<_> = found.iter().map(|record| (record.number, &record.data[..])).collect();
            assert_eq!(shown, [(expected.0, expected.1.as_bytes())]);
        }
    }

    #[test]
    fn what_is_damaged_is_an_ordinary_record() {
        let whole = framed(&Aggregated { records: vec![inner(0, "x")], ..Aggregated::default() });
        assert_eq!(user_records(&whole, &ALL), None, "there is no such partition key");
        let message = Aggregated {
            partition_keys: vec!["a".into()],
            records: vec![inner(0, "x")],
            ..Aggregated::default()
        };
        let whole = framed(&message);
        assert!(user_records(&whole, &ALL).is_some());
        let mut flipped = whole.to_vec();
        flipped[6] ^= 1;
        for data in
            [flipped.into(), whole.slice(..whole.len() - 1), whole.slice(..8), Bytes::from_static(b"{}")]
        {
            assert_eq!(user_records(&data, &ALL), None, "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fail(mut data: Vec<u8>, has_magic: bool, has_digest: bool) {
            if has_digest {
                let digest = Md5::digest(&data);
                data.extend_from_slice(&digest[..]);
            }
            if has_magic {
                data.splice(0..0, MAGIC);
            }
            let _ = user_records(&data.into(), &ALL);
        }
    }
}
