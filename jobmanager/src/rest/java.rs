//! A failure as Flink's client reads it: the text, and the same once more as a serialized object of Java's, because the client takes it
//! out of nothing else.
//!
//! The object is a `SerializedThrowable` without a cause and without a trace of its own. The form is that of the Java Object
//! Serialization Specification, protocol version 2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What takes the place of the name of a Java class.
const NAME: &str = "Thalweg";

const NULL: u8 = 0x70;
const CLASS: u8 = 0x72;
const OBJECT: u8 = 0x73;
const STRING: u8 = 0x74;
const END: u8 = 0x78;
const MAGIC_AND_VERSION: [u8; 4] = [0xac, 0xed, 0x00, 0x05];
/// Fields in their declared order.
const SERIALIZABLE: u8 = 2;
/// The same, and perhaps more behind them.
const WRITES_MORE: u8 = 3;

const TEXT: &str = "Ljava/lang/String;";

/// Flink's `failure-cause`.
pub(super) fn failure_cause(reason: &str) -> Value {
    json!({
        "class": NAME,
        "stack-trace": reason,
        "serialized-throwable": STANDARD.encode(serialized(reason)),
    })
}

fn serialized(reason: &str) -> Vec<u8> {
    let mut out = MAGIC_AND_VERSION.to_vec();
    out.push(OBJECT);
    let fields = [
        ("fullStringifiedStackTrace", TEXT),
        ("originalErrorClassName", TEXT),
        ("serializedException", "[B"),
    ];
    let own = (7_284_183_123_441_947_635, SERIALIZABLE);
    class(&mut out, "org.apache.flink.util.SerializedThrowable", own, &fields);
    class(&mut out, "java.lang.Exception", (-3_387_516_993_124_229_948, SERIALIZABLE), &[]);
    let fields = [
        ("cause", "Ljava/lang/Throwable;"),
        ("detailMessage", TEXT),
        ("stackTrace", "[Ljava/lang/StackTraceElement;"),
        ("suppressedExceptions", "Ljava/util/List;"),
    ];
    class(&mut out, "java.lang.Throwable", (-3_042_686_055_658_047_285, WRITES_MORE), &fields);
    // It extends nothing that is serialized. Now the values, those of the outermost class first.
    out.push(NULL);
    out.push(NULL);
    string(&mut out, reason);
    out.extend([NULL, NULL, END]);
    string(&mut out, reason);
    string(&mut out, NAME);
    out.push(NULL);
    out
}

/// The description of a class, up to that which it extends.
fn class(out: &mut Vec<u8>, name: &str, (version, flags): (i64, u8), fields: &[(&str, &str)]) {
    out.push(CLASS);
    utf(out, name);
    out.extend(version.to_be_bytes());
    out.push(flags);
    out.extend(u16::try_from(fields.len()).unwrap_or_default().to_be_bytes());
    for (name, kind) in fields {
        out.extend(kind.bytes().take(1));
        utf(out, name);
        string(out, kind);
    }
    out.push(END);
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(STRING);
    utf(out, text);
}

/// Java's modified UTF-8 with its length in front: each half of a surrogate pair for itself, and no byte 0. What is too long is cut.
fn utf(out: &mut Vec<u8>, text: &str) {
    let mut bytes = Vec::with_capacity(text.len());
    for unit in text.encode_utf16() {
        let before = bytes.len();
        match unit {
            0x01..=0x7f => bytes.push(unit as u8),
            0 | 0x80..=0x7ff => bytes.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
            _ => bytes.extend([
                0xe0 | (unit >> 12) as u8,
                0x80 | (unit >> 6 & 0x3f) as u8,
                0x80 | (unit & 0x3f) as u8,
            ]),
        }
        if bytes.len() > usize::from(u16::MAX) {
            bytes.truncate(before);
            break;
        }
    }
    out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_that_which_java_writes() {
        let bytes = serialized("full disk");
        // As `ObjectOutputStream` of Java 17 begins such an object.
        let expected = b"\xac\xed\x00\x05sr\x00\x29org.apache.flink.util.SerializedThrowablee\x16\x9d\xf5\x1f\xa7\x13\xf3\x02\x00\x03L\
            \x00\x19fullStringifiedStackTracet\x00\x12Ljava/lang/String;L\x00\x16originalErrorClassName";
        assert!(bytes.starts_with(expected), "{}", String::from_utf8_lossy(&bytes));
        assert!(bytes.ends_with(b"xt\x00\x09full diskt\x00\x07Thalwegp"));
    }

    #[test]
    fn texts_are_modified_utf_8_and_end_in_time() {
        let written = |text: &str| {
            let mut out = Vec::new();
            utf(&mut out, text);
            out
        };
        assert_eq!(written("a\0ä€😀"), b"\x00\x0ea\xc0\x80\xc3\xa4\xe2\x82\xac\xed\xa0\xbd\xed\xb8\x80");
        assert_eq!(written(&"€".repeat(30_000)).len(), 2 + 65_535);
    }
}
