//! The source itself: what its author says, and what makes its parts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_runtime::operator::SourceContext;
use thalweg_runtime::split::EnumeratedSource;

use super::enumerator::ShardEnumerator;
use super::fan_out::{ConsumerRegistration, FanOutOptions};
use super::graph::ShardGraph;
use super::options::Options;
use super::position::InitialPosition;
use super::reader::ShardReader;
use super::service::Service;
use super::shard::ShardSplit;
use crate::aws::{AwsSettings, CredentialsProvider};

/// Makes records of the job from those of a stream; nothing leaves one out.
pub(super) type Deserialize<T> = Arc<dyn Fn(&KinesisRecord<'_>) -> Result<Option<T>, Failure> + Send + Sync>;

/// A record as Kinesis has it. One that Amazon's producer library has aggregated with others is one for itself.
#[derive(Debug, Clone, Copy)]
pub struct KinesisRecord<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The shard, as `shardId-000000000007`.
    pub shard_id: &'a str,
    /// Its number in the shard, a decimal number of 56 digits.
    pub sequence_number: &'a str,
    /// Its place among those that are aggregated under this number, from 0.
    pub user_record: Option<u64>,
    /// What tells it from all others, if the sink that has written it gives ids.
    pub record_id: Option<&'a str>,
    /// What its shard was chosen by.
    pub partition_key: &'a str,
    /// When it arrived, in milliseconds since the epoch: the timestamp that it has in the job.
    pub arrival_ms: Timestamp,
    /// What was written.
    pub data: &'a [u8],
}

/// Reads streams of Kinesis Data Streams, as Flink's `FlinkKinesisConsumer` does.
///
/// Shards are found while the job runs. Each is read by the subtask that Flink's rule says, through splits and merges, parents before their
/// children: records of a partition key keep their order. Positions are part of checkpoints, so that the job's state has every record
/// exactly once. A shard is read at most five times and 2 MiB a second, which are its quotas; throttling slows reading down and fails nothing.
///
/// Records have the time of their arrival as timestamps. A watermark strategy directly behind the source keeps time for each shard; a shard
/// without records is idle when its `with_idleness` is over, and a subtask without shards at once.
///
/// `millisBehindLatest` says how far behind each shard is, and `bytesRequestedPerFetch` how much its reads ask for.
///
/// With [enhanced fan-out](Self::enhanced_fan_out) the service pushes records, with 2 MiB a second for each shard and consumer.
///
/// The same in properties, with Flink's keys: [`with_properties`](Self::with_properties).
///
/// ```
/// use thalweg_connectors::kinesis::{InitialPosition, KinesisSource};
///
/// let source = KinesisSource::strings("ExampleInputStream")
///     .region("eu-west-1")
///     .initial_position(InitialPosition::TrimHorizon);
/// let same = KinesisSource::strings("ExampleInputStream")
///     .with_properties([("aws.region", "eu-west-1"), ("flink.stream.initpos", "TRIM_HORIZON")])
///     .unwrap();
/// # let _ = (source, same);
/// ```
pub struct KinesisSource<T> {
    streams: Arc<[String]>,
    options: Arc<Options>,
    service: Arc<Service>,
    deserialize: Deserialize<T>,
}

impl<T> Clone for KinesisSource<T> {
    fn clone(&self) -> Self {
        let Self { streams, options, service, deserialize } = self;
        Self {
            streams: Arc::clone(streams),
            options: Arc::clone(options),
            // Clones share their connections.
            service: Arc::clone(service),
            deserialize: Arc::clone(deserialize),
        }
    }
}

impl<T> fmt::Debug for KinesisSource<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KinesisSource")
            .field("streams", &self.streams)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl KinesisSource<String> {
    /// The records of a stream as texts. What is no UTF-8 is replaced, as Java's `SimpleStringSchema` does it.
    pub fn strings(stream: impl Into<String>) -> Self {
        Self::new(stream, |record| Ok(Some(String::from_utf8_lossy(record.data).into_owned())))
    }
}

impl KinesisSource<Vec<u8>> {
    /// The records of a stream as they are: to decode them behind a `rebalance`, where a stream has fewer shards than the job has subtasks.
    pub fn bytes(stream: impl Into<String>) -> Self {
        Self::new(stream, |record| Ok(Some(record.data.to_vec())))
    }
}

impl<T: Record> KinesisSource<T> {
    /// The records of a stream, as `deserialize` makes them; it leaves out those for which it gives nothing. An error fails the task.
    pub fn new<F>(stream: impl Into<String>, deserialize: F) -> Self
    where
        F: Fn(&KinesisRecord<'_>) -> Result<Option<T>, Failure> + Send + Sync + 'static,
    {
        let options = Options::default();
        Self {
            streams: [stream.into()].into(),
            service: Arc::new(Service::new(options.aws.clone())),
            options: Arc::new(options),
            deserialize: Arc::new(deserialize),
        }
    }

    /// Reads this stream too.
    #[must_use]
    pub fn and_stream(mut self, stream: impl Into<String>) -> Self {
        self.streams = self.streams.iter().cloned().chain([stream.into()]).collect();
        self
    }

    /// Takes all settings from properties with Flink's keys, those of DataStream programs (`flink.shard.getrecords.intervalmillis`) or of SQL
    /// (`scan.shard.getrecords.intervalmillis`), in place of what was set before.
    ///
    /// # Errors
    /// A key that nobody knows, with the nearest one; a value that cannot be.
    pub fn with_properties(
        mut self,
        properties: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Self, Failure> {
        self.options = Arc::new(Options::from_properties(properties)?);
        self.service = Arc::new(Service::new(self.options.aws.clone()));
        Ok(self)
    }

    fn changed(mut self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = (*self.options).clone();
        change(&mut options);
        self.service = Arc::new(Service::new(options.aws.clone()));
        self.options = Arc::new(options);
        self
    }

    fn reached(self, change: impl FnOnce(&mut AwsSettings)) -> Self {
        self.changed(|options| change(&mut options.aws))
    }

    /// The region of the streams: `aws.region`.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        self.reached(|aws| aws.region = Some(region.into()))
    }

    /// A service of one's own: `aws.endpoint`.
    #[must_use]
    pub fn endpoint(self, endpoint: impl Into<String>) -> Self {
        self.reached(|aws| aws.endpoint = Some(endpoint.into()))
    }

    /// Who reads: `aws.credentials.*`.
    #[must_use]
    pub fn credentials(self, credentials: CredentialsProvider) -> Self {
        self.reached(|aws| aws.credentials = credentials)
    }

    /// Where to begin without a checkpoint: `flink.stream.initpos`.
    #[must_use]
    pub fn initial_position(self, position: InitialPosition) -> Self {
        self.changed(|options| options.initial = position)
    }

    /// How often a shard is read, at most every 200 ms by default: `flink.shard.getrecords.intervalmillis`. Streams with several consumers share
    /// the five reads a second of each shard.
    #[must_use]
    pub fn read_interval(self, interval: Duration) -> Self {
        self.changed(|options| options.read_interval = interval)
    }

    /// Most records of one read, 10,000 by default and at most: `flink.shard.getrecords.maxrecordcount`.
    #[must_use]
    pub fn records_per_read(self, records: u32) -> Self {
        self.changed(|options| options.records_per_read = records)
    }

    /// Asks for as many records as a shard's quota allows by their mean size: `flink.shard.adaptivereads`.
    #[must_use]
    pub fn adaptive_reads(self) -> Self {
        self.changed(|options| options.adaptive_reads = true)
    }

    /// Lets the service push the records of each shard as they come, with a quota that no other reader shares: enhanced fan-out, Flink's
    /// `flink.stream.recordpublisher` EFO. `consumer` is the name under which the application reads (`flink.stream.efo.consumername`), one that no
    /// other reader of the stream has: whoever subscribes later with the same name takes over, and the job that was there fails with a word
    /// of it. It is [registered](Self::consumer_registration) when the job starts, and is a position of its own nowhere: positions are those of
    /// polling, so that a job changes from one to the other with a savepoint.
    ///
    /// Subscriptions end after five minutes and are renewed behind the last record. One that says nothing for 35 s, although the service speaks
    /// every five seconds, is renewed too (`flink.stream.efo.http-client.read-timeout`, which is 6 min in Flink and so notices nothing).
    ///
    /// ```
    /// use thalweg_connectors::kinesis::{ConsumerRegistration, InitialPosition, KinesisSource};
    ///
    /// let source = KinesisSource::strings("ExampleInputStream")
    ///     .region("eu-west-1")
    ///     .initial_position(InitialPosition::TrimHorizon)
    ///     .enhanced_fan_out("basic-efo-app");
    /// let same = KinesisSource::strings("ExampleInputStream").with_properties([
    ///     ("aws.region", "eu-west-1"),
    ///     ("flink.stream.initpos", "TRIM_HORIZON"),
    ///     ("flink.stream.recordpublisher", "EFO"),
    ///     ("flink.stream.efo.consumername", "basic-efo-app"),
    /// ]);
    /// // Somebody else has registered it.
    /// let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders/consumer/reader:1700000000";
    /// let arns = [("orders".to_owned(), arn.to_owned())].into();
    /// let registered = KinesisSource::strings("orders")
    ///     .region("eu-west-1")
    ///     .enhanced_fan_out("reader")
    ///     .consumer_registration(ConsumerRegistration::None(arns));
    /// # let _ = (source, same.unwrap(), registered);
    /// ```
    #[must_use]
    pub fn enhanced_fan_out(self, consumer: impl Into<String>) -> Self {
        self.changed(|options| {
            options.fan_out.get_or_insert_with(FanOutOptions::default).consumer_name = Some(consumer.into());
        })
    }

    /// Who registers the consumer of [enhanced fan-out](Self::enhanced_fan_out), which this is part of: `flink.stream.efo.registration`.
    #[must_use]
    pub fn consumer_registration(self, registration: ConsumerRegistration) -> Self {
        self.changed(|options| {
            options.fan_out.get_or_insert_with(FanOutOptions::default).registration = registration;
        })
    }

    /// Reads each record once that the sink of another job has written with [ids](super::KinesisSink::record_ids), however often it is there: so two jobs
    /// with a stream between them are effectively once, although the sink is at least once. Records without an id are all read.
    ///
    /// Ids are remembered for the `window` from their last arrival, as part of checkpoints. Let it be longer than the time from a checkpoint of the
    /// writing job to the moment when it has caught up behind a failure: a multiple of its checkpoint interval and its longest outage. A shard
    /// remembers 65,536 ids at the most, the newest ones, with 24 bytes each. Behind a split or merge a new shard reads once, by polling, what the up to
    /// 64 nearest shards before it had in the window. The property is `source.deduplication.window`, in milliseconds.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use thalweg_connectors::kinesis::{KinesisSink, KinesisSource};
    ///
    /// // The first job: the line begins with the number of its order.
    /// let sink = KinesisSink::strings("Between")
    ///     .region("eu-west-1")
    ///     .record_ids(|line| line.split(',').next().unwrap_or_default().to_owned());
    /// // The second job.
    /// let source = KinesisSource::strings("Between").region("eu-west-1").deduplicated(Duration::from_secs(900));
    /// # let _ = (sink, source);
    /// ```
    #[must_use]
    pub fn deduplicated(self, window: Duration) -> Self {
        self.changed(|options| options.deduplication = Some(window))
    }

    /// How often new shards are looked for, every 10 s by default: `flink.shard.discovery.intervalmillis`. The children of a shard that is at its
    /// end are looked for at once.
    #[must_use]
    pub fn discovery_interval(self, interval: Duration) -> Self {
        self.changed(|options| options.discovery_interval = interval)
    }
}

impl<T: Record> EnumeratedSource for KinesisSource<T> {
    type Out = T;
    type Split = ShardSplit;
    type Reader = ShardReader<T>;
    type Enumerator = ShardEnumerator;

    fn enumerator(
        &self,
        context: &SourceContext,
        restored: Option<ShardGraph>,
    ) -> Result<ShardEnumerator, Failure> {
        self.options.check()?;
        if let Some(fan_out) = &self.options.fan_out {
            fan_out.check(&self.streams)?;
        }
        Ok(ShardEnumerator::new(
            Arc::clone(&self.streams),
            Arc::clone(&self.options),
            Arc::clone(&self.service),
            restored.unwrap_or_default(),
            (Arc::clone(&context.clock), context.io.clone()),
        ))
    }

    fn reader(&self, context: &SourceContext) -> Result<ShardReader<T>, Failure> {
        let (service, options) = (Arc::clone(&self.service), Arc::clone(&self.options));
        Ok(ShardReader::new(service, options, Arc::clone(&self.deserialize), context))
    }

    /// Each shard has its reader, and one that is not read loses records some time.
    fn splits_per_reader(&self) -> u64 {
        u64::MAX
    }
}
