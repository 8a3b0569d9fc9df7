//! Batches: the unit in which records move between operators and over channels, their timestamps beside them.
//!
//! Invariant: the timestamps of a batch are none, or exactly one for each record. A batch whose records have none costs
//! nothing for them; where records with and without come together, those without get [`NO_TIMESTAMP`].

use std::iter;
use std::vec;

use thalweg_common::Timestamp;
use thalweg_common::limits::{BATCH_RECORDS, BATCH_TARGET_BYTES, MIN_BATCH_RECORDS};

/// Stands for the timestamp of a record that has none. It is before all others.
pub const NO_TIMESTAMP: Timestamp = Timestamp::MIN;

/// Records on their way, in order, and when each of them happened, where that is known. Operators take a batch, drain it
/// and give its buffer back.
///
/// ```
/// use thalweg_runtime::batch::Batch;
///
/// let mut batch = Batch::from(vec!["a", "b"]);
/// batch.push_with_timestamp("c", 1_000);
/// assert_eq!(batch.timestamp(0), None);
/// assert_eq!(batch.drain_with_timestamps().last(), Some(("c", Some(1_000))));
/// ```
#[derive(Debug, Clone)]
pub struct Batch<T> {
    records: Vec<T>,
    /// Empty, or as many as `records`.
    timestamps: Vec<Timestamp>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl<T> Batch<T> {
    /// Records in a full batch of this type: [`BATCH_RECORDS`], or fewer if they are large.
    pub const FULL_RECORDS: usize = full_records(size_of::<T>());

    /// An empty batch with room for so many records.
    pub(crate) fn with_capacity(records: usize) -> Self {
        Self::from(Vec::with_capacity(records))
    }

    /// These records with these timestamps: none, or one for each record. What is missing counts as [`NO_TIMESTAMP`].
    pub fn from_parts(records: Vec<T>, timestamps: Vec<Timestamp>) -> Self {
        let mut batch = Self { records, timestamps };
        batch.fill_up();
        batch
    }

    /// The records, and their timestamps: none, or one for each record.
    pub fn into_parts(self) -> (Vec<T>, Vec<Timestamp>) {
        (self.records, self.timestamps)
    }

    /// Whether there are no records in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many records are in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// How many records it has room for.
    pub fn capacity(&self) -> usize {
        self.records.capacity().max(self.timestamps.capacity())
    }

    /// The records.
    pub fn records(&self) -> &[T] {
        &self.records
    }

    /// The records, to change them in their places.
    pub fn records_mut(&mut self) -> &mut [T] {
        &mut self.records
    }

    /// Whether records have timestamps.
    pub fn has_timestamps(&self) -> bool {
        !self.timestamps.is_empty()
    }

    /// When the record at `index` happened, in milliseconds since the epoch, if that is known.
    pub fn timestamp(&self, index: usize) -> Option<Timestamp> {
        self.timestamps.get(index).copied().and_then(known)
    }

    /// The timestamps, [`NO_TIMESTAMP`] included: none, or one for each record.
    pub(crate) fn timestamps(&self) -> &[Timestamp] {
        &self.timestamps
    }

    /// Gives every record the timestamp that the function says, in milliseconds since the epoch.
    pub fn set_timestamps(&mut self, timestamp: impl Fn(&T) -> Timestamp) {
        self.timestamps.clear();
        self.timestamps.extend(self.records.iter().map(timestamp));
    }

    /// Appends a record without a timestamp.
    #[inline]
    pub fn push(&mut self, record: T) {
        self.push_with_timestamp(record, NO_TIMESTAMP);
    }

    /// Appends a record that happened at `timestamp`, in milliseconds since the epoch.
    #[inline]
    pub fn push_with_timestamp(&mut self, record: T, timestamp: Timestamp) {
        if timestamp != NO_TIMESTAMP || self.has_timestamps() {
            self.push_timestamp(timestamp);
        }
        self.records.push(record);
    }

    /// Appends a record to a batch that is known to have no timestamps: the shortest way, for loops in which every instruction
    /// counts.
    #[inline]
    pub(crate) fn push_plain(&mut self, record: T) {
        debug_assert!(!self.has_timestamps(), "this record would have none");
        self.records.push(record);
    }

    /// Appends all that is in `other`, and empties it.
    pub fn append(&mut self, other: &mut Self) {
        if other.has_timestamps() {
            self.timestamps.resize(self.records.len(), NO_TIMESTAMP);
            self.timestamps.append(&mut other.timestamps);
        }
        self.records.append(&mut other.records);
        self.fill_up();
    }

    /// Appends a copy of all that is in `other`.
    pub fn append_copy(&mut self, other: &Self)
    where
        T: Clone,
    {
        if other.has_timestamps() {
            self.timestamps.resize(self.records.len(), NO_TIMESTAMP);
            self.timestamps.extend_from_slice(&other.timestamps);
        }
        self.records.extend_from_slice(&other.records);
        self.fill_up();
    }

    /// Gives the record at `index` this timestamp, unless its own is later.
    #[inline]
    pub(crate) fn raise_timestamp(&mut self, index: usize, timestamp: Timestamp) {
        if timestamp == NO_TIMESTAMP {
            return;
        }
        self.timestamps.resize(self.records.len(), NO_TIMESTAMP);
        let own = &mut self.timestamps[index];
        *own = timestamp.max(*own);
    }

    /// Moves each record to the end of the batch that `targets` names for it, one for each record. All of these exist.
    pub(crate) fn scatter(&mut self, targets: &[u32], batches: &mut [Self]) {
        debug_assert_eq!(targets.len(), self.len());
        if !self.has_timestamps() {
            for (record, target) in self.records.drain(..).zip(targets) {
                batches[*target as usize].records.push(record);
            }
            batches.iter_mut().for_each(Self::fill_up);
            return;
        }
        let (records, mut timestamps) = self.drain_parts();
        for (record, target) in records.zip(targets) {
            batches[*target as usize].push_with_timestamp(record, timestamps.next());
        }
    }

    /// Appends what `function` makes of each record, with that record's timestamp.
    pub(crate) fn map_into<Out>(&mut self, out: &mut Batch<Out>, function: impl FnMut(T) -> Out) {
        if self.has_timestamps() {
            out.timestamps.resize(out.records.len(), NO_TIMESTAMP);
            out.timestamps.append(&mut self.timestamps);
        }
        out.records.extend(self.records.drain(..).map(function));
        out.fill_up();
    }

    /// The same with a function that may fail. What was made before its first failure stays, the rest is dropped.
    pub(crate) fn try_map_into<Out, E>(
        &mut self,
        out: &mut Batch<Out>,
        mut function: impl FnMut(T) -> Result<Out, E>,
    ) -> Result<(), E> {
        if self.has_timestamps() {
            out.timestamps.resize(out.records.len(), NO_TIMESTAMP);
            out.timestamps.append(&mut self.timestamps);
        }
        let mapped = self.records.drain(..).try_for_each(|record| {
            out.records.push(function(record)?);
            Ok(())
        });
        out.fill_up();
        mapped
    }

    /// Keeps the records for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        if !self.has_timestamps() {
            self.records.retain(keep);
            return;
        }
        let (timestamps, mut at, mut kept) = (&mut self.timestamps, 0, 0);
        self.records.retain(|record| {
            let keeps = keep(record);
            timestamps[kept] = timestamps[at];
            at += 1;
            kept += usize::from(keeps);
            keeps
        });
        timestamps.truncate(kept);
    }

    /// Takes out all records, without their timestamps.
    #[inline]
    pub fn drain(&mut self) -> vec::Drain<'_, T> {
        self.timestamps.clear();
        self.records.drain(..)
    }

    /// Takes out all records, each with its timestamp.
    pub fn drain_with_timestamps(&mut self) -> impl ExactSizeIterator<Item = (T, Option<Timestamp>)> {
        let (records, mut timestamps) = self.drain_parts();
        records.map(move |record| (record, known(timestamps.next())))
    }

    /// Takes out all records, and beside them their timestamps.
    #[inline]
    pub(crate) fn drain_parts(&mut self) -> (vec::Drain<'_, T>, Timestamps<'_>) {
        (self.records.drain(..), Timestamps(self.timestamps.drain(..)))
    }

    /// Takes out the first `count` records, or all if there are fewer.
    pub(crate) fn drop_front(&mut self, count: usize) {
        self.records.drain(..count.min(self.records.len()));
        self.timestamps.drain(..count.min(self.timestamps.len()));
    }

    /// The same in batches of `records` each, the last one with what is left.
    pub(crate) fn into_pieces(self, records: usize) -> impl Iterator<Item = Self> {
        let (mut rest, mut timestamps) = (self.records.into_iter(), self.timestamps.into_iter());
        iter::from_fn(move || {
            let records: Vec<T> = rest.by_ref().take(records).collect();
            let timestamps = timestamps.by_ref().take(records.len()).collect();
            (!records.is_empty()).then_some(Self { records, timestamps })
        })
    }

    /// Drops all records and keeps their room.
    #[inline]
    pub fn clear(&mut self) {
        self.records.clear();
        self.timestamps.clear();
    }

    /// Records were appended: if others have timestamps, these must have some as well.
    #[inline]
    fn fill_up(&mut self) {
        if self.has_timestamps() {
            self.timestamps.resize(self.records.len(), NO_TIMESTAMP);
        }
    }

    /// The next record is appended with this timestamp.
    fn push_timestamp(&mut self, timestamp: Timestamp) {
        self.timestamps.resize(self.records.len(), NO_TIMESTAMP);
        self.timestamps.push(timestamp);
    }
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(records: Vec<T>) -> Self {
        Self { records, timestamps: Vec::new() }
    }
}

/// Appends records without timestamps.
impl<T> Extend<T> for Batch<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, records: I) {
        self.records.extend(records);
        self.fill_up();
    }
}

/// Batches are equal if their records are, and happened at the same times.
impl<T: PartialEq> PartialEq for Batch<T> {
    fn eq(&self, other: &Self) -> bool {
        let timestamp = |batch: &Self, index| batch.timestamp(index);
        self.records == other.records
            && (0..self.len()).all(|index| timestamp(self, index) == timestamp(other, index))
    }
}

impl<T: Eq> Eq for Batch<T> {}

/// The timestamps of records that are taken out of a batch.
pub(crate) struct Timestamps<'a>(vec::Drain<'a, Timestamp>);

impl Timestamps<'_> {
    /// The timestamp of the next record, or [`NO_TIMESTAMP`].
    #[inline]
    pub(crate) fn next(&mut self) -> Timestamp {
        self.0.next().unwrap_or(NO_TIMESTAMP)
    }
}

/// A timestamp as it is shown to users.
#[inline]
pub(crate) fn known(timestamp: Timestamp) -> Option<Timestamp> {
    (timestamp != NO_TIMESTAMP).then_some(timestamp)
}

const fn full_records(record_bytes: usize) -> usize {
    // A record without size counts as one byte: the bound by records is lower anyway.
    let fitting = BATCH_TARGET_BYTES / if record_bytes == 0 { 1 } else { record_bytes };
    if fitting > BATCH_RECORDS {
        BATCH_RECORDS
    } else if fitting < MIN_BATCH_RECORDS {
        MIN_BATCH_RECORDS
    } else {
        fitting
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
