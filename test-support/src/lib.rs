//! What tests stand on beside the code they test: an S3 that runs on this machine, and a proxy in front of it that makes it
//! fail in every way a network and a store can; a Kinesis in the process of the test; a client of HTTP and a browser without a
//! window.
//!
//! Used by the tests of the storage, and by those that kill and starve whole clusters.

pub mod browser;
pub mod fault_proxy;
pub mod http;
mod installed;
pub mod kinesis;
pub mod kinesis_peer;
pub mod s3_peer;

pub use browser::Browser;
pub use fault_proxy::{Fault, FaultProxy, Faults};
pub use kinesis::KinesisModel;
pub use kinesis_peer::KinesisPeer;
pub use s3_peer::S3Peer;
