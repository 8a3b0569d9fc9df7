//! Whether combining pays. Pure.
//!
//! Stands inside the combiner, which tells it after each batch how many records it was and how many of them were the
//! first of their key: that is how many are sent. If that is nearly all, the table is work for nothing, so that the
//! combiner passes records on for a while and then tries again, because keys change with the time of day.

use super::CombinePolicy;

/// Records over which the share of those that are sent is measured.
pub(super) const MEASURED_RECORDS: usize = 16 * 1_024;

/// Records that are passed on before it is measured again: trying costs one part in sixteen.
pub(super) const PASSED_ON_RECORDS: usize = 15 * MEASURED_RECORDS;

/// Combining pays if at most so many percent of the records are sent.
pub(super) const WORTH_PERCENT: usize = 80;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Worth {
    /// Nobody asks.
    Always,
    /// Records are combined and counted.
    Measuring {
        /// Records since the measurement began.
        records: usize,
        /// Those of them that were the first of their key in the table.
        keys: usize,
    },
    /// It did not pay: records are passed on.
    PassingOn {
        /// Records until it is measured again.
        left: usize,
    },
}

impl Worth {
    pub(super) fn new(policy: CombinePolicy) -> Self {
        match policy {
            CombinePolicy::Always => Self::Always,
            CombinePolicy::WhilePaying => Self::Measuring { records: 0, keys: 0 },
        }
    }

    /// Whether the next batch is combined.
    pub(super) fn combines(&self) -> bool {
        !matches!(self, Self::PassingOn { .. })
    }

    /// A batch was combined.
    pub(super) fn combined(&mut self, more_records: usize, more_keys: usize) {
        let Self::Measuring { records, keys } = self else { return };
        *records += more_records;
        *keys += more_keys;
        if *records >= MEASURED_RECORDS {
            *self = if *keys * 100 <= *records * WORTH_PERCENT {
                Self::Measuring { records: 0, keys: 0 }
            } else {
                Self::PassingOn { left: PASSED_ON_RECORDS }
            };
        }
    }

    /// A batch was passed on.
    pub(super) fn passed_on(&mut self, records: usize) {
        let Self::PassingOn { left } = self else { return };
        *left = left.saturating_sub(records);
        if *left == 0 {
            *self = Self::Measuring { records: 0, keys: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records and keys of each batch.
    type Batches = &'static [(usize, usize)];

    const START: Worth = Worth::Measuring { records: 0, keys: 0 };
    const GAVE_UP: Worth = Worth::PassingOn { left: PASSED_ON_RECORDS };

    #[test]
    fn a_measurement_decides_when_it_is_complete() {
        const LIMIT: usize = MEASURED_RECORDS * WORTH_PERCENT / 100;
        let table: Vec<(&str, Batches, Worth)> = vec![
            ("nothing yet", &[], START),
            ("too early to tell", &[(1_000, 1_000)], Worth::Measuring { records: 1_000, keys: 1_000 }),
            ("one key", &[(MEASURED_RECORDS, 1)], START),
            ("just worth it", &[(MEASURED_RECORDS, LIMIT)], START),
            ("just not worth it", &[(MEASURED_RECORDS, LIMIT + 1)], GAVE_UP),
            ("all keys differ", &[(MEASURED_RECORDS, MEASURED_RECORDS)], GAVE_UP),
            ("a bad beginning", &[(1_000, 1_000), (MEASURED_RECORDS - 1_000, 1)], START),
            ("a bad end", &[(1, 1), (MEASURED_RECORDS, MEASURED_RECORDS)], GAVE_UP),
            (
                "each window for itself",
                &[(MEASURED_RECORDS, 1), (MEASURED_RECORDS, MEASURED_RECORDS)],
                GAVE_UP,
            ),
        ];
        for (name, batches, expected) in table {
            let mut worth = Worth::new(CombinePolicy::WhilePaying);
            batches.iter().for_each(|(records, keys)| worth.combined(*records, *keys));
            assert_eq!(worth, expected, "{name}");
            assert_eq!(worth.combines(), expected != GAVE_UP, "{name}");
        }
    }

    #[test]
    fn it_tries_again_after_a_while() {
        let mut worth = GAVE_UP;
        worth.passed_on(PASSED_ON_RECORDS - 1);
        assert_eq!(worth, Worth::PassingOn { left: 1 });
        worth.passed_on(1_024);
        assert_eq!(worth, START);
        // A measurement that begins while nothing is measured changes nothing.
        worth.passed_on(5);
        assert_eq!(worth, START);
    }

    #[test]
    fn whoever_wants_it_always_is_not_asked() {
        let mut worth = Worth::new(CombinePolicy::Always);
        worth.combined(MEASURED_RECORDS, MEASURED_RECORDS);
        assert!(worth.combines());
    }
}
