//! Drops entries whose life is over when RocksDB merges its files.
//!
//! Invariant: what is dropped would not be seen any more by whoever reads it now, and never again: the newest version of an entry becomes a
//! deletion, so that none of the older ones comes to light.

use std::ffi::CStr;

use ::rocksdb::CompactionDecision;
use ::rocksdb::compaction_filter::CompactionFilter;
use ::rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::ttl::StateTtl;

const NAME: &CStr = c"thalweg.ttl";

/// Makes the filter of each compaction of a state.
pub(super) struct ExpiryFilters {
    pub(super) ttl: StateTtl,
    pub(super) clock: SharedClock,
}

impl CompactionFilterFactory for ExpiryFilters {
    type Filter = ExpiryFilter;

    fn create(&mut self, _: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { ttl: self.ttl, began_ms: self.clock.now_ms() }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// The filter of one compaction.
pub(super) struct ExpiryFilter {
    ttl: StateTtl,
    began_ms: Timestamp,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _: u32, _: &[u8], value: &[u8]) -> CompactionDecision {
        if self.ttl.is_over_stored(value, self.began_ms) {
            CompactionDecision::Remove
        } else {
            CompactionDecision::Keep
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}
