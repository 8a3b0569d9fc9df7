//! Events of a stream of them, as Amazon's services frame them. Pure.
//!
//! A message has its length and that of its headers with a checksum, the headers, the content, and a checksum of all of it.

use serde_json::{Value, json};

use super::fan_out::Push;
use super::model::Refusal;
use super::protocol::{child, record};

/// What a stream begins with.
pub(super) fn initial_response() -> Vec<u8> {
    message(&[(":message-type", "event"), (":event-type", "initial-response")], &json!({}))
}

/// What is said on the wire; nothing at the end, and when there is nothing.
pub(super) fn pushed(push: &Push) -> Option<Vec<u8>> {
    match push {
        Push::Event { records, continuation, behind_ms, children } => {
            let mut event = json!({
                "Records": records.iter().map(record).collect::<Vec<_>>(),
                "ContinuationSequenceNumber": continuation,
                "MillisBehindLatest": behind_ms,
            });
            if !children.is_empty() {
                event["ChildShards"] = children.iter().map(child).collect();
            }
            Some(message(&[(":message-type", "event"), (":event-type", "SubscribeToShardEvent")], &event))
        }
        Push::Refused(Refusal { code, message: text }) => Some(message(
            &[(":message-type", "exception"), (":exception-type", code)],
            &json!({ "message": text }),
        )),
        Push::End | Push::Nothing(_) => None,
    }
}

fn message(headers: &[(&str, &str)], content: &Value) -> Vec<u8> {
    const TEXT: u8 = 7;
    let content = content.to_string().into_bytes();
    let mut encoded = Vec::new();
    for (name, value) in headers.iter().chain([&(":content-type", "application/json")]) {
        encoded.push(name.len() as u8);
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(TEXT);
        encoded.extend_from_slice(&(value.len() as u16).to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    // Two lengths and two checksums around headers and content.
    let mut message = ((16 + encoded.len() + content.len()) as u32).to_be_bytes().to_vec();
    message.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    message.extend_from_slice(&crc32(&message).to_be_bytes());
    message.extend_from_slice(&encoded);
    message.extend_from_slice(&content);
    message.extend_from_slice(&crc32(&message).to_be_bytes());
    message
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_everybody() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
