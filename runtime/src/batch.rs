//! Batches: the unit in which records move between operators and over channels.

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
