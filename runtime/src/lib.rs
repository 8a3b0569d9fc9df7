//! What runs inside a Thalweg worker.
//!
//! A record's way: a [`Source`](operator::Source) polled by its head, or an input gate of the [`exchange`]; then operator
//! after operator of the chain, batch in, batch out ([`link`], [`operators`]); then outputs to the exchange, or a
//! [`Sink`](operator::Sink). The task loop drives the head; the worker deploys tasks and talks to the task manager.

pub mod aggregating;
pub mod batch;
pub mod broadcast;
mod chain;
pub mod co_process;
mod edge;
mod erased;
pub mod event;
pub mod exchange;
mod fan_out;
#[cfg(test)]
mod fixtures;
mod gate_head;
pub mod in_flight;
pub mod io;
pub mod joins;
mod keyed_process;
pub mod link;
pub mod metrics;
pub mod offline;
pub mod operator;
pub mod operator_state;
pub mod operators;
pub mod parts;
pub mod process;
pub mod program;
mod record_type;
pub mod side_output;
#[cfg(test)]
mod simulation;
mod slot;
pub mod snapshot;
pub mod split;
pub mod stores;
mod task;
pub mod testing;
pub mod time;
pub mod windows;
pub mod worker;
