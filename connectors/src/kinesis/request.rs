//! What is asked of the service for a shard, and what comes of it.

use std::sync::Arc;

use super::ancestors::{self, Looking};
use super::fan_out::{Event, Events, Subscriber};
use super::position::Position;
use super::seen::Remembered;
use super::service::{Page, Service};
use super::shard::Shard;
use crate::aws::{Kind, Problem};

/// What is asked.
#[derive(Debug)]
pub(super) enum Request {
    Iterator(Shard, Position),
    Records {
        iterator: String,
        limit: u32,
    },
    Subscribe(Shard, Position),
    Listen(Events),
    /// What the shards before this one have, in a source that de-duplicates.
    Ancestors(Shard, Looking),
}

/// What an answer has brought.
pub(super) enum Answer {
    Iterator(Result<String, Problem>),
    Records(Result<Page, Problem>),
    Subscribed(Result<Events, Problem>),
    /// Nothing at the end of a subscription.
    Heard(Result<Option<(Event, Events)>, Problem>),
    Ancestors(Result<Vec<Remembered>, Problem>),
}

/// Whom the readers of a subtask ask.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) service: Arc<Service>,
    /// With enhanced fan-out.
    pub(super) subscriber: Option<Subscriber>,
}

impl Request {
    /// Asks.
    pub(super) async fn send(self, connections: &Connections) -> Answer {
        let polled = || Problem::new(Kind::Refused, "Request", "the source polls and has no subscriptions");
        let subscriber = connections.subscriber.as_ref().ok_or_else(polled);
        match (self, subscriber) {
            (Self::Iterator(shard, position), _) => {
                Answer::Iterator(connections.service.iterator(&shard, &position).await)
            }
            (Self::Records { iterator, limit }, _) => {
                Answer::Records(connections.service.records(iterator, limit).await)
            }
            (Self::Ancestors(shard, how), _) => {
                Answer::Ancestors(ancestors::ids(&connections.service, &shard, how).await)
            }
            (Self::Subscribe(shard, position), Ok(subscriber)) => {
                Answer::Subscribed(subscriber.subscribe(&shard, &position).await)
            }
            (Self::Listen(events), Ok(subscriber)) => Answer::Heard(subscriber.listen(events).await),
            (Self::Subscribe(..) | Self::Listen(_), Err(problem)) => Answer::Subscribed(Err(problem)),
        }
    }
}
