//! The JSON protocol of Amazon's clients: from a request to a question to the model, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use thalweg_common::Timestamp;

use super::firehose;
use super::model::{Entry, From, Model, Refusal, Shard, refuse};

/// Most records of a request to write.
const MOST_ENTRIES: usize = 500;

/// In the text of refusals by [`denies`](super::Rules::denies): nobody may see it where credentials are refused.
pub const SECRET_TOKEN: &str = "FwoGZXIvYXdz-that-nobody-may-see";

/// Answers one request for an operation, as `GetRecords`.
pub(super) fn answer(
    model: &mut Model,
    operation: &str,
    request: &Value,
    now_ms: Timestamp,
) -> Result<Value, Refusal> {
    if let Some(code) =
        model.rules.refusals.get_mut(operation).and_then(std::collections::VecDeque::pop_front)
    {
        return refuse(code, format!("{operation} is refused by the test"));
    }
    if let Some(code) = model.rules.denies {
        // Where credentials are refused some services repeat them.
        let is_about_rights = code.starts_with("AccessDenied");
        return refuse(
            code,
            match is_about_rights {
                true => format!(
                    "User: arn:aws:iam::000000000000:user/test is not authorized to perform: {operation}"
                ),
                false => format!("The security token {SECRET_TOKEN} is not valid"),
            },
        );
    }
    let text = |field: &str| request.get(field).and_then(Value::as_str).unwrap_or_default();
    let stream = text("StreamName");
    match operation {
        "CreateStream" => {
            let shards = request.get("ShardCount").and_then(Value::as_u64).unwrap_or(1);
            model.create(stream, u32::try_from(shards).unwrap_or(1));
            Ok(json!({}))
        }
        "DescribeStreamSummary" => {
            let open = model.shards(stream)?.iter().filter(|shard| shard.last_number.is_none()).count();
            let summary = json!({
                "StreamName": stream, "StreamARN": format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}"),
                "StreamStatus": "ACTIVE", "OpenShardCount": open, "RetentionPeriodHours": 24,
                "StreamCreationTimestamp": 0.0, "EnhancedMonitoring": [],
            });
            Ok(json!({ "StreamDescriptionSummary": summary }))
        }
        "ListShards" => list(model, request),
        "SplitShard" => {
            let at = number(text("NewStartingHashKey"))?;
            model.split(stream, text("ShardToSplit"), at).map(|()| json!({}))
        }
        "MergeShards" => {
            model.merge(stream, text("ShardToMerge"), text("AdjacentShardToMerge")).map(|()| json!({}))
        }
        "GetShardIterator" => {
            let number = || text("StartingSequenceNumber").to_owned();
            let from = match text("ShardIteratorType") {
                "TRIM_HORIZON" => From::TrimHorizon,
                "LATEST" => From::Latest,
                "AT_TIMESTAMP" => {
                    let seconds = request.get("Timestamp").and_then(Value::as_f64).unwrap_or_default();
                    From::AtTimestamp((seconds * 1_000.0).round() as i64)
                }
                "AT_SEQUENCE_NUMBER" => From::At(number()),
                "AFTER_SEQUENCE_NUMBER" => From::After(number()),
                other => return refuse("InvalidArgumentException", format!("there is no iterator {other}")),
            };
            let iterator = model.iterator(stream, text("ShardId"), &from, now_ms)?;
            Ok(json!({ "ShardIterator": iterator }))
        }
        "GetRecords" => read(model, request, now_ms),
        "PutRecords" => write(model, request, now_ms),
        "PutRecordBatch" => firehose::put(model, request),
        other => refuse("UnknownOperationException", format!("the model does not know {other}")),
    }
}

fn number(text: &str) -> Result<u128, Refusal> {
    text.parse().or_else(|_| refuse("InvalidArgumentException", format!("`{text}` is no hash key")))
}

fn list(model: &Model, request: &Value) -> Result<Value, Refusal> {
    let text = |field: &str| request.get(field).and_then(Value::as_str);
    let (stream, begin) = match text("NextToken").and_then(|token| token.rsplit_once('|')) {
        Some((stream, begin)) => (stream, begin.parse().unwrap_or_default()),
        None => (text("StreamName").unwrap_or_default(), 0),
    };
    let most = request.get("MaxResults").and_then(Value::as_u64).unwrap_or(1_000) as usize;
    let all = model.shards(stream)?;
    let page: Vec<Value> = all.iter().skip(begin).take(most).map(described).collect();
    let end = begin + page.len();
    let mut answer = json!({ "Shards": page });
    if end < all.len() {
        answer["NextToken"] = json!(format!("{stream}|{end}"));
    }
    Ok(answer)
}

fn range(shard: &Shard) -> Value {
    json!({ "StartingHashKey": shard.range.0.to_string(), "EndingHashKey": shard.range.1.to_string() })
}

fn described(shard: &Shard) -> Value {
    let mut numbers = json!({ "StartingSequenceNumber": shard.first_number });
    if let Some(last) = &shard.last_number {
        numbers["EndingSequenceNumber"] = json!(last);
    }
    let mut described =
        json!({ "ShardId": shard.id, "HashKeyRange": range(shard), "SequenceNumberRange": numbers });
    for (field, parent) in ["ParentShardId", "AdjacentParentShardId"].iter().zip(&shard.parents) {
        described[*field] = json!(parent);
    }
    described
}

fn read(model: &mut Model, request: &Value, now_ms: Timestamp) -> Result<Value, Refusal> {
    let iterator = request.get("ShardIterator").and_then(Value::as_str).unwrap_or_default();
    let limit = request.get("Limit").and_then(Value::as_u64).unwrap_or(10_000);
    if !(1..=10_000).contains(&limit) {
        return refuse("InvalidArgumentException", "Limit is a number from 1 to 10000");
    }
    let read = model.read(iterator, limit as usize, now_ms)?;
    let records: Vec<Value> = read
        .records
        .iter()
        .map(|record| {
            json!({
                "SequenceNumber": record.sequence_number,
                "ApproximateArrivalTimestamp": record.arrival_ms as f64 / 1_000.0,
                "Data": STANDARD.encode(&record.data),
                "PartitionKey": record.partition_key,
            })
        })
        .collect();
    let mut answer = json!({ "Records": records, "MillisBehindLatest": read.behind_ms });
    if let Some(next) = read.next {
        answer["NextShardIterator"] = json!(next);
    }
    if !read.children.is_empty() {
        let child = |shard: &Shard| json!({ "ShardId": shard.id, "ParentShards": shard.parents, "HashKeyRange": range(shard) });
        answer["ChildShards"] = read.children.iter().map(child).collect();
    }
    Ok(answer)
}

fn write(model: &mut Model, request: &Value, now_ms: Timestamp) -> Result<Value, Refusal> {
    let stream = request.get("StreamName").and_then(Value::as_str).unwrap_or_default();
    let given = request.get("Records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if given.is_empty() || given.len() > MOST_ENTRIES {
        return refuse("InvalidArgumentException", "a request has 1 to 500 records");
    }
    let mut entries = Vec::new();
    for record in given {
        let text = |field: &str| record.get(field).and_then(Value::as_str);
        let data = STANDARD.decode(text("Data").unwrap_or_default());
        let Ok(data) = data else { return refuse("SerializationException", "Data is no base64") };
        entries.push(Entry {
            partition_key: text("PartitionKey").unwrap_or_default().to_owned(),
            explicit_hash_key: text("ExplicitHashKey").map(number).transpose()?,
            data,
        });
    }
    let answers = model.write(stream, entries, now_ms)?;
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    let records: Vec<Value> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok((shard, number)) => json!({ "ShardId": shard, "SequenceNumber": number }),
            Err(Refusal { code, message }) => json!({ "ErrorCode": code, "ErrorMessage": message }),
        })
        .collect();
    Ok(json!({ "FailedRecordCount": failed, "Records": records }))
}
