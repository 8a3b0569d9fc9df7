//! Records: what flows through a job and what its keyed state holds.
//!
//! A record is written once when it leaves its process and read once when it arrives; inside a process it moves as it is.
//! The encoding is fixed-width and little-endian, the same bytes as bincode 2 with fixed-width integers, written by
//! plain code that `#[derive(Record)]` generates, because this loop runs for every record of every remote channel.
//!
//! ```
//! use thalweg_common::{Record, record::Record as _};
//!
//! #[derive(Record, Clone, Debug, PartialEq)]
//! #[record(crate = thalweg_common)] // not needed in a job, which has `thalweg`
//! struct Trade { ticker: String, price: f64 }
//!
//! let trade = Trade { ticker: "AMZN".into(), price: 1.5 };
//! let mut bytes = Vec::new();
//! trade.encode(&mut bytes);
//! assert_eq!(Trade::decode(&mut bytes.as_slice()).unwrap(), trade);
//! ```

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec;
use crate::schema::Schema;

mod collections;

/// Bytes that are not the encoding of the record type that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {type_name}: {reason}")]
pub struct DecodeError {
    type_name: &'static str,
    reason: String,
}

impl DecodeError {
    /// An error that names the Rust type `T`.
    pub fn new<T>(reason: impl Into<String>) -> Self {
        Self { type_name: std::any::type_name::<T>(), reason: reason.into() }
    }

    /// The number of an enum's variant is none that `T` has.
    pub fn unknown_variant<T>(variant: u32) -> Self {
        Self::new::<T>(format!("it has no variant {variant}"))
    }
}

impl From<DecodeError> for crate::failure::Failure {
    fn from(error: DecodeError) -> Self {
        Self::internal(error.to_string())
    }
}

/// A type whose values flow between operators and live in state.
///
/// Derive it. For a type of another crate that has serde, wrap it in [`Serde`], or mark the field `#[record(serde)]`.
pub trait Record: Clone + Send + Sync + 'static {
    /// Appends this value's encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value from the front of `bytes` and moves past it.
    ///
    /// # Errors
    /// When the bytes are truncated or are not an encoding of this type.
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError>;

    /// The structure of this type, for the plan. A type that contains itself has none: wrap it in [`Serde`].
    fn schema() -> Schema;

    /// Appends the encodings of many values, one behind the other. A type whose values are all bits encodes them at once.
    #[doc(hidden)]
    #[inline]
    fn encode_all(values: &[Self], out: &mut Vec<u8>) {
        values.iter().for_each(|value| value.encode(out));
    }

    /// Reads `length` values from the front of `bytes`: the reverse of [`encode_all`](Self::encode_all). Takes no memory for
    /// which there are no bytes.
    #[doc(hidden)]
    #[inline]
    fn decode_all(length: usize, bytes: &mut &[u8]) -> Result<Vec<Self>, DecodeError> {
        // A value may take no bytes, so the announced length must not reserve memory by itself.
        (0..length).map(|_| Self::decode(bytes)).collect()
    }

    /// Reads `N` values from the front of `bytes`.
    #[doc(hidden)]
    #[inline]
    fn decode_array<const N: usize>(bytes: &mut &[u8]) -> Result<[Self; N], DecodeError> {
        let mut outcome = Ok(());
        let values: [Option<Self>; N] = std::array::from_fn(|_| {
            if outcome.is_err() {
                return None;
            }
            Self::decode(bytes).map_err(|error| outcome = Err(error)).ok()
        });
        outcome.map(|()| values.map(|value| value.expect("every value was decoded")))
    }

    /// The hash of this value as a key: xxh3 of its encoding, never anything else, because it decides where state lives.
    /// A type of fixed width may leave out the way through `scratch`; everything else keeps this.
    #[inline]
    fn key_hash(&self, scratch: &mut Vec<u8>) -> u64 {
        scratch.clear();
        self.encode(scratch);
        xxh3_64(scratch)
    }
}

/// Takes `N` bytes from the front.
#[inline]
fn take<T, const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    match bytes.split_first_chunk::<N>() {
        Some((head, rest)) => {
            *bytes = rest;
            Ok(*head)
        }
        None => Err(DecodeError::new::<T>(format!("{N} bytes expected, {} left", bytes.len()))),
    }
}

/// Takes the bytes of `length` values of the type `T`, which have `size` bytes each.
#[inline]
fn take_many<'a, T>(length: usize, size: usize, bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    match length.checked_mul(size).and_then(|needed| bytes.split_at_checked(needed)) {
        Some((values, rest)) => {
            *bytes = rest;
            Ok(values)
        }
        None => Err(DecodeError::new::<T>(format!(
            "{length} values of {size} bytes expected, {} bytes left",
            bytes.len()
        ))),
    }
}

/// Takes the length of a sequence whose elements need at least `element` bytes each, and checks that they can be there.
#[inline]
fn take_length<T>(bytes: &mut &[u8], element: usize) -> Result<usize, DecodeError> {
    let length = u64::from_le_bytes(take::<T, 8>(bytes)?);
    match usize::try_from(length) {
        Ok(length) if length.saturating_mul(element) <= bytes.len() => Ok(length),
        _ => Err(DecodeError::new::<T>(format!("{length} elements announced, {} bytes left", bytes.len()))),
    }
}

#[inline]
fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

/// Numbers are encoded and decoded many at a time, in loops that have no branch inside.
macro_rules! many_numbers {
    (u8) => {
        #[inline]
        fn encode_all(values: &[Self], out: &mut Vec<u8>) {
            out.extend_from_slice(values);
        }

        #[inline]
        fn decode_all(length: usize, bytes: &mut &[u8]) -> Result<Vec<Self>, DecodeError> {
            take_many::<Self>(length, 1, bytes).map(<[u8]>::to_vec)
        }

        #[inline]
        fn decode_array<const N: usize>(bytes: &mut &[u8]) -> Result<[Self; N], DecodeError> {
            take::<[Self; N], N>(bytes)
        }
    };
    ($type:ident) => {
        #[inline]
        fn encode_all(values: &[Self], out: &mut Vec<u8>) {
            let start = out.len();
            out.resize(start + size_of_val(values), 0);
            let (places, _) = out[start..].as_chunks_mut::<{ size_of::<$type>() }>();
            places.iter_mut().zip(values).for_each(|(place, value)| *place = value.to_le_bytes());
        }

        #[inline]
        fn decode_all(length: usize, bytes: &mut &[u8]) -> Result<Vec<Self>, DecodeError> {
            let taken = take_many::<Self>(length, size_of::<$type>(), bytes)?;
            let (values, _) = taken.as_chunks();
            Ok(values.iter().map(|value| Self::from_le_bytes(*value)).collect())
        }

        #[inline]
        fn decode_array<const N: usize>(bytes: &mut &[u8]) -> Result<[Self; N], DecodeError> {
            let (values, _) = take_many::<Self>(N, size_of::<$type>(), bytes)?.as_chunks();
            Ok(std::array::from_fn(|at| Self::from_le_bytes(values[at])))
        }
    };
}

macro_rules! number {
    ($($type:ident),*) => {$(
        impl Record for $type {
            many_numbers! { $type }

            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                Ok(Self::from_le_bytes(take::<Self, { size_of::<$type>() }>(bytes)?))
            }

            fn schema() -> Schema {
                Schema::primitive(stringify!($type))
            }

            #[inline]
            fn key_hash(&self, _scratch: &mut Vec<u8>) -> u64 {
                xxh3_64(&self.to_le_bytes())
            }
        }
    )*};
}

number!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

impl Record for usize {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        (*self as u64).encode(out);
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Self::try_from(u64::decode(bytes)?).map_err(|error| DecodeError::new::<Self>(error.to_string()))
    }

    fn schema() -> Schema {
        u64::schema()
    }
}

impl Record for bool {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        match take::<Self, 1>(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(DecodeError::new::<Self>(format!("{other} is neither 0 nor 1"))),
        }
    }

    fn schema() -> Schema {
        Schema::primitive("bool")
    }
}

impl Record for char {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode(out);
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let code = u32::decode(bytes)?;
        Self::from_u32(code).ok_or_else(|| DecodeError::new::<Self>(format!("{code} is no character")))
    }

    fn schema() -> Schema {
        Schema::primitive("char")
    }
}

impl Record for String {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length::<Self>(bytes, 1)?;
        let (text, rest) = bytes.split_at(length);
        let text = std::str::from_utf8(text).map_err(|error| DecodeError::new::<Self>(error.to_string()))?;
        *bytes = rest;
        Ok(text.to_string())
    }

    fn schema() -> Schema {
        Schema::primitive("string")
    }
}

impl Record for () {
    #[inline]
    fn encode(&self, _out: &mut Vec<u8>) {}

    #[inline]
    fn decode(_bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(())
    }

    fn schema() -> Schema {
        Schema::Tuple(Vec::new())
    }
}

impl<T: Record> Record for Option<T> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        if bool::decode(bytes)? { T::decode(bytes).map(Some) } else { Ok(None) }
    }

    fn schema() -> Schema {
        Schema::Option(Box::new(T::schema()))
    }
}

macro_rules! pointer {
    ($($pointer:ident),*) => {$(
        impl<T: Record> Record for $pointer<T> {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                (**self).encode(out);
            }

            #[inline]
            fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                T::decode(bytes).map($pointer::new)
            }

            fn schema() -> Schema {
                T::schema()
            }
        }
    )*};
}

pointer!(Box, Arc);

impl<T: Record, const N: usize> Record for [T; N] {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode_all(self, out);
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        T::decode_array(bytes)
    }

    fn schema() -> Schema {
        Schema::Tuple(vec![T::schema(); N])
    }
}

macro_rules! tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Record),+> Record for ($($name,)+) {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode(out);)+
            }

            #[inline(always)]
            fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                Ok(($($name::decode(bytes)?,)+))
            }

            fn schema() -> Schema {
                Schema::Tuple(vec![$($name::schema()),+])
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

/// Makes a record of any type that has serde.
///
/// The value is preceded by its length, so that a damaged one is found. Slower than a derived record.
///
/// ```
/// use thalweg_common::record::{Record, Serde};
///
/// let uri = Serde(std::net::IpAddr::from([127, 0, 0, 1]));
/// let mut bytes = Vec::new();
/// uri.encode(&mut bytes);
/// assert_eq!(Serde::<std::net::IpAddr>::decode(&mut bytes.as_slice()).unwrap(), uri);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Serde<T>(pub T);

impl<T> Deref for Serde<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Serde<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Serde<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Record for Serde<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_serde(&self.0, out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        decode_serde(bytes).map(Self)
    }

    fn schema() -> Schema {
        serde_schema::<T>()
    }
}

/// Encodes a field marked `#[record(serde)]`.
///
/// A type that bincode cannot write (one that needs a self-describing format) is written as an error marker; its reader
/// gets a [`DecodeError`] that names the type, so that the fault surfaces as a failure of the task.
#[doc(hidden)]
pub fn encode_serde<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    put_length(0, out);
    let length = match codec::append(value, out) {
        Ok(()) => (out.len() - start - 8) as u64,
        Err(_) => {
            out.truncate(start + 8);
            u64::MAX
        }
    };
    if let Some(head) = out.get_mut(start..start + 8) {
        head.copy_from_slice(&length.to_le_bytes());
    }
}

/// Decodes a field marked `#[record(serde)]`.
#[doc(hidden)]
pub fn decode_serde<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
    if bytes.starts_with(&u64::MAX.to_le_bytes()) {
        return Err(DecodeError::new::<T>("its serde implementation cannot write a compact binary form"));
    }
    let length = take_length::<T>(bytes, 1)?;
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    codec::from_bytes(value).map_err(|error| DecodeError::new::<T>(error.to_string()))
}

/// The schema of a field marked `#[record(serde)]`.
#[doc(hidden)]
pub fn serde_schema<T>() -> Schema {
    Schema::Opaque(std::any::type_name::<T>().to_string())
}

#[cfg(test)]
mod tests;
