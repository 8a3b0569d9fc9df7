//! The snapshot of one state: its entries by key group, with what is needed to know whether a program can read them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::KeyGroup;
use thalweg_common::schema::Schema;

/// One state of one subtask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateSnapshot {
    /// As the program that wrote it declared it.
    pub descriptor: StateDescriptor,
    /// The type of the operator's keys.
    pub key_schema: Schema,
    /// Only groups that have entries.
    pub groups: BTreeMap<KeyGroup, Entries>,
}

/// The entries of one key group: for a value state key and value in turn, for a map state key, map key and map value in
/// turn, each in its record encoding, in no particular order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Entries(pub Vec<u8>);

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

// By hand, so that they are copied as one block and not byte by byte.
impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = sequence.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }

        deserializer.deserialize_byte_buf(Bytes).map(Self)
    }
}
