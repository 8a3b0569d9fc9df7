//! Subscribes to shards and listens.
//!
//! Invariant: the subscriptions of a subtask have connections of their own. So a subtask whose shards are not listened to, because its task is
//! held up, keeps nothing from other subtasks, for which it perhaps waits.

use std::fmt;
use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError as Refusal;
use aws_sdk_kinesis::types::{Record, ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use thalweg_common::task_scope::with_causes;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::super::position::Position;
use super::super::service::{Service, Start, problem};
use super::super::shard::Shard;
use super::options::FanOutOptions;
use crate::aws::{Kind, Problem};

/// Makes the subscriptions of a subtask.
#[derive(Debug)]
pub(in super::super) struct Subscriber {
    service: Arc<Service>,
    options: FanOutOptions,
    client: OnceCell<Client>,
}

/// A subscription to a shard that the service has taken.
pub(in super::super) struct Events(Box<SubscribeToShardOutput>);

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Events")
    }
}

/// What a subscription has brought.
#[derive(Debug)]
pub(in super::super) struct Event {
    pub(in super::super) records: Vec<Record>,
    /// How far behind the newest record of the shard it is, in milliseconds.
    pub(in super::super) behind_ms: i64,
    /// Whether the shard has nothing more: it was split or merged.
    pub(in super::super) is_last: bool,
}

impl Subscriber {
    pub(in super::super) fn new(service: Arc<Service>, options: FanOutOptions) -> Self {
        Self { service, options, client: OnceCell::new() }
    }

    /// Subscribes to a shard, from a position on.
    pub(in super::super) async fn subscribe(
        &self,
        shard: &Shard,
        position: &Position,
    ) -> Result<Events, Problem> {
        let longest = self.options.subscribe_timeout;
        let arn = self.service.consumers.arn(&self.service, &self.options, &shard.stream).await?;
        let client = self.client.get_or_init(|| self.service.another_client(longest)).await;
        let request = client.subscribe_to_shard().consumer_arn(arn).shard_id(&shard.id);
        let subscribe = |start: Start| {
            let at = StartingPosition::builder().r#type(start.kind).set_timestamp(start.at);
            let at = at.set_sequence_number(start.sequence_number).build();
            let request = request.clone();
            async move {
                let broken = |error| Problem::new(Kind::Refused, "Request", format!("{error}"));
                let sent = request.starting_position(at.map_err(broken)?).send();
                // The answer begins with a first event, for which the client waits.
                match timeout(longest, sent).await {
                    Ok(answer) => {
                        answer.map(|answer| Events(Box::new(answer))).map_err(|error| problem(&error))
                    }
                    Err(_) => Err(Problem::new(Kind::Passing, "Timeout", "no answer in time")),
                }
            }
        };
        let subscribed = match (subscribe(Start::at(position)).await, position) {
            // This machine's clock is ahead of the service's, where nothing has arrived at that time yet.
            (Err(Problem { kind: Kind::Refused, .. }), Position::Latest { .. }) => {
                let latest = Start { kind: ShardIteratorType::Latest, sequence_number: None, at: None };
                subscribe(latest).await
            }
            (subscribed, _) => subscribed,
        };
        if let Err(Problem { kind: Kind::NotFound, .. }) = subscribed {
            // Either the shard, or the consumer.
            self.service.consumers.forget(&shard.stream).await;
        }
        subscribed
    }

    /// The next event of a subscription, which comes back with it; nothing when it is over.
    pub(in super::super) async fn listen(
        &self,
        mut events: Events,
    ) -> Result<Option<(Event, Events)>, Problem> {
        loop {
            let next = timeout(self.options.longest_silence, events.0.event_stream.recv()).await;
            let silent = |_| Problem::new(Kind::Passing, "Silence", "the subscription says nothing");
            match next.map_err(silent)? {
                Ok(None) => return Ok(None),
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                    // Where the service names no place to go on there is nothing more.
                    let is_last =
                        event.child_shards.is_some() || event.continuation_sequence_number.is_empty();
                    let behind_ms = event.millis_behind_latest;
                    return Ok(Some((Event { records: event.records, behind_ms, is_last }, events)));
                }
                // A word that is not about records.
                Ok(Some(_)) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
    }
}

/// Why a subscription has ended.
fn refused<R: fmt::Debug + Send + Sync + 'static>(error: &SdkError<Refusal, R>) -> Problem {
    let passing = |code: &str| Problem::new(Kind::Passing, code, with_causes(error));
    match error {
        SdkError::ServiceError(refusal) => {
            let refusal = refusal.err();
            // There is no status, and the code is told beside the content.
            let code = match refusal {
                Refusal::ResourceNotFoundException(_) => "ResourceNotFoundException",
                Refusal::ResourceInUseException(_) => "ResourceInUseException",
                Refusal::KmsDisabledException(_) => "KMSDisabledException",
                Refusal::KmsInvalidStateException(_) => "KMSInvalidStateException",
                Refusal::KmsAccessDeniedException(_) => "KMSAccessDeniedException",
                Refusal::KmsNotFoundException(_) => "KMSNotFoundException",
                Refusal::KmsOptInRequired(_) => "KMSOptInRequired",
                Refusal::KmsThrottlingException(_) => "KMSThrottlingException",
                Refusal::InternalFailureException(_) => "InternalFailureException",
                other => other.code().unwrap_or("InternalFailureException"),
            };
            Problem::of_refusal(200, Some(code), refusal.message())
        }
        SdkError::DispatchFailure(_) => passing("Unreachable"),
        _ => passing("BrokenAnswer"),
    }
}
