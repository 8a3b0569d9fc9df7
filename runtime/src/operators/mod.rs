//! The operators: what a chain is made of.
//!
//! Each function here makes a factory from a prototype (a closure, a source, a sink, a stateful function) which is cloned
//! for every subtask. On a record's way an operator takes a batch, drains it in one loop of monomorphised code and hands its
//! own batch to the next link; buffers are reused.

mod aggregate;
mod assigned;
pub mod async_io;
mod broadcast;
mod collect;
mod collection;
mod combine;
mod committer;
mod discard;
mod enumerating;
mod factory;
mod generator;
mod keyed;
mod merge;
mod numbers;
mod print;
mod process;
mod sink;
mod source;
mod splits;
pub(crate) mod transform;
mod watermarks;

pub(crate) use aggregate::reduce_into;
pub use aggregate::{Reduce, RunningAggregate, aggregate, reduce};
pub use assigned::EnumeratorCode;
pub use broadcast::keyed_broadcast;
pub use collect::{CollectSink, Collected};
pub use collection::{CollectionReader, CollectionSource};
pub use combine::{CombinePolicy, combine_aggregate, combine_reduce};
pub use discard::DiscardSink;
pub use generator::{GeneratorReader, GeneratorSource};
pub use keyed::keyed_process;
pub use merge::{MergedAggregate, MergedReduce, Unmerged};
pub use numbers::NumberSplit;
pub use print::PrintSink;
pub use process::process;
pub use sink::sink;
pub use source::{AnySource, Enumerated, InSplits, Whole, source};
pub use transform::{filter, flat_map, map, try_filter, try_flat_map, try_map};
pub use watermarks::watermarks;
