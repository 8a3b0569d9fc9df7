//! Firehose in the model: delivery streams, what was put into them, and records that are refused one by one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::model::{Model, Refusal, refuse};

/// What one request may have, and one record.
const MOST_RECORDS: usize = 500;
const MOST_BYTES: usize = 4 * 1024 * 1024;
const RECORD_BYTES: usize = 1_000 * 1024;

/// Answers `PutRecordBatch`.
pub(super) fn put(model: &mut Model, request: &Value) -> Result<Value, Refusal> {
    let stream = request.get("DeliveryStreamName").and_then(Value::as_str).unwrap_or_default();
    let given = request.get("Records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let one_in = model.rules.refuses_one_in;
    let Some(delivered) = model.delivery_streams.get_mut(stream) else {
        let message = format!("Firehose {stream} under account 000000000000 not found.");
        return refuse("ResourceNotFoundException", message);
    };
    let mut records = Vec::new();
    for record in given {
        let data = record.get("Data").and_then(Value::as_str).unwrap_or_default();
        match STANDARD.decode(data) {
            Ok(data) => records.push(data),
            Err(_) => return refuse("SerializationException", "Data is no base64"),
        }
    }
    let bytes: usize = records.iter().map(Vec::len).sum();
    if records.is_empty() || records.len() > MOST_RECORDS || bytes > MOST_BYTES {
        return refuse("InvalidArgumentException", "a request has 1 to 500 records and at most 4 MiB");
    }
    if records.iter().any(|record| record.len() > RECORD_BYTES) {
        return refuse("InvalidArgumentException", "a record is larger than 1,000 KiB");
    }
    let mut failed = 0;
    let mut answers = Vec::new();
    for record in records {
        model.written += 1;
        if one_in > 0 && model.written.is_multiple_of(one_in) {
            failed += 1;
            answers.push(json!({ "ErrorCode": "ServiceUnavailableException", "ErrorMessage": "Slow down." }));
        } else {
            delivered.push(record);
            answers.push(json!({ "RecordId": model.written.to_string() }));
        }
    }
    Ok(json!({ "FailedPutCount": failed, "Encrypted": false, "RequestResponses": answers }))
}
