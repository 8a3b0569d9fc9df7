//! Strings and bytes as they are.

use thalweg_runtime::batch::Batch;

use super::{Decoder, Encoder, Malformed};

/// Text in UTF-8: Flink's `SimpleStringSchema`, but for text that is not UTF-8, which is a bad record and not changed silently.
///
/// ```
/// use thalweg_connectors::formats::{Encoder, Text};
///
/// let mut bytes = Vec::new();
/// Text.encode(&"one line", &mut bytes)?;
/// assert_eq!(bytes, b"one line");
/// # Ok::<(), thalweg_connectors::formats::Malformed>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

impl Decoder for Text {
    type Out = String;

    const SKIPS_EMPTY_LINES: bool = false;

    fn decode(&mut self, message: &[u8], out: &mut Batch<String>) -> Result<(), Malformed> {
        let text = std::str::from_utf8(message)
            .map_err(|error| Malformed::new(format_args!("it is not UTF-8: {error}")))?;
        out.push(text.to_owned());
        Ok(())
    }
}

/// Whatever can be shown is written as it shows itself.
impl<T: std::fmt::Display> Encoder<T> for Text {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        use std::io::Write as _;
        write!(out, "{record}").map_err(Malformed::new)
    }
}

/// Bytes as they are: Flink's `raw` format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Decoder for Raw {
    type Out = Vec<u8>;

    const SKIPS_EMPTY_LINES: bool = false;

    fn decode(&mut self, message: &[u8], out: &mut Batch<Vec<u8>>) -> Result<(), Malformed> {
        out.push(message.to_vec());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Encoder<T> for Raw {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.extend_from_slice(record.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_and_bytes_pass_through_and_what_is_no_text_is_refused() {
        let (mut text, mut bytes) = (Batch::default(), Batch::default());
        Text.decode("안녕".as_bytes(), &mut text).unwrap();
        Raw.decode(b"\xff\x00", &mut bytes).unwrap();
        assert_eq!(
            (text.records(), bytes.records()),
            (["안녕".to_string()].as_slice(), [vec![0xff, 0]].as_slice())
        );
        let error = Text.decode(b"ab\xff", &mut text).unwrap_err();
        assert_eq!(error.to_string(), "it is not UTF-8: invalid utf-8 sequence of 1 bytes from index 2");
        assert_eq!(text.len(), 1);
        let mut out = Vec::new();
        Text.encode(&47, &mut out).unwrap();
        Raw.encode(&vec![1_u8], &mut out).unwrap();
        assert_eq!(out, b"47\x01");
    }
}
