//! The replicated log as a cluster: elections, losses, restarts, compaction, membership. Everything but the machine's
//! failure is real: disks, gRPC over loopback, timers.

#![cfg(feature = "raft")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod compaction;
mod failover;
mod membership;
mod wire;
