//! What one task has done so far: atomics, written once per batch by the task and read once a second by the worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::Stopwatch;
use thalweg_proto::model::OperatorCounters;

use super::copies::Origins;
use super::times::{Activity, Times};
use crate::exchange::Traffic;
use crate::metrics::OperatorMetrics;
use crate::time::NO_WATERMARK;
use crate::time::alignment::Alignment;
use crate::time::inquiry::Inquiry;

/// The counters of one task. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Counters {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Records which a source has read; other tasks count in their gate.
    records_read: AtomicU64,
    /// What was read of a checkpoint, from copies and from the storage.
    restored_local_bytes: AtomicU64,
    restored_remote_bytes: AtomicU64,
    times: Times,
    input_watermark: Watermark,
    output_watermark: Watermark,
    inquiry: Inquiry,
    /// Only locked when the task is built and when the worker reports.
    parts: Mutex<Parts>,
}

/// The last watermark that came to some place.
struct Watermark(AtomicI64);

impl Default for Watermark {
    fn default() -> Self {
        Self(AtomicI64::new(NO_WATERMARK))
    }
}

impl Watermark {
    fn read(&self) -> Option<Timestamp> {
        Some(self.0.load(Ordering::Relaxed)).filter(|watermark| *watermark != NO_WATERMARK)
    }
}

/// What counts on its own.
#[derive(Default)]
struct Parts {
    inputs: Vec<Arc<Traffic>>,
    outputs: Vec<Arc<Traffic>>,
    /// One for each operator with state.
    state: Vec<Gauge>,
    /// Of an enumerator: splits that no reader has.
    unassigned_splits: Option<Gauge>,
    /// Of a source that is aligned with others.
    alignment: Option<Alignment>,
    /// Its operators, by their place in the chain.
    operators: BTreeMap<u32, OperatorMetrics>,
}

/// What the counters showed at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Counted {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
    pub(crate) late_records_dropped: u64,
    pub(crate) records_in_errors: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) state_bytes: u64,
    /// Of an enumerator: splits that no reader has.
    pub(crate) unassigned_splits: Option<u64>,
    /// Bytes of a checkpoint that it read from copies on its machine before it began.
    pub(crate) restored_local_bytes: u64,
    /// The same from the checkpoint's storage.
    pub(crate) restored_remote_bytes: u64,
    /// Time in which it had something to do: it ran, or waited for its turn to run. The three times add up to the time since
    /// the task began to run.
    pub(crate) busy_ns: u64,
    /// Time in which there was nothing to read.
    pub(crate) idle_ns: u64,
    /// Time in which an output was full.
    pub(crate) back_pressured_ns: u64,
    /// Batches that wait to be read.
    pub(crate) input_queue_length: u64,
    /// Batches that wait because their channel is full.
    pub(crate) output_queue_length: u64,
    /// What the receivers of its remote channels still have room for.
    pub(crate) available_credit_bytes: u64,
    /// The last watermark that came through its gate.
    pub(crate) input_watermark: Option<Timestamp>,
    /// The last one that left its chain, or came to its sink.
    pub(crate) output_watermark: Option<Timestamp>,
    /// How far an aligned source is ahead of the least watermark of its group.
    pub(crate) watermark_alignment_drift_ms: Option<i64>,
    /// In the order of the chain.
    pub(crate) operators: Vec<OperatorCounters>,
}

impl Counters {
    /// Adds records that a source has read.
    pub(crate) fn add_records_read(&self, records: usize) {
        self.shared.records_read.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// The task has fetched what it restores.
    pub(crate) fn set_restored(&self, origins: Origins) {
        self.shared.restored_local_bytes.store(origins.copied_bytes, Ordering::Relaxed);
        self.shared.restored_remote_bytes.store(origins.fetched_bytes, Ordering::Relaxed);
    }

    /// A watermark has come through the gate.
    pub(crate) fn set_input_watermark(&self, watermark: Timestamp) {
        self.shared.input_watermark.0.store(watermark, Ordering::Relaxed);
    }

    /// A watermark has come to an end of the chain.
    pub(crate) fn set_output_watermark(&self, watermark: Timestamp) {
        self.shared.output_watermark.0.store(watermark, Ordering::Relaxed);
    }

    /// The task begins to run, and `total` with it.
    pub(crate) fn begin(&self, total: Stopwatch) {
        self.shared.times.begin(total);
    }

    /// Adds time that the task has spent.
    pub(crate) fn add_time(&self, activity: Activity, time: Duration) {
        self.shared.times.add(activity, time);
    }

    /// What the task does from now on. The time until now has been added.
    pub(crate) fn enter(&self, activity: Activity) {
        self.shared.times.enter(activity);
    }

    /// Counts what comes through a gate.
    pub(crate) fn add_input(&self, traffic: Arc<Traffic>) {
        self.parts().inputs.push(traffic);
    }

    /// Counts what leaves through an output.
    pub(crate) fn add_output(&self, traffic: Arc<Traffic>) {
        self.parts().outputs.push(traffic);
    }

    /// What the operator in this place of the chain counts.
    pub(crate) fn operator_metrics(&self, position: u32, name: &str) -> OperatorMetrics {
        let mut parts = self.parts();
        parts.operators.entry(position).or_insert_with(|| OperatorMetrics::named(name)).clone()
    }

    /// A gauge for the state of one more operator.
    pub(crate) fn state_gauge(&self) -> Gauge {
        let gauge = Gauge::default();
        self.parts().state.push(gauge.clone());
        gauge
    }

    /// The gauge of an enumerator for the splits that no reader has.
    pub(crate) fn unassigned_splits_gauge(&self) -> Gauge {
        self.parts().unassigned_splits.get_or_insert_default().clone()
    }

    /// What somebody wants to know of the task's time.
    pub(crate) fn inquiry(&self) -> Inquiry {
        self.shared.inquiry.clone()
    }

    /// The source of the task is aligned with others.
    pub(crate) fn add_alignment(&self, alignment: Alignment) {
        self.parts().alignment = Some(alignment);
    }

    /// How the source of the task is aligned with others, if it is.
    pub(crate) fn alignment(&self) -> Option<Alignment> {
        self.parts().alignment.clone()
    }

    pub(crate) fn read(&self) -> Counted {
        let parts = self.parts();
        let spent = self.shared.times.read();
        let sum = |side: &[Arc<Traffic>], of: fn(&Traffic) -> u64| -> u64 {
            side.iter().map(|traffic| of(traffic)).sum()
        };
        let records_read = self.shared.records_read.load(Ordering::Relaxed);
        let records_in = sum(&parts.inputs, Traffic::records).saturating_add(records_read);
        let input_watermark = self.shared.input_watermark.read();
        let mut operators: Vec<_> =
            parts.operators.iter().map(|(position, metrics)| metrics.read(*position)).collect();
        if let Some(first) = operators.first_mut().filter(|operator| operator.position == 0) {
            (first.records_in, first.current_input_watermark) = (records_in, input_watermark);
        }
        Counted {
            records_in,
            records_out: sum(&parts.outputs, Traffic::records),
            late_records_dropped: operators.iter().map(|operator| operator.late_records_dropped).sum(),
            records_in_errors: operators.iter().map(|operator| operator.records_in_errors).sum(),
            bytes_in: sum(&parts.inputs, Traffic::bytes),
            bytes_out: sum(&parts.outputs, Traffic::bytes),
            unassigned_splits: parts.unassigned_splits.as_ref().map(Gauge::get),
            restored_local_bytes: self.shared.restored_local_bytes.load(Ordering::Relaxed),
            restored_remote_bytes: self.shared.restored_remote_bytes.load(Ordering::Relaxed),
            busy_ns: spent.busy_ns,
            idle_ns: spent.idle_ns,
            back_pressured_ns: spent.back_pressured_ns,
            input_queue_length: sum(&parts.inputs, Traffic::queue_length),
            output_queue_length: sum(&parts.outputs, Traffic::queue_length),
            available_credit_bytes: sum(&parts.outputs, Traffic::credit),
            input_watermark,
            output_watermark: self.shared.output_watermark.read(),
            watermark_alignment_drift_ms: parts.alignment.as_ref().and_then(Alignment::drift_ms),
            state_bytes: parts.state.iter().map(Gauge::get).sum(),
            operators,
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
    fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}
