//! Keyed state: what an operator remembers of each key, partitioned by key group.
//!
//! Stands beside the operators of a task. A stateful function is a struct whose fields are its states ([`ValueState`],
//! [`MapState`], [`ListState`], [`ReducingState`]); `#[derive(State)]` declares them, so that the plan of a job knows every state before anything runs.
//! In a task the declarations become a [`KeyedStore`]: one table of keys, with the value beside the key where a function has
//! only one, otherwise with one typed column per state, so that a record costs one hash look-up however many states it
//! touches, and a batch has its look-ups done together.
//!
//! Invariants: a store holds only keys of the key groups that its subtask owns; what a snapshot holds is readable at
//! every parallelism up to the max parallelism; a state whose type has changed is never read as if it had not.
//!
//! ```
//! # mod krate { pub mod state { pub use thalweg_state::*; } } // a job has `thalweg` instead
//! use thalweg_common::key_group::groups_of;
//! use thalweg_state::{Declarations, KeyedStore, MapState, State, ValueState};
//!
//! #[derive(State, Clone, Default)]
//! #[state(crate = krate)]
//! struct Visits {
//!     total: ValueState<u64>,
//!     by_page: MapState<String, u64>,
//! }
//!
//! let mut visits = Visits::default();
//! let mut declarations = Declarations::default();
//! visits.declare(&mut declarations);
//! let mut store = KeyedStore::<String>::new("visits", declarations, 128, groups_of(0, 1, 128)).unwrap();
//!
//! let mut alice = store.select("alice".to_string()).unwrap();
//! visits.total.update(&mut alice, |total| Some(total.unwrap_or(0) + 1));
//! visits.by_page.insert(&mut alice, "/".into(), 1);
//! assert_eq!(visits.total.get(&alice), Some(&1));
//! drop(alice);
//! assert_eq!(visits.total.get(&store.select("bob".into()).unwrap()), None);
//! ```

mod backend;
mod cache;
mod canonical;
mod columns;
mod declare;
mod epoch;
mod error;
mod expiring;
mod grouped;
mod inline;
mod key_table;
mod list;
mod map;
mod prefetch;
mod reducing;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod snapshot;
mod store;
mod tables;
mod timers;
mod value;

pub use backend::{Backend, OnEntry, OnFound, OnStateEntry, StoreDescription, StoreFile, StoreFiles};
pub use cache::batch::{EntryBatch, StoredEntry};
pub use cache::persistent::{CacheOptions, Drained};
pub use canonical::{migrate_states, stored_entries};
pub use declare::{Declarations, Declare, State};
pub use epoch::FrozenEpoch;
pub use error::{DuplicateState, ForeignKey, RestoreError, SelectError, StoreError};
pub use expiring::{DeclareExpiring, ExpiringList, ExpiringMap, ExpiringReducing, ExpiringValue};
pub use list::ListState;
pub use map::MapState;
pub use reducing::ReducingState;
#[cfg(feature = "rocksdb")]
pub use rocksdb::{
    CompactionStyle, MemoryShares, PredefinedOptions, RocksDb, RocksDbMemory, RocksDbOptions, RocksDbSettings,
};
pub use snapshot::{Entries, StateSnapshot};
pub use store::{AtKey, KeyedStore};
pub use tables::{Accessor, StateKey, Tables};
pub use thalweg_common::ttl::{StateTtl, TtlUpdate, TtlVisibility};
pub use thalweg_derive::State;
pub use timers::TimeDomain;
pub use value::ValueState;
