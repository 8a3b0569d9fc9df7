//! What tests stand on beside the code they test: an S3 that runs on this machine, and a proxy in front of it that makes it
//! fail in every way a network and a store can.
//!
//! Used by the tests of the storage, and by those that kill and starve whole clusters.

pub mod fault_proxy;
pub mod s3_peer;

pub use fault_proxy::{Fault, FaultProxy, Faults};
pub use s3_peer::S3Peer;
