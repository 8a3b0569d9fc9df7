//! Both stores of keyed state against plain models, through their public face.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(feature = "rocksdb")]
mod damage;
mod expiring;
mod function;
#[cfg(feature = "rocksdb")]
mod job;
mod model;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod savepoint;
mod store;
#[cfg(feature = "rocksdb")]
mod subtask;
#[cfg(feature = "rocksdb")]
mod timers;
