//! Records that hold many others: lists, sets and maps, each behind its length.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use bytes::Bytes;

use super::{DecodeError, Record, put_length, take_length};
use crate::schema::Schema;

impl<T: Record> Record for Vec<T> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        T::encode_all(self, out);
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length::<Self>(bytes, 0)?;
        T::decode_all(length, bytes)
    }

    fn schema() -> Schema {
        Schema::List(Box::new(T::schema()))
    }
}

/// Bytes that many records may share. Encoded as a `Vec<u8>`; a copy of such a record costs no copy of its bytes.
impl Record for Bytes {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self);
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Vec::decode(bytes).map(Self::from)
    }

    fn schema() -> Schema {
        Vec::<u8>::schema()
    }
}

macro_rules! sequence {
    ($($collection:ident [$($bound:ident),*]),*) => {$(
        impl<T: Record $(+ $bound)*> Record for $collection<T> {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                put_length(self.len(), out);
                self.iter().for_each(|element| element.encode(out));
            }

            #[inline]
            fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                // An element may take no bytes, so the announced length must not reserve memory by itself.
                let length = take_length::<Self>(bytes, 0)?;
                (0..length).map(|_| T::decode(bytes)).collect()
            }

            fn schema() -> Schema {
                Schema::List(Box::new(T::schema()))
            }
        }
    )*};
}

sequence!(VecDeque[], BTreeSet[Ord]);

impl<T: Record + Eq + Hash, S: BuildHasher + Default + Clone + Send + Sync + 'static> Record
    for HashSet<T, S>
{
    fn encode(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        self.iter().for_each(|element| element.encode(out));
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length::<Self>(bytes, 0)?;
        (0..length).map(|_| T::decode(bytes)).collect()
    }

    fn schema() -> Schema {
        Schema::List(Box::new(T::schema()))
    }
}

impl<K: Record + Ord, V: Record> Record for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length::<Self>(bytes, 0)?;
        (0..length).map(|_| Ok((K::decode(bytes)?, V::decode(bytes)?))).collect()
    }

    fn schema() -> Schema {
        Schema::Map(Box::new(K::schema()), Box::new(V::schema()))
    }
}

impl<K: Record + Eq + Hash, V: Record, S> Record for HashMap<K, V, S>
where
    S: BuildHasher + Default + Clone + Send + Sync + 'static,
{
    fn encode(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length::<Self>(bytes, 0)?;
        (0..length).map(|_| Ok((K::decode(bytes)?, V::decode(bytes)?))).collect()
    }

    fn schema() -> Schema {
        Schema::Map(Box::new(K::schema()), Box::new(V::schema()))
    }
}
