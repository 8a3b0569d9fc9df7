//! Enhanced fan-out: shards are not asked for records, the service pushes them, with 2 MB/s for each shard and consumer.
//!
//! ```text
//! Consumers: the stream's ARN -> the consumer's ARN, registered if it is to be      (once in a process)
//! Subscription (pure): when to subscribe to a shard, and what a failure means -> SubscribeToShard -> events -> renewed after five minutes
//! ```
//!
//! Positions are those of polling, so that a job changes from one to the other with its savepoint.

mod consumers;
mod options;
mod subscriber;
mod subscription;

pub use options::ConsumerRegistration;

pub(super) use consumers::Consumers;
pub(super) use options::{FanOutOptions, KEYS};
pub(super) use subscriber::{Event, Events, Subscriber};
pub(super) use subscription::{Step, Subscription};
