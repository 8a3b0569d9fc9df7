//! Exchange between processes, through sockets: order, credit, faults of peers and rubbish on the wire.

#![allow(clippy::unwrap_used, clippy::panic)]

mod backpressure;
mod fuzz;
mod protocol;
mod remote;
mod support;
