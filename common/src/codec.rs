//! Compact binary form of serde types: control messages, checkpoint metadata, Raft entries.
//!
//! The one place that knows bincode, so that it can be replaced. The format is bincode 2 with fixed-width little-endian
//! integers, the same bytes that a [`Record`](crate::record::Record) has. Records themselves do not pass through here.

use bincode::config::{Configuration, Fixint, LittleEndian, NoLimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest value in fewer bytes than that: damaged bytes that announce more are refused before anything is reserved for them.
const MAX_VALUE_BYTES: usize = 1 << 30;

/// The largest value of all, such as the snapshot of a task whose state is in memory.
const MAX_LARGE_VALUE_BYTES: usize = 1 << 40;

const FORMAT: Configuration<LittleEndian, Fixint, NoLimit> =
    bincode::config::standard().with_fixed_int_encoding();

/// Bytes that are not a valid value, or a value that has no binary form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The value cannot be written, for example a sequence of unknown length.
    #[error("cannot encode {type_name}: {reason}")]
    Encode {
        /// The Rust type.
        type_name: &'static str,
        /// What the format says.
        reason: String,
    },
    /// The bytes are truncated, corrupt, or of another type.
    #[error("cannot decode {type_name}: {reason}; the bytes are damaged or were written by another version")]
    Decode {
        /// The Rust type.
        type_name: &'static str,
        /// What the format says.
        reason: String,
    },
}

/// Encodes `value` into a new buffer.
///
/// # Errors
/// When serde refuses the value.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, FORMAT).map_err(|error| CodecError::Encode {
        type_name: std::any::type_name::<T>(),
        reason: error.to_string(),
    })
}

/// Appends the encoding of `value` to `out`.
///
/// # Errors
/// When serde refuses the value; `out` may then hold a part of it.
pub fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, out, FORMAT).map(|_| ()).map_err(|error| {
        CodecError::Encode { type_name: std::any::type_name::<T>(), reason: error.to_string() }
    })
}

/// Decodes a value that fills `bytes` exactly.
///
/// # Errors
/// When the bytes are not the encoding of a `T`, or more follow it.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = bytes;
    let value = take(&mut rest)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        let reason = format!("{} bytes follow the value", rest.len());
        Err(CodecError::Decode { type_name: std::any::type_name::<T>(), reason })
    }
}

/// Decodes a value from the front of `bytes` and moves past it.
///
/// # Errors
/// When the bytes do not start with the encoding of a `T`.
pub fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, CodecError> {
    take_within::<T, MAX_VALUE_BYTES, MAX_LARGE_VALUE_BYTES>(bytes)
}

/// The same with the two limits: what has fewer bytes than the first one does not announce more.
fn take_within<T: DeserializeOwned, const LIMIT: usize, const LARGE: usize>(
    bytes: &mut &[u8],
) -> Result<T, CodecError> {
    let decoded = if bytes.len() < LIMIT {
        bincode::serde::decode_from_slice(bytes, FORMAT.with_limit::<LIMIT>())
    } else {
        bincode::serde::decode_from_slice(bytes, FORMAT.with_limit::<LARGE>())
    };
    let (value, used) = decoded.map_err(|error| CodecError::Decode {
        type_name: std::any::type_name::<T>(),
        reason: error.to_string(),
    })?;
    *bytes = bytes.get(used..).unwrap_or_default();
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn values_survive() {
        let value: BTreeMap<String, Vec<u32>> =
            BTreeMap::from([("a".into(), vec![1, 2]), ("b".into(), vec![])]);
        let bytes = to_bytes(&value).expect("encodes");
        assert_eq!(from_bytes::<BTreeMap<String, Vec<u32>>>(&bytes), Ok(value));
    }

    #[test]
    fn what_is_larger_than_a_limit_comes_back_and_what_only_says_so_does_not() {
        let take = |mut bytes: &[u8]| take_within::<Vec<u64>, 1000, 100_000>(&mut bytes);
        for numbers in [10, 1_000] {
            let value: Vec<u64> = (0..numbers).collect();
            let mut bytes = to_bytes(&value).expect("encodes");
            assert_eq!(take(&bytes), Ok(value));
            bytes[4] = 1; // 2^32 more of them
            assert!(take(&bytes).is_err(), "{numbers}");
        }
    }

    #[test]
    fn truncated_and_trailing_bytes_are_errors() {
        let bytes = to_bytes(&7u64).expect("encodes");
        assert!(from_bytes::<u64>(&bytes[..7]).is_err());
        assert!(from_bytes::<u32>(&bytes).is_err());
        assert!(from_bytes::<String>(&[255; 9]).is_err());
    }
}
