//! A Kinesis and a Firehose for tests, in the process of the test: their streams ([`model`], pure), in the protocol of Amazon's clients ([`protocol`]), on a free
//! port of the loopback interface ([`server`]).
//!
//! No program that can be installed is faithful: none throttles, none refuses single records, and only one lets a shard be read to its end
//! behind a split. This one does what the service's documentation says, and is held to it by tests that other peers pass too.

mod firehose;
mod model;
mod protocol;
mod server;

pub use model::{Refusal, Rules, StoredRecord};
pub use protocol::SECRET_TOKEN;
pub use server::KinesisModel;
