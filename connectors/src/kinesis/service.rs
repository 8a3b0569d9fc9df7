//! Requests to Kinesis: what is asked, and what an answer means. Retries are those who ask.

use std::error::Error;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ConsumerStatus, Record, Shard as AwsShard, ShardIteratorType};
use thalweg_common::limits::{KINESIS_LIST_SHARDS, KINESIS_REQUEST_TIMEOUT_MS};

use super::fan_out::Consumers;
use super::graph::Listed;
use super::position::Position;
use super::shard::Shard;
use crate::aws::{AwsSettings, Connection, Kind, Place, Problem, Question};

/// Asks Kinesis.
#[derive(Debug)]
pub(super) struct Service {
    connection: Connection<Client>,
    place: Place,
    pub(super) consumers: Consumers,
}

/// What a read has brought.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    /// Where the next read goes on; nothing behind the end of a closed shard.
    pub(super) next: Option<String>,
    /// How far behind the newest record of the shard it is, in milliseconds, if that is said.
    pub(super) behind_ms: Option<i64>,
}

impl Service {
    pub(super) fn new(settings: AwsSettings) -> Self {
        let place = Place::of("Kinesis", &settings);
        Self { connection: Connection::new(settings), place, consumers: Consumers::default() }
    }

    /// What is asked about a stream, for those who ask it again.
    pub(super) fn asking(&self, doing: &'static str, stream: &str) -> Question<'_> {
        Question { place: &self.place, doing, what: format!("the stream {stream}") }
    }

    pub(super) async fn client(&self) -> &Client {
        self.connection.client(Duration::from_millis(KINESIS_REQUEST_TIMEOUT_MS), Client::new).await
    }

    /// A client with connections of its own, whose requests may take so long to be taken.
    pub(super) async fn another_client(&self, request_timeout: Duration) -> Client {
        self.connection.another_client(request_timeout, Client::new).await
    }

    /// All shards of a stream that it still knows.
    pub(super) async fn shards(&self, stream: &str) -> Result<Vec<Listed>, Problem> {
        let (mut all, mut token): (Vec<Listed>, Option<String>) = (Vec::new(), None);
        loop {
            let request = self.client().await.list_shards().max_results(KINESIS_LIST_SHARDS);
            let request = match token.take() {
                // A token says which stream it is of.
                Some(token) => request.next_token(token),
                None => request.stream_name(stream),
            };
            let page = request.send().await.map_err(|error| problem(&error))?;
            token = page.next_token().map(str::to_owned);
            all.extend(page.shards().iter().map(|shard| listed(stream, shard)));
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// An iterator at a position of a shard.
    pub(super) async fn iterator(&self, shard: &Shard, position: &Position) -> Result<String, Problem> {
        let request = self.client().await.get_shard_iterator().stream_name(&shard.stream).shard_id(&shard.id);
        let Start { kind, sequence_number, at } = Start::at(position);
        let request = request.shard_iterator_type(kind).set_timestamp(at);
        let request = request.set_starting_sequence_number(sequence_number);
        let found = match request.clone().send().await {
            Ok(found) => Ok(found),
            Err(error) => match (problem(&error), position) {
                // This machine's clock is ahead of the service's, where nothing has arrived at that time yet.
                (Problem { kind: Kind::Refused, .. }, Position::Latest { .. }) => {
                    let latest = request.set_timestamp(None).shard_iterator_type(ShardIteratorType::Latest);
                    latest.send().await.map_err(|error| problem(&error))
                }
                (problem, _) => Err(problem),
            },
        };
        found?.shard_iterator.ok_or_else(|| broken("there is no iterator in it"))
    }

    /// The records at an iterator.
    pub(super) async fn records(&self, iterator: String, limit: u32) -> Result<Page, Problem> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let request = self.client().await.get_records().shard_iterator(iterator).limit(limit);
        let page = request.send().await.map_err(|error| problem(&error))?;
        let behind_ms = page.millis_behind_latest();
        Ok(Page { records: page.records, next: page.next_shard_iterator, behind_ms })
    }

    /// The ARN of a stream.
    pub(super) async fn stream_arn(&self, stream: &str) -> Result<String, Problem> {
        let request = self.client().await.describe_stream_summary().stream_name(stream);
        let described = request.send().await.map_err(|error| problem(&error))?;
        let summary =
            described.stream_description_summary.ok_or_else(|| broken("there is no stream in it"))?;
        Ok(summary.stream_arn)
    }

    /// The ARN of a consumer, and whether it can be used.
    pub(super) async fn consumer(&self, stream_arn: &str, name: &str) -> Result<(String, bool), Problem> {
        let request = self.client().await.describe_stream_consumer();
        let request = request.stream_arn(stream_arn).consumer_name(name);
        let described = request.send().await.map_err(|error| problem(&error))?;
        let consumer = described.consumer_description.ok_or_else(|| broken("there is no consumer in it"))?;
        Ok((consumer.consumer_arn, consumer.consumer_status == ConsumerStatus::Active))
    }

    /// Registers a consumer, if nobody else has.
    pub(super) async fn register(&self, stream_arn: &str, name: &str) -> Result<(), Problem> {
        let request = self.client().await.register_stream_consumer();
        match request.stream_arn(stream_arn).consumer_name(name).send().await {
            Ok(_) => Ok(()),
            Err(error) => match problem(&error) {
                problem if problem.is_in_use() => Ok(()),
                problem => Err(problem),
            },
        }
    }

    /// Removes a consumer, if it is there.
    pub(super) async fn deregister(&self, stream_arn: &str, name: &str) -> Result<(), Problem> {
        let request = self.client().await.deregister_stream_consumer();
        match request.stream_arn(stream_arn).consumer_name(name).send().await {
            Ok(_) => Ok(()),
            Err(error) => match problem(&error) {
                Problem { kind: Kind::NotFound, .. } => Ok(()),
                problem => Err(problem),
            },
        }
    }
}

/// Where to begin, as requests say it.
pub(super) struct Start {
    pub(super) kind: ShardIteratorType,
    pub(super) sequence_number: Option<String>,
    pub(super) at: Option<DateTime>,
}

impl Start {
    pub(super) fn at(position: &Position) -> Self {
        let (kind, sequence_number, at_ms) = match position {
            Position::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
            Position::Latest { since_ms: at_ms } | Position::AtTimestamp { at_ms } => {
                (ShardIteratorType::AtTimestamp, None, Some(*at_ms))
            }
            Position::After { sequence_number } => {
                (ShardIteratorType::AfterSequenceNumber, Some(sequence_number.clone()), None)
            }
            Position::Within { sequence_number, .. } => {
                (ShardIteratorType::AtSequenceNumber, Some(sequence_number.clone()), None)
            }
        };
        Self { kind, sequence_number, at: at_ms.map(DateTime::from_millis) }
    }
}

/// An answer that lacks something.
fn broken(what: &str) -> Problem {
    Problem::new(Kind::Passing, "BrokenAnswer", what)
}

/// What an error of the client means.
pub(super) fn problem<E>(error: &SdkError<E, HttpResponse>) -> Problem
where
    E: Error + ProvideErrorMetadata + 'static,
{
    Problem::of(error, error.code(), error.message())
}

fn listed(stream: &str, shard: &AwsShard) -> Listed {
    let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
    let (keys, numbers) = (shard.hash_key_range(), shard.sequence_number_range());
    Listed {
        is_closed: numbers.is_some_and(|numbers| numbers.ending_sequence_number().is_some()),
        shard: Shard {
            stream: stream.to_owned(),
            id: shard.shard_id().to_owned(),
            parents: parents.into_iter().flatten().map(str::to_owned).collect(),
            first_hash_key: keys.map_or_else(String::new, |keys| keys.starting_hash_key().to_owned()),
            last_hash_key: keys.map_or_else(String::new, |keys| keys.ending_hash_key().to_owned()),
            first_sequence_number: numbers
                .map_or_else(String::new, |numbers| numbers.starting_sequence_number().to_owned()),
        },
    }
}
