//! Shards, and how far they are read: the splits of a Kinesis source.

use std::fmt;
use std::ops::RangeInclusive;

use thalweg_common::Record;
use thalweg_runtime::split::SourceSplit;

use super::position::Position;
use super::seen::Remembered;

/// A shard of a stream.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(super) struct Shard {
    pub(super) stream: String,
    /// As `shardId-000000000007`.
    pub(super) id: String,
    /// Those that were split or merged into it, by their ids.
    pub(super) parents: Vec<String>,
    /// The hash keys of its records, as decimal numbers.
    pub(super) first_hash_key: String,
    pub(super) last_hash_key: String,
    pub(super) first_sequence_number: String,
}

impl Shard {
    /// The id of its split.
    pub(super) fn split_id(&self) -> String {
        format!("{}/{}", self.stream, self.id)
    }

    /// The hash keys of its records; all if they cannot be read.
    pub(super) fn hash_keys(&self) -> RangeInclusive<u128> {
        self.first_hash_key.parse().unwrap_or(0)..=self.last_hash_key.parse().unwrap_or(u128::MAX)
    }
}

impl fmt::Display for Shard {
    /// As Flink's `StreamShardHandle`, which queries over logs look for.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, id, parents, first_hash_key, last_hash_key, first_sequence_number } = self;
        write!(formatter, "StreamShardHandle{{streamName='{stream}', shard='{{ShardId: {id},")?;
        for (name, parent) in ["ParentShardId", "AdjacentParentShardId"].iter().zip(parents) {
            write!(formatter, "{name}: {parent},")?;
        }
        write!(
            formatter,
            "HashKeyRange: {{StartingHashKey: {first_hash_key},EndingHashKey: {last_hash_key}}},SequenceNumberRange: \
             {{StartingSequenceNumber: {first_sequence_number},}}}}'}}"
        )
    }
}

/// A shard, and how far it is read.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct ShardSplit {
    pub(super) shard: Shard,
    pub(super) position: Position,
    /// Whether it came about while the source ran.
    pub(super) is_discovered: bool,
    /// The ids behind the position, in a source that de-duplicates; nothing before it was asked what the shards before it have.
    pub(super) seen: Option<Vec<Remembered>>,
}

impl SourceSplit for ShardSplit {
    fn split_id(&self) -> String {
        self.shard.split_id()
    }

    /// Flink's rule, so that who reads which shard is as it was there, and the same in every attempt.
    fn pin(&self) -> Option<u32> {
        // `abs(hash % parallelism)` of Java, whose remainder has the sign of the hash.
        Some(java_hash_of_shard(&self.shard.stream, &self.shard.id).unsigned_abs())
    }
}

/// `StreamShardHandle.hashCode()`.
fn java_hash_of_shard(stream: &str, id: &str) -> i32 {
    let hash = 17_i32.wrapping_mul(37).wrapping_add(java_hash(stream));
    hash.wrapping_mul(37).wrapping_add(java_hash(id))
}

/// `String.hashCode()` of Java: over UTF-16.
pub(super) fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(number: u32) -> ShardSplit {
        let shard = Shard {
            stream: "hp-16".into(),
            id: format!("shardId-{number:012}"),
            parents: vec!["shardId-000000000001".into()],
            first_hash_key: "0".into(),
            last_hash_key: "9".into(),
            first_sequence_number: "49".into(),
        };
        ShardSplit { shard, position: Position::TrimHorizon, is_discovered: false, seen: None }
    }

    #[test]
    fn idle_shard_example_has_the_subtasks_of_the_guide() {
        let expected: [&[u32]; 8] =
            [&[1, 9, 12], &[2, 13], &[3, 14], &[4, 15], &[5], &[6], &[7, 10], &[0, 8, 11]];
        for (subtask, shards) in (0..).zip(expected) {
            let mine = (0..16).filter(|number| split(*number).pin().map(|pin| pin % 8) == Some(subtask));
            assert_eq!(mine.collect::<Vec<_>>(), shards, "subtask {subtask}");
        }
    }

    #[test]
    fn hashes_of_texts_are_those_of_java() {
        for (text, hash) in [
            ("\"AAPL\",2\n", 209_386_016),
            ("\"AMZN\",1\n", -1_737_333_179),
            ("\"AAPL\":10.00\n", -381_653_167),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }

    #[test]
    fn a_shard_is_shown_as_flink_shows_it() {
        assert_eq!(
            split(7).shard.to_string(),
            "StreamShardHandle{streamName='hp-16', shard='{ShardId: shardId-000000000007,ParentShardId: shardId-000000000001,\
             HashKeyRange: {StartingHashKey: 0,EndingHashKey: 9},SequenceNumberRange: {StartingSequenceNumber: 49,}}'}"
        );
    }
}
