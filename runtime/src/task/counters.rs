//! What one task has done so far: atomics, written once per batch by the task and read once a second by the worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exchange::Traffic;

/// The counters of one task. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Counters {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Records which a source has read; other tasks count in their gate.
    records_read: AtomicU64,
    /// Only locked when the task is built and when the worker reports.
    parts: Mutex<Parts>,
}

/// What counts on its own.
#[derive(Default)]
struct Parts {
    inputs: Vec<Arc<Traffic>>,
    outputs: Vec<Arc<Traffic>>,
    /// One for each operator with state.
    state: Vec<Gauge>,
}

/// What the counters showed at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) state_bytes: u64,
}

impl Counters {
    /// Adds records that a source has read.
    pub(crate) fn add_records_read(&self, records: usize) {
        self.shared.records_read.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Counts what comes through a gate.
    pub(crate) fn add_input(&self, traffic: Arc<Traffic>) {
        self.parts().inputs.push(traffic);
    }

    /// Counts what leaves through an output.
    pub(crate) fn add_output(&self, traffic: Arc<Traffic>) {
        self.parts().outputs.push(traffic);
    }

    /// A gauge for the state of one more operator.
    pub(crate) fn state_gauge(&self) -> Gauge {
        let gauge = Gauge::default();
        self.parts().state.push(gauge.clone());
        gauge
    }

    pub(crate) fn read(&self) -> Counted {
        let parts = self.parts();
        let records = |side: &[Arc<Traffic>]| side.iter().map(|traffic| traffic.records()).sum::<u64>();
        let bytes = |side: &[Arc<Traffic>]| side.iter().map(|traffic| traffic.bytes()).sum();
        Counted {
            records_in: self.shared.records_read.load(Ordering::Relaxed) + records(&parts.inputs),
            records_out: records(&parts.outputs),
            bytes_in: bytes(&parts.inputs),
            bytes_out: bytes(&parts.outputs),
            state_bytes: parts.state.iter().map(|gauge| gauge.value.load(Ordering::Relaxed)).sum(),
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A size that goes up and down.
#[derive(Clone, Default)]
pub(crate) struct Gauge {
    value: Arc<AtomicU64>,
}

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}
