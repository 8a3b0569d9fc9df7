//! What the tests of the Kinesis connectors share: a model of the service with a runtime for its clients, and a source that is driven by hand.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use thalweg_common::clock::{Clock as _, SystemClock};
use thalweg_common::failure::Failure;
use thalweg_connectors::KinesisSource;
use thalweg_connectors::conformance::Trouble;
use thalweg_connectors::kinesis::{CredentialsProvider, InitialPosition};
use thalweg_runtime::io::Io;
use thalweg_runtime::testing::{EnumeratedHarness, EnumeratedSnapshot, Setup};
use thalweg_test_support::KinesisModel;
use thalweg_test_support::kinesis::Rules;
use tokio::runtime::{Builder, Runtime};

/// Longest wait for anything.
pub const WAIT: Duration = Duration::from_secs(30);

/// A model of the service.
pub struct Peer {
    pub model: KinesisModel,
    pub runtime: Runtime,
}

impl Peer {
    pub fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let model = runtime.block_on(KinesisModel::start()).unwrap();
        Self { model, runtime }
    }

    /// With a stream `s`.
    pub fn with_stream(shards: u32) -> Self {
        let peer = Self::new();
        peer.model.create_stream("s", shards);
        peer
    }

    pub fn io(&self) -> Io {
        Io::on(self.runtime.handle().clone())
    }

    /// Lets it be in trouble, or out of it: `refused` of the requests for an operation fail, or all wait.
    pub fn trouble(&self, trouble: Option<Trouble>, operation: &str, refused: usize) -> bool {
        let codes = ["ProvisionedThroughputExceededException", "InternalFailure"];
        self.model.rule(|rules| {
            *rules = Rules::default();
            match trouble {
                None => {}
                Some(Trouble::Silent) => rules.is_silent = true,
                Some(Trouble::Failing) => {
                    rules.lost_answers = 2;
                    rules.refuses_one_in = 3;
                    rules
                        .refusals
                        .insert(operation.into(), codes.into_iter().cycle().take(refused).collect());
                }
            }
        });
        true
    }

    /// Lets answers come.
    pub fn breathe(&self) {
        // not a wait: the pause between two looks
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }

    /// Writes a number, whose key is itself.
    pub fn put(&self, number: u64) {
        self.model.put("s", &number.to_string(), number.to_string()).unwrap();
    }

    /// The source with what reaches the model, from the oldest record and in a hurry.
    pub fn configured<T: thalweg_common::record::Record>(
        &self,
        source: KinesisSource<T>,
    ) -> KinesisSource<T> {
        source
            .endpoint(self.model.endpoint())
            .credentials(credentials())
            .initial_position(InitialPosition::TrimHorizon)
            .read_interval(Duration::from_millis(5))
            .discovery_interval(Duration::from_millis(500))
    }

    /// The same by enhanced fan-out, as the consumer `reader`.
    pub fn pushed<T: thalweg_common::record::Record>(&self, source: KinesisSource<T>) -> KinesisSource<T> {
        self.pushed_with(source, &[])
    }

    /// The same with more properties.
    pub fn pushed_with<T: thalweg_common::record::Record>(
        &self,
        source: KinesisSource<T>,
        more: &[(&str, &str)],
    ) -> KinesisSource<T> {
        let endpoint = self.model.endpoint();
        let pauses =
            ["describestreamconsumer", "registerstreamconsumer"].map(|of| format!("flink.stream.{of}"));
        let pauses = pauses.into_iter().chain(["flink.shard.subscribetoshard".to_owned()]);
        let pauses =
            pauses.flat_map(|of| [(format!("{of}.backoff.base"), "5"), (format!("{of}.backoff.max"), "20")]);
        let properties = [
            ("aws.endpoint", endpoint.as_str()),
            ("aws.credentials.provider", "BASIC"),
            ("aws.credentials.basic.accesskeyid", "TESTACCESSKEY"),
            ("aws.credentials.basic.secretkey", "test-secret"),
            ("flink.stream.initpos", "TRIM_HORIZON"),
            ("flink.shard.discovery.intervalmillis", "500"),
            ("flink.stream.recordpublisher", "EFO"),
            ("flink.stream.efo.consumername", "reader"),
        ];
        let properties = properties.iter().chain(more).map(|(key, value)| ((*key).to_owned(), *value));
        source.with_properties(properties.chain(pauses)).unwrap()
    }
}

/// What the model takes, as it takes any.
pub fn credentials() -> CredentialsProvider {
    CredentialsProvider::Basic {
        access_key_id: "TESTACCESSKEY".into(),
        secret_key: "test-secret-key-that-nobody-may-see".into(),
    }
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !is_so() {
        assert!(clock.monotonic() < WAIT, "not within {WAIT:?}: {what}");
    }
}

/// A source that is read by hand; its clock goes with that of the machine.
pub struct Reading<'a> {
    pub harness: EnumeratedHarness<String>,
    /// All that was read, what is restored included.
    pub read: Vec<String>,
    peer: &'a Peer,
    clock: SystemClock,
    shown: Duration,
    /// How much was read at the last checkpoint.
    at_checkpoint: usize,
    checkpoints: u64,
}

impl<'a> Reading<'a> {
    pub fn open(peer: &'a Peer, readers: u32, restored: Option<&EnumeratedSnapshot>) -> Self {
        Self::of(peer, peer.configured(KinesisSource::strings("s")), readers, restored)
    }

    pub fn of(
        peer: &'a Peer,
        source: KinesisSource<String>,
        readers: u32,
        restored: Option<&EnumeratedSnapshot>,
    ) -> Self {
        let setup = Setup { io: peer.io(), ..Setup::default() };
        let harness = EnumeratedHarness::open_in(setup, source, readers, restored).unwrap();
        let clock = SystemClock::new();
        Self {
            harness,
            read: Vec::new(),
            peer,
            clock,
            shown: Duration::ZERO,
            at_checkpoint: 0,
            checkpoints: 0,
        }
    }

    /// Another attempt, with the records of the checkpoint.
    pub fn restored(peer: &'a Peer, readers: u32, from: &EnumeratedSnapshot, read: Vec<String>) -> Self {
        Self { read, ..Self::open(peer, readers, Some(from)) }
    }

    fn step(&mut self) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        self.harness.advance(now - self.shown);
        self.shown = now;
        self.harness.settle()?;
        self.peer.breathe();
        Ok(())
    }

    /// Everything has a turn.
    pub fn turn(&mut self) {
        self.step().unwrap();
    }

    /// Reads until there is so much.
    pub fn read_to(&mut self, records: usize) {
        let clock = SystemClock::new();
        while self.read.len() < records {
            assert!(clock.monotonic() < WAIT, "{} of {records} were read within {WAIT:?}", self.read.len());
            self.turn();
            let read = self.harness.output();
            self.read.extend(read);
        }
    }

    pub fn checkpoint(&mut self) -> EnumeratedSnapshot {
        self.checkpoints += 1;
        let snapshot = self.harness.checkpoint(self.checkpoints).unwrap();
        let read = self.harness.output();
        self.read.extend(read);
        self.at_checkpoint = self.read.len();
        snapshot
    }

    /// What the state of a job would have at its checkpoint.
    pub fn at(&self, _: &EnumeratedSnapshot) -> Vec<String> {
        self.read[..self.at_checkpoint].to_vec()
    }

    /// That the numbers below were read, each once.
    pub fn expect_each_once(&self, numbers: u64) {
        let mut read: Vec<u64> = self.read.iter().map(|text| text.parse().unwrap()).collect();
        read.sort_unstable();
        let expected: Vec<u64> = (0..numbers).collect();
        let lost: Vec<_> = expected.iter().filter(|number| read.binary_search(number).is_err()).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(read, expected, "duplicated: {}", read.len() - expected.len());
    }

    /// That it fails, and with what.
    pub fn fails(mut self) -> Failure {
        let clock = SystemClock::new();
        loop {
            assert!(clock.monotonic() < WAIT, "it does not fail");
            if let Err(failure) = self.step() {
                return failure;
            }
        }
    }
}
