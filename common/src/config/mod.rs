//! Configuration: Flink's keys, checked when they are set, read with their types.
//!
//! Stands at the start of every program ([`Settings`]: a YAML file, the environment, flags) and goes with every submitted job. Invariants:
//! - a [`Configuration`] that was filled by [`Configuration::set`] or read from a file holds only known keys under their
//!   canonical names, with values of the right form; an unknown key or a bad value is an error that names the cure;
//! - one that was deserialised keeps what it does not know, because it may come from another version of the system; the
//!   edge that accepts it from a user calls [`Configuration::validate`].
//!
//! ```
//! use std::time::Duration;
//! use thalweg_common::config::{Configuration, keys};
//!
//! let mut configuration = Configuration::from_yaml("
//!     ## as in flink-conf.yaml
//!     taskmanager.numberOfTaskSlots: 4
//!     execution.checkpointing.interval: 30 s
//! ").expect("both lines are right");
//! assert_eq!(configuration.integer(&keys::TASK_SLOTS), Some(4));
//! assert_eq!(configuration.duration(&keys::CHECKPOINTING_INTERVAL), Some(Duration::from_secs(30)));
//! assert_eq!(configuration.duration(&keys::HEARTBEAT_INTERVAL), Some(Duration::from_secs(10))); // the default
//!
//! let error = configuration.set("hartbeat.interval", "1 s").unwrap_err();
//! assert!(error.to_string().contains("did you mean `heartbeat.interval`?"));
//! ```

mod file;
pub mod keys;
mod memory;
mod parse;
mod settings;
mod typed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

pub use keys::{ConfigKey, ValueKind};
pub use memory::managed_memory_bytes;
pub use parse::{parse_duration, parse_memory_size};
pub use settings::{CONF_DIR_VARIABLE, Origin, PROPERTIES_VARIABLE, Settings};
pub use typed::{CheckpointConfig, CheckpointMode, CheckpointRetention, RestartStrategy};

/// What is wrong with a setting, and what to do about it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No such key.
    #[error("unknown configuration key `{key}`; {}", cure_for_unknown(.nearest))]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// The known key that is most like it.
        nearest: Option<&'static str>,
    },
    /// The value does not have the form that the key needs.
    #[error("`{key}` cannot be `{value}`; write {expected}")]
    InvalidValue {
        /// Canonical name of the key.
        key: String,
        /// The value as it was written.
        value: String,
        /// What it has to be, with an example.
        expected: String,
    },
    /// Two settings contradict each other.
    #[error("`{key}` is `{value}`, but {rule}")]
    Contradiction {
        /// Canonical name of the key that is to be changed.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        rule: String,
    },
    /// A text is not of the form `key: value` or `key=value`.
    #[error("`{text}` is not a setting; write `{form}`, for example `{example}`")]
    NotASetting {
        /// The text.
        text: String,
        /// The form it should have.
        form: &'static str,
        /// A setting in that form.
        example: &'static str,
    },
    /// The same key is set twice in one file.
    #[error("`{key}` is already set in line {first_line}; remove one of the two lines")]
    Duplicate {
        /// Canonical name of the key.
        key: &'static str,
        /// The line that set it first, counted from 1.
        first_line: usize,
    },
    /// A line of a configuration text is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: Box<ConfigError>,
    },
    /// A text is not the YAML of settings.
    #[error("{reason}; settings are YAML, flat as in `parallelism.default: 4` or nested")]
    NotYaml {
        /// What is wrong with it.
        reason: String,
    },
    /// The settings in an environment variable are wrong.
    #[error("environment variable {variable}, {problem}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: Box<ConfigError>,
    },
    /// A configuration file is wrong.
    #[error("configuration file {}, {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<ConfigError>,
    },
    /// A configuration file cannot be read.
    #[error("cannot read the configuration file {}: {reason}; check its path and permissions", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A configuration file is too large to be one.
    #[error("{} is larger than {limit_bytes} bytes and thus no configuration file; check its path", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read.
        limit_bytes: u64,
    },
}

impl ConfigError {
    /// There is no key of this name; the error names the one that is most like it.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        Self::UnknownKey { key: name.to_owned(), nearest: keys::nearest(name) }
    }
}

fn cure_for_unknown(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => {
            "no known key resembles it: remove it or look it up in the configuration reference".to_owned()
        }
    }
}

/// Settings by key, with defaults for what is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Configuration {
    values: BTreeMap<String, String>,
}

impl Configuration {
    /// A configuration in which nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key, given by its name or an alias, and replaces an earlier value.
    ///
    /// # Errors
    /// If the key is unknown or the value does not have its form; then nothing changes.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let (key, value) = checked(key, value)?;
        self.values.insert(key.name.to_owned(), value);
        Ok(())
    }

    /// Sets a key by a text of the form `key=value`, as in a flag `-D heartbeat.interval=1s`.
    ///
    /// # Errors
    /// As [`Configuration::set`], and if the text has no `=`.
    ///
    /// ```
    /// use thalweg_common::config::{Configuration, keys};
    ///
    /// let mut configuration = Configuration::new();
    /// configuration.set_assignment("parallelism.default=4")?;
    /// assert_eq!(configuration.integer(&keys::PARALLELISM_DEFAULT), Some(4));
    /// # Ok::<(), thalweg_common::config::ConfigError>(())
    /// ```
    pub fn set_assignment(&mut self, text: &str) -> Result<(), ConfigError> {
        self.assign(text).map(drop)
    }

    /// Sets a key by a text of the form `key=value`, and tells which one.
    fn assign(&mut self, text: &str) -> Result<&'static ConfigKey, ConfigError> {
        let (key, value) = text.split_once('=').ok_or_else(|| ConfigError::NotASetting {
            text: text.to_owned(),
            form: "key=value",
            example: "parallelism.default=4",
        })?;
        let (key, value) = checked(key.trim(), value)?;
        self.values.insert(key.name.to_owned(), value);
        Ok(key)
    }

    /// Takes a setting back, so that the default holds again.
    pub fn unset(&mut self, key: &ConfigKey) {
        self.values.remove(key.name);
    }

    /// Takes over everything that is set in `other`; where both set a key, `other` wins.
    pub fn merge(&mut self, other: &Configuration) {
        self.values.extend(other.values.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Forgets everything but the settings of storages.
    pub(crate) fn retain_storage_keys(&mut self) {
        self.values.retain(|name, _| keys::find(name).is_some_and(|key| keys::STORAGE.contains(&key)));
    }

    /// Checks every setting, and brings names and values into their canonical form: for a configuration that was received
    /// from a user's program.
    ///
    /// # Errors
    /// The first setting that is unknown or does not have the right form; then nothing changes.
    pub fn validate(&mut self) -> Result<(), ConfigError> {
        let mut canonical = BTreeMap::new();
        for (key, value) in &self.values {
            let (key, value) = checked(key, value)?;
            canonical.insert(key.name.to_owned(), value);
        }
        self.values = canonical;
        Ok(())
    }

    /// Whether the key is set, rather than left at its default.
    #[must_use]
    pub fn is_set(&self, key: &ConfigKey) -> bool {
        self.values.contains_key(key.name)
    }

    /// What is set, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a key as text, or its default, or `None` if it has none.
    #[must_use]
    pub fn text<'a>(&'a self, key: &ConfigKey) -> Option<&'a str> {
        self.values.get(key.name).map(String::as_str).or(key.default)
    }

    /// The value of a duration key, or its default, or `None` if it has none.
    #[must_use]
    pub fn duration(&self, key: &ConfigKey) -> Option<Duration> {
        debug_assert!(matches!(key.kind, ValueKind::Duration { .. }), "`{}` is no duration", key.name);
        self.value_or_default(key, parse_duration)
    }

    /// The value of a memory size key in bytes, or its default, or `None` if it has none.
    #[must_use]
    pub fn memory_size(&self, key: &ConfigKey) -> Option<u64> {
        debug_assert!(matches!(key.kind, ValueKind::MemorySize { .. }), "`{}` is no memory size", key.name);
        self.value_or_default(key, parse_memory_size)
    }

    /// The value of an integer key, or its default, or `None` if it has none.
    #[must_use]
    pub fn integer(&self, key: &ConfigKey) -> Option<i64> {
        debug_assert!(matches!(key.kind, ValueKind::Integer { .. }), "`{}` is no integer", key.name);
        self.value_or_default(key, parse::parse_integer)
    }

    /// The value of a decimal key, or its default, or `None` if it has none.
    #[must_use]
    pub fn decimal(&self, key: &ConfigKey) -> Option<f64> {
        debug_assert!(matches!(key.kind, ValueKind::Decimal { .. }), "`{}` is no decimal", key.name);
        self.value_or_default(key, parse::parse_decimal)
    }

    /// The value of a switch, or its default, or `None` if it has none.
    #[must_use]
    pub fn boolean(&self, key: &ConfigKey) -> Option<bool> {
        debug_assert!(matches!(key.kind, ValueKind::Boolean), "`{}` is no switch", key.name);
        self.value_or_default(key, parse::parse_boolean)
    }

    /// Reads a value. One that is not of its kind can only come from another version: the default takes its place.
    fn value_or_default<T>(&self, key: &ConfigKey, parse: fn(&str) -> Option<T>) -> Option<T> {
        if let Some(text) = self.values.get(key.name) {
            match key.kind.normalize(text).and_then(|text| parse(&text)) {
                Some(value) => return Some(value),
                None => warn!(
                    key = key.name,
                    value = text,
                    default = key.default,
                    "not a valid setting: using the default"
                ),
            }
        }
        key.default.and_then(parse)
    }
}

/// The key with this name, and the value in its canonical form.
fn checked(name: &str, value: &str) -> Result<(&'static ConfigKey, String), ConfigError> {
    let key = keys::find(name).ok_or_else(|| ConfigError::unknown(name))?;
    match key.kind.normalize(value) {
        Some(value) => Ok((key, value)),
        None => Err(ConfigError::InvalidValue {
            key: key.name.to_owned(),
            value: value.to_owned(),
            expected: key.kind.expectation(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<(), ConfigError>) -> String {
        result.expect_err("this setting is wrong").to_string()
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let configuration = Configuration::new();
        assert_eq!(configuration.duration(&keys::CHECKPOINTING_INTERVAL), None);
        assert_eq!(configuration.duration(&keys::TASK_CANCELLATION_TIMEOUT), Some(Duration::from_secs(180)));
        assert_eq!(configuration.memory_size(&keys::PLAN_MEMORY), Some(1 << 30));
        assert_eq!(configuration.integer(&keys::JOB_MANAGER_PORT), Some(6123));
        assert_eq!(configuration.decimal(&keys::EXPONENTIAL_DELAY_JITTER), Some(0.1));
        assert_eq!(configuration.boolean(&keys::PIPELINE_OPERATOR_CHAINING), Some(true));
        assert_eq!(configuration.text(&keys::PIPELINE_NAME), None);
        assert!(!configuration.is_set(&keys::JOB_MANAGER_PORT));
    }

    #[test]
    fn values_are_stored_under_the_canonical_name_in_canonical_form() {
        let mut configuration = Configuration::new();
        for (key, value) in [
            ("state.checkpoints.dir", " /tmp/checkpoints "),
            ("restart-strategy", "Off"),
            ("execution.checkpointing.mode", "at_least_once"),
            ("pipeline.operator-chaining", "FALSE"),
            ("parallelism.default", "007"),
        ] {
            configuration.set(key, value).expect("all of these are right");
        }
        let stored: Vec<_> = configuration.iter().collect();
        assert_eq!(
            stored,
            [
                ("execution.checkpointing.dir", "/tmp/checkpoints"),
                ("execution.checkpointing.mode", "AT_LEAST_ONCE"),
                ("parallelism.default", "7"),
                ("pipeline.operator-chaining.enabled", "false"),
                ("restart-strategy.type", "none"),
            ]
        );
        assert_eq!(configuration.boolean(&keys::PIPELINE_OPERATOR_CHAINING), Some(false));
    }

    #[test]
    fn errors_name_cause_and_cure() {
        let mut configuration = Configuration::new();
        assert_eq!(
            error(configuration.set("heartbeat.interva", "1 s")),
            "unknown configuration key `heartbeat.interva`; did you mean `heartbeat.interval`?"
        );
        assert_eq!(
            error(configuration.set("flux.capacitor", "1")),
            "unknown configuration key `flux.capacitor`; no known key resembles it: remove it or look it up in the \
             configuration reference"
        );
        assert_eq!(
            error(configuration.set("heartbeat.interval", "soon")),
            "`heartbeat.interval` cannot be `soon`; write a duration of at least 1 ms, for example `10 s` or `500 ms`"
        );
        assert_eq!(
            error(configuration.set("restart-strategy", "sometimes")),
            "`restart-strategy.type` cannot be `sometimes`; write one of `none`, `fixed-delay`, `exponential-delay`, \
             `failure-rate`"
        );
        assert_eq!(
            error(configuration.set("parallelism.default", "0")),
            "`parallelism.default` cannot be `0`; write a whole number from 1 to 32768, for example `4`"
        );
        assert_eq!(
            error(configuration.set_assignment("parallelism.default 4")),
            "`parallelism.default 4` is not a setting; write `key=value`, for example `parallelism.default=4`"
        );
        assert_eq!(configuration, Configuration::new(), "a refused setting changes nothing");
    }

    #[test]
    fn the_later_configuration_wins_a_merge() {
        let mut base =
            Configuration::from_yaml("heartbeat.interval: 1 s\nheartbeat.timeout: 5 s").expect("valid");
        let over = Configuration::from_yaml("heartbeat.timeout: 9 s\nparallelism.default: 2").expect("valid");
        base.merge(&over);
        assert_eq!(base.duration(&keys::HEARTBEAT_INTERVAL), Some(Duration::from_secs(1)));
        assert_eq!(base.duration(&keys::HEARTBEAT_TIMEOUT), Some(Duration::from_secs(9)));
        assert_eq!(base.integer(&keys::PARALLELISM_DEFAULT), Some(2));
        base.unset(&keys::HEARTBEAT_TIMEOUT);
        assert_eq!(base.duration(&keys::HEARTBEAT_TIMEOUT), Some(Duration::from_secs(50)));
    }

    #[test]
    fn it_survives_both_encodings_as_a_plain_map() {
        let configuration = Configuration::from_yaml("heartbeat.interval: 1 s").expect("valid");
        let json = serde_json::to_string(&configuration).expect("a map of texts");
        assert_eq!(json, r#"{"heartbeat.interval":"1 s"}"#);
        assert_eq!(serde_json::from_str::<Configuration>(&json).expect("the same"), configuration);

        let bytes =
            bincode::serde::encode_to_vec(&configuration, bincode::config::standard()).expect("encodes");
        let (back, _): (Configuration, _) =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).expect("decodes");
        assert_eq!(back, configuration);
    }

    #[test]
    fn a_received_configuration_is_checked_by_validate_and_harmless_without() {
        let text = r#"{"heartbeat.interval":"never","state.checkpoints.dir":"/c"}"#;
        let mut received: Configuration = serde_json::from_str(text).expect("a map of texts");
        assert_eq!(
            received.duration(&keys::HEARTBEAT_INTERVAL),
            Some(Duration::from_secs(10)),
            "the default"
        );
        let before = received.clone();
        assert!(error(received.validate()).starts_with("`heartbeat.interval` cannot be `never`"));
        assert_eq!(received, before);

        received.set("heartbeat.interval", "2 s").expect("valid");
        received.validate().expect("now it is right");
        assert_eq!(received.text(&keys::CHECKPOINTING_DIRECTORY), Some("/c"), "aliases are resolved");

        let text = r#"{"from.the.future":"1"}"#;
        let mut received: Configuration = serde_json::from_str(text).expect("a map of texts");
        assert!(error(received.validate()).starts_with("unknown configuration key `from.the.future`"));
    }
}
