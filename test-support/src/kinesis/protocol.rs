//! The JSON protocol of Amazon's clients: from a request to a question to the model, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use thalweg_common::Timestamp;

use super::fan_out::{Consumer, Subscription, stream_arn, stream_of};
use super::firehose;
use super::model::{Entry, From, Model, Refusal, Shard, StoredRecord, refuse};

/// Most records of a request to write.
const MOST_ENTRIES: usize = 500;

/// In the text of refusals by [`denies`](super::Rules::denies): nobody may see it where credentials are refused.
pub const SECRET_TOKEN: &str = "FwoGZXIvYXdz-that-nobody-may-see";

/// Refuses what the test wants to be refused.
fn refuse_as_told(model: &mut Model, operation: &str) -> Result<(), Refusal> {
    if let Some(code) =
        model.rules.refusals.get_mut(operation).and_then(std::collections::VecDeque::pop_front)
    {
        return refuse(code, format!("{operation} is refused by the test"));
    }
    match model.rules.denies {
        Some(code) if code.starts_with("AccessDenied") => refuse(
            code,
            format!("User: arn:aws:iam::000000000000:user/test is not authorized to perform: {operation}"),
        ),
        // Where credentials are refused some services repeat them.
        Some(code) => refuse(code, format!("The security token {SECRET_TOKEN} is not valid")),
        None => Ok(()),
    }
}

/// Begins a subscription.
pub(super) fn subscribe(
    model: &mut Model,
    request: &Value,
    now_ms: Timestamp,
) -> Result<Subscription, Refusal> {
    refuse_as_told(model, "SubscribeToShard")?;
    let text = |field: &str| request.get(field).and_then(Value::as_str).unwrap_or_default();
    let at = request.get("StartingPosition").unwrap_or(&Value::Null);
    let of_position = |field: &str| at.get(field).and_then(Value::as_str).unwrap_or_default();
    let from = from(of_position("Type"), of_position("SequenceNumber"), at.get("Timestamp"))?;
    model.subscribe(text("ConsumerARN"), text("ShardId"), &from, now_ms)
}

/// Answers one request for an operation, as `GetRecords`.
pub(super) fn answer(
    model: &mut Model,
    operation: &str,
    request: &Value,
    now_ms: Timestamp,
) -> Result<Value, Refusal> {
    refuse_as_told(model, operation)?;
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
                "StreamName": stream, "StreamARN": stream_arn(stream),
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
            let number = text("StartingSequenceNumber");
            let from = from(text("ShardIteratorType"), number, request.get("Timestamp"))?;
            let iterator = model.iterator(stream, text("ShardId"), &from, now_ms)?;
            Ok(json!({ "ShardIterator": iterator }))
        }
        "GetRecords" => read(model, request, now_ms),
        "PutRecords" => write(model, request, now_ms),
        "RegisterStreamConsumer" => {
            let consumer = model.register(stream_of(text("StreamARN")), text("ConsumerName"), now_ms)?;
            Ok(json!({ "Consumer": described_consumer(model, &consumer, now_ms) }))
        }
        "DescribeStreamConsumer" => {
            let described = described_consumer(model, named_consumer(model, request)?, now_ms);
            Ok(json!({ "ConsumerDescription": described }))
        }
        "ListStreamConsumers" => {
            let consumers = model.consumers(stream_of(text("StreamARN")));
            let consumers: Vec<Value> =
                consumers.map(|consumer| described_consumer(model, consumer, now_ms)).collect();
            Ok(json!({ "Consumers": consumers }))
        }
        "DeregisterStreamConsumer" => {
            let arn = named_consumer(model, request)?.arn.clone();
            model.deregister(&arn).map(|()| json!({}))
        }
        "PutRecordBatch" => firehose::put(model, request),
        other => refuse("UnknownOperationException", format!("the model does not know {other}")),
    }
}

/// Where to begin.
fn from(kind: &str, number: &str, seconds: Option<&Value>) -> Result<From, Refusal> {
    Ok(match kind {
        "TRIM_HORIZON" => From::TrimHorizon,
        "LATEST" => From::Latest,
        "AT_TIMESTAMP" => {
            let seconds = seconds.and_then(Value::as_f64).unwrap_or_default();
            From::AtTimestamp((seconds * 1_000.0).round() as i64)
        }
        "AT_SEQUENCE_NUMBER" => From::At(number.to_owned()),
        "AFTER_SEQUENCE_NUMBER" => From::After(number.to_owned()),
        other => return refuse("InvalidArgumentException", format!("nobody can begin at {other}")),
    })
}

/// The consumer that a request is about, by its ARN or its name.
fn named_consumer<'a>(model: &'a Model, request: &Value) -> Result<&'a Consumer, Refusal> {
    let text = |field: &str| request.get(field).and_then(Value::as_str);
    match text("ConsumerARN") {
        Some(arn) => model.consumer_by_arn(arn),
        None => model.consumer(
            stream_of(text("StreamARN").unwrap_or_default()),
            text("ConsumerName").unwrap_or_default(),
        ),
    }
}

fn described_consumer(model: &Model, consumer: &Consumer, now_ms: Timestamp) -> Value {
    json!({
        "ConsumerName": consumer.name, "ConsumerARN": consumer.arn, "StreamARN": stream_arn(&consumer.stream),
        "ConsumerStatus": if model.is_active(consumer, now_ms) { "ACTIVE" } else { "CREATING" },
        "ConsumerCreationTimestamp": consumer.since_ms as f64 / 1_000.0,
    })
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
    let records: Vec<Value> = read.records.iter().map(record).collect();
    let mut answer = json!({ "Records": records, "MillisBehindLatest": read.behind_ms });
    if let Some(next) = read.next {
        answer["NextShardIterator"] = json!(next);
    }
    if !read.children.is_empty() {
        answer["ChildShards"] = read.children.iter().map(child).collect();
    }
    Ok(answer)
}

/// A record as it is read.
pub(super) fn record(record: &StoredRecord) -> Value {
    json!({
        "SequenceNumber": record.sequence_number,
        "ApproximateArrivalTimestamp": record.arrival_ms as f64 / 1_000.0,
        "Data": STANDARD.encode(&record.data),
        "PartitionKey": record.partition_key,
    })
}

/// A shard that another one was split or merged into.
pub(super) fn child(shard: &Shard) -> Value {
    json!({ "ShardId": shard.id, "ParentShards": shard.parents, "HashKeyRange": range(shard) })
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
