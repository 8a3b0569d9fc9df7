//! Where in a shard to read, and how that is written in checkpoints and logs.

use std::fmt;

use thalweg_common::{Record, Timestamp};

/// Where a source begins that has no checkpoint: Flink's `flink.stream.initpos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialPosition {
    /// With what arrives from now on.
    Latest,
    /// With the oldest records that the stream still has.
    TrimHorizon,
    /// With what arrived at this time or later, in milliseconds since the epoch.
    AtTimestamp(Timestamp),
}

/// Behind which record of a shard the next one is.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(super) enum Position {
    /// With the oldest record.
    TrimHorizon,
    /// With what arrived since the source began. A time, and not what is latest when somebody reads: a source that is restored before its
    /// first record must not lose what came meanwhile.
    Latest { since_ms: Timestamp },
    /// With what arrived at this time or later.
    AtTimestamp { at_ms: Timestamp },
    /// Behind this record.
    After { sequence_number: String },
    /// Behind this one of the user records that are aggregated in a record, counted from 0.
    Within { sequence_number: String, user_record: u64 },
}

impl InitialPosition {
    /// In a shard that is there when a source begins.
    pub(super) fn position(self, now_ms: Timestamp) -> Position {
        match self {
            Self::Latest => Position::Latest { since_ms: now_ms },
            Self::TrimHorizon => Position::TrimHorizon,
            Self::AtTimestamp(at_ms) => Position::AtTimestamp { at_ms },
        }
    }
}

impl fmt::Display for Position {
    /// As Flink's consumer writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => formatter.write_str("EARLIEST_SEQUENCE_NUM"),
            Self::Latest { .. } => formatter.write_str("LATEST_SEQUENCE_NUM"),
            Self::AtTimestamp { .. } => formatter.write_str("AT_TIMESTAMP_SEQUENCE_NUM"),
            Self::After { sequence_number } => formatter.write_str(sequence_number),
            Self::Within { sequence_number, user_record } => {
                write!(formatter, "{sequence_number}:{user_record}")
            }
        }
    }
}
