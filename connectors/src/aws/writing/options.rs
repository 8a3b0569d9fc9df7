//! What a sink that writes with batched requests can be told: Flink's keys `sink.*` with their defaults, and what its older producers were told.

use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::limits::AWS_SINK_UNSENT_BYTES;
use tracing::warn;

use crate::aws::{AwsSettings, Backoff};
use crate::properties::{Properties, wrong};

const KEYS: [&str; 7] = [
    "sink.batch.max-size",
    "sink.requests.max-inflight",
    "sink.requests.max-buffered",
    "sink.flush-buffer.size",
    "sink.flush-buffer.timeout",
    "sink.fail-on-error",
    "sink.delivery.timeout",
];

/// What older producers were told, and has no meaning here.
const WITHOUT_MEANING: [&str; 8] = [
    "sink.producer.aggregation-enabled",
    "AggregationEnabled",
    "AggregationMaxCount",
    "RecordTtl",
    "RateLimit",
    "ThreadPoolSize",
    "ThreadingModel",
    "flink.stream.initpos",
];

/// What a service takes with one request.
#[derive(Debug)]
pub(crate) struct ServiceLimits {
    /// What people call it, as `Kinesis`.
    pub(crate) name: &'static str,
    pub(crate) max_records: usize,
    pub(crate) max_bytes: usize,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WriteOptions {
    pub(crate) max_batch_records: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_buffered: usize,
    pub(crate) max_unsent_bytes: usize,
    pub(crate) max_time_in_buffer: Duration,
    /// Whether a refused record fails the job.
    pub(crate) fails_on_error: bool,
    /// Whether records of a partition key must arrive in their order.
    pub(crate) is_ordered: bool,
    /// How long a record may be refused before the job fails.
    pub(crate) delivery_timeout: Duration,
    pub(crate) backoff: Backoff,
}

impl WriteOptions {
    /// Flink's defaults for a service.
    pub(crate) fn of(limits: &ServiceLimits) -> Self {
        Self {
            max_batch_records: limits.max_records,
            max_batch_bytes: limits.max_bytes,
            max_in_flight: 50,
            max_buffered: 10_000,
            max_unsent_bytes: AWS_SINK_UNSENT_BYTES,
            max_time_in_buffer: Duration::from_secs(5),
            fails_on_error: false,
            is_ordered: false,
            delivery_timeout: Duration::from_secs(600),
            backoff: Backoff {
                base: Duration::from_millis(100),
                max: Duration::from_secs(5),
                exponent: 2.0,
                max_retries: u32::MAX,
            },
        }
    }
}

fn canonical(key: &str) -> String {
    match key {
        "sink.producer.collection-max-count" | "CollectionMaxCount" => "sink.batch.max-size".to_owned(),
        "sink.producer.collection-max-size" | "CollectionMaxSize" => "sink.flush-buffer.size".to_owned(),
        "sink.producer.record-max-buffered-time" | "RecordMaxBufferedTime" => {
            "sink.flush-buffer.timeout".to_owned()
        }
        "sink.producer.fail-on-error" => "sink.fail-on-error".to_owned(),
        key => crate::aws::canonical(key),
    }
}

/// Where to write and how, from properties.
pub(crate) fn from_properties(
    given: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    default: WriteOptions,
) -> Result<(AwsSettings, WriteOptions), Failure> {
    let known: Vec<&str> = KEYS.into_iter().chain(WITHOUT_MEANING).chain(crate::aws::keys()).collect();
    let given = Properties::new(given, canonical, &known)?;
    for key in WITHOUT_MEANING {
        if let Some(value) = given.text(key) {
            warn!(
                "The property `{key}` = `{value}` has no meaning for this sink, which never aggregates; it is ignored."
            );
        }
    }
    let number = |key, default| {
        let given = given.parsed(key, "a number above 0")?;
        match given.unwrap_or(default) {
            0 => Err(wrong(format!("`{key}` must be above 0"))),
            number => Ok(number),
        }
    };
    let options = WriteOptions {
        max_batch_records: number("sink.batch.max-size", default.max_batch_records)?,
        max_batch_bytes: number("sink.flush-buffer.size", default.max_batch_bytes)?,
        max_in_flight: number("sink.requests.max-inflight", default.max_in_flight)?,
        max_buffered: number("sink.requests.max-buffered", default.max_buffered)?,
        max_time_in_buffer: given.millis("sink.flush-buffer.timeout")?.unwrap_or(default.max_time_in_buffer),
        fails_on_error: given
            .parsed("sink.fail-on-error", "`true` or `false`")?
            .unwrap_or(default.fails_on_error),
        delivery_timeout: given.millis("sink.delivery.timeout")?.unwrap_or(default.delivery_timeout),
        ..default
    };
    Ok((AwsSettings::from_properties(given.all())?, options))
}

/// Whether they make sense together.
pub(super) fn check(
    aws: &AwsSettings,
    options: &WriteOptions,
    limits: &ServiceLimits,
) -> Result<(), Failure> {
    let ServiceLimits { name, max_records, max_bytes } = limits;
    if options.max_batch_records > *max_records || options.max_batch_records == 0 {
        return Err(wrong(format!("`sink.batch.max-size` is a number from 1 to {max_records}")));
    }
    if options.max_batch_bytes > *max_bytes {
        return Err(wrong(format!(
            "`sink.flush-buffer.size` is at most {max_bytes} bytes, the largest request that {name} takes"
        )));
    }
    if options.max_buffered < options.max_batch_records {
        return Err(wrong("`sink.requests.max-buffered` must not be below `sink.batch.max-size`"));
    }
    if aws.region.is_none() && aws.endpoint.is_none() {
        return Err(wrong(format!(
            "a {name} sink needs `aws.region`, or `aws.endpoint` for a service of one's own"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LIMITS: ServiceLimits =
        ServiceLimits { name: "Kinesis", max_records: 500, max_bytes: 5 * 1024 * 1024 };

    fn read(pairs: &[(&str, &str)]) -> Result<WriteOptions, Failure> {
        let region = [("aws.region", "us-east-1")];
        let all = region.iter().chain(pairs).map(|(key, value)| (*key, *value));
        let (aws, options) = from_properties(all, WriteOptions::of(&LIMITS))?;
        check(&aws, &options, &LIMITS).map(|()| options)
    }

    #[test]
    fn keys_of_all_ages_are_understood() {
        let options = read(&[
            ("sink.producer.collection-max-count", "100"),
            ("AggregationEnabled", "false"),
            ("flink.stream.initpos", "LATEST"),
            ("sink.requests.max-inflight", "16"),
            ("sink.flush-buffer.timeout", "1000"),
            ("sink.fail-on-error", "true"),
        ]);
        let expected = WriteOptions {
            max_batch_records: 100,
            max_in_flight: 16,
            max_time_in_buffer: Duration::from_secs(1),
            fails_on_error: true,
            ..WriteOptions::of(&LIMITS)
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        for (pair, expected) in [
            (("sink.batch.max-siz", "5"), "did you mean `sink.batch.max-size`?"),
            (("sink.batch.max-size", "501"), "from 1 to 500"),
            (("sink.requests.max-inflight", "0"), "must be above 0"),
            (("sink.flush-buffer.size", "5242881"), "is at most 5242880"),
            (("sink.requests.max-buffered", "10"), "must not be below"),
        ] {
            let failure = read(&[pair]).unwrap_err();
            assert!(failure.message.contains(expected) && !failure.retryable, "{failure}");
        }
    }
}
