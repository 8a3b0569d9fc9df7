//! The code of an edge: what flows over it and how records find their channel.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::graph::Partitioning;
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::key_hash;
use thalweg_common::record::Record;

use crate::batch::Batch;
use crate::co_process::Either;
use crate::erased::{AnyLink, AnySender};
use crate::event::{Barrier, WatermarkStatus};
use crate::exchange::{
    Forward, HashPartitioner, Note, Output, Partitioner, RoundRobin, Sender, StoredBatch, TaskWaker,
};
use crate::in_flight::{Overtakes, Route};
use crate::link::{Flushed, Link};
use crate::operator::Key;
use crate::operators::transform;
use crate::record_type::RecordType;
use crate::snapshot::SnapshotBuilder;
use crate::split::message::Assignment;
use crate::task::counters::Counters;

/// The code of one edge.
#[derive(Clone)]
pub struct EdgeCode {
    /// What its channels carry.
    pub(crate) record_type: RecordType,
    /// What the operator emits whose output it is.
    pub(crate) source_type: RecordType,
    pub(crate) partitioning: Partitioning,
    output: Arc<dyn OutputFactory>,
    /// For an edge by key: the records of a batch whose keys a subtask owns.
    owned: Option<Arc<Owned>>,
}

/// Of a batch, what subtask `index` of `parallelism` owns, with so many key groups.
type Owned = dyn Fn(&StoredBatch, u32, u32, u32) -> Result<Option<StoredBatch>, Failure> + Send + Sync;

impl EdgeCode {
    /// Records of `T` from subtask i to subtask i.
    pub fn forward<T: Record>() -> Self {
        Self::new(Partitioning::Forward, |_, senders: Vec<Sender<T>>| Output::new(Box::new(Forward), senders))
    }

    /// Records of `T` round robin over all subtasks.
    pub fn rebalance<T: Record>() -> Self {
        Self::new(Partitioning::Rebalance, round_robin::<T>)
    }

    /// Records of `T` round robin over the subtasks that are near.
    pub fn rescale<T: Record>() -> Self {
        Self::new(Partitioning::Rescale, round_robin::<T>)
    }

    /// Every record of `T` to all subtasks.
    pub fn broadcast<T: Record>() -> Self {
        Self::new(Partitioning::Broadcast, |_, senders: Vec<Sender<T>>| Output::broadcast(senders))
    }

    /// Records of `T` to the subtask that owns their key's group.
    pub fn hash<T: Record, K: Key>(key: impl Fn(&T) -> K + Clone + Send + Sync + 'static) -> Self {
        Self::hashed(move |record: &T, scratch: &mut Vec<u8>| key_hash(&key(record), scratch))
    }

    /// The first input of an operator whose second one has no keys.
    pub fn hash_first<A: Record, B: Record, K: Key>(
        key: impl Fn(&A) -> K + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::hashed(move |record: &Either<A, B>, scratch: &mut Vec<u8>| match record {
            Either::First(record) => key_hash(&key(record), scratch),
            // None flows here.
            Either::Second(_) => 0,
        })
    }

    fn hashed<T: Record>(hash: impl Fn(&T, &mut Vec<u8>) -> u64 + Clone + Send + Sync + 'static) -> Self {
        let of_record = hash.clone();
        let owned = move |batch: &StoredBatch, index: u32, parallelism: u32, max_parallelism: u32| {
            let mut partitioner = HashPartitioner::by(&of_record, max_parallelism);
            let (mut batch, mut owners) = (batch.decode::<T>()?, Vec::new());
            partitioner.select(batch.records(), parallelism as usize, &mut owners);
            let mut owners = owners.into_iter();
            batch.retain(|_| owners.next() == Some(index));
            Ok(if batch.is_empty() { None } else { Some(StoredBatch::of(&batch)) })
        };
        let edge = Self::new(Partitioning::Hash, move |end, senders: Vec<Sender<T>>| {
            Output::new(Box::new(HashPartitioner::by(hash.clone(), end.target_max_parallelism)), senders)
        });
        Self { owned: Some(Arc::new(owned)), ..edge }
    }

    /// The same edge from an operator that emits records of `S`, which `into` turns into those that travel, of `T`: an edge into an
    /// operator with several inputs.
    #[must_use]
    pub fn fed_by<S: Record, T: Record>(
        self,
        into: impl FnMut(S) -> T + Clone + Send + Sync + 'static,
    ) -> Self {
        let inner = self.output;
        let output = move |end: &SendingEnd, senders: Vec<AnySender>| {
            let (link, kept_open) = inner.build(end, senders)?;
            let link = transform::mapped(into.clone(), link.typed::<T>()?);
            Ok((AnyLink::new::<S>(link), kept_open))
        };
        Self { source_type: RecordType::of::<S>(), output: Arc::new(output), ..self }
    }

    /// Of a batch that was on its way over this edge, what subtask `index` of `parallelism` owns; all of it if the edge is not by key.
    ///
    /// # Errors
    /// When the batch has records of another type.
    pub(crate) fn owned_part(
        &self,
        batch: &StoredBatch,
        index: u32,
        parallelism: u32,
        max_parallelism: u32,
    ) -> Result<Option<StoredBatch>, Failure> {
        match &self.owned {
            Some(owned) => owned(batch, index, parallelism, max_parallelism),
            None => Ok(Some(batch.clone())),
        }
    }

    /// From an enumerator: each record to the reader that it names.
    pub(crate) fn splits() -> Self {
        Self::new(Partitioning::Splits, |_, senders: Vec<Sender<Assignment>>| {
            Output::new(Box::new(ToReader), senders)
        })
    }

    fn new<T: Record>(
        partitioning: Partitioning,
        make: impl Fn(&SendingEnd, Vec<Sender<T>>) -> Output<T> + Send + Sync + 'static,
    ) -> Self {
        let output = move |end: &SendingEnd, senders: Vec<AnySender>| {
            let senders = senders.into_iter().map(AnySender::typed).collect::<Result<_, _>>()?;
            let mut output = make(end, senders).overtaking(end.overtakes.clone());
            output.set_waker(&end.waker);
            for (route, batch) in &end.restored {
                output.restore(*route, batch)?;
            }
            end.counters.add_output(output.traffic());
            let notes = if partitioning == Partitioning::Splits { output.notes() } else { Vec::new() };
            let output = Arc::new(Mutex::new(output));
            let kept_open = KeptOpen { notes, _channels: Box::new(Arc::clone(&output)) };
            let counters = end.counters.clone();
            Ok((AnyLink::new(Box::new(SharedOutput { output, counters })), kept_open))
        };
        let record_type = RecordType::of::<T>();
        Self {
            source_type: record_type.clone(),
            record_type,
            partitioning,
            output: Arc::new(output),
            owned: None,
        }
    }

    /// The output of one subtask to this edge, over its channels in the order of their receivers.
    pub(crate) fn output(
        &self,
        end: &SendingEnd,
        senders: Vec<AnySender>,
    ) -> Result<(AnyLink, KeptOpen), Failure> {
        self.output.build(end, senders)
    }
}

/// The channel of the reader that is named. What was restored may name one that there is no more: any other can read the split.
struct ToReader;

impl Partitioner<Assignment> for ToReader {
    fn select(&mut self, records: &[Assignment], channels: usize, targets: &mut Vec<u32>) {
        targets.extend(records.iter().map(|assignment| assignment.reader % channels.max(1) as u32));
    }
}

fn round_robin<T: Record>(end: &SendingEnd, senders: Vec<Sender<T>>) -> Output<T> {
    Output::new(Box::new(RoundRobin::starting_at(end.subtask_index)), senders)
}

/// The subtask that sends.
pub(crate) struct SendingEnd {
    pub(crate) subtask_index: u32,
    pub(crate) target_max_parallelism: u32,
    pub(crate) waker: TaskWaker,
    pub(crate) counters: Counters,
    /// Whether and when barriers overtake.
    pub(crate) overtakes: Option<Overtakes>,
    /// What the output had kept when the checkpoint was taken that is restored, in order.
    pub(crate) restored: Vec<(Route, StoredBatch)>,
}

/// Keeps the channels of an output open, whatever becomes of the chain before it.
///
/// A task whose operators fail closes its channels only after it has told so. Otherwise its neighbours would fail as well,
/// and the first failure that is reported might not be the one that has caused the others.
pub(crate) struct KeptOpen {
    /// What readers say of their splits, by channel, if this is the output of an enumerator.
    pub(crate) notes: Vec<Note>,
    _channels: Box<dyn Any + Send>,
}

/// An output as the last link of a chain. The lock is taken once per batch and never contended.
struct SharedOutput<T> {
    output: Arc<Mutex<Output<T>>>,
    counters: Counters,
}

impl<T> SharedOutput<T> {
    fn lock(&self) -> MutexGuard<'_, Output<T>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Record> Link<T> for SharedOutput<T> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        self.lock().process(batch)
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.counters.set_output_watermark(timestamp);
        self.lock().watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.lock().watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.lock().finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.lock().snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.lock().completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.lock().aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.lock().flush(partial)
    }
}

trait OutputFactory: Send + Sync {
    fn build(&self, end: &SendingEnd, senders: Vec<AnySender>) -> Result<(AnyLink, KeptOpen), Failure>;
}

impl<F> OutputFactory for F
where
    F: Fn(&SendingEnd, Vec<AnySender>) -> Result<(AnyLink, KeptOpen), Failure> + Send + Sync,
{
    fn build(&self, end: &SendingEnd, senders: Vec<AnySender>) -> Result<(AnyLink, KeptOpen), Failure> {
        self(end, senders)
    }
}
