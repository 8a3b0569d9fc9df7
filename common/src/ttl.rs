//! How long the values of a state live.
//!
//! Stands in the plan beside the schema of a state, so that everything which meets its values knows: the tables of a task, the files
//! behind them, savepoints. A value that does not live for ever is stored as [`Expiring`], with the time at which its life began in
//! front of it. Time is processing time. Pure: whoever asks brings the time.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::record::{DecodeError, Record};
use crate::schema::{Field, Schema};

/// Bytes in front of a value that say since when it lives.
pub const STAMP_BYTES: usize = size_of::<Timestamp>();

/// How long the values of a state live: each value of a value state and each entry of a map state by itself.
///
/// ```
/// use std::time::Duration;
/// use thalweg_common::ttl::{StateTtl, TtlUpdate};
///
/// let ttl = StateTtl::new(Duration::from_secs(3_600)).updated(TtlUpdate::OnReadAndWrite);
/// assert!(!ttl.is_over(1_000, 3_600_999));
/// assert!(ttl.is_over(1_000, 3_601_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateTtl {
    /// How long a value lives from its last update, in milliseconds.
    pub ttl_ms: u64,
    /// What begins the life of a value anew.
    pub update: TtlUpdate,
    /// What is seen of values whose life is over.
    pub visibility: TtlVisibility,
}

/// What begins the life of a value anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtlUpdate {
    /// When it is created, set or changed.
    #[default]
    OnCreateAndWrite,
    /// Also when it is read.
    OnReadAndWrite,
}

/// What is seen of values whose life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtlVisibility {
    /// Nothing.
    #[default]
    NeverReturnExpired,
    /// They are seen until they are cleaned up, some time later.
    ReturnExpiredIfNotCleanedUp,
}

impl StateTtl {
    /// Values live this long, at least a millisecond, from when they were written. Afterwards they are never seen.
    #[must_use]
    pub fn new(ttl: std::time::Duration) -> Self {
        Self {
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1),
            update: TtlUpdate::default(),
            visibility: TtlVisibility::default(),
        }
    }

    /// The same with another answer to what begins a life anew.
    #[must_use]
    pub fn updated(self, update: TtlUpdate) -> Self {
        Self { update, ..self }
    }

    /// The same with another answer to what is seen of values whose life is over.
    #[must_use]
    pub fn visible(self, visibility: TtlVisibility) -> Self {
        Self { visibility, ..self }
    }

    /// Whether the life of a value that began at `since_ms` is over.
    #[inline]
    #[must_use]
    pub fn is_over(self, since_ms: Timestamp, now_ms: Timestamp) -> bool {
        since_ms.saturating_add_unsigned(self.ttl_ms) <= now_ms
    }

    /// Whether the life of a value is over of which these are the stored bytes.
    #[must_use]
    pub fn is_over_stored(self, stored: &[u8], now_ms: Timestamp) -> bool {
        stored.first_chunk().is_some_and(|stamp| self.is_over(Timestamp::from_le_bytes(*stamp), now_ms))
    }
}

impl From<std::time::Duration> for StateTtl {
    fn from(ttl: std::time::Duration) -> Self {
        Self::new(ttl)
    }
}

/// A value and since when it lives, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Expiring<T> {
    /// When its life began: with its last update.
    pub since_ms: Timestamp,
    /// The value.
    pub value: T,
}

impl<T: Record> Record for Expiring<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.since_ms.encode(out);
        self.value.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { since_ms: Timestamp::decode(bytes)?, value: T::decode(bytes)? })
    }

    fn schema() -> Schema {
        let value = T::schema();
        let name = format!("Expiring<{value}>");
        let fields = vec![Field::new("since_ms", Timestamp::schema()), Field::new("value", value)];
        Schema::Struct { name, fields }
    }
}

/// The schema of the values in the schema of [`Expiring`] ones.
pub(crate) fn value_of(expiring: &Schema) -> Option<&Schema> {
    match expiring {
        Schema::Struct { fields, .. } => match fields.as_slice() {
            [since, value] if since.schema == Timestamp::schema() => Some(&value.schema),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::time::Duration;

    #[test]
    fn a_life_ends_exactly_when_its_time_is_over() {
        let ttl = StateTtl::new(Duration::from_millis(10));
        for (since, now, is_over) in
            [(5, 14, false), (5, 15, true), (5, 16, true), (20, 5, false), (i64::MAX, i64::MAX - 1, false)]
        {
            assert_eq!(ttl.is_over(since, now), is_over, "{since} {now}");
        }
        assert_eq!(StateTtl::new(Duration::ZERO).ttl_ms, 1);
        assert!(!StateTtl::new(Duration::MAX).is_over(0, i64::MAX - 1), "it lives for ever");
    }

    #[test]
    fn the_stamp_lies_in_front_of_the_value() {
        let ttl = StateTtl::from(Duration::from_secs(1));
        let mut bytes = Vec::new();
        Expiring { since_ms: 7_000, value: 3_u16 }.encode(&mut bytes);
        assert_eq!(bytes.len(), STAMP_BYTES + 2);
        assert_eq!((ttl.is_over_stored(&bytes, 7_999), ttl.is_over_stored(&bytes, 8_000)), (false, true));
        assert!(
            !ttl.is_over_stored(&bytes[..7], i64::MAX),
            "what has no stamp is left to whoever decodes it"
        );
        assert_eq!(Expiring::<u16>::decode(&mut bytes.as_slice()).unwrap().value, 3);
        assert_eq!(value_of(&Expiring::<u16>::schema()), Some(&u16::schema()));
        assert_eq!(value_of(&u16::schema()), None);
    }
}
