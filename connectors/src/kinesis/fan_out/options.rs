//! What enhanced fan-out can be told: Flink's keys with their defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::limits::KINESIS_SUBSCRIPTION_SILENCE_MS;
use tracing::warn;

use super::super::options::{backoff, pauses};
use crate::aws::Backoff;
use crate::properties::{Properties, wrong};

/// Its keys behind `flink.` or `scan.`.
pub(in super::super) const KEYS: [&str; 28] = [
    "stream.efo.consumername",
    "stream.efo.registration",
    "stream.efo.consumerarn",
    "stream.efo.http-client.max-concurrency",
    "stream.efo.http-client.read-timeout",
    "stream.describe.maxretries",
    "stream.describe.backoff.base",
    "stream.describe.backoff.max",
    "stream.describe.backoff.expconst",
    "stream.describestreamconsumer.maxretries",
    "stream.describestreamconsumer.backoff.base",
    "stream.describestreamconsumer.backoff.max",
    "stream.describestreamconsumer.backoff.expconst",
    "stream.registerstreamconsumer.maxretries",
    "stream.registerstreamconsumer.timeout",
    "stream.registerstreamconsumer.backoff.base",
    "stream.registerstreamconsumer.backoff.max",
    "stream.registerstreamconsumer.backoff.expconst",
    "stream.deregisterstreamconsumer.maxretries",
    "stream.deregisterstreamconsumer.timeout",
    "stream.deregisterstreamconsumer.backoff.base",
    "stream.deregisterstreamconsumer.backoff.max",
    "stream.deregisterstreamconsumer.backoff.expconst",
    "shard.subscribetoshard.maxretries",
    "shard.subscribetoshard.timeout",
    "shard.subscribetoshard.backoff.base",
    "shard.subscribetoshard.backoff.max",
    "shard.subscribetoshard.backoff.expconst",
];

/// Who registers the consumer of enhanced fan-out with a stream: Flink's `flink.stream.efo.registration`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConsumerRegistration {
    /// Each process that reads the stream, when it begins to; one that is there is used. When the job is stopped with a savepoint, or at its
    /// end, it is deregistered; when it fails or is cancelled it stays, and the next start finds it.
    #[default]
    Lazy,
    /// The one enumerator of the source, before any shard is read; the others wait for it. Deregistered as with `Lazy`.
    Eager,
    /// Nobody: the ARNs of the consumers that others have registered, by the names of their streams.
    None(BTreeMap<String, String>),
}

/// Settings of enhanced fan-out.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct FanOutOptions {
    /// Nothing only with ARNs that are given.
    pub(in super::super) consumer_name: Option<String>,
    pub(in super::super) registration: ConsumerRegistration,
    /// How long a subscription may bring nothing, not even the word that there is nothing.
    pub(in super::super) longest_silence: Duration,
    pub(super) describing_streams: Backoff,
    pub(super) describing: Backoff,
    pub(super) registering: (Backoff, Duration),
    pub(super) deregistering: (Backoff, Duration),
    pub(in super::super) subscribing: Backoff,
    pub(in super::super) subscribe_timeout: Duration,
}

impl Default for FanOutOptions {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            consumer_name: None,
            registration: ConsumerRegistration::Lazy,
            longest_silence: Duration::from_millis(KINESIS_SUBSCRIPTION_SILENCE_MS),
            describing_streams: backoff(2_000, 5_000, 50),
            describing: backoff(2_000, 5_000, 50),
            registering: (backoff(500, 2_000, 10), minute),
            deregistering: (backoff(500, 2_000, 10), minute),
            subscribing: backoff(1_000, 2_000, 10),
            subscribe_timeout: minute,
        }
    }
}

impl FanOutOptions {
    /// Reads them. `arns` are given by stream; one without a stream is that of all which have none.
    pub(in super::super) fn from_properties(
        given: &Properties,
        arns: BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let default = Self::default();
        if let Some(most) = given.text("stream.efo.http-client.max-concurrency") {
            warn!(
                "The property `flink.stream.efo.http-client.max-concurrency` = `{most}` has no meaning: every shard has its subscription; it \
                 is ignored."
            );
        }
        let timeout = |key: &str, default| {
            let seconds = given.parsed(key, "a number of seconds")?;
            Ok::<_, Failure>(seconds.map_or(default, Duration::from_secs))
        };
        let timed = |of: &str, (backoff, longest): (Backoff, Duration)| {
            Ok::<_, Failure>((pauses(given, of, backoff)?, timeout(&format!("{of}.timeout"), longest)?))
        };
        let (subscribing, subscribe_timeout) =
            timed("shard.subscribetoshard", (default.subscribing, default.subscribe_timeout))?;
        Ok(Self {
            consumer_name: given.text("stream.efo.consumername").map(str::to_owned),
            registration: registration(given, arns)?,
            longest_silence: given
                .millis("stream.efo.http-client.read-timeout")?
                .unwrap_or(default.longest_silence),
            describing_streams: pauses(given, "stream.describe", default.describing_streams)?,
            describing: pauses(given, "stream.describestreamconsumer", default.describing)?,
            registering: timed("stream.registerstreamconsumer", default.registering)?,
            deregistering: timed("stream.deregisterstreamconsumer", default.deregistering)?,
            subscribing,
            subscribe_timeout,
        })
    }

    /// Whether they suffice for these streams.
    pub(in super::super) fn check(&self, streams: &[String]) -> Result<(), Failure> {
        if self.longest_silence.is_zero() || self.subscribe_timeout.is_zero() {
            return Err(wrong(
                "`flink.stream.efo.http-client.read-timeout` and `flink.shard.subscribetoshard.timeout` must be above 0",
            ));
        }
        if let ConsumerRegistration::None(arns) = &self.registration {
            return match streams.iter().find(|stream| !arns.contains_key(*stream) && !arns.contains_key("")) {
                Some(stream) => Err(wrong(format!(
                    "with `flink.stream.efo.registration` NONE, `flink.stream.efo.consumerarn.{stream}` must say which consumer reads the \
                     stream {stream}"
                ))),
                None => Ok(()),
            };
        }
        let is_right = |name: &&String| {
            let is_fitting = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            (1..=128).contains(&name.len()) && name.bytes().all(is_fitting)
        };
        match &self.consumer_name {
            Some(name) if is_right(&name) => Ok(()),
            Some(name) => Err(wrong(format!(
                "`flink.stream.efo.consumername` cannot be `{name}`: it has 1 to 128 letters, digits, `_`, `.` and `-`"
            ))),
            None => Err(wrong(
                "with `flink.stream.recordpublisher` EFO, `flink.stream.efo.consumername` must say under which name the application reads, one \
                 that no other reader of the stream has",
            )),
        }
    }
}

fn registration(
    given: &Properties,
    mut arns: BTreeMap<String, String>,
) -> Result<ConsumerRegistration, Failure> {
    match given.text("stream.efo.registration").unwrap_or("LAZY") {
        "LAZY" => Ok(ConsumerRegistration::Lazy),
        "EAGER" => Ok(ConsumerRegistration::Eager),
        "NONE" => {
            if let Some(arn) = given.text("stream.efo.consumerarn") {
                arns.insert(String::new(), arn.to_owned());
            }
            Ok(ConsumerRegistration::None(arns))
        }
        other => Err(wrong(format!(
            "`flink.stream.efo.registration` cannot be `{other}`; it is LAZY, EAGER or NONE"
        ))),
    }
}
