//! A Kinesis and a Firehose for tests, in the process of the test: their streams ([`model`], pure), in the protocol of Amazon's clients ([`protocol`]), on a free
//! port of the loopback interface ([`server`]). Enhanced fan-out ([`fan_out`]) is pushed as events ([`event_stream`]) over HTTP/1.1, which clients
//! take as well as HTTP/2: on a connection of its own for each subscription.
//!
//! No program that can be installed is faithful: none throttles, none refuses single records, and only one lets a shard be read to its end
//! behind a split. This one does what the service's documentation says, and is held to it by tests that other peers pass too.

mod event_stream;
mod fan_out;
mod firehose;
mod model;
mod protocol;
mod server;

pub use model::{Refusal, Rules, StoredRecord};
pub use protocol::SECRET_TOKEN;
pub use server::KinesisModel;
