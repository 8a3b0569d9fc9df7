//! Batches: the unit in which records move between operators and over channels.

use thalweg_common::limits::{BATCH_RECORDS, BATCH_TARGET_BYTES, MIN_BATCH_RECORDS};

/// Records on their way, in order. Operators take a batch, drain it and give its buffer back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// The records.
    pub records: Vec<T>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { records: Vec::new() }
    }
}

impl<T> Batch<T> {
    /// Records in a full batch of this type: [`BATCH_RECORDS`], or fewer if they are large.
    pub const FULL_RECORDS: usize = full_records(size_of::<T>());

    /// Whether there are no records in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many records are in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(records: Vec<T>) -> Self {
        Self { records }
    }
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
mod tests {
    use super::*;

    #[test]
    fn large_records_fill_a_batch_sooner() {
        for (bytes, records) in [(0, 1_024), (8, 1_024), (64, 1_024), (65, 1_008), (200, 327), (4_096, 64)] {
            assert_eq!(full_records(bytes), records, "{bytes} bytes");
        }
        assert_eq!(Batch::<[u8; 128]>::FULL_RECORDS, 512);
    }
}
