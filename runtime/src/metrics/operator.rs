//! What one operator of a subtask counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_USER_METRICS;
use thalweg_proto::model::{MetricScope, MetricValue, OperatorCounters, UserMetric};

use super::flow::Flow;
use super::group::{MetricGroup, wrong};
use super::kinds::{Counter, Gauge, Histogram, Meter};

/// The metrics of one operator of a subtask. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct OperatorMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    name: String,
    late_records_dropped: AtomicU64,
    bad_records: AtomicU64,
    store: StoreMetrics,
    /// What its store has of the memory that it shares with others, and the most that it may take in all.
    managed: OnceLock<ManagedMemory>,
    /// Only locked when the chain is built and when the worker reports.
    flows: Mutex<Flows>,
    /// Only locked when something is registered and when the worker reports.
    user: Mutex<Vec<Registered>>,
    /// What connectors show of the parts of their input, and the next one's number. Only locked as that of the user.
    parts: Mutex<(u64, BTreeMap<u64, Registered>)>,
}

/// What a store on disk tells.
#[derive(Debug, Default)]
struct StoreMetrics {
    cache_bytes: AtomicU64,
    stalls: AtomicU64,
    stall_ns: AtomicU64,
}

/// The managed memory of one store.
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "only stores on disk have it"))]
pub(crate) struct ManagedMemory {
    /// The most that it takes: its cache, and its part of what stores share.
    pub(crate) total_bytes: u64,
    /// Tells its part of what stores share and have in use. Called by whoever reports.
    pub(crate) shared_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for ManagedMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ManagedMemory({} bytes)", self.total_bytes)
    }
}

/// What comes to an operator and what leaves it.
#[derive(Debug, Default)]
struct Flows {
    /// Absent for the first operator of a chain: what comes to it comes to its task.
    input: Option<Arc<Flow>>,
    outputs: Vec<Arc<Flow>>,
}

/// A metric of the user.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) scope: Vec<MetricScope>,
    pub(super) name: String,
    pub(super) kind: UserKind,
}

/// Its kind and its handle.
#[derive(Debug, Clone)]
pub(super) enum UserKind {
    Counter(Counter),
    Gauge(Gauge),
    Meter(Meter),
    Histogram(Histogram),
}

impl UserKind {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Meter(_) => "meter",
            Self::Histogram(_) => "histogram",
        }
    }

    fn value(&self) -> MetricValue {
        match self {
            Self::Counter(counter) => MetricValue::Counter(counter.count()),
            Self::Gauge(gauge) => MetricValue::Gauge(gauge.value()),
            Self::Meter(meter) => MetricValue::Meter(meter.count()),
            Self::Histogram(histogram) => MetricValue::Histogram(histogram.statistics()),
        }
    }
}

impl OperatorMetrics {
    /// Those of an operator with this name.
    pub(crate) fn named(name: &str) -> Self {
        Self { shared: Arc::new(Shared { name: name.to_string(), ..Shared::default() }) }
    }

    /// Counts a record that was dropped because it came too late: `numLateRecordsDropped`.
    pub fn count_late_record(&self) {
        self.shared.late_records_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many such records the operator has dropped since its task began.
    pub fn late_records_dropped(&self) -> u64 {
        self.shared.late_records_dropped.load(Ordering::Relaxed)
    }

    /// Counts a record that cannot be read, and was left out or sent to a side output: `numRecordsInErrors`.
    pub fn count_bad_record(&self) {
        self.shared.bad_records.fetch_add(1, Ordering::Relaxed);
    }

    /// How many such records the operator has met since its task began.
    pub fn bad_records(&self) -> u64 {
        self.shared.bad_records.load(Ordering::Relaxed)
    }

    /// Its state is on disk, and takes of the managed memory.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn set_managed_memory(&self, managed: ManagedMemory) {
        // A store is opened once.
        let _ = self.shared.managed.set(managed);
    }

    /// What the store has in its cache, and how often and how long it has stood still so that memory could be freed
    /// (`oldGenerationGCCount`, `oldGenerationGCTime`). Told once per batch.
    pub(crate) fn set_store(&self, cache_bytes: u64, stalls: u64, stalled: Duration) {
        let store = &self.shared.store;
        store.cache_bytes.store(cache_bytes, Ordering::Relaxed);
        store.stalls.store(stalls, Ordering::Relaxed);
        store.stall_ns.store(u64::try_from(stalled.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Says what comes to the operator and what leaves it.
    pub(crate) fn set_flows(&self, input: Option<Arc<Flow>>, outputs: Vec<Arc<Flow>>) {
        *lock(&self.shared.flows) = Flows { input, outputs };
    }

    /// The outermost group of the user's metrics.
    pub(crate) fn group(&self) -> MetricGroup {
        MetricGroup::of(self.clone())
    }

    /// The metric of this name in these groups: the one that is there already, of whatever kind, or this one.
    pub(super) fn register(&self, wanted: Registered) -> Result<UserKind, Failure> {
        let mut user = lock(&self.shared.user);
        let is_same = |other: &&Registered| other.name == wanted.name && other.scope == wanted.scope;
        if let Some(found) = user.iter().find(is_same) {
            return Ok(found.kind.clone());
        }
        if user.len() == MAX_USER_METRICS {
            return Err(wrong(format!(
                "the metric `{}` is one too many: the operator has {MAX_USER_METRICS} metrics of its own already; do not \
                 register one for each key",
                wanted.name
            )));
        }
        let kind = wanted.kind.clone();
        user.push(wanted);
        Ok(kind)
    }

    /// Shows a gauge until it is [forgotten](Self::forget_part); gives its number.
    pub(super) fn show_part(&self, part: Registered) -> u64 {
        let (next, parts) = &mut *lock(&self.shared.parts);
        let number = *next;
        *next += 1;
        parts.insert(number, part);
        number
    }

    /// Shows a part's gauge no more.
    pub(super) fn forget_part(&self, number: u64) {
        lock(&self.shared.parts).1.remove(&number);
    }

    /// The user's metrics, in the order in which they were registered, and then those of parts, which come and go.
    pub(crate) fn read_user(&self) -> Vec<UserMetric> {
        let read = |registered: &Registered| UserMetric {
            scope: registered.scope.clone(),
            name: registered.name.clone(),
            value: registered.kind.value(),
        };
        let mut all: Vec<UserMetric> = lock(&self.shared.user).iter().map(read).collect();
        all.extend(lock(&self.shared.parts).1.values().map(read));
        all
    }

    /// Everything at one moment. What comes to the first operator of a chain only its task knows.
    pub(crate) fn read(&self, position: u32) -> OperatorCounters {
        let flows = lock(&self.shared.flows);
        let managed = self.shared.managed.get();
        let store = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let input_watermark = flows.input.as_ref().and_then(|flow| flow.watermark());
        // All outputs of an operator have the same; a sink has none, and is as far as what came to it.
        let output_watermark = flows.outputs.first().map_or(input_watermark, |flow| flow.watermark());
        OperatorCounters {
            position,
            name: self.shared.name.clone(),
            records_in: flows.input.as_ref().map_or(0, |flow| flow.records()),
            records_out: flows.outputs.iter().map(|flow| flow.records()).sum(),
            late_records_dropped: self.late_records_dropped(),
            records_in_errors: self.bad_records(),
            current_input_watermark: input_watermark,
            current_output_watermark: output_watermark,
            managed_memory_used_bytes: managed
                .map_or(0, |managed| store(&self.shared.store.cache_bytes) + (managed.shared_bytes)()),
            managed_memory_total_bytes: managed.map_or(0, |managed| managed.total_bytes),
            memory_stalls: store(&self.shared.store.stalls),
            memory_stall_ns: store(&self.shared.store.stall_ns),
            metrics: self.read_user(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "rocksdb"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::operators;
    use crate::testing::{OperatorHarness, Setup};

    #[test]
    fn a_store_on_disk_tells_its_managed_memory() {
        const MANAGED_BYTES: u64 = 64 << 20;
        let directory = tempfile::tempdir().unwrap();
        let sum =
            operators::reduce(|pair: &(u64, u64)| pair.0, |a: (u64, u64), b: (u64, u64)| (a.0, a.1 + b.1));
        let setup = Setup::default().on_disk(directory.path(), MANAGED_BYTES);
        let mut harness = OperatorHarness::<(u64, u64), (u64, u64)>::open(sum.as_ref(), setup).unwrap();
        let before = harness.counters();
        assert!(before.managed_memory_total_bytes.abs_diff(MANAGED_BYTES) <= 2, "{before:?}");
        harness.push((0..10_000).map(|key| (key, 1)).collect()).unwrap();
        let after = harness.counters();
        let used = after.managed_memory_used_bytes;
        assert!(used > before.managed_memory_used_bytes + 100_000 && used < MANAGED_BYTES, "{after:?}");
        assert_eq!(after.memory_stalls, 0);

        let in_memory =
            OperatorHarness::<(u64, u64), (u64, u64)>::open(sum.as_ref(), Setup::default()).unwrap();
        assert_eq!(in_memory.counters().managed_memory_total_bytes, 0);
    }
}
