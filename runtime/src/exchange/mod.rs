//! The exchange: how batches get from one task to the next, in the same process or in another one.
//!
//! A batch's way through this folder:
//!
//! - `output.rs` takes it from the end of a chain. `partitioner.rs` chooses a channel for each record (key group, round
//!   robin, forward); the output collects a batch per channel and keeps what a full channel does not take.
//! - `channel.rs` is the channel's two ends as a task sees them: [`Sender`] and [`Receiver`]. Sending never blocks.
//! - `local.rs` moves the batch itself to a task of the same process, through a ring that takes no lock, and its buffer back.
//!   `queue.rs` keeps messages wherever else they wait: in an output, and at the ends of a remote channel.
//! - `remote/` moves it to another process: `frame.rs` encodes it (`timestamped.rs` if it has timestamps), `sender.rs` queues frames while `credit.rs` allows it and
//!   feeds the gRPC stream that `client.rs` has opened; on the other side `server.rs` accepts the stream,
//!   `registry.rs` fences it and finds its receiver, `receiver.rs` checks, queues and decodes the frames.
//!   How much may be on its way to a receiver moves: `window.rs` decides, `debloat.rs` measures. For batches inside a
//!   process `pace.rs` does.
//! - `ready.rs` marks the channel as readable and `waker/` wakes the receiving task.
//! - `gate.rs` takes batches from all channels of a task in turn and returns their credit; `aligner.rs` decides which
//!   channels must wait for a barrier. The gate's batches enter the next chain. `traffic.rs` counts them.
//! - Against this direction go credit and, where a receiver has something to say to its sender, notes (`note.rs`).
//! - An unaligned barrier is seen where it waits (`ready.rs` tells of it, `gate/overtaking.rs` looks), and what is in front of it is
//!   recorded as `stored.rs` writes it; the output records what it keeps.
//!
//! Invariants: tasks run on plain threads and never wait for the network; everything that queues is bounded, by batches
//! inside a process and by bytes of credit between processes; one slow channel holds up no other; order is kept in
//! every channel, for records and events alike; what breaks a rule fails the task and never yields a wrong result.

mod aligner;
mod channel;
mod credit;
mod debloat;
mod gate;
mod local;
mod note;
mod output;
pub(crate) mod pace;
mod partitioner;
mod queue;
mod ready;
mod remote;
mod stored;
mod traffic;
mod waker;
mod window;

#[cfg(test)]
mod loom_tests;
#[cfg(test)]
mod ready_tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use thalweg_common::limits::BATCH_RECORDS;

#[cfg(test)]
pub(crate) use channel::local_channel_with_room;
pub use channel::{Receiver, Sender, Sent, local_channel};
pub use gate::{Input, InputGate};
pub(crate) use note::Note;
pub use output::Output;
pub use partitioner::{Forward, HashPartitioner, Partitioner, RoundRobin, by_key};
#[cfg(test)]
pub(crate) use remote::simulated::{Move, SimulatedConnection, SimulatedWorker};
pub use remote::{Compression, ExchangeClient, ExchangeServer, ExchangeSettings, OpenChannel};
pub use stored::StoredBatch;
pub use traffic::Traffic;
pub(crate) use waker::{Called, SlotParker};
pub use waker::{TaskParker, TaskWaker};

/// The ring of local channels. Tests put a model in its place.
mod ring {
    pub(super) use rtrb::{Consumer, Producer, PushError, RingBuffer};

    /// Looks at what is in a ring, oldest first, as long as `look` wants to see more. Whether it wanted to until the end.
    pub(super) fn look_at<T>(ring: &mut Consumer<T>, look: impl FnMut(&T) -> bool) -> bool {
        let Ok(chunk) = ring.read_chunk(ring.slots()) else { return true };
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).all(look)
    }
}

/// What the parts of this folder that share memory between threads without a lock are made of. Tests put loom's in its place.
mod memory {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(super) use std::sync::{Mutex, MutexGuard, OnceLock};
}

/// Largest buffer of a batch that is kept to be used again; a larger one was an exception and is freed.
const MAX_SPARE_RECORDS: usize = 4 * BATCH_RECORDS;

/// Locks a channel's state. It is whole whenever it is unlocked, so a panic elsewhere does not spoil it.
fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
