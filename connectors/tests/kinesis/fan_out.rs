//! Enhanced fan-out against a model of the service: consumers, subscriptions that end, are silent or are taken over, and the way to polling and
//! back.

use std::collections::BTreeSet;

use thalweg_connectors::KinesisSource;
use thalweg_connectors::kinesis::{ConsumerRegistration, InitialPosition, ShardReader};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::split::{EnumeratedSource, SourceReader, SplitEnumerator};
use thalweg_runtime::testing::Setup;

use super::kinesis::{Peer, Reading, until};

fn strings() -> KinesisSource<String> {
    KinesisSource::strings("s")
}

fn pushed(peer: &Peer, readers: u32) -> Reading<'_> {
    Reading::of(peer, peer.pushed(strings()), readers, None)
}

#[test]
fn subscriptions_are_renewed_and_followed_through_splits_and_merges_without_loss_or_doubles() {
    let peer = Peer::with_stream(2);
    let mut reading = pushed(&peer, 2);
    let mut written = 0;
    for round in 0..6 {
        (written..written + 50).for_each(|number| peer.put(number));
        written += 50;
        reading.read_to(written as usize - 25);
        match round {
            1 => peer.model.split_shard("s", 0).unwrap(),
            3 => peer.model.merge_shards("s", 3, 1).unwrap(),
            // Anywhere between two events.
            _ => peer.model.end_subscriptions(),
        }
    }
    reading.read_to(written as usize);
    (0..5).for_each(|_| reading.turn());
    reading.read.extend(reading.harness.output());
    reading.expect_each_once(written);
}

#[test]
fn a_subscription_lasts_as_long_as_the_service_says() {
    let peer = Peer::with_stream(1);
    peer.model.rule(|rules| rules.subscription_ms = 15);
    let mut reading = pushed(&peer, 1);
    for number in 0..40 {
        peer.put(number);
        reading.read_to(number as usize + 1);
    }
    until("it was renewed several times", || {
        reading.turn();
        peer.model.requests("SubscribeToShard") > 5
    });
    reading.expect_each_once(40);
}

#[test]
fn a_savepoint_moves_from_polling_to_fan_out_and_back() {
    let peer = Peer::with_stream(2);
    let mut reading = Reading::open(&peer, 2, None);
    let mut written = 0;
    for is_pushed in [true, false, true] {
        (written..written + 60).for_each(|number| peer.put(number));
        written += 60;
        reading.read_to(written as usize - 30);
        let snapshot = reading.checkpoint();
        let kept = reading.at(&snapshot);
        drop(reading);
        let source = if is_pushed { peer.pushed(strings()) } else { peer.configured(strings()) };
        reading = Reading::of(&peer, source, 2, Some(&snapshot));
        reading.read = kept;
    }
    reading.read_to(written as usize);
    reading.expect_each_once(written);
}

#[test]
fn a_consumer_is_registered_by_name_found_again_and_deregistered_when_the_job_stops() {
    for registration in [ConsumerRegistration::Lazy, ConsumerRegistration::Eager] {
        let peer = Peer::with_stream(2);
        (0..10).for_each(|number| peer.put(number));
        let source = peer.pushed(strings()).enhanced_fan_out("basic-efo-flink-app");
        let source = source.consumer_registration(registration);
        let mut reading = Reading::of(&peer, source.clone(), 3, None);
        reading.read_to(10);
        assert_eq!(peer.model.consumers("s"), ["basic-efo-flink-app"]);
        assert_eq!(peer.model.requests("RegisterStreamConsumer"), 1, "once in a process");
        // As if it had been killed: the consumer stays, and is found.
        drop(reading);
        let mut reading = Reading::of(&peer, source, 1, None);
        reading.read_to(10);
        assert_eq!(peer.model.requests("RegisterStreamConsumer"), 1);
        reading.harness.stop(1).unwrap();
        assert_eq!(peer.model.consumers("s"), [""; 0]);
    }
}

#[test]
fn a_consumer_of_others_is_used_and_left_alone() {
    let peer = Peer::with_stream(1);
    (0..10).for_each(|number| peer.put(number));
    let mut reading = pushed(&peer, 1);
    reading.read_to(10);
    drop(reading);
    let arn = peer.model.consumer_arn("s", "reader").unwrap();
    let arns = [("flink.stream.efo.registration", "NONE"), ("flink.stream.efo.consumerarn.s", arn.as_str())];
    let mut reading = Reading::of(&peer, peer.pushed_with(strings(), &arns), 1, None);
    reading.read_to(10);
    reading.harness.stop(1).unwrap();
    assert_eq!(peer.model.consumers("s"), ["reader"]);
    let unknown = [arns[0], ("flink.stream.efo.consumerarn.s", "arn:nobody")];
    let failure = Reading::of(&peer, peer.pushed_with(strings(), &unknown), 1, None).fails();
    assert!(
        failure.message.contains("arn:nobody") && failure.message.contains("ResourceNotFound"),
        "{failure}"
    );
}

#[test]
fn who_subscribes_later_with_the_same_name_takes_over_and_the_other_says_so() {
    let peer = Peer::with_stream(1);
    peer.put(0);
    let mut first = pushed(&peer, 1);
    first.read_to(1);
    // Within the time in which nobody may take over the second one waits, and the first goes on.
    let mut second = pushed(&peer, 1);
    let asked = peer.model.requests("SubscribeToShard");
    until("the second one has tried several times", || {
        second.turn();
        peer.model.requests("SubscribeToShard") > asked + 3
    });
    peer.put(1);
    first.read_to(2);
    peer.model.rule(|rules| rules.takeover_ms = 0);
    second.read_to(2);
    let failure = first.fails();
    for part in ["another reader", "shardId-000000000000", "a consumer of its own"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    assert!(failure.retryable);
}

#[test]
fn a_subscription_that_says_nothing_is_renewed() {
    let peer = Peer::with_stream(1);
    let source = peer.pushed_with(strings(), &[("flink.stream.efo.http-client.read-timeout", "30")]);
    let mut reading = Reading::of(&peer, source, 1, None);
    peer.put(0);
    reading.read_to(1);
    // It speaks without records, as often as the service does.
    peer.model.rule(|rules| rules.heartbeat_ms = 5);
    let before = peer.model.requests("SubscribeToShard");
    (0..60).for_each(|_| reading.turn());
    assert_eq!(peer.model.requests("SubscribeToShard"), before, "it speaks");
    peer.model.rule(|rules| rules.heartbeat_ms = 60_000);
    until("it is renewed", || {
        reading.turn();
        peer.model.requests("SubscribeToShard") > before
    });
    peer.put(1);
    reading.read_to(2);
    reading.expect_each_once(2);
}

#[test]
fn trouble_that_passes_loses_and_doubles_nothing_and_other_trouble_says_cause_and_cure() {
    let peer = Peer::with_stream(2);
    let mut reading = pushed(&peer, 2);
    (0..50).for_each(|number| peer.put(number));
    reading.read_to(50);
    peer.model.rule(|rules| {
        let refusals =
            ["LimitExceededException"; 12].into_iter().chain(["InternalFailure", "ResourceInUseException"]);
        rules.refusals.insert("SubscribeToShard".into(), refusals.collect());
        rules.lost_answers = 2;
    });
    peer.model.end_subscriptions();
    (50..100).for_each(|number| peer.put(number));
    reading.read_to(100);
    reading.expect_each_once(100);
    for (operation, code, expected) in [
        ("SubscribeToShard", "ExpiredTokenException", "valid credentials"),
        ("SubscribeToShard", "AccessDeniedException", "allow the role"),
        ("RegisterStreamConsumer", "AccessDeniedException", "allow the role"),
        ("DescribeStreamSummary", "ExpiredTokenException", "valid credentials"),
    ] {
        let peer = Peer::with_stream(1);
        peer.model.rule(|rules| drop(rules.refusals.insert(operation.into(), [code].into())));
        let failure = pushed(&peer, 1).fails();
        assert!(failure.message.contains(expected) && failure.retryable, "{operation}: {failure}");
        assert!(!failure.message.contains("test-secret"), "{failure}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_asked() {
    let peer = Peer::with_stream(1);
    let nameless = peer.configured(strings()).consumer_registration(ConsumerRegistration::Lazy);
    let context = Setup { io: peer.io(), ..Setup::default() }.open_context();
    let failure = nameless.enumerator(&context, None).unwrap_err();
    assert!(
        failure.message.contains("`flink.stream.efo.consumername` must say") && !failure.retryable,
        "{failure}"
    );
    assert_eq!(peer.model.requests("ListShards"), 0);
}

#[test]
fn shards_wait_one_by_one_for_other_sources_and_are_read_on() {
    let peer = Peer::with_stream(2);
    (0..40).for_each(|number| peer.put(number));
    let of_shard: Vec<usize> = peer.model.records("s").unwrap().iter().map(Vec::len).collect();
    for source in [peer.pushed(strings()), peer.configured(strings())] {
        let source = source.initial_position(InitialPosition::TrimHorizon);
        let context = Setup { io: peer.io(), ..Setup::default() }.open_context();
        let mut enumerator = source.enumerator(&context, None).unwrap();
        let mut reader = source.reader(&context).unwrap();
        reader.add_splits(enumerator.discover().unwrap().splits).unwrap();
        let mut batch = Batch::default();
        let mut read = Vec::new();
        let mut poll = |reader: &mut ShardReader<String>, most: usize| {
            reader.poll(&mut batch, most).unwrap();
            read.extend(batch.drain());
            peer.breathe();
            read.len()
        };
        let paused: BTreeSet<String> = ["s/shardId-000000000000".to_owned()].into();
        until("one record is read", || poll(&mut reader, 1) > 0);
        reader.pause_splits(&paused);
        until("the other shard is read", || poll(&mut reader, 100) >= of_shard[1]);
        for _ in 0..20 {
            assert!(poll(&mut reader, 100) <= of_shard[1] + 1, "the first shard waits");
        }
        reader.pause_splits(&BTreeSet::new());
        until("all is read", || poll(&mut reader, 100) >= 40);
        read.sort_by_key(|text| text.parse::<u32>().unwrap());
        assert!(read.iter().map(|text| text.parse::<u32>().unwrap()).eq(0..40), "{read:?}");
    }
}
