//! What operators count, and the metrics that user code registers.
//!
//! Stands beside a record's way: the task's thread writes, once per batch what the runtime counts and whenever user code says so what
//! that counts; the worker reads everything once per second ([`OperatorMetrics::read`]). Writing is a plain addition: nobody but the
//! task's thread adds. Invariant: what is read never takes a lock that the task's thread holds for longer than a registration.

mod flow;
mod group;
mod kinds;
mod operator;
mod part;

pub use self::group::{MetricGroup, MetricGroupName};
pub use self::kinds::{Counter, Gauge, Histogram, Meter};
pub use self::operator::OperatorMetrics;
pub use self::part::PartGauge;

pub(crate) use self::flow::{Flow, counted};
#[cfg(feature = "rocksdb")]
pub(crate) use self::operator::ManagedMemory;
