//! The native metrics of RocksDB, under the names that switch them on.

use std::collections::BTreeMap;

use thalweg_common::config::ConfigKey;

use super::RocksDb;

/// What all configuration keys of native metrics begin with.
const KEY_PREFIX: &str = "state.backend.rocksdb.metrics.";

/// Properties that belong to the whole process or database: the same from every column family.
const SHARED: [&str; 9] = [
    "actual-delayed-write-rate",
    "background-errors",
    "block-cache-capacity",
    "block-cache-pinned-usage",
    "block-cache-usage",
    "is-write-stopped",
    "num-running-compactions",
    "num-running-flushes",
    "num-snapshots",
];

impl RocksDb {
    /// The figures that `keys` switch on, by the last part of their key: of the database where there is one for all states,
    /// otherwise the sum over the states.
    #[must_use]
    pub fn metrics(&self, keys: &[&ConfigKey]) -> BTreeMap<&'static str, u64> {
        let names = keys.iter().filter_map(|key| key.name.strip_prefix(KEY_PREFIX));
        names.filter_map(|name| Some((name, self.metric(name)?))).collect()
    }

    /// The same of each state, by the state's number and the name of the figure.
    #[must_use]
    pub fn metrics_by_state(&self, keys: &[&ConfigKey]) -> Vec<BTreeMap<&'static str, u64>> {
        let names: Vec<&'static str> =
            keys.iter().filter_map(|key| key.name.strip_prefix(KEY_PREFIX)).collect();
        let of_state =
            |state| names.iter().filter_map(|name| Some((*name, self.of_state(state, name)?))).collect();
        (0..self.families.len()).map(of_state).collect()
    }

    fn metric(&self, name: &str) -> Option<u64> {
        if SHARED.contains(&name) {
            return self.of_state(0, name);
        }
        (0..self.families.len()).map(|state| self.of_state(state, name)).sum()
    }

    fn of_state(&self, state: usize, name: &str) -> Option<u64> {
        let family = self.family(state).ok()?;
        self.db.property_int_value_cf(family, &format!("rocksdb.{name}")).ok().flatten()
    }
}
