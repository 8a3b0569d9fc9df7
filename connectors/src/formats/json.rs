//! JSON: of types that serde knows, or of any shape; parsed with SIMD instructions.
//!
//! A field that is missing is `None` where the type says `Option`, and a bad record elsewhere. Timestamps in text are fields of the
//! type [`DateTime`](super::timestamp::DateTime) or have an attribute: see [`timestamp`](super::timestamp).

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::Schema;
use thalweg_runtime::batch::Batch;

use super::{Decoder, Encoder, Malformed};

/// JSON of records of `T`; with [`JsonValue`] of any shape. What is written has no line breaks.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use thalweg_common::Record;
/// use thalweg_connectors::formats::timestamp::{self, DateTime};
/// use thalweg_connectors::formats::{Decoder, Encoder, Json};
/// use thalweg_runtime::batch::Batch;
///
/// #[derive(Record, Serialize, Deserialize, Clone)]
/// # #[record(crate = thalweg_common)]
/// struct Stock {
///     ticker: String,
///     price: Option<f64>,
///     #[serde(with = "timestamp::iso8601")]
///     event_time: DateTime,
/// }
///
/// let text = r#"{"event_time":"2024-01-01T12:00:09.999123","ticker":"AAPL","price":8.0}"#;
/// let (mut json, mut read, mut written) = (Json::<Stock>::new(), Batch::default(), Vec::new());
/// json.decode(text.as_bytes(), &mut read)?;
/// json.encode(&read.records()[0], &mut written)?;
/// assert_eq!(written, br#"{"ticker":"AAPL","price":8.0,"event_time":"2024-01-01T12:00:09.999123"}"#);
/// # Ok::<(), thalweg_connectors::formats::Malformed>(())
/// ```
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// The format.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Json<{}>", std::any::type_name::<T>())
    }
}

impl<T: Record + DeserializeOwned> Decoder for Json<T> {
    type Out = T;

    fn decode(&mut self, message: &[u8], out: &mut Batch<T>) -> Result<(), Malformed> {
        out.push(sonic_rs::from_slice(message).map_err(Malformed::new)?);
        Ok(())
    }
}

impl<T: 'static, R: Serialize> Encoder<R> for Json<T> {
    fn encode(&mut self, record: &R, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let begin = out.len();
        sonic_rs::to_writer(&mut *out, record).map_err(|error| {
            out.truncate(begin);
            Malformed::new(error)
        })
    }
}

/// JSON of any shape, as a record: for streams whose fields are not known beforehand.
///
/// ```
/// use thalweg_connectors::formats::{Decoder, Json, JsonValue};
/// use thalweg_runtime::batch::Batch;
///
/// let mut read = Batch::default();
/// Json::<JsonValue>::new().decode(br#"{"TICKER": "AAPL", "PRICE": 1}"#, &mut read)?;
/// let JsonValue(stock) = &read.records()[0];
/// assert_eq!(stock["TICKER"], "AAPL");
/// # Ok::<(), thalweg_connectors::formats::Malformed>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonValue(pub serde_json::Value);

/// In state and between workers it is the text.
impl Record for JsonValue {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.to_string().encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let text = String::decode(bytes)?;
        serde_json::from_str(&text).map(Self).map_err(|error| DecodeError::new::<Self>(error.to_string()))
    }

    fn schema() -> Schema {
        Schema::Opaque("JSON".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use thalweg_common::Record;

    use super::*;

    #[derive(Record, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[record(crate = thalweg_common)]
    struct Ride {
        id: u64,
        tip: Option<f32>,
    }

    fn read<T: Record + DeserializeOwned>(text: &str) -> Result<Vec<T>, Malformed> {
        let mut batch = Batch::default();
        let result = Json::<T>::new().decode(text.as_bytes(), &mut batch);
        assert!(result.is_ok() || batch.is_empty(), "a bad record leaves nothing behind");
        result.map(|()| batch.into_parts().0)
    }

    #[test]
    fn a_missing_field_is_null_and_anything_else_is_a_bad_record() {
        assert_eq!(read::<Ride>(r#"{"id":7,"more":[1,{"a":null}]}"#).unwrap(), [Ride { id: 7, tip: None }]);
        assert_eq!(read::<Ride>(r#"{"tip":0.5,"id":7}"#).unwrap(), [Ride { id: 7, tip: Some(0.5) }]);
        for (text, reason) in [
            (r#"{"tip":1.0}"#, "missing field `id`"),
            (r#"{"id":-1}"#, "invalid value"),
            (r#"{"id":7"#, "EOF"),
            (r#"{"id":7}{"id":8}"#, "railing"),
            ("", "EOF"),
            ("\u{0}", ""),
        ] {
            let error = read::<Ride>(text).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains('\n'), "{text}: {error}");
        }
        assert!(Json::<String>::new().decode(b"\"\xff\"", &mut Batch::default()).is_err(), "it is not UTF-8");
    }

    #[test]
    fn any_shape_passes_through_state_and_back() {
        let text = r#"{"a":[1,2.5,"x",null,true],"b":{"c":"한"},"n":10.0}"#;
        let [value] = &read::<JsonValue>(text).unwrap()[..] else { panic!("one value") };
        let mut bytes = Vec::new();
        Record::encode(value, &mut bytes);
        assert_eq!(<JsonValue as Record>::decode(&mut bytes.as_slice()).unwrap(), *value);
        let mut written = Vec::new();
        Json::<JsonValue>::new().encode(value, &mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }
}
