//! Enhanced fan-out: consumers of streams, and their subscriptions to shards. Pure: time comes with each question.
//!
//! Invariants: a consumer has one subscription to a shard at a time, a second one is refused for some seconds and takes over behind them; a
//! subscription tells of every record behind its beginning once; at the end of a closed shard it names the children, and is over.

use std::collections::{BTreeMap, VecDeque};

use thalweg_common::Timestamp;

use super::model::{From, Model, Refusal, Shard, StoredRecord, refuse};

/// Quota of a consumer and second.
const SUBSCRIPTIONS: usize = 5;
/// Most of one event.
const EVENT_RECORDS: usize = 500;
const EVENT_BYTES: usize = 1024 * 1024;

/// A registered consumer.
#[derive(Debug, Clone)]
pub(super) struct Consumer {
    pub(super) arn: String,
    pub(super) name: String,
    pub(super) stream: String,
    pub(super) since_ms: Timestamp,
    subscribed: VecDeque<Timestamp>,
}

/// All consumers, and what they have subscribed to.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    consumers: Vec<Consumer>,
    /// By consumer and shard: the number of the subscription, and when it began.
    live: BTreeMap<(String, String), (u64, Timestamp)>,
    begun: u64,
    /// Those with a smaller number are over.
    over_below: u64,
}

/// A subscription to a shard.
#[derive(Debug)]
pub(super) struct Subscription {
    number: u64,
    consumer: String,
    stream: String,
    shard: String,
    place: usize,
    since_ms: Timestamp,
    told_at_ms: Option<Timestamp>,
    is_over: bool,
}

/// What a subscription has to say.
#[derive(Debug)]
pub(super) enum Push {
    /// Records, perhaps none.
    Event { records: Vec<StoredRecord>, continuation: String, behind_ms: i64, children: Vec<Shard> },
    /// It is over because of this.
    Refused(Refusal),
    /// It is over.
    End,
    /// Nothing, for so many milliseconds.
    Nothing(i64),
}

/// The ARN of a stream.
pub(super) fn stream_arn(stream: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}")
}

/// The stream of an ARN.
pub(super) fn stream_of(arn: &str) -> &str {
    arn.rsplit_once(":stream/").map_or(arn, |(_, stream)| stream)
}

impl Model {
    pub(super) fn register(
        &mut self,
        stream: &str,
        name: &str,
        now_ms: Timestamp,
    ) -> Result<Consumer, Refusal> {
        self.shards(stream)?;
        if self.consumer(stream, name).is_ok() {
            return refuse(
                "ResourceInUseException",
                format!("Consumer {name} of stream {stream} exists already"),
            );
        }
        let arn = format!("{}/consumer/{name}:{now_ms}", stream_arn(stream));
        let (name, stream) = (name.to_owned(), stream.to_owned());
        let consumer = Consumer { arn, name, stream, since_ms: now_ms, subscribed: VecDeque::new() };
        self.fan_out.consumers.push(consumer.clone());
        Ok(consumer)
    }

    pub(super) fn consumer(&self, stream: &str, name: &str) -> Result<&Consumer, Refusal> {
        let is_it = |consumer: &&Consumer| consumer.stream == stream && consumer.name == name;
        self.fan_out.consumers.iter().find(is_it).ok_or_else(|| no_consumer(name))
    }

    pub(super) fn consumer_by_arn(&self, arn: &str) -> Result<&Consumer, Refusal> {
        let found = self.fan_out.consumers.iter().find(|consumer| consumer.arn == arn);
        found.ok_or_else(|| no_consumer(arn))
    }

    /// The consumers of a stream.
    pub(super) fn consumers(&self, stream: &str) -> impl Iterator<Item = &Consumer> {
        self.fan_out.consumers.iter().filter(move |consumer| consumer.stream == stream)
    }

    /// Whether it can be subscribed with.
    pub(super) fn is_active(&self, consumer: &Consumer, now_ms: Timestamp) -> bool {
        now_ms >= consumer.since_ms + self.rules.consumer_creation_ms
    }

    pub(super) fn deregister(&mut self, arn: &str) -> Result<(), Refusal> {
        self.consumer_by_arn(arn)?;
        self.fan_out.consumers.retain(|consumer| consumer.arn != arn);
        Ok(())
    }

    /// Ends all subscriptions, as the service does after five minutes.
    pub(super) fn end_subscriptions(&mut self) {
        self.fan_out.over_below = self.fan_out.begun;
    }

    pub(super) fn subscribe(
        &mut self,
        arn: &str,
        id: &str,
        from: &From,
        now_ms: Timestamp,
    ) -> Result<Subscription, Refusal> {
        let consumer = self.consumer_by_arn(arn)?.clone();
        if !self.is_active(&consumer, now_ms) {
            return refuse("ResourceInUseException", format!("Consumer {arn} is not ACTIVE"));
        }
        let place = self.shard_mut(&consumer.stream, id)?.place(from, now_ms)?;
        let (has_quotas, takeover_ms) = (self.rules.read_quotas, self.rules.takeover_ms);
        let fan_out = &mut self.fan_out;
        for known in fan_out.consumers.iter_mut().filter(|known| known.arn == arn) {
            known.subscribed.retain(|at| now_ms - at < 1_000);
            if has_quotas && known.subscribed.len() >= SUBSCRIPTIONS {
                return refuse("LimitExceededException", format!("Rate exceeded for consumer {arn}"));
            }
            known.subscribed.push_back(now_ms);
        }
        let key = (arn.to_owned(), id.to_owned());
        if fan_out.live.get(&key).is_some_and(|(_, since_ms)| now_ms - since_ms < takeover_ms) {
            let message =
                format!("Another active subscription exists for this consumer: {arn} and shard {id}");
            return refuse("ResourceInUseException", message);
        }
        let number = fan_out.begun;
        fan_out.begun += 1;
        fan_out.live.insert(key, (number, now_ms));
        Ok(Subscription {
            number,
            consumer: arn.to_owned(),
            stream: consumer.stream,
            shard: id.to_owned(),
            place,
            since_ms: now_ms,
            told_at_ms: None,
            is_over: false,
        })
    }

    /// What a subscription says next.
    pub(super) fn push(&mut self, subscription: &mut Subscription, now_ms: Timestamp) -> Push {
        let (consumer, id) = (&subscription.consumer, &subscription.shard);
        let live = self.fan_out.live.get(&(consumer.clone(), id.clone()));
        let is_taken_over = live.is_none_or(|(live, _)| *live != subscription.number);
        let over_at_ms = subscription.since_ms + self.rules.subscription_ms;
        if subscription.is_over || subscription.number < self.fan_out.over_below || now_ms >= over_at_ms {
            // Before the client is told, so that it can begin another one at once.
            self.unsubscribe(subscription);
            return Push::End;
        }
        if is_taken_over {
            let message = format!("Another subscription to {id} was begun with the consumer {consumer}");
            return Push::Refused(Refusal { code: "ResourceInUseException", message });
        }
        if let Err(refusal) = self.consumer_by_arn(consumer) {
            return Push::Refused(refusal);
        }
        let children = self.children(&subscription.stream, id);
        let heartbeat_ms = self.rules.heartbeat_ms;
        let shard = match self.shard_mut(&subscription.stream, id) {
            Ok(shard) => shard,
            Err(refusal) => return Push::Refused(refusal),
        };
        let mut bytes = 0;
        let fits = |record: &&StoredRecord| {
            bytes += record.data.len();
            bytes <= EVENT_BYTES
        };
        let rest = shard.records.get(subscription.place..).unwrap_or_default();
        let mut records: Vec<StoredRecord> =
            rest.iter().take(EVENT_RECORDS).take_while(fits).cloned().collect();
        if records.is_empty() {
            records.extend(rest.first().cloned());
        }
        let end = subscription.place + records.len();
        subscription.is_over = shard.last_number.is_some() && end >= shard.records.len();
        let next_at_ms = subscription.told_at_ms.map_or(now_ms, |told| told + heartbeat_ms);
        if records.is_empty() && !subscription.is_over && now_ms < next_at_ms {
            return Push::Nothing(next_at_ms.min(over_at_ms) - now_ms);
        }
        let before = end.checked_sub(1).and_then(|place| shard.records.get(place));
        let continuation = before.map_or(&shard.first_number, |record| &record.sequence_number).clone();
        let behind_ms = shard.records.get(end).map_or(0, |record| now_ms - record.arrival_ms);
        (subscription.place, subscription.told_at_ms) = (end, Some(now_ms));
        let children = if subscription.is_over { children } else { Vec::new() };
        Push::Event { records, continuation, behind_ms, children }
    }

    /// The client has gone, or the subscription is over.
    pub(super) fn unsubscribe(&mut self, subscription: &Subscription) {
        let key = (subscription.consumer.clone(), subscription.shard.clone());
        if self.fan_out.live.get(&key).is_some_and(|(live, _)| *live == subscription.number) {
            self.fan_out.live.remove(&key);
        }
    }
}

fn no_consumer(which: &str) -> Refusal {
    Refusal { code: "ResourceNotFoundException", message: format!("Consumer {which} not found.") }
}
