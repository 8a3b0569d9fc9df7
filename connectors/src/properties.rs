//! Properties of a connector: a map from keys to values, as Flink's programs and runtime properties have it. Pure.
//!
//! Invariant: a key that nobody knows is an error that names the nearest one; none is ever ignored without a word.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use thalweg_common::failure::Failure;

/// How alike two keys must be for one to be suggested in place of the other.
const LIKE: f64 = 0.6;

/// Properties whose keys are all known.
#[derive(Debug)]
pub(crate) struct Properties {
    values: BTreeMap<String, String>,
}

impl Properties {
    /// Takes `given`, with the keys that `canonical` makes of them, all of which must be in `known`.
    pub(crate) fn new(
        given: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        canonical: impl Fn(&str) -> String,
        known: &[&str],
    ) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for (key, value) in given {
            let key: String = key.into();
            let found = canonical(&key);
            if !known.contains(&found.as_str()) {
                let nearest = nearest(&found, known).map(|known| format!("; did you mean `{known}`?"));
                return Err(wrong(format!(
                    "the connector has no property `{key}`{}",
                    nearest.unwrap_or_else(|| "; remove it".to_owned())
                )));
            }
            values.insert(found, value.into().trim().to_owned());
        }
        Ok(Self { values })
    }

    /// All of them.
    pub(crate) fn all(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A number, or whatever else can be read from text.
    pub(crate) fn parsed<T: FromStr>(&self, key: &str, what: &str) -> Result<Option<T>, Failure> {
        let parse = |value: &str| {
            value.parse().map_err(|_| wrong(format!("`{key}` cannot be `{value}`; it is {what}")))
        };
        self.text(key).map(parse).transpose()
    }

    pub(crate) fn millis(&self, key: &str) -> Result<Option<Duration>, Failure> {
        Ok(self.parsed(key, "a number of milliseconds")?.map(Duration::from_millis))
    }
}

fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &&'a str| (strsim::normalized_damerau_levenshtein(key, known), *known);
    let alike = known.iter().map(likeness).filter(|(likeness, _)| *likeness >= LIKE);
    alike.max_by(|(left, _), (right, _)| left.total_cmp(right)).map(|(_, known)| known)
}

/// A setting that cannot be: nothing is gained by trying again.
pub(crate) fn wrong(message: impl Into<String>) -> Failure {
    Failure::user(message).permanent()
}
