//! Operators through their harness, without a runtime.

#![allow(clippy::unwrap_used, clippy::panic)]

mod ends;
mod operators;
#[cfg(feature = "rocksdb")]
mod stores;
mod timers;
mod timestamps;

/// Stands for the `thalweg` crate of a job.
mod krate {
    pub mod state {
        pub use thalweg_state::*;
    }
}
