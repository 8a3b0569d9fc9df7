//! The Firehose sink: the checks of every connector against the model and against ministack, which writes to its own S3; what becomes of
//! records that are refused one by one; limits and errors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_common::clock::{ManualClock, SharedClock, SystemClock};
use thalweg_common::failure::Failure;
use thalweg_common::storage::{Storage, StorageFactory};
use thalweg_connectors::FirehoseSink;
use thalweg_connectors::conformance::{Guarantee, SinkSubject, Trouble, sink as checks};
use thalweg_runtime::io::Io;
use thalweg_runtime::operators;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_test_support::{FaultProxy, Faults, S3Peer};

use super::kinesis::{Peer, credentials, until};

const STREAM: &str = "ExampleDeliveryStream";

fn number(data: &[u8]) -> u64 {
    String::from_utf8_lossy(data).parse().unwrap()
}

/// The model.
struct Delivery(Peer);

impl Delivery {
    fn new() -> Self {
        let peer = Peer::new();
        peer.model.create_delivery_stream(STREAM);
        Self(peer)
    }

    fn sink_of(peer: &Peer) -> FirehoseSink<String> {
        FirehoseSink::strings(STREAM).endpoint(peer.model.endpoint()).credentials(credentials())
    }
}

impl SinkSubject for Delivery {
    type In = String;
    type Sink = FirehoseSink<String>;

    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;

    fn sink(&self) -> FirehoseSink<String> {
        Self::sink_of(&self.0)
    }

    fn record(&self, number: u64) -> String {
        number.to_string()
    }

    fn written(&self) -> Vec<u64> {
        self.0.model.delivered(STREAM).iter().map(|data| number(data)).collect()
    }

    fn io(&self) -> Io {
        self.0.io()
    }

    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        self.0.trouble(trouble, "PutRecordBatch", 4)
    }

    fn connections(&self) -> Option<usize> {
        Some(self.0.model.connections())
    }

    fn breathe(&self) {
        self.0.breathe();
    }
}

thalweg_connectors::sink_conformance!(Delivery::new());

/// ministack behind a proxy that makes it fail, with a delivery stream that writes each record as an object.
struct Store<'a> {
    world: &'a World,
    stream: &'static str,
    storage: Arc<dyn Storage>,
    /// What was read of the objects so far: none ever changes.
    read: Mutex<BTreeMap<String, u64>>,
}

struct World {
    /// For its runtime.
    peer: Peer,
    proxy: FaultProxy,
    storages: StorageFactory,
    ministack: S3Peer,
}

impl World {
    fn new() -> Self {
        let peer = Peer::new();
        let (ministack, proxy) = peer.runtime.block_on(async {
            let ministack = S3Peer::start().await.unwrap_or_else(|error| panic!("{error:#}"));
            ministack.create_bucket("deliveries").await.unwrap();
            let proxy = FaultProxy::start(ministack.address(), 11).await.unwrap();
            (ministack, proxy)
        });
        let storages = StorageFactory::new(ministack.settings());
        Self { peer, proxy, storages, ministack }
    }

    fn stream(&self, stream: &'static str) -> Store<'_> {
        let prefix = format!("{stream}/");
        let made = self.ministack.create_delivery_stream(stream, "deliveries", &prefix);
        self.peer.runtime.block_on(made).unwrap();
        let storage = self.storages.open(&format!("s3://deliveries/{stream}")).unwrap();
        Store { world: self, stream, storage, read: Mutex::default() }
    }
}

impl SinkSubject for Store<'_> {
    type In = String;
    type Sink = FirehoseSink<String>;

    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;

    fn sink(&self) -> FirehoseSink<String> {
        FirehoseSink::strings(self.stream)
            .endpoint(format!("http://{}", self.world.proxy.address()))
            .credentials(credentials())
            .max_batch_records(50)
            .max_buffered(200)
    }

    fn record(&self, number: u64) -> String {
        number.to_string()
    }

    fn written(&self) -> Vec<u64> {
        let mut read = self.read.lock().unwrap();
        self.world.peer.runtime.block_on(async {
            for object in self.storage.list("").await.unwrap() {
                if !read.contains_key(&object.path) {
                    let found = number(&self.storage.get(&object.path).await.unwrap());
                    read.insert(object.path, found);
                }
            }
        });
        read.values().copied().collect()
    }

    fn io(&self) -> Io {
        self.world.peer.io()
    }

    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        self.world.proxy.set_faults(match trouble {
            None => Faults::default(),
            Some(Trouble::Silent) => Faults { silence: 1_000, ..Faults::default() },
            Some(Trouble::Failing) => Faults::of_thousand(400),
        });
        true
    }

    fn connections(&self) -> Option<usize> {
        Some(self.world.proxy.connections())
    }

    fn breathe(&self) {
        self.world.peer.breathe();
    }
}

#[test]
fn conformance_of_the_firehose_sink_with_a_peer_that_others_have_written() {
    let world = World::new();
    let check = |stream, check: fn(&Store<'_>) -> Result<(), Failure>| {
        let subject = world.stream(stream);
        check(&subject).unwrap_or_else(|failure| panic!("{stream}: {failure}"));
    };
    check("kill-and-restore", |subject| checks::kill_and_restore(subject));
    check("rescaling", |subject| checks::rescaling(subject));
    check("savepoint", |subject| checks::restore_from_savepoint(subject));
    check("backpressure", |subject| checks::backpressure(subject));
    check("failing", |subject| checks::slow_and_failing_peer(subject));
    check("cancellation", |subject| checks::cancellation(subject));
    check("idle", |subject| checks::idle_subtasks(subject));
    check("connections", |subject| checks::no_leaked_connection(subject));
}

/// One subtask of a sink that is driven by hand.
struct Driven<'a> {
    peer: &'a Peer,
    harness: OperatorHarness<String>,
}

impl<'a> Driven<'a> {
    fn open(peer: &'a Peer, sink: FirehoseSink<String>) -> Self {
        Self::at(SystemClock::shared(), peer, sink)
    }

    fn at(clock: SharedClock, peer: &'a Peer, sink: FirehoseSink<String>) -> Self {
        let setup = Setup { io: peer.io(), clock, ..Setup::default() };
        let harness =
            OperatorHarness::open_sink(operators::sink(sink).as_ref(), setup.subtask(0, 1)).unwrap();
        Self { peer, harness }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let turn = self.harness.flush();
        self.peer.breathe();
        turn.map(drop)
    }

    fn until_delivered(&mut self, records: usize) {
        until("everything is delivered", || {
            self.turn().unwrap();
            self.peer.model.delivered(STREAM).len() >= records
        });
    }

    fn fails(&mut self) -> Failure {
        let mut failed = None;
        until("it fails", || {
            failed = self.turn().err();
            failed.is_some()
        });
        failed.unwrap()
    }
}

#[test]
fn what_is_refused_of_a_request_is_put_again_and_nothing_else() {
    let Delivery(peer) = Delivery::new();
    peer.model.rule(|rules| rules.refuses_one_in = 3);
    let mut driven = Driven::open(&peer, Delivery::sink_of(&peer));
    driven.harness.push((0..100).map(|number| number.to_string()).collect()).unwrap();
    driven.until_delivered(100);
    let mut delivered: Vec<u64> = peer.model.delivered(STREAM).iter().map(|data| number(data)).collect();
    delivered.sort_unstable();
    assert!(delivered.into_iter().eq(0..100), "each once");
    let requests = peer.model.requests("PutRecordBatch");
    assert!((2..20).contains(&requests), "with pauses, not in a loop: {requests} requests");
}

#[test]
fn requests_keep_the_limits_of_firehose() {
    let Delivery(peer) = Delivery::new();
    let mut driven = Driven::open(&peer, Delivery::sink_of(&peer));
    driven.harness.push((0..1_100).map(|number| number.to_string()).collect()).unwrap();
    driven.until_delivered(1_100);
    assert_eq!(peer.model.requests("PutRecordBatch"), 3, "500 records with each");
    driven.harness.push((0..9).map(|_| "x".repeat(1_000 * 1024)).collect()).unwrap();
    driven.until_delivered(1_109);
    assert_eq!(peer.model.requests("PutRecordBatch"), 6, "4 MiB with each");
    let too_large = driven.harness.push(vec!["x".repeat(1_000 * 1024 + 1)]).unwrap_err();
    assert!(too_large.message.contains("1,000 KiB; leave it out, or write it in parts"), "{too_large}");
}

#[test]
fn a_sink_does_not_wait_for_a_host_that_never_was_there_as_long_as_for_others() {
    let (peer, clock) = (Peer::new(), Arc::new(ManualClock::new(0)));
    // A name that nobody has to be asked about.
    let sink = FirehoseSink::strings(STREAM).endpoint("http://-firehose.us-est-1.invalid");
    let mut driven = Driven::at(clock.clone(), &peer, sink.credentials(credentials()));
    driven.harness.push(vec!["a".to_owned()]).unwrap();
    let mut failed = None;
    until("it fails", || {
        clock.advance(Duration::from_millis(10));
        failed = driven.turn().err();
        failed.is_some()
    });
    let expected = "records were refused for 3000 ms: cannot write to the delivery stream ExampleDeliveryStream: UnknownHost: there is no host \
                    -firehose.us-est-1.invalid; check how `aws.region` or `aws.endpoint` is written";
    let failure = failed.unwrap();
    assert!(failure.message.contains(expected), "{failure}");
}

#[test]
fn a_firehose_sink_fails_with_cause_and_cure() {
    let Delivery(peer) = Delivery::new();
    let sink = |stream: &str| {
        FirehoseSink::strings(stream).endpoint(peer.model.endpoint()).credentials(credentials())
    };
    let failure = |sink: FirehoseSink<String>| {
        let mut driven = Driven::open(&peer, sink);
        driven.harness.push(vec!["a".to_owned(), "b".to_owned()]).unwrap();
        driven.fails().message
    };
    let missing = failure(sink("missing"));
    let expected = "cannot write to the delivery stream missing: ResourceNotFoundException: Firehose missing under account 000000000000 \
                    not found; check that the delivery stream missing exists";
    assert!(missing.contains(expected), "{missing}");
    peer.model.rule(|rules| rules.refuses_one_in = 2);
    let refused = failure(sink(STREAM).fail_on_error());
    assert!(refused.contains("ServiceUnavailableException: Slow down"), "{refused}");
    let given_up = failure(sink(STREAM).delivery_timeout(Duration::ZERO));
    assert!(given_up.contains("records were refused for 0 ms"), "{given_up}");
    let too_many = FirehoseSink::strings(STREAM)
        .with_properties([("sink.batch.max-size", "501"), ("aws.region", "us-east-1")])
        .unwrap();
    let setup = Setup { io: peer.io(), ..Setup::default() };
    let wrong = OperatorHarness::<String>::open_sink(operators::sink(too_many).as_ref(), setup.subtask(0, 1));
    assert!(wrong.err().unwrap().message.contains("a number from 1 to 500"));
}
