//! The known configuration keys, a file for each topic: name, older names, form of the value, default and what it does.
//!
//! Names, forms and defaults are Flink's wherever Flink has the setting. A key is here only if some code acts on it: a
//! setting that would be accepted and ignored is worse than an unknown one. Adding a key means adding one entry to its topic.

/// Declares the keys as constants and lists them all, so that none can be missing from the list of its topic.
macro_rules! keys {
    ($(
        $(#[doc = $help:literal])+
        $constant:ident: $name:literal $(| $alias:literal)*, $kind:expr $(, default $default:expr)?;
    )+) => {
        $(
            $(#[doc = $help])+
            pub const $constant: ConfigKey = ConfigKey {
                name: $name,
                aliases: &[$($alias),*],
                kind: $kind,
                default: keys!(@default $($default)?),
                help: concat!($($help),+),
            };
        )+

        /// All keys of this topic, in the order of this page.
        pub(super) const KEYS: &[&ConfigKey] = &[$(&$constant),+];
    };
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
}

mod checkpoints;
mod groups;
mod job_managers;
mod jobs;
mod kind;
mod reports;
mod rocksdb;
mod security;
mod storages;
mod task_managers;

pub use checkpoints::*;
pub use groups::*;
pub use job_managers::*;
pub use jobs::*;
pub use kind::{ConfigKey, ValueKind};
pub use reports::*;
pub use rocksdb::*;
pub use security::*;
pub use storages::*;
pub use task_managers::*;

const TOPICS: [&[&ConfigKey]; 8] = [
    checkpoints::KEYS,
    jobs::KEYS,
    rocksdb::KEYS,
    task_managers::KEYS,
    job_managers::KEYS,
    reports::KEYS,
    storages::KEYS,
    security::KEYS,
];

/// Every known key, by topic.
pub fn all() -> impl Iterator<Item = &'static ConfigKey> {
    TOPICS.into_iter().flatten().copied()
}

/// The key with this name or alias.
#[must_use]
pub fn find(name: &str) -> Option<&'static ConfigKey> {
    all().find(|key| key.name == name || key.aliases.contains(&name))
}

/// The known name that is most like `name`, if any is like it at all.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    const LIKE: f64 = 0.75;
    all()
        .flat_map(|key| {
            std::iter::once((key.name, key.name)).chain(key.aliases.iter().map(|alias| (*alias, key.name)))
        })
        .map(|(spelling, canonical)| (strsim::normalized_damerau_levenshtein(name, spelling), canonical))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, canonical)| canonical)
}

#[cfg(test)]
mod tests;
