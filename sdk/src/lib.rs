//! Thalweg: write a streaming job as a native Rust program, and run it locally or on a cluster.
//!
//! A job is a `main` that calls [`run`] with its topology. The same executable runs by itself (with a job manager and a
//! task manager inside), submits itself to a cluster, and is what the cluster's workers run.
//!
//! ```no_run
//! use thalweg::prelude::*;
//!
//! fn main() -> thalweg::Result<()> {
//!     thalweg::run(|env| {
//!         env.from_iter(["to be or not", "to be"].map(String::from))
//!             .flat_map(|line| line.split(' ').map(String::from).collect::<Vec<_>>())
//!             .key_by(|word| word.clone())
//!             .count()
//!             .uid("count")
//!             .map(|(word, count)| format!("{word} {count}"))
//!             .print();
//!         Ok(())
//!     })
//! }
//! ```
//!
//! The [`guide`] is a book: from [getting started](guide::getting_started) over [time](guide::time), [state](guide::state),
//! [windows](guide::windows), [joins](guide::joins) and [patterns](guide::patterns) to [fault tolerance](guide::fault_tolerance). [`testing`] has
//! harnesses for functions and whole jobs. For reference:
//!
//! | where | what |
//! | --- | --- |
//! | [`Environment`] | sources and settings: where a topology begins |
//! | [`DataStream`] | operators on records, distribution, sinks |
//! | [`KeyedStream`] | what has state: functions, aggregates, windows, joins |
//! | [`windowed`] | what is made of windows; [`windows`](mod@windows) has triggers and evictors |
//! | [`ConnectedStreams`], [`KeyedConnectedStreams`] | two inputs; [`BroadcastConnectedStreams`] where one goes to all |
//! | [`cep`] | patterns of events |
//! | [`operator`], [`split`] | what connectors implement |
//! | [`metrics`] | counters, gauges and other metrics of a function, from its [context](operator::OpenContext::metric_group) |

// Derived code names this crate by its public path, also from inside it.
extern crate self as thalweg;

pub mod aggregates;
mod aggregation;
mod arguments;
mod broadcast;
pub mod cep;
mod connected;
mod environment;
mod error;
mod graph;
pub mod guide;
mod joins;
mod keyed;
mod lookup;
mod mode;
mod settings;
mod stream;
pub mod testing;
mod time;
mod two_stages;
pub mod windowed;

pub use aggregation::{Aggregation, Combined, RecordByRecord};
pub use broadcast::{BroadcastConnectedStreams, KeyedBroadcastConnectedStreams};
pub use connected::{ConnectedStreams, KeyedConnectedStreams};
pub use environment::Environment;
pub use error::{Error, Result};
pub use joins::{IntervalJoined, RegularJoined};
pub use keyed::{KeyOf, KeyedStream};
pub use lookup::LookupJoined;
pub use mode::run;
pub use stream::{DataStream, StreamSink};
pub use thalweg_common::Record;
pub use thalweg_common::failure::Failure;
pub use thalweg_common::record::Record;
pub use thalweg_common::{record, schema};
pub use thalweg_runtime::operators::async_io;
pub use thalweg_runtime::{
    batch, co_process, io, joins as join, metrics, operator, operator_state, process, split, windows,
};
pub use thalweg_state as state;
pub use thalweg_state::State;
pub use time::{bounded_out_of_orderness, ingestion_time, monotonous_timestamps, no_watermarks};

/// What nearly every job needs: `use thalweg::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use thalweg_common::Timestamp;
    pub use thalweg_common::record::Serde;
    pub use thalweg_runtime::aggregating::{AggregatingState, ExpiringAggregating};
    pub use thalweg_runtime::broadcast::{BroadcastProcess, KeyedBroadcastProcess};
    pub use thalweg_runtime::co_process::{CoProcess, KeyedCoProcess};
    pub use thalweg_runtime::joins::{Change, JoinContext, ProcessJoin};
    pub use thalweg_runtime::metrics::{Counter, Gauge, Histogram, Meter, MetricGroup};
    pub use thalweg_runtime::operator::{
        Aggregate, Context, KeyedProcess, MergeAggregate, OpenContext, OrFailure, TimeDomain,
    };
    pub use thalweg_runtime::operator_state::{BroadcastState, OperatorStates};
    pub use thalweg_runtime::operators::Collected;
    pub use thalweg_runtime::operators::async_io::{AsyncIo, AsyncOptions, AsyncRetry, Lookup, LookupCache};
    pub use thalweg_runtime::process::{Process, ProcessContext};
    pub use thalweg_runtime::side_output::OutputTag;
    pub use thalweg_runtime::time::{
        MAX_WATERMARK, TimestampAssigner, WatermarkGenerator, WatermarkOutput, WatermarkStrategy,
    };
    pub use thalweg_state::{
        ExpiringList, ExpiringMap, ExpiringReducing, ExpiringValue, ListState, MapState, ReducingState,
        State, StateTtl, TtlUpdate, TtlVisibility, ValueState,
    };

    pub use crate::windowed::{
        WindowedStream, cumulate, dynamic_session, global, session, sliding, tumbling,
    };
    pub use crate::windows::{ProcessWindowFunction, TimeWindow, WindowContext};
    pub use crate::{
        DataStream, Environment, Failure, KeyedStream, Record, StreamSink, bounded_out_of_orderness, hours,
        ingestion_time, millis, minutes, monotonous_timestamps, no_watermarks, secs,
    };
}

use std::time::Duration;

/// A duration of so many milliseconds.
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A duration of so many seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A duration of so many minutes.
pub const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// A duration of so many hours.
pub const fn hours(hours: u64) -> Duration {
    Duration::from_secs(3_600 * hours)
}

/// The job in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
