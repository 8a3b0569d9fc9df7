//! What the connectors rely on with Kinesis, asked of the model and of a program that others have written: so the model stays honest.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ConsumerStatus, PutRecordsRequestEntry, Record, ShardIteratorType, StartingPosition, StreamStatus,
    SubscribeToShardEvent, SubscribeToShardEventStream,
};
use thalweg_test_support::s3_peer::{ACCESS_KEY, SECRET_KEY};
use thalweg_test_support::{KinesisModel, KinesisPeer, S3Peer};

fn client(endpoint: String) -> Client {
    let config = aws_sdk_kinesis::config::Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .http_client(thalweg_common::aws::http_client())
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

fn entry(number: u32) -> PutRecordsRequestEntry {
    let data = Blob::new(number.to_string());
    PutRecordsRequestEntry::builder().partition_key(number.to_string()).data(data).build().unwrap()
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.data().as_ref()).into_owned()
}

/// Waits until the stream has done what it was told.
async fn active(client: &Client, stream: &str) {
    loop {
        let described = client.describe_stream_summary().stream_name(stream).send().await.unwrap();
        if described.stream_description_summary().unwrap().stream_status() == &StreamStatus::Active {
            return;
        }
        // not a wait: the pause between two looks
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Makes a stream of four shards and writes the numbers below 100, each under itself as its key.
async fn written(client: &Client, stream: &str) -> BTreeMap<String, Vec<u32>> {
    client.create_stream().stream_name(stream).shard_count(4).send().await.unwrap();
    active(client, stream).await;
    let mut by_shard: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for numbers in (0..100).collect::<Vec<u32>>().chunks(40) {
        let entries = numbers.iter().map(|number| entry(*number)).collect();
        let put = client.put_records().stream_name(stream).set_records(Some(entries)).send().await.unwrap();
        assert_eq!(put.failed_record_count().unwrap_or_default(), 0);
        for (number, record) in numbers.iter().zip(put.records()) {
            by_shard.entry(record.shard_id().unwrap().to_owned()).or_default().push(*number);
        }
    }
    by_shard
}

/// Reads from an iterator until there is nothing more; gives the records, and whether the shard is at its end.
async fn read(client: &Client, iterator: &str, limit: i32) -> (Vec<Record>, bool) {
    let (mut iterator, mut all) = (iterator.to_owned(), Vec::new());
    loop {
        let page = client.get_records().shard_iterator(&iterator).limit(limit).send().await.unwrap();
        assert!(page.records().len() <= limit as usize);
        let is_empty = page.records().is_empty();
        all.extend(page.records().iter().cloned());
        match page.next_shard_iterator() {
            None => return (all, true),
            Some(_) if is_empty => return (all, false),
            Some(next) => iterator = next.to_owned(),
        }
    }
}

async fn iterator(
    client: &Client,
    stream: &str,
    shard: &str,
    at: ShardIteratorType,
    number: Option<&str>,
) -> String {
    let request = client.get_shard_iterator().stream_name(stream).shard_id(shard).shard_iterator_type(at);
    let found = request.set_starting_sequence_number(number.map(str::to_owned)).send().await.unwrap();
    found.shard_iterator().unwrap().to_owned()
}

/// What every Kinesis does.
async fn contract(endpoint: String) {
    let client = client(endpoint);
    let by_shard = written(&client, "s").await;
    let listed = client.list_shards().stream_name("s").send().await.unwrap();
    assert_eq!(listed.shards().len(), 4);
    for shard in listed.shards() {
        let id = shard.shard_id();
        assert_eq!(shard.sequence_number_range().unwrap().ending_sequence_number(), None, "it is open");
        let expected: Vec<String> = by_shard[id].iter().map(u32::to_string).collect();
        let begin = iterator(&client, "s", id, ShardIteratorType::TrimHorizon, None).await;
        let (records, is_over) = read(&client, &begin, 13).await;
        assert_eq!((records.iter().map(text).collect::<Vec<_>>(), is_over), (expected.clone(), false));
        let numbers: Vec<&str> = records.iter().map(Record::sequence_number).collect();
        let widths: Vec<(usize, &str)> = numbers.iter().map(|number| (number.len(), *number)).collect();
        assert!(widths.is_sorted(), "sequence numbers grow");
        for (at, skipped) in
            [(ShardIteratorType::AtSequenceNumber, 3), (ShardIteratorType::AfterSequenceNumber, 4)]
        {
            let from = iterator(&client, "s", id, at, Some(numbers[3])).await;
            let (rest, _) = read(&client, &from, 1_000).await;
            assert_eq!(rest.iter().map(text).collect::<Vec<_>>(), expected[skipped..]);
        }
        let latest = iterator(&client, "s", id, ShardIteratorType::Latest, None).await;
        assert_eq!(read(&client, &latest, 10).await.0, []);
        let arrival = records[0].approximate_arrival_timestamp().unwrap();
        let since = client.get_shard_iterator().stream_name("s").shard_id(id);
        let since = since
            .shard_iterator_type(ShardIteratorType::AtTimestamp)
            .timestamp(DateTime::from_secs(arrival.secs()));
        let since = since.send().await.unwrap().shard_iterator.unwrap();
        assert_eq!(read(&client, &since, 1_000).await.0.len(), expected.len());
    }
    let missing = client.list_shards().stream_name("nowhere").send().await.unwrap_err();
    assert_eq!(missing.code(), Some("ResourceNotFoundException"));
    // The explicit hash key decides, and not the partition key.
    for (key, shard) in [("0", 0), ("340282366920938463463374607431768211455", 3)] {
        let entry = PutRecordsRequestEntry::builder()
            .partition_key("k")
            .explicit_hash_key(key)
            .data(Blob::new("x"))
            .build()
            .unwrap();
        let put = client.put_records().stream_name("s").records(entry).send().await.unwrap();
        assert_eq!(put.records()[0].shard_id(), Some(format!("shardId-{shard:012}").as_str()));
    }
}

/// What only a faithful one does: a shard that was split can be read to its end, and names its children then.
async fn reshards(endpoint: String) {
    let client = client(endpoint);
    let by_shard = written(&client, "r").await;
    let begin = iterator(&client, "r", "shardId-000000000000", ShardIteratorType::TrimHorizon, None).await;
    let listed = client.list_shards().stream_name("r").send().await.unwrap();
    let middle = listed.shards()[0].hash_key_range().unwrap().ending_hash_key().parse::<u128>().unwrap() / 2;
    let split = client.split_shard().stream_name("r").shard_to_split("shardId-000000000000");
    split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
    active(&client, "r").await;
    let (records, is_over) = read(&client, &begin, 1_000).await;
    assert_eq!((records.len(), is_over), (by_shard["shardId-000000000000"].len(), true));
    let merge = client.merge_shards().stream_name("r").shard_to_merge("shardId-000000000001");
    merge.adjacent_shard_to_merge("shardId-000000000002").send().await.unwrap();
    active(&client, "r").await;
    let listed = client.list_shards().stream_name("r").send().await.unwrap();
    let parents: Vec<(Option<&str>, Option<&str>)> = listed
        .shards()
        .iter()
        .skip(4)
        .map(|shard| (shard.parent_shard_id(), shard.adjacent_parent_shard_id()))
        .collect();
    let (zero, one, two) = ("shardId-000000000000", "shardId-000000000001", "shardId-000000000002");
    assert_eq!(parents, [(Some(zero), None), (Some(zero), None), (Some(one), Some(two))]);
    let is_closed = |shard: &aws_sdk_kinesis::types::Shard| {
        shard.sequence_number_range().unwrap().ending_sequence_number().is_some()
    };
    let closed: Vec<bool> = listed.shards().iter().map(is_closed).collect();
    assert_eq!(closed, [true, true, true, false, false, false, false]);
}

async fn subscribe(
    client: &Client,
    arn: &str,
    shard: &str,
    behind: Option<&str>,
) -> Result<SubscribeToShardOutput, String> {
    let at = match behind {
        None => StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon),
        Some(number) => {
            StartingPosition::builder().r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(number)
        }
    };
    let request = client.subscribe_to_shard().consumer_arn(arn).shard_id(shard);
    let subscribed = request.starting_position(at.build().unwrap()).send().await;
    subscribed.map_err(|error| error.code().unwrap().to_owned())
}

/// The next event of a subscription; nothing at its end.
async fn event(subscription: &mut SubscribeToShardOutput) -> Option<SubscribeToShardEvent> {
    match subscription.event_stream.recv().await.unwrap()? {
        SubscribeToShardEventStream::SubscribeToShardEvent(event) => Some(event),
        other => panic!("{other:?}"),
    }
}

/// The records of a subscription, until there are so many.
async fn pushed(subscription: &mut SubscribeToShardOutput, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(event(subscription).await.unwrap().records);
    }
    all
}

/// Consumers and subscriptions, where they are as the service's.
async fn fan_out(endpoint: String) {
    let client = client(endpoint);
    let by_shard = written(&client, "f").await;
    let described = client.describe_stream_summary().stream_name("f").send().await.unwrap();
    let stream_arn = described.stream_description_summary().unwrap().stream_arn();
    let describe = || client.describe_stream_consumer().stream_arn(stream_arn).consumer_name("reader").send();
    assert_eq!(describe().await.unwrap_err().code(), Some("ResourceNotFoundException"));
    let register = || client.register_stream_consumer().stream_arn(stream_arn).consumer_name("reader").send();
    register().await.unwrap();
    assert_eq!(register().await.unwrap_err().code(), Some("ResourceInUseException"));
    let consumer = loop {
        let consumer = describe().await.unwrap().consumer_description.unwrap();
        if consumer.consumer_status() == &ConsumerStatus::Active {
            break consumer;
        }
        // not a wait: the pause between two looks
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let arn = consumer.consumer_arn();
    let shard = "shardId-000000000000";
    let missing = subscribe(&client, arn, "shardId-000000000099", None).await.unwrap_err();
    assert_eq!(missing, "ResourceNotFoundException");
    // All that is there, and what comes.
    let mut first = subscribe(&client, arn, shard, None).await.unwrap();
    let expected: Vec<String> = by_shard[shard].iter().map(u32::to_string).collect();
    let records = pushed(&mut first, expected.len()).await;
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), expected);
    let number = by_shard[shard][0];
    client.put_records().stream_name("f").records(entry(number)).send().await.unwrap();
    assert_eq!(text(&pushed(&mut first, 1).await[0]), number.to_string());
    // Another subscription is refused for some seconds; then it takes over.
    let early = subscribe(&client, arn, shard, None).await.unwrap_err();
    assert_eq!(early, "ResourceInUseException");
    let behind = records[expected.len() - 2].sequence_number();
    let mut second = loop {
        if let Ok(subscription) = subscribe(&client, arn, shard, Some(behind)).await {
            break subscription;
        }
        // not a wait: the pause between two looks
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let rest = pushed(&mut second, 2).await;
    assert_eq!(
        rest.iter().map(text).collect::<Vec<_>>(),
        [expected[expected.len() - 1].clone(), number.to_string()]
    );
    let ended = loop {
        match first.event_stream.recv().await {
            Ok(event) => assert!(event.is_some(), "it does not end without a word"),
            Err(error) => break error.into_service_error(),
        }
    };
    assert!(matches!(ended, SubscribeToShardEventStreamError::ResourceInUseException(_)), "{ended:?}");
    // At the end of a shard its children are told.
    let listed = client.list_shards().stream_name("f").send().await.unwrap();
    let middle = listed.shards()[0].hash_key_range().unwrap().ending_hash_key().parse::<u128>().unwrap() / 2;
    let split = client.split_shard().stream_name("f").shard_to_split(shard);
    split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
    let children = loop {
        let event = event(&mut second).await.unwrap();
        if !event.child_shards().is_empty() {
            break event.child_shards.unwrap();
        }
    };
    let children: Vec<&str> = children.iter().map(|child| child.shard_id()).collect();
    assert_eq!(children, ["shardId-000000000004", "shardId-000000000005"]);
    assert!(event(&mut second).await.is_none(), "nothing comes behind that");
    client.deregister_stream_consumer().consumer_arn(arn).send().await.unwrap();
    assert_eq!(describe().await.unwrap_err().code(), Some("ResourceNotFoundException"));
}

#[tokio::test]
async fn the_model_does_what_every_kinesis_does() {
    let model = KinesisModel::start().await.unwrap();
    contract(model.endpoint()).await;
}

#[tokio::test]
async fn the_model_lets_shards_be_read_to_their_end() {
    let model = KinesisModel::start().await.unwrap();
    reshards(model.endpoint()).await;
}

#[tokio::test]
async fn the_model_has_enhanced_fan_out() {
    let model = KinesisModel::start().await.unwrap();
    model.rule(|rules| rules.takeover_ms = 300);
    fan_out(model.endpoint()).await;
}

#[tokio::test]
async fn the_s3_peer_has_enhanced_fan_out() {
    let peer = S3Peer::start().await.unwrap();
    fan_out(format!("http://{}", peer.address())).await;
}

#[tokio::test]
async fn the_model_drains_a_shard_before_it_tells_of_its_children() {
    let model = KinesisModel::start().await.unwrap();
    model.create_stream("s", 1);
    for number in 0..2_000 {
        model.put("s", "a", number.to_string()).unwrap();
    }
    model.split_shard("s", 0).unwrap();
    model.rule(|rules| rules.consumer_creation_ms = 0);
    let client = client(model.endpoint());
    let stream_arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let registered = client.register_stream_consumer().stream_arn(stream_arn).consumer_name("c").send().await;
    let consumer = registered.unwrap().consumer.unwrap();
    let mut subscription =
        subscribe(&client, consumer.consumer_arn(), "shardId-000000000000", None).await.unwrap();
    let (mut records, mut children) = (0, Vec::new());
    while let Some(event) = event(&mut subscription).await {
        assert!(children.is_empty(), "nothing comes behind them");
        records += event.records().len();
        children.extend(event.child_shards.into_iter().flatten());
    }
    assert_eq!((records, children.len()), (2_000, 2));
    // One that is cut short can be renewed at once, behind what it had told.
    model.end_subscriptions();
    let child = "shardId-000000000001";
    let mut subscription = subscribe(&client, consumer.consumer_arn(), child, None).await.unwrap();
    assert!(event(&mut subscription).await.unwrap().records().is_empty());
    model.end_subscriptions();
    assert!(event(&mut subscription).await.is_none());
    subscribe(&client, consumer.consumer_arn(), child, None).await.unwrap();
}

#[tokio::test]
async fn the_kinesis_peer_does_all_of_it() {
    let peer = KinesisPeer::start().await.unwrap();
    contract(peer.endpoint()).await;
    reshards(peer.endpoint()).await;
}

#[tokio::test]
async fn the_s3_peer_does_what_every_kinesis_does() {
    let peer = S3Peer::start().await.unwrap();
    contract(format!("http://{}", peer.address())).await;
}
