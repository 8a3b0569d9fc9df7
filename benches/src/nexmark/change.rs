//! Changes: how results that are updated are compared whatever the order of the updates.

use thalweg::Record;

use crate::tally::Digest;

/// A result that takes the place of another one, as a row of a changelog.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change<T> {
    /// What it was; nothing the first time.
    pub(crate) before: Option<T>,
    /// What it is now; nothing if it is gone.
    pub(crate) after: Option<T>,
}

/// The difference of both, so that the sum over all changes is that of the results that are left at the end.
impl<T: Digest> Digest for Change<T> {
    #[inline]
    fn digest(&self) -> u64 {
        let digest = |value: &Option<T>| value.as_ref().map_or(0, T::digest);
        digest(&self.after).wrapping_sub(digest(&self.before))
    }
}
