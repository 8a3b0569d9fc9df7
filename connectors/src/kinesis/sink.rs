//! The sink: puts records into a stream, many with one request.
//!
//! On a record's way this is its end. What is batched, written again and kept in checkpoints is in [`writing`](crate::aws::writing).

use std::fmt;
use std::sync::Arc;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::{
    KINESIS_MAX_BYTES_PER_WRITE, KINESIS_MAX_ID_BYTES, KINESIS_MAX_RECORD_BYTES,
    KINESIS_MAX_RECORDS_PER_WRITE,
};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Sink, SinkContext, UnderWay};

use super::deaggregate::{hash_key, with_id};
use super::service::{Service, problem};
use super::shard::java_hash;
use crate::aws::writing::{self, Answer, ServiceLimits, WriteOptions, Writer, refusal};
use crate::aws::{AwsSettings, Kind, Problem, random};

const LIMITS: ServiceLimits = ServiceLimits {
    name: "Kinesis",
    max_records: KINESIS_MAX_RECORDS_PER_WRITE,
    max_bytes: KINESIS_MAX_BYTES_PER_WRITE,
};

type Serialize<T> = Arc<dyn Fn(&T) -> Result<Vec<u8>, Failure> + Send + Sync>;
type Key<T> = Arc<dyn Fn(&T) -> String + Send + Sync>;
type HashKey<T> = Arc<dyn Fn(&T) -> Option<u128> + Send + Sync>;

/// Writes records to a stream of Kinesis Data Streams, as Flink's `KinesisStreamsSink` does: at least once, never aggregated; effectively once for
/// another job that reads the stream, with [`record_ids`](Self::record_ids).
///
/// Requests have up to 500 records and 5 MiB and go side by side. What is refused, because a shard is asked for too much or the service is in
/// trouble, is written again, ever later, for ten minutes; then the task fails. A sink that holds too much takes no more, so that the job
/// slows down. In the order of their partition key records arrive only with [`in_order`](Self::in_order).
///
/// ```
/// use thalweg_connectors::kinesis::KinesisSink;
///
/// let sink = KinesisSink::strings("ExampleOutputStream").region("eu-west-1");
/// let by_properties = KinesisSink::strings("ExampleOutputStream")
///     .partition_key(|line| line.split(',').next().unwrap_or_default().to_owned())
///     .with_properties([("aws.region", "eu-west-1"), ("sink.batch.max-size", "100")])
///     .unwrap();
/// # let _ = (sink, by_properties);
/// ```
pub struct KinesisSink<T> {
    stream: Arc<str>,
    options: WriteOptions,
    aws: AwsSettings,
    serialize: Serialize<T>,
    /// By chance where nothing is said, or by the record's id.
    partition_key: Option<Key<T>>,
    record_id: Option<Key<T>>,
    explicit_hash_key: Option<HashKey<T>>,
    service: Arc<Service>,
    writer: Option<Writer<Entry>>,
}

/// A record that the service had not taken at a barrier.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct UnsentRecord {
    /// Who had it at which barrier.
    subtask: u32,
    checkpoint: CheckpointId,
    partition_key: String,
    explicit_hash_key: Option<String>,
    data: Vec<u8>,
}

/// A record to be written.
#[derive(Debug, Clone)]
struct Entry {
    partition_key: String,
    explicit_hash_key: Option<String>,
    data: Bytes,
}

impl writing::Entry for Entry {
    fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }

    fn key(&self) -> &str {
        &self.partition_key
    }
}

impl<T> Clone for KinesisSink<T> {
    fn clone(&self) -> Self {
        Self {
            stream: Arc::clone(&self.stream),
            options: self.options,
            aws: self.aws.clone(),
            serialize: Arc::clone(&self.serialize),
            partition_key: self.partition_key.clone(),
            record_id: self.record_id.clone(),
            explicit_hash_key: self.explicit_hash_key.clone(),
            // Clones share their connections, and nothing else.
            service: Arc::clone(&self.service),
            writer: None,
        }
    }
}

impl<T> fmt::Debug for KinesisSink<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KinesisSink")
            .field("stream", &self.stream)
            .field("options", &self.options)
            .field("aws", &self.aws)
            .finish_non_exhaustive()
    }
}

impl KinesisSink<String> {
    /// Writes texts. Their partition key is the number that Java's `String.hashCode` gives, as in Flink's examples.
    pub fn strings(stream: impl Into<String>) -> Self {
        Self::new(stream, |text: &String| Ok(text.clone().into_bytes()))
            .partition_key(|text| java_hash(text).to_string())
    }
}

impl<T> KinesisSink<T> {
    /// Writes records as the bytes that `serialize` makes of them, each with a partition key by chance.
    pub fn new<F>(stream: impl Into<String>, serialize: F) -> Self
    where
        F: Fn(&T) -> Result<Vec<u8>, Failure> + Send + Sync + 'static,
    {
        let aws = AwsSettings::default();
        Self {
            stream: stream.into().into(),
            options: WriteOptions::of(&LIMITS),
            service: Arc::new(Service::new(aws.clone())),
            aws,
            serialize: Arc::new(serialize),
            partition_key: None,
            record_id: None,
            explicit_hash_key: None,
            writer: None,
        }
    }

    /// Which key a record has, by whose MD5 its shard is found: 1 to 256 characters.
    #[must_use]
    pub fn partition_key(mut self, key: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        self.partition_key = Some(Arc::new(key));
        self
    }

    /// Writes each record with an id: 1 to 256 bytes, made of nothing but the record, and of no two different ones alike, such as the number of an
    /// order. A source that is [de-duplicated](super::KinesisSource::deduplicated) reads each id once, so that what this job writes again behind a
    /// failure counts once there: effectively once between the two jobs. Without an id of its own a record is easily found twice, and so is not
    /// what this guarantees: two records with the same content are two.
    ///
    /// The id is a tag of a record in the form of Amazon's producer library, in which each record is alone. Consumers that take such records apart (KCL,
    /// Flink, Lambda with a de-aggregation module) read what they would have read; others see the form, so that this is for streams whose readers
    /// know it. Where no [`partition_key`](Self::partition_key) is said, it is made of the id: what is written twice comes to the same shard, unless that
    /// was split or merged in between, and a partition key must not be by chance.
    #[must_use]
    pub fn record_ids(mut self, id: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        self.record_id = Some(Arc::new(id));
        self
    }

    /// By which number a record's shard is found, in place of the MD5 of its key; by that where it gives nothing.
    #[must_use]
    pub fn explicit_hash_key(mut self, key: impl Fn(&T) -> Option<u128> + Send + Sync + 'static) -> Self {
        self.explicit_hash_key = Some(Arc::new(key));
        self
    }

    /// Lets the records of a partition key arrive in the order in which a subtask takes them, also when some are refused. At most one record of
    /// a key is on its way then, so that each key has no more than some tens of records a second.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.options.is_ordered = true;
        self
    }

    fn connect(&mut self) {
        self.service = Arc::new(Service::new(self.aws.clone()));
    }

    fn entry(&self, record: &T) -> Result<Entry, Failure> {
        let id = self.record_id.as_ref().map(|id| id(record));
        let partition_key = match (&self.partition_key, &id) {
            (Some(key), _) => key(record),
            (None, Some(id)) => format!("{:032x}", hash_key(id)),
            (None, None) => random().to_string(),
        };
        let explicit_hash_key =
            self.explicit_hash_key.as_ref().and_then(|key| key(record)).map(|key| key.to_string());
        let data = (self.serialize)(record)?;
        let data = match id {
            None => data.into(),
            Some(id) if (1..=KINESIS_MAX_ID_BYTES).contains(&id.len()) => {
                with_id(id, &partition_key, explicit_hash_key.as_deref(), data)
            }
            Some(id) => {
                return Err(Failure::user(format!(
                    "the id of a record has 1 to {KINESIS_MAX_ID_BYTES} bytes, and that of one for the stream {} has {}; change `record_ids`",
                    self.stream,
                    id.len()
                )));
            }
        };
        let entry = Entry { partition_key, explicit_hash_key, data };
        if !(1..=256).contains(&entry.partition_key.chars().count()) {
            return Err(Failure::user(format!(
                "a partition key of Kinesis has 1 to 256 characters, and that of a record for the stream {} has {}; change `partition_key`",
                self.stream,
                entry.partition_key.chars().count()
            )));
        }
        let bytes = writing::Entry::bytes(&entry);
        if bytes > KINESIS_MAX_RECORD_BYTES {
            return Err(Failure::user(format!(
                "a record of {bytes} bytes is larger than what the stream {} takes, 1 MiB with its key; leave it out, or write it in parts",
                self.stream
            )));
        }
        Ok(entry)
    }
}

writing::setters!(KinesisSink, Entry);

/// Puts records, and gives what became of each.
async fn put(service: Arc<Service>, stream: Arc<str>, entries: Vec<Entry>) -> Answer {
    let mut records = Vec::with_capacity(entries.len());
    for Entry { partition_key, explicit_hash_key, data } in entries {
        let record = PutRecordsRequestEntry::builder()
            .partition_key(partition_key)
            .set_explicit_hash_key(explicit_hash_key)
            .data(Blob::new(data))
            .build();
        let broken = |error| Problem::new(Kind::Refused, "Request", format!("{error}"));
        records.push(record.map_err(broken)?);
    }
    let request = service.client().await.put_records().stream_name(&*stream).set_records(Some(records));
    let answer = request.send().await.map_err(|error| problem(&error))?;
    Ok(answer.records().iter().map(|record| refusal(record.error_code(), record.error_message())).collect())
}

impl<T: Send> Sink<T> for KinesisSink<T> {
    type Committable = UnsentRecord;

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        let target = format!("the stream {}", self.stream);
        self.writer = Some(Writer::open(&LIMITS, &self.aws, self.options, target, context)?);
        Ok(())
    }

    fn recover(&mut self, prepared: &[UnsentRecord]) -> Result<(), Failure> {
        let entry = |unsent: UnsentRecord| {
            let UnsentRecord { subtask, checkpoint, partition_key, explicit_hash_key, data } = unsent;
            (subtask, checkpoint, Entry { partition_key, explicit_hash_key, data: data.into() })
        };
        self.writer()?.recover(prepared.iter().cloned().map(entry).collect());
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        for record in batch.drain() {
            let entry = self.entry(&record)?;
            self.writer()?.push(entry);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.writer()?.flush();
        Ok(())
    }

    fn advance(&mut self) -> Result<UnderWay, Failure> {
        let (stream, service) = (Arc::clone(&self.stream), Arc::clone(&self.service));
        self.writer()?.advance(|entries| put(Arc::clone(&service), Arc::clone(&stream), entries))
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<UnsentRecord>, Failure> {
        let (subtask, unsent) = self.writer()?.unsent();
        let unsent_record = |Entry { partition_key, explicit_hash_key, data }: Entry| UnsentRecord {
            subtask,
            checkpoint,
            partition_key,
            explicit_hash_key,
            data: data.to_vec(),
        };
        Ok(unsent.into_iter().map(unsent_record).collect())
    }
}
