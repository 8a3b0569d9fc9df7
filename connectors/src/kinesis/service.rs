//! Requests to Kinesis: what is asked, and what an answer means. Retries are those who ask.

use std::error::Error;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, Shard as AwsShard, ShardIteratorType};
use thalweg_common::limits::{KINESIS_LIST_SHARDS, KINESIS_REQUEST_TIMEOUT_MS};

use super::graph::Listed;
use super::position::Position;
use super::shard::Shard;
use crate::aws::{AwsSettings, Connection, Kind, Problem};

/// Asks Kinesis.
#[derive(Debug)]
pub(super) struct Service {
    connection: Connection<Client>,
}

/// What a read has brought.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    /// Where the next read goes on; nothing behind the end of a closed shard.
    pub(super) next: Option<String>,
}

impl Service {
    pub(super) fn new(settings: AwsSettings) -> Self {
        Self { connection: Connection::new(settings) }
    }

    pub(super) async fn client(&self) -> &Client {
        self.connection.client(Duration::from_millis(KINESIS_REQUEST_TIMEOUT_MS), Client::new).await
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
        let request = match position {
            Position::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Position::Latest { since_ms: at_ms } | Position::AtTimestamp { at_ms } => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(*at_ms)),
            Position::After { sequence_number } => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence_number),
            Position::Within { sequence_number, .. } => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(sequence_number),
        };
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
        let missing = || Problem {
            kind: Kind::Passing,
            code: "BrokenAnswer".to_owned(),
            text: "there is no iterator in it".to_owned(),
        };
        found?.shard_iterator.ok_or_else(missing)
    }

    /// The records at an iterator.
    pub(super) async fn records(&self, iterator: String, limit: u32) -> Result<Page, Problem> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let request = self.client().await.get_records().shard_iterator(iterator).limit(limit);
        let page = request.send().await.map_err(|error| problem(&error))?;
        Ok(Page { records: page.records, next: page.next_shard_iterator })
    }
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
