//! A subtask at work: its buckets, the part that is open in each of them, and those that wait for a checkpoint.
//!
//! Invariants: a part has records of one bucket only; each barrier tells of every part that is not finished; a part that was told as pending
//! takes no more records.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::limits::MAX_OPEN_BUCKETS;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{SinkContext, UnderWay};

use super::Settings;
use super::buckets::{self, BucketContext};
use super::format::{PartBytes, PartFormat};
use super::names::PartId;
use super::part::{FileCommittable, Part, Restored, Told, restored};
use super::target::Target;
use crate::formats::Malformed;

/// How soon a sink that waits for the store looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A subtask of a sink.
pub(super) struct Writer<T, F: PartFormat<T>> {
    settings: Settings<T, F>,
    context: SinkContext,
    target: Target,
    open: HashMap<String, Open<F::Part>>,
    /// Parts that no barrier has told of yet, with their buckets.
    closed: Vec<(String, Part)>,
    /// Buckets without success file, and when they began: milliseconds since the epoch.
    unmarked: BTreeMap<String, i64>,
    watermark: Option<i64>,
    begun: u64,
    /// When the times of parts are looked at next.
    next_check: Duration,
}

/// The part that is open in a bucket.
struct Open<P> {
    id: PartId,
    path: String,
    bytes: P,
    /// What the target has not taken.
    buffer: Vec<u8>,
    taken: u64,
    begun_ms: i64,
    written_ms: i64,
}

impl<P> Open<P> {
    fn length(&self) -> u64 {
        self.taken + self.buffer.len() as u64
    }
}

impl<T, F: PartFormat<T>> Writer<T, F> {
    pub(super) fn open(settings: Settings<T, F>, context: &SinkContext) -> Result<Self, Failure> {
        let target = Target::open(&settings.uri, context)?;
        let next_check = context.clock.monotonic() + settings.policy.interval();
        Ok(Self {
            settings,
            context: context.clone(),
            target,
            open: HashMap::new(),
            closed: Vec::new(),
            unmarked: BTreeMap::new(),
            watermark: None,
            begun: 0,
            next_check,
        })
    }

    /// Finishes what was in progress at the restored checkpoint, and removes what no checkpoint tells of.
    pub(super) fn recover(&mut self, prepared: &[FileCommittable]) -> Result<(), Failure> {
        let Restored { in_progress, pending, unmarked } = restored(prepared);
        self.unmarked = unmarked;
        in_progress.iter().try_for_each(|(checkpoint, part)| self.target.finish(part, *checkpoint))?;
        let SinkContext { job_id, attempt, subtask_index, parallelism, .. } = self.context;
        let is_left_over = |id: &PartId| id.is_left_over(job_id, attempt, subtask_index, parallelism);
        let is_pending = |id: &PartId| pending.iter().any(|part| part.id == *id);
        self.target.clean_up(&self.settings.affixes, job_id, &is_left_over, &is_pending)
    }

    fn next_id(&self) -> PartId {
        let SinkContext { job_id, attempt, subtask_index, .. } = self.context;
        PartId { subtask: subtask_index, attempt, number: self.begun, job: job_id.0 }
    }

    pub(super) fn watermark(&mut self, timestamp: i64) {
        self.watermark = Some(timestamp);
    }

    pub(super) fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let now_ms = self.context.clock.now_ms();
        if let Some(bucket) = self.settings.buckets.of_all(now_ms) {
            return self.add(bucket, batch.drain(), now_ms);
        }
        let find = self.settings.buckets.clone();
        for (record, timestamp) in batch.drain_with_timestamps() {
            let context = BucketContext { timestamp, watermark: self.watermark, processing_time: now_ms };
            self.add(find.of(&record, &context), std::iter::once(record), now_ms)?;
        }
        Ok(())
    }

    /// Writes records of one bucket.
    fn add(&mut self, bucket: String, records: impl Iterator<Item = T>, now_ms: i64) -> Result<(), Failure> {
        let mut open = match self.open.remove(&bucket) {
            Some(open) => open,
            None => self.begin(&bucket, now_ms)?,
        };
        for record in records {
            if self.settings.policy.is_full(open.length() + open.bytes.kept()) {
                self.close(&bucket, open)?;
                open = self.begin(&bucket, now_ms)?;
            }
            open.bytes.write(&record, &mut open.buffer).map_err(refused::<T, F>)?;
            open.written_ms = now_ms;
            open.taken += self.target.take(open.id, &mut open.buffer)?;
        }
        self.open.insert(bucket, open);
        Ok(())
    }

    fn begin(&mut self, bucket: &str, now_ms: i64) -> Result<Open<F::Part>, Failure> {
        buckets::check(bucket)?;
        if self.open.len() >= MAX_OPEN_BUCKETS {
            let quietest =
                self.open.iter().min_by_key(|(_, open)| open.written_ms).map(|(bucket, _)| bucket.clone());
            quietest.map_or(Ok(()), |bucket| self.roll(&bucket))?;
        }
        let id = self.next_id();
        let path = id.visible(bucket, &self.settings.affixes);
        self.target.begin(id, &path)?;
        self.begun += 1;
        if self.settings.success_after.is_some() {
            self.unmarked.entry(bucket.to_owned()).or_insert(now_ms);
        }
        let bytes = self.settings.format.begin().map_err(refused::<T, F>)?;
        Ok(Open { id, path, bytes, buffer: Vec::new(), taken: 0, begun_ms: now_ms, written_ms: now_ms })
    }

    /// Closes the part of a bucket.
    fn roll(&mut self, bucket: &str) -> Result<(), Failure> {
        self.open.remove(bucket).map_or(Ok(()), |open| self.close(bucket, open))
    }

    fn close(&mut self, bucket: &str, open: Open<F::Part>) -> Result<(), Failure> {
        let Open { id, path, bytes, mut buffer, mut taken, .. } = open;
        bytes.finish(&mut buffer).map_err(refused::<T, F>)?;
        taken += self.target.close(id, &mut buffer)?;
        self.closed.push((bucket.to_owned(), Part { id, path, bytes: taken, object: None }));
        Ok(())
    }

    /// Closes those parts.
    fn roll_where(&mut self, is_due: impl Fn(&Open<F::Part>) -> bool) -> Result<(), Failure> {
        let mut due: Vec<String> =
            self.open.iter().filter(|(_, open)| is_due(open)).map(|(bucket, _)| bucket.clone()).collect();
        due.sort_unstable();
        due.iter().try_for_each(|bucket| self.roll(bucket))
    }

    /// The input has ended: nothing is in progress any more.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.roll_where(|_| true)
    }

    /// Does what is due by the clock.
    pub(super) fn advance(&mut self) -> Result<UnderWay, Failure> {
        let now = self.context.clock.monotonic();
        if now >= self.next_check {
            let (policy, now_ms) = (self.settings.policy, self.context.clock.now_ms());
            self.roll_where(|open| policy.is_due(open.begun_ms, open.written_ms, now_ms))?;
            let interval = policy.interval();
            while self.next_check <= now {
                self.next_check += interval;
            }
        }
        let is_full = self.target.take_up()?;
        // Without an open part there is nothing whose time could come.
        let next_check = (!self.open.is_empty()).then_some(self.next_check);
        let again_at = if is_full { Some(now + LOOK_AGAIN) } else { next_check };
        Ok(UnderWay { records: 0, is_full, again_at })
    }

    pub(super) fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<FileCommittable>, Failure> {
        if self.settings.policy.rolls_on_checkpoint() {
            self.roll_where(|_| true)?;
        }
        let mut carried: Vec<&String> = self.open.keys().collect();
        carried.sort_unstable();
        let carried: Vec<String> = carried.into_iter().cloned().collect();
        for bucket in &carried {
            if let Some(open) = self.open.get_mut(bucket) {
                open.taken += self.target.carry(open.id, &mut open.buffer, checkpoint)?;
            }
        }
        if !carried.is_empty() || !self.closed.is_empty() {
            self.target.settle()?;
        }
        let mut told = Vec::new();
        let mut tell =
            |bucket: String, what: Told| told.push(FileCommittable { checkpoint, bucket, told: what });
        for (bucket, mut part) in std::mem::take(&mut self.closed) {
            part.object = self.target.told(part.id);
            tell(bucket, Told::Pending(part));
        }
        for bucket in carried {
            if let Some(open) = self.open.get(&bucket) {
                let (id, path, bytes) = (open.id, open.path.clone(), open.length());
                tell(bucket, Told::InProgress(Part { id, path, bytes, object: self.target.told(id) }));
            }
        }
        for (bucket, is_over) in self.buckets_to_mark() {
            match is_over {
                Some(since_ms) => tell(bucket, Told::Unmarked(since_ms)),
                None => tell(bucket, Told::Success),
            }
        }
        Ok(told)
    }

    /// All buckets without success file: those whose time is over, which are forgotten, and the others with their beginning.
    fn buckets_to_mark(&mut self) -> Vec<(String, Option<i64>)> {
        let Some(after_ms) = self.settings.success_after else { return Vec::new() };
        let (now_ms, open) = (self.context.clock.now_ms(), &self.open);
        let is_over = |bucket: &String, since_ms: i64| {
            !open.contains_key(bucket) && now_ms > since_ms.saturating_add(after_ms)
        };
        let all = self.unmarked.iter();
        let told = all
            .map(|(bucket, since)| (bucket.clone(), (!is_over(bucket, *since)).then_some(*since)))
            .collect();
        self.unmarked.retain(|bucket, since| !is_over(bucket, *since));
        told
    }

    pub(super) fn commit(&mut self, prepared: &[FileCommittable]) -> Result<(), Failure> {
        let pending = prepared.iter().filter_map(|committable| match &committable.told {
            Told::Pending(part) => Some((part, committable.checkpoint)),
            Told::InProgress(_) | Told::Unmarked(_) | Told::Success => None,
        });
        let pending: Vec<_> = pending.collect();
        if !pending.is_empty() {
            self.target.commit(&pending)?;
        }
        for committable in prepared.iter().filter(|committable| committable.told == Told::Success) {
            let slash = if committable.bucket.is_empty() { "" } else { "/" };
            self.target.mark(&format!("{}{slash}{}", committable.bucket, self.settings.success_name))?;
        }
        Ok(())
    }
}

fn refused<T, F: PartFormat<T>>(malformed: Malformed) -> Failure {
    malformed.writing(F::NAME)
}
