//! The Kinesis source against a model of the service: shards that split and merge under load, attempts that end, trouble of all kinds.

#![allow(clippy::unwrap_used)]

#[path = "kinesis/fan_out.rs"]
mod fan_out;
#[path = "kinesis/mod.rs"]
mod kinesis;

use std::time::Duration;

use bytes::Bytes;
use kinesis::{Peer, Reading};
use thalweg_connectors::KinesisSource;
use thalweg_connectors::kinesis::{CredentialsProvider, InitialPosition};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::split::{EnumeratedSource, SourceReader, SplitEnumerator};

#[test]
fn a_stream_is_followed_through_splits_and_merges_and_restores() {
    let peer = Peer::with_stream(2);
    let mut reading = Reading::open(&peer, 3, None);
    let mut written = 0;
    let mut write = |count: u64| {
        for _ in 0..count {
            peer.put(written);
            written += 1;
        }
        written
    };
    write(100);
    reading.read_to(50);
    peer.model.split_shard("s", 0).unwrap();
    write(100);
    let snapshot = reading.checkpoint();
    // What is read behind the checkpoint is read again.
    reading.read_to(150);
    let kept = reading.at(&snapshot);
    drop(reading);
    peer.model.merge_shards("s", 3, 1).unwrap();
    write(100);
    let mut reading = Reading::restored(&peer, 2, &snapshot, kept);
    reading.read_to(250);
    peer.model.split_shard("s", 4).unwrap();
    let all = write(100);
    reading.read_to(all as usize);
    let snapshot = reading.checkpoint();
    let kept = reading.at(&snapshot);
    drop(reading);
    let mut reading = Reading::restored(&peer, 4, &snapshot, kept);
    let all = write(20);
    reading.read_to(all as usize);
    reading.expect_each_once(all);
}

#[test]
fn records_of_a_key_keep_their_order_over_splits() {
    let peer = Peer::with_stream(1);
    let mut reading = Reading::open(&peer, 2, None);
    for round in 0..6 {
        for number in 0..50 {
            peer.model.put("s", &format!("key-{}", number % 5), format!("{round}:{number:02}")).unwrap();
        }
        if round < 5 {
            peer.model.split_shard("s", round * 2).unwrap();
        }
    }
    reading.read_to(300);
    for key in 0..5 {
        let of_key = |text: &&String| {
            text.split(':')
                .nth(1)
                .and_then(|number| number.parse().ok())
                .is_some_and(|number: usize| number % 5 == key)
        };
        let read: Vec<&String> = reading.read.iter().filter(of_key).collect();
        assert_eq!(read.len(), 60);
        assert!(read.is_sorted(), "key {key}: {read:?}");
    }
}

#[test]
fn idle_shard_example_shards_go_to_their_subtasks_and_idle_ones_have_none() {
    let peer = Peer::new();
    peer.model.create_stream("hp-16", 16);
    let source = peer.configured(KinesisSource::strings("hp-16"));
    let mut reading = Reading::of(&peer, source, 8, None);
    // The values are their own partition keys, so that each is in the shard of the guide's log.
    let expected = [
        ("1", 12, 0),
        ("2", 12, 0),
        ("3", 14, 2),
        ("4", 10, 6),
        ("5", 14, 2),
        ("6", 1, 0),
        ("7", 8, 7),
        ("8", 12, 0),
    ];
    for (value, shard, _) in expected {
        assert_eq!(peer.model.put("hp-16", value, value).unwrap(), shard, "{value}");
    }
    let mut by_subtask = vec![Vec::new(); 8];
    kinesis::until("all eight are read", || {
        reading.turn();
        for (subtask, values) in by_subtask.iter_mut().enumerate() {
            values.extend(reading.harness.output_of(subtask));
        }
        by_subtask.iter().map(Vec::len).sum::<usize>() == 8
    });
    for (value, _, subtask) in expected {
        assert!(by_subtask[subtask].contains(&value.to_owned()), "{value}: {by_subtask:?}");
    }
}

#[test]
fn aggregated_records_are_read_one_by_one_also_from_the_middle() {
    let peer = Peer::with_stream(1);
    peer.model.put("s", "a", aggregated(&["0", "1", "2", "3", "4"])).unwrap();
    peer.model.put("s", "a", "5").unwrap();
    let source = peer.configured(KinesisSource::strings("s"));
    let context = thalweg_runtime::testing::Setup { io: peer.io(), ..Default::default() }.open_context();
    let mut enumerator = source.enumerator(&context, None).unwrap();
    let mut splits = enumerator.discover().unwrap().splits;
    let mut read = Vec::new();
    // In each attempt one poll of at most two records.
    kinesis::until("all are read", || {
        let mut reader = source.reader(&context).unwrap();
        reader.add_splits(splits.clone()).unwrap();
        let mut batch = Batch::default();
        kinesis::until("there is a batch", || {
            reader.poll(&mut batch, 2).unwrap();
            peer.breathe();
            !batch.is_empty()
        });
        read.extend(batch.drain());
        splits = reader.snapshot().unwrap();
        read.len() >= 6
    });
    assert_eq!(read, ["0", "1", "2", "3", "4", "5"]);
}

/// As the producer library writes it.
fn aggregated(values: &[&str]) -> Bytes {
    use md5::{Digest, Md5};
    let mut body = b"\x0a\x01a".to_vec();
    for value in values {
        let inner = [b"\x08\x00\x1a", &[value.len() as u8][..], value.as_bytes()].concat();
        body.extend_from_slice(&[0x1a, inner.len() as u8]);
        body.extend_from_slice(&inner);
    }
    let digest = Md5::digest(&body);
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &body, &digest[..]].concat().into()
}

#[test]
fn trouble_that_passes_loses_and_doubles_nothing() {
    let peer = Peer::with_stream(2);
    let mut reading = Reading::open(&peer, 2, None);
    (0..50).for_each(|number| peer.put(number));
    reading.read_to(10);
    peer.model.expire_iterators();
    (50..100).for_each(|number| peer.put(number));
    reading.read_to(100);
    peer.model.rule(|rules| {
        let throttled = ["ProvisionedThroughputExceededException"; 12];
        rules
            .refusals
            .insert("GetRecords".into(), throttled.into_iter().chain(["InternalFailure"]).collect());
        rules
            .refusals
            .insert("GetShardIterator".into(), ["LimitExceededException", "InternalFailure"].into());
        // With the failure above and an expired iterator as many as a read is repeated after, should one shard meet all.
        rules.lost_answers = 1;
    });
    peer.model.expire_iterators();
    (100..150).for_each(|number| peer.put(number));
    reading.read_to(150);
    reading.expect_each_once(150);
}

#[test]
fn reads_stay_below_the_quotas_of_a_shard() {
    let peer = Peer::with_stream(1);
    peer.model.rule(|rules| rules.read_quotas = true);
    let at_flinks_pace =
        peer.configured(KinesisSource::strings("s")).read_interval(Duration::from_millis(200));
    let mut reading = Reading::of(&peer, at_flinks_pace, 1, None);
    (0..20).for_each(|number| peer.put(number));
    reading.read_to(20);
    (20..40).for_each(|number| peer.put(number));
    reading.read_to(40);
    reading.expect_each_once(40);
}

#[test]
fn what_cannot_be_read_says_cause_and_cure_at_once() {
    let peer = Peer::with_stream(1);
    let fails = |source, expected: &[&str]| {
        let failure = Reading::of(&peer, source, 1, None).fails();
        for part in expected {
            assert!(failure.message.contains(part), "{failure}");
        }
        failure
    };
    let missing = fails(
        peer.configured(KinesisSource::strings("nowhere")),
        &["ResourceNotFoundException", "the stream nowhere", "check that"],
    );
    assert!(!missing.retryable);
    peer.model.rule(|rules| {
        rules.refusals.insert("ListShards".into(), ["AccessDeniedException"].into());
    });
    fails(peer.configured(KinesisSource::strings("s")), &["AccessDenied", "allow the role"]);
    peer.model.rule(|rules| {
        rules.refusals.insert("ListShards".into(), ["ExpiredTokenException"].into());
    });
    let expired = fails(peer.configured(KinesisSource::strings("s")), &["ExpiredToken", "valid credentials"]);
    assert!(expired.retryable && !expired.message.contains("test-secret"), "{expired}");
    let nobody = CredentialsProvider::Profile { name: None, path: Some("/nowhere/credentials".into()) };
    fails(peer.configured(KinesisSource::strings("s")).credentials(nobody), &["credentials"]);
    peer.model.rule(|rules| {
        rules.refusals.insert("GetRecords".into(), ["KMSAccessDeniedException"].into());
    });
    peer.put(1);
    fails(peer.configured(KinesisSource::strings("s")), &["KMSAccessDenied", "its key if it is encrypted"]);
}

#[test]
fn a_host_that_is_not_there_is_told_after_a_few_tries_and_by_name() {
    let peer = Peer::new();
    // Names that nobody has to be asked about.
    let (host, roles) = ("-kinesis.us-est-1.invalid", "-sts.us-est-1.invalid");
    let endpoint = |host: &str| ("aws.endpoint".to_owned(), format!("http://{host}"));
    let basic = [
        ("aws.region", "us-est-1"),
        ("aws.credentials.provider", "BASIC"),
        ("aws.credentials.basic.accesskeyid", "TESTACCESSKEY"),
        ("aws.credentials.basic.secretkey", "test-secret"),
        ("flink.list.shards.backoff.base", "10"),
        ("flink.list.shards.maxretries", "1000000"),
    ];
    let role = [
        ("aws.credentials.provider", "ASSUME_ROLE"),
        ("aws.credentials.role.provider", "BASIC"),
        ("aws.credentials.role.arn", "arn:aws:iam::123456789012:role/reader"),
        ("aws.credentials.role.sessionName", "session"),
    ];
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let sts = ("aws.sts.endpoint".to_owned(), format!("http://{roles}"));
    for (missing, properties) in [
        (host, [own(&basic), vec![endpoint(host)]].concat()),
        (roles, [own(&basic), own(&role), vec![sts, endpoint("127.0.0.1:1")]].concat()),
    ] {
        let source = KinesisSource::strings("s").with_properties(properties).unwrap();
        let failure = Reading::of(&peer, source, 1, None).fails();
        let expected = format!(
            "cannot list the shards of the stream s: UnknownHost: there is no host {missing}; check how `aws.region` or `aws.endpoint`"
        );
        assert!(failure.message.contains(&expected) && failure.retryable, "{failure}");
    }
}

#[test]
fn positions_are_as_asked() {
    let peer = Peer::with_stream(1);
    peer.model.put_at("s", "a", "old", 1_000).unwrap();
    peer.model.put_at("s", "a", "new", 2_000).unwrap();
    for (position, expected) in [
        (InitialPosition::TrimHorizon, &["old", "new"][..]),
        (InitialPosition::AtTimestamp(1_001), &["new"]),
        (InitialPosition::AtTimestamp(1_000), &["old", "new"]),
    ] {
        let source = peer.configured(KinesisSource::strings("s")).initial_position(position);
        let mut reading = Reading::of(&peer, source, 1, None);
        reading.read_to(expected.len());
        assert_eq!(reading.read, expected, "{position:?}");
    }
}

#[test]
fn a_role_of_another_account_reads() {
    let peer = Peer::with_stream(1);
    peer.put(0);
    let endpoint = peer.model.endpoint();
    let source = KinesisSource::strings("s").with_properties([
        ("aws.endpoint", endpoint.as_str()),
        ("aws.sts.endpoint", &endpoint),
        ("aws.credentials.provider", "ASSUME_ROLE"),
        ("aws.credentials.role.provider", "BASIC"),
        ("aws.credentials.basic.accesskeyid", "TESTACCESSKEY"),
        ("aws.credentials.basic.secretkey", "test-secret"),
        ("aws.credentials.role.arn", "arn:aws:iam::123456789012:role/reader"),
        ("aws.credentials.role.sessionName", "ksassumedrolesession"),
        ("aws.credentials.role.externalId", "42"),
        ("scan.stream.initpos", "TRIM_HORIZON"),
    ]);
    let mut reading = Reading::of(&peer, source.unwrap(), 1, None);
    reading.read_to(1);
    let asked = peer.model.roles();
    for part in ["RoleSessionName=ksassumedrolesession", "ExternalId=42", "role%2Freader"] {
        assert!(asked.iter().any(|form| form.contains(part)), "{asked:?}");
    }
}

#[test]
fn properties_reach_the_service() {
    let peer = Peer::with_stream(1);
    peer.put(0);
    let endpoint = peer.model.endpoint();
    let source = KinesisSource::strings("s").with_properties([
        ("aws.endpoint", endpoint.as_str()),
        ("aws.credentials.provider", "BASIC"),
        ("aws.credentials.provider.basic.accesskeyid", "TESTACCESSKEY"),
        ("aws.credentials.provider.basic.secretkey", "test-secret"),
        ("flink.stream.initpos", "TRIM_HORIZON"),
    ]);
    let mut reading = Reading::of(&peer, source.unwrap(), 1, None);
    reading.read_to(1);
}

#[test]
fn shards_tell_how_far_behind_they_are_and_what_reads_ask_for() {
    for is_pushed in [false, true] {
        let peer = Peer::with_stream(1);
        let of_shard = |name: &str| format!("KinesisConsumer.stream.s.shardId.shardId-000000000000.{name}");
        let source = match is_pushed {
            true => peer.pushed(KinesisSource::strings("s")),
            false => peer.configured(KinesisSource::strings("s")).records_per_read(10),
        };
        // More than one poll takes, also of what is pushed.
        for number in 0..1_600 {
            peer.model.put_at("s", "a", format!("{number:04}"), 1_000).unwrap();
        }
        let mut reading = Reading::of(&peer, source, 1, None);
        let behind = |reading: &Reading<'_>| reading.harness.metric_of(0, &of_shard("millisBehindLatest"));
        peer.model.rule(|rules| {
            rules.refusals.insert("GetRecords".into(), ["ProvisionedThroughputExceededException"].into());
            rules.refusals.insert("SubscribeToShard".into(), ["LimitExceededException"].into());
        });
        kinesis::until("the shard is known", || {
            reading.harness.enumerate().unwrap();
            reading.harness.read(0).unwrap();
            behind(&reading).is_some()
        });
        assert_eq!(behind(&reading), Some(-1.0), "nothing was read");
        kinesis::until("it has read some and is behind", || {
            reading.harness.advance(Duration::from_millis(1));
            reading.harness.read(0).unwrap();
            peer.breathe();
            behind(&reading).is_some_and(|behind| behind > 1e9)
        });
        kinesis::until("it has caught up", || {
            reading.turn();
            behind(&reading) == Some(0.0)
        });
        let requested = reading.harness.metric_of(0, &of_shard("bytesRequestedPerFetch"));
        assert_eq!(requested, (!is_pushed).then_some(40.0));
        // A shard at its end is told no more.
        peer.model.split_shard("s", 0).unwrap();
        kinesis::until("it is gone", || {
            reading.turn();
            behind(&reading).is_none()
        });
    }
}
