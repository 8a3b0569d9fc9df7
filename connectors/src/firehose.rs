//! Amazon Data Firehose: a sink that puts records into a delivery stream, many with one request.
//!
//! On a record's way this is its end; Firehose collects what comes and writes it where the delivery stream says, mostly to S3. What is batched,
//! written again and kept in checkpoints is in [`writing`](crate::aws::writing), as with Kinesis. Firehose has no partition keys and keeps
//! no order.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_firehose::Client;
use aws_sdk_firehose::error::ProvideErrorMetadata;
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record as FirehoseRecord;
use bytes::Bytes;
use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::{
    FIREHOSE_MAX_BYTES_PER_WRITE, FIREHOSE_MAX_RECORD_BYTES, FIREHOSE_MAX_RECORDS_PER_WRITE,
    KINESIS_REQUEST_TIMEOUT_MS,
};
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Sink, SinkContext, UnderWay};

use crate::aws::writing::{self, Answer, ServiceLimits, WriteOptions, Writer, refusal};
use crate::aws::{AwsSettings, Connection, Kind, Problem};

const LIMITS: ServiceLimits = ServiceLimits {
    name: "Firehose",
    max_records: FIREHOSE_MAX_RECORDS_PER_WRITE,
    max_bytes: FIREHOSE_MAX_BYTES_PER_WRITE,
};

type Serialize<T> = Arc<dyn Fn(&T) -> Result<Vec<u8>, Failure> + Send + Sync>;

/// Writes records to a delivery stream of Amazon Data Firehose, as Flink's `KinesisFirehoseSink` does: at least once, in no order.
///
/// Requests have up to 500 records and 4 MiB and go side by side, a record has up to 1,000 KiB. What is refused, because the delivery stream
/// is asked for too much or the service is in trouble, is written again, ever later, for ten minutes; then the task fails. A sink that
/// holds too much takes no more, so that the job slows down. Records are written as they are: who wants lines in the files of Firehose
/// ends each with a newline.
///
/// ```
/// use thalweg_connectors::FirehoseSink;
///
/// let sink = FirehoseSink::strings("ExampleDeliveryStream").region("eu-west-1");
/// let by_properties = FirehoseSink::new("ExampleDeliveryStream", |count: &u64| Ok(format!("{count}\n").into_bytes()))
///     .with_properties([("aws.region", "eu-west-1"), ("sink.batch.max-size", "100")])
///     .unwrap();
/// # let _ = (sink, by_properties);
/// ```
pub struct FirehoseSink<T> {
    stream: Arc<str>,
    options: WriteOptions,
    aws: AwsSettings,
    serialize: Serialize<T>,
    connection: Arc<Connection<Client>>,
    writer: Option<Writer<Bytes>>,
}

/// A record that Firehose had not taken at a barrier.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct UnsentRecord {
    /// Who had it at which barrier.
    subtask: u32,
    checkpoint: CheckpointId,
    data: Vec<u8>,
}

impl writing::Entry for Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl<T> Clone for FirehoseSink<T> {
    fn clone(&self) -> Self {
        Self {
            stream: Arc::clone(&self.stream),
            options: self.options,
            aws: self.aws.clone(),
            serialize: Arc::clone(&self.serialize),
            // Clones share their connections, and nothing else.
            connection: Arc::clone(&self.connection),
            writer: None,
        }
    }
}

impl<T> fmt::Debug for FirehoseSink<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FirehoseSink")
            .field("stream", &self.stream)
            .field("options", &self.options)
            .field("aws", &self.aws)
            .finish_non_exhaustive()
    }
}

impl FirehoseSink<String> {
    /// Writes texts as they are.
    pub fn strings(stream: impl Into<String>) -> Self {
        Self::new(stream, |text: &String| Ok(text.clone().into_bytes()))
    }
}

impl<T> FirehoseSink<T> {
    /// Writes records to the delivery stream of this name, as the bytes that `serialize` makes of them.
    pub fn new<F>(stream: impl Into<String>, serialize: F) -> Self
    where
        F: Fn(&T) -> Result<Vec<u8>, Failure> + Send + Sync + 'static,
    {
        let aws = AwsSettings::default();
        Self {
            stream: stream.into().into(),
            options: WriteOptions::of(&LIMITS),
            connection: Arc::new(Connection::new(aws.clone())),
            aws,
            serialize: Arc::new(serialize),
            writer: None,
        }
    }

    fn connect(&mut self) {
        self.connection = Arc::new(Connection::new(self.aws.clone()));
    }

    fn entry(&self, record: &T) -> Result<Bytes, Failure> {
        let data = (self.serialize)(record)?;
        if data.len() > FIREHOSE_MAX_RECORD_BYTES {
            return Err(Failure::user(format!(
                "a record of {} bytes is larger than what the delivery stream {} takes, 1,000 KiB; leave it out, or write it in parts",
                data.len(),
                self.stream
            )));
        }
        Ok(data.into())
    }
}

writing::setters!(FirehoseSink, Bytes);

/// Puts records, and gives what became of each.
async fn put(connection: Arc<Connection<Client>>, stream: Arc<str>, entries: Vec<Bytes>) -> Answer {
    let mut records = Vec::with_capacity(entries.len());
    for data in entries {
        let record = FirehoseRecord::builder().data(Blob::new(data)).build();
        let broken = |error| Problem::new(Kind::Refused, "Request", format!("{error}"));
        records.push(record.map_err(broken)?);
    }
    let client = connection.client(Duration::from_millis(KINESIS_REQUEST_TIMEOUT_MS), Client::new).await;
    let request = client.put_record_batch().delivery_stream_name(&*stream).set_records(Some(records));
    let answer = request.send().await.map_err(|error| Problem::of(&error, error.code(), error.message()))?;
    let of_record = answer.request_responses().iter();
    Ok(of_record.map(|record| refusal(record.error_code(), record.error_message())).collect())
}

impl<T: Send> Sink<T> for FirehoseSink<T> {
    type Committable = UnsentRecord;

    fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
        let target = format!("the delivery stream {}", self.stream);
        self.writer = Some(Writer::open(&LIMITS, &self.aws, self.options, target, context)?);
        Ok(())
    }

    fn recover(&mut self, prepared: &[UnsentRecord]) -> Result<(), Failure> {
        let entry = |unsent: UnsentRecord| (unsent.subtask, unsent.checkpoint, Bytes::from(unsent.data));
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
        let (stream, connection) = (Arc::clone(&self.stream), Arc::clone(&self.connection));
        self.writer()?.advance(|entries| put(Arc::clone(&connection), Arc::clone(&stream), entries))
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<UnsentRecord>, Failure> {
        let (subtask, unsent) = self.writer()?.unsent();
        Ok(unsent.into_iter().map(|data| UnsentRecord { subtask, checkpoint, data: data.to_vec() }).collect())
    }
}
