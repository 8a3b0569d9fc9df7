//! What a Kinesis source can be told: Flink's keys with their defaults, in either form (`flink.` of DataStream programs, `scan.` of SQL).

use std::collections::BTreeMap;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::limits::KINESIS_MAX_RECORDS_PER_READ;

use super::fan_out::{self, FanOutOptions};
use super::position::InitialPosition;
use super::timestamp;
use crate::aws::{AwsSettings, Backoff};
use crate::properties::{Properties, wrong};

/// The keys of the source behind `flink.` or `scan.`, and the last one, which Flink does not have.
const KEYS: [&str; 25] = [
    "stream.initpos",
    "stream.initpos.timestamp",
    "stream.initpos.timestamp.format",
    "stream.recordpublisher",
    "shard.getrecords.maxrecordcount",
    "shard.getrecords.intervalmillis",
    "shard.adaptivereads",
    "shard.getrecords.maxretries",
    "shard.getrecords.backoff.base",
    "shard.getrecords.backoff.max",
    "shard.getrecords.backoff.expconst",
    "shard.getiterator.maxretries",
    "shard.getiterator.backoff.base",
    "shard.getiterator.backoff.max",
    "shard.getiterator.backoff.expconst",
    "list.shards.maxretries",
    "list.shards.backoff.base",
    "list.shards.backoff.max",
    "list.shards.backoff.expconst",
    "shard.discovery.intervalmillis",
    "shard.idle.interval",
    "watermark.sync.interval",
    "watermark.lookahead.millis",
    "watermark.sync.queue.capacity",
    "source.deduplication.window",
];

/// Longest pause between two reads: behind five minutes iterators expire.
const LONGEST_INTERVAL: Duration = Duration::from_millis(300_000);

/// Settings of a source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub(super) aws: AwsSettings,
    pub(super) initial: InitialPosition,
    /// Most records of one read.
    pub(super) records_per_read: u32,
    /// From the beginning of one read of a shard to that of the next.
    pub(super) read_interval: Duration,
    /// Whether a read asks for as many records as fit the quota of a shard, by their mean size.
    pub(super) adaptive_reads: bool,
    pub(super) reading: Backoff,
    pub(super) iterators: Backoff,
    pub(super) listing: Backoff,
    /// How often new shards are looked for.
    pub(super) discovery_interval: Duration,
    /// Whether the service pushes records, by enhanced fan-out; else it is asked for them.
    pub(super) fan_out: Option<FanOutOptions>,
    /// For how long ids of records are remembered, so that each is read once.
    pub(super) deduplication: Option<Duration>,
}

pub(super) const fn backoff(base_ms: u64, max_ms: u64, max_retries: u32) -> Backoff {
    Backoff {
        base: Duration::from_millis(base_ms),
        max: Duration::from_millis(max_ms),
        exponent: 1.5,
        max_retries,
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            aws: AwsSettings::default(),
            initial: InitialPosition::Latest,
            records_per_read: KINESIS_MAX_RECORDS_PER_READ,
            read_interval: Duration::from_millis(200),
            adaptive_reads: false,
            reading: backoff(300, 1_000, 3),
            iterators: backoff(300, 1_000, 3),
            listing: backoff(1_000, 5_000, 10),
            discovery_interval: Duration::from_secs(10),
            fan_out: None,
            deduplication: None,
        }
    }
}

/// The key without what tells the two forms apart, and without what Amazon's guide misspells.
fn canonical(key: &str) -> String {
    let key = match key.strip_prefix("flink.").or_else(|| key.strip_prefix("scan.")) {
        Some(key) => key,
        None => return crate::aws::canonical(key),
    };
    match key {
        "inputstream.initpos" => "stream.initpos",
        "stream.initpos-timestamp" => "stream.initpos.timestamp",
        "stream.initpos-timestamp-format" => "stream.initpos.timestamp.format",
        "stream.recorderpublisher" => "stream.recordpublisher",
        "stream.efs.consumername" => "stream.efo.consumername",
        key => key,
    }
    .to_owned()
}

impl Options {
    pub(super) fn from_properties(
        given: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Self, Failure> {
        let known: Vec<&str> = KEYS.into_iter().chain(fan_out::KEYS).chain(crate::aws::keys()).collect();
        let mut arns = BTreeMap::new();
        let given = given.into_iter().map(|(key, value)| (key.into(), value.into()));
        let given = given.filter(|(key, value): &(String, String)| match consumer_of(key) {
            Some(stream) => {
                arns.insert(stream.to_owned(), value.trim().to_owned());
                false
            }
            None => true,
        });
        let given = Properties::new(given, canonical, &known)?;
        let default = Self::default();
        not_here(&given)?;
        let options = Self {
            aws: AwsSettings::from_properties(given.all())?,
            initial: initial(&given)?,
            records_per_read: given
                .parsed("shard.getrecords.maxrecordcount", "a number from 1 to 10000")?
                .unwrap_or(default.records_per_read),
            read_interval: given.millis("shard.getrecords.intervalmillis")?.unwrap_or(default.read_interval),
            adaptive_reads: given
                .parsed("shard.adaptivereads", "`true` or `false`")?
                .unwrap_or(default.adaptive_reads),
            reading: pauses(&given, "shard.getrecords", default.reading)?,
            iterators: pauses(&given, "shard.getiterator", default.iterators)?,
            listing: pauses(&given, "list.shards", default.listing)?,
            discovery_interval: given
                .millis("shard.discovery.intervalmillis")?
                .unwrap_or(default.discovery_interval),
            fan_out: publisher(&given, arns)?,
            deduplication: given.millis("source.deduplication.window")?.filter(|window| !window.is_zero()),
        };
        options.check()?;
        Ok(options)
    }

    /// Whether they make sense together.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if !(1..=KINESIS_MAX_RECORDS_PER_READ).contains(&self.records_per_read) {
            return Err(wrong("`flink.shard.getrecords.maxrecordcount` is a number from 1 to 10000"));
        }
        if self.read_interval > LONGEST_INTERVAL {
            return Err(wrong(
                "`flink.shard.getrecords.intervalmillis` is at most 300000: behind five minutes iterators expire",
            ));
        }
        if self.discovery_interval.is_zero() {
            return Err(wrong("`flink.shard.discovery.intervalmillis` must be above 0"));
        }
        if self.aws.region.is_none() && self.aws.endpoint.is_none() {
            return Err(wrong(
                "a Kinesis source needs `aws.region`, or `aws.endpoint` for a service of one's own",
            ));
        }
        Ok(())
    }
}

/// The stream whose consumer a key names.
fn consumer_of(key: &str) -> Option<&str> {
    let key = key.strip_prefix("flink.").or_else(|| key.strip_prefix("scan."))?;
    key.strip_prefix("stream.efo.consumerarn.")
}

/// How records come. What enhanced fan-out is told is read in any case, so that what is wrong is said.
fn publisher(given: &Properties, arns: BTreeMap<String, String>) -> Result<Option<FanOutOptions>, Failure> {
    let fan_out = FanOutOptions::from_properties(given, arns)?;
    match given.text("stream.recordpublisher").unwrap_or("POLLING") {
        "POLLING" => Ok(None),
        "EFO" => Ok(Some(fan_out)),
        other => {
            Err(wrong(format!("`flink.stream.recordpublisher` cannot be `{other}`; it is POLLING or EFO")))
        }
    }
}

/// What Flink's consumer has and this one does not: said, not ignored.
fn not_here(given: &Properties) -> Result<(), Failure> {
    if let Some(idle) = given.text("shard.idle.interval")
        && idle != "-1"
    {
        return Err(wrong(
            "`flink.shard.idle.interval` has its place in the watermark strategy here, which keeps time per shard: use `with_idleness`",
        ));
    }
    for key in ["watermark.sync.interval", "watermark.lookahead.millis", "watermark.sync.queue.capacity"] {
        if given.text(key).is_some_and(|value| key != "watermark.lookahead.millis" || value != "0") {
            return Err(wrong(format!(
                "`flink.{key}` has its place in the watermark strategy here: use `with_watermark_alignment`"
            )));
        }
    }
    Ok(())
}

fn initial(given: &Properties) -> Result<InitialPosition, Failure> {
    match given.text("stream.initpos").unwrap_or("LATEST") {
        "LATEST" => Ok(InitialPosition::Latest),
        "TRIM_HORIZON" => Ok(InitialPosition::TrimHorizon),
        "AT_TIMESTAMP" => {
            let text = given.text("stream.initpos.timestamp").ok_or_else(|| {
                wrong("`flink.stream.initpos` is AT_TIMESTAMP, so `flink.stream.initpos.timestamp` must say which")
            })?;
            let pattern = given.text("stream.initpos.timestamp.format").unwrap_or(timestamp::DEFAULT_PATTERN);
            let parsed = timestamp::parse(text, pattern);
            Ok(InitialPosition::AtTimestamp(
                parsed.map_err(|why| wrong(format!("`flink.stream.initpos.timestamp`: {why}")))?,
            ))
        }
        other => Err(wrong(format!(
            "`flink.stream.initpos` cannot be `{other}`; it is LATEST, TRIM_HORIZON or AT_TIMESTAMP"
        ))),
    }
}

pub(super) fn pauses(given: &Properties, of: &str, default: Backoff) -> Result<Backoff, Failure> {
    let key = |rest: &str| format!("{of}.{rest}");
    let exponent = given.parsed(&key("backoff.expconst"), "a number of at least 1")?;
    let backoff = Backoff {
        base: given.millis(&key("backoff.base"))?.unwrap_or(default.base),
        max: given.millis(&key("backoff.max"))?.unwrap_or(default.max),
        exponent: exponent.unwrap_or(default.exponent),
        max_retries: given.parsed(&key("maxretries"), "a number")?.unwrap_or(default.max_retries),
    };
    if !(1.0..=1_000.0).contains(&backoff.exponent) {
        return Err(wrong(format!("`flink.{of}.backoff.expconst` is a number of at least 1")));
    }
    Ok(backoff)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, Failure> {
        let region = [("aws.region", "us-east-1")];
        Options::from_properties(region.iter().chain(pairs).map(|(key, value)| (*key, *value)))
    }

    #[test]
    fn the_defaults_are_those_of_flink() {
        let options = read(&[]).unwrap();
        let region = AwsSettings { region: Some("us-east-1".into()), ..AwsSettings::default() };
        assert_eq!(options, Options { aws: region, ..Options::default() });
        assert_eq!((options.records_per_read, options.read_interval.as_millis()), (10_000, 200));
        assert_eq!((options.reading.max_retries, options.reading.base.as_millis()), (3, 300));
        assert_eq!((options.listing.max_retries, options.listing.max.as_millis()), (10, 5_000));
        assert_eq!((options.discovery_interval.as_secs(), options.initial), (10, InitialPosition::Latest));
    }

    #[test]
    fn all_forms_of_a_key_mean_the_same() {
        for key in ["flink.stream.initpos", "scan.stream.initpos", "flink.inputstream.initpos"] {
            assert_eq!(
                read(&[(key, "TRIM_HORIZON")]).unwrap().initial,
                InitialPosition::TrimHorizon,
                "{key}"
            );
        }
        let at = [
            ("scan.stream.initpos", "AT_TIMESTAMP"),
            ("scan.stream.initpos-timestamp", "2022-03-23"),
            ("scan.stream.initpos-timestamp-format", "yyyy-MM-dd"),
        ];
        assert_eq!(read(&at).unwrap().initial, InitialPosition::AtTimestamp(1_647_993_600_000));
        let options = read(&[
            ("flink.shard.getrecords.intervalmillis", "1000"),
            ("flink.shard.adaptivereads", "true"),
            ("source.deduplication.window", "60000"),
            ("flink.shard.getrecords.backoff.expconst", "2"),
        ]);
        let options = options.unwrap();
        assert_eq!((options.read_interval.as_millis(), options.adaptive_reads), (1_000, true));
        assert_eq!(options.reading.exponent, 2.0);
        assert_eq!(options.deduplication, Some(Duration::from_secs(60)));
    }

    #[test]
    fn enhanced_fan_out_has_its_own_keys() {
        let streams = ["orders".to_owned(), "trades".to_owned()];
        let options = read(&[
            ("flink.stream.recorderpublisher", "EFO"),
            ("flink.stream.efs.consumername", "basic-efo-flink-app"),
            ("flink.shard.subscribetoshard.backoff.max", "1500"),
            ("flink.stream.efo.http-client.read-timeout", "360000"),
        ]);
        let fan_out = options.unwrap().fan_out.unwrap();
        assert_eq!(fan_out.consumer_name.as_deref(), Some("basic-efo-flink-app"));
        assert_eq!((fan_out.subscribing.max.as_millis(), fan_out.longest_silence.as_secs()), (1_500, 360));
        fan_out.check(&streams).unwrap();
        let arns = read(&[
            ("scan.stream.recordpublisher", "EFO"),
            ("scan.stream.efo.registration", "NONE"),
            ("scan.stream.efo.consumerarn.orders", "arn:1"),
        ]);
        let arns = arns.unwrap().fan_out.unwrap();
        let missing = arns.check(&streams).unwrap_err().message;
        assert!(missing.contains("`flink.stream.efo.consumerarn.trades` must say which"), "{missing}");
        arns.check(&streams[..1]).unwrap();
        for (name, expected) in [(None, "must say under which name"), (Some("a b"), "1 to 128 letters")] {
            let mut named = FanOutOptions::default();
            named.consumer_name = name.map(str::to_owned);
            assert!(named.check(&streams).unwrap_err().message.contains(expected));
        }
        assert_eq!(read(&[("flink.stream.efo.consumername", "unused")]).unwrap().fan_out, None);
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        for (pair, expected) in [
            (("flink.stream.initpoz", "LATEST"), "did you mean `stream.initpos`?"),
            (("colour", "red"), "has no property `colour`; remove it"),
            (("flink.stream.initpos", "NOW"), "it is LATEST, TRIM_HORIZON or AT_TIMESTAMP"),
            (("flink.stream.initpos", "AT_TIMESTAMP"), "`flink.stream.initpos.timestamp` must say which"),
            (("flink.shard.getrecords.maxrecordcount", "10001"), "from 1 to 10000"),
            (("flink.shard.getrecords.intervalmillis", "300001"), "is at most 300000"),
            (("flink.shard.getrecords.intervalmillis", "soon"), "it is a number of milliseconds"),
            (("flink.stream.recordpublisher", "PULL"), "it is POLLING or EFO"),
            (("flink.stream.efo.registration", "SOON"), "it is LAZY, EAGER or NONE"),
            (("flink.shard.subscribetoshard.timeout", "1 min"), "it is a number of seconds"),
            (("flink.stream.efo.consumernam", "reader"), "did you mean `stream.efo.consumername`?"),
            (("flink.watermark.sync.interval", "1000"), "use `with_watermark_alignment`"),
            (("flink.shard.idle.interval", "1000"), "use `with_idleness`"),
        ] {
            let failure = read(&[pair]).unwrap_err();
            assert!(failure.message.contains(expected) && !failure.retryable, "{failure}");
        }
        let nowhere = Options::from_properties([("flink.stream.initpos", "LATEST")]).unwrap_err();
        assert!(nowhere.message.contains("needs `aws.region`"), "{nowhere}");
    }
}
