//! The settings of storages, as one value.
//!
//! Made from a [`Configuration`] where a process starts. Credentials are never among them: they come from where every AWS
//! program takes them.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ConfigError, ConfigKey, Configuration, keys};
#[cfg(feature = "s3")]
use crate::limits::S3_MAX_PARTS;
use crate::limits::{S3_PART_BYTES, S3_PARTS_UNDER_WAY};

/// Settings of every kind of storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageSettings {
    /// Those of S3.
    pub s3: S3Settings,
}

/// How S3 is reached and used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Where a store other than AWS is, as `http://host:port`.
    pub endpoint: Option<String>,
    /// The region of the bucket; `None` for what the environment, the profile or the machine says.
    pub region: Option<String>,
    /// Whether the bucket is in the path of a request rather than in its host name; `None` for: with an endpoint.
    pub path_style: Option<bool>,
    /// Least size of the parts in which large objects are written and read, in bytes.
    pub part_bytes: u64,
    /// Parts that a process sends or reads at the same time.
    pub parts_under_way: usize,
    /// Longest time in which a connection must come about.
    pub connection_timeout: Duration,
    /// Longest time in which nothing may be heard, neither the begin of an answer nor more of it.
    pub socket_timeout: Duration,
    /// Longest time for one try of a request, with its content.
    pub attempt_timeout: Duration,
    /// Longest time for a request with all its tries.
    pub operation_timeout: Duration,
    /// Tries of a request after the first one.
    pub max_retries: u32,
    /// How the store encrypts what it keeps.
    pub encryption: Encryption,
    /// A file of credentials that is read in place of the usual places, for tests.
    pub(super) credentials_file: Option<PathBuf>,
}

/// How a store encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket says.
    #[default]
    OfTheBucket,
    /// With keys of S3 (SSE-S3).
    S3,
    /// With a key of AWS KMS (SSE-KMS).
    Kms {
        /// Id, ARN or alias of the key; `None` for the one that AWS keeps for S3.
        key_id: Option<String>,
    },
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            part_bytes: S3_PART_BYTES,
            parts_under_way: S3_PARTS_UNDER_WAY,
            connection_timeout: Duration::from_secs(5),
            socket_timeout: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(60),
            operation_timeout: Duration::from_secs(120),
            max_retries: 9,
            encryption: Encryption::default(),
            credentials_file: None,
        }
    }
}

impl StorageSettings {
    /// Reads the `s3.*` keys.
    ///
    /// # Errors
    /// If a value does not have the right form, or values contradict each other.
    ///
    /// ```
    /// use thalweg_common::config::Configuration;
    /// use thalweg_common::storage::StorageSettings;
    ///
    /// let configuration = Configuration::from_yaml("s3.endpoint: http://127.0.0.1:9000\ns3.region: eu-west-1")?;
    /// let settings = StorageSettings::from_configuration(&configuration)?;
    /// assert_eq!(settings.s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    /// # Ok::<(), thalweg_common::config::ConfigError>(())
    /// ```
    pub fn from_configuration(configuration: &Configuration) -> Result<Self, ConfigError> {
        // A value that nobody checked yet may come from another version.
        let mut configuration = configuration.clone();
        configuration.retain_storage_keys();
        configuration.validate()?;
        let text = |key: &ConfigKey| configuration.text(key).map(str::to_owned);
        let default = S3Settings::default();
        let duration = |key: &ConfigKey, or: Duration| configuration.duration(key).unwrap_or(or);
        let s3 = S3Settings {
            endpoint: endpoint(&configuration)?,
            region: text(&keys::S3_REGION),
            path_style: configuration.boolean(&keys::S3_PATH_STYLE),
            part_bytes: configuration.memory_size(&keys::S3_PART_SIZE).unwrap_or(default.part_bytes),
            parts_under_way: configuration
                .integer(&keys::S3_PARTS)
                .and_then(|parts| usize::try_from(parts).ok())
                .unwrap_or(default.parts_under_way),
            connection_timeout: duration(&keys::S3_CONNECTION_TIMEOUT, default.connection_timeout),
            socket_timeout: duration(&keys::S3_SOCKET_TIMEOUT, default.socket_timeout),
            attempt_timeout: duration(&keys::S3_ATTEMPT_TIMEOUT, default.attempt_timeout),
            operation_timeout: duration(&keys::S3_OPERATION_TIMEOUT, default.operation_timeout),
            max_retries: configuration
                .integer(&keys::S3_RETRIES)
                .and_then(|retries| u32::try_from(retries).ok())
                .unwrap_or(default.max_retries),
            encryption: encryption(&configuration)?,
            credentials_file: None,
        };
        Ok(Self { s3 })
    }
}

impl S3Settings {
    /// The same settings with credentials from this file, in the form of `~/.aws/credentials`, and from nowhere else.
    #[doc(hidden)]
    #[must_use]
    pub fn with_credentials_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(file.into());
        self
    }

    /// The size of the parts of an object of this size: no object has more than [`S3_MAX_PARTS`].
    #[cfg(feature = "s3")]
    pub(super) fn part_bytes_of(&self, size: u64) -> u64 {
        self.part_bytes.max(size.div_ceil(S3_MAX_PARTS))
    }
}

fn endpoint(configuration: &Configuration) -> Result<Option<String>, ConfigError> {
    let Some(endpoint) = configuration.text(&keys::S3_ENDPOINT) else { return Ok(None) };
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') => {
            Ok(Some(endpoint.trim_end_matches('/').to_owned()))
        }
        _ => Err(ConfigError::Contradiction {
            key: keys::S3_ENDPOINT.name,
            value: endpoint.to_owned(),
            rule: "it must begin with `http://` or `https://` and hold no credentials, as in `http://127.0.0.1:9000`"
                .to_owned(),
        }),
    }
}

fn encryption(configuration: &Configuration) -> Result<Encryption, ConfigError> {
    let key_id = configuration.text(&keys::S3_SSE_KMS_KEY).map(str::to_owned);
    match (configuration.text(&keys::S3_SSE_TYPE), key_id) {
        (Some("sse-kms"), key_id) => Ok(Encryption::Kms { key_id }),
        (kind, Some(_)) => Err(ConfigError::Contradiction {
            key: keys::S3_SSE_TYPE.name,
            value: kind.unwrap_or("none").to_owned(),
            rule: format!(
                "`{}` is only used with `sse-kms`; set that, or remove the key",
                keys::S3_SSE_KMS_KEY.name
            ),
        }),
        (Some("sse-s3"), None) => Ok(Encryption::S3),
        _ => Ok(Encryption::OfTheBucket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<StorageSettings, ConfigError> {
        StorageSettings::from_configuration(&Configuration::from_yaml(text).expect("known keys"))
    }

    #[test]
    fn the_default_is_what_an_empty_configuration_says() {
        assert_eq!(settings("").expect("defaults are right"), StorageSettings::default());
    }

    #[test]
    fn all_keys_are_read() {
        let found = settings(
            "s3.endpoint: https://store.example/\n\
             s3.endpoint.region: eu-west-1\n\
             s3.path-style-access: false\n\
             s3.upload.min.part.size: 16 mb\n\
             s3.upload.max.concurrent.uploads: 3\n\
             s3.connection.timeout: 1 s\n\
             s3.socket.timeout: 2 s\n\
             s3.attempt.timeout: 3 s\n\
             s3.operation.timeout: 4 s\n\
             s3.retry.max-num-retries: 0\n\
             s3.sse.type: SSE-KMS\n\
             s3.sse.kms.key-id: alias/checkpoints",
        );
        let wanted = S3Settings {
            endpoint: Some("https://store.example".to_owned()),
            region: Some("eu-west-1".to_owned()),
            path_style: Some(false),
            part_bytes: 16 << 20,
            parts_under_way: 3,
            connection_timeout: Duration::from_secs(1),
            socket_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_secs(3),
            operation_timeout: Duration::from_secs(4),
            max_retries: 0,
            encryption: Encryption::Kms { key_id: Some("alias/checkpoints".to_owned()) },
            credentials_file: None,
        };
        assert_eq!(found.expect("these settings are right").s3, wanted);
        assert_eq!(settings("s3.sse.type: sse-s3").expect("right").s3.encryption, Encryption::S3);
        assert_eq!(settings("s3.path.style.access: true").expect("right").s3.path_style, Some(true));
    }

    #[test]
    fn contradictions_name_the_cure() {
        for (text, wanted) in [
            ("s3.endpoint: 127.0.0.1:9000", "must begin with `http://` or `https://`"),
            ("s3.endpoint: http://key:secret@host", "hold no credentials"),
            ("s3.sse.kms.key-id: alias/x", "only used with `sse-kms`"),
        ] {
            let error = settings(text).expect_err("this is wrong").to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let unchecked: Configuration =
            serde_json::from_str(r#"{"s3.socket.timeout":"soon","from.the.future":"1"}"#).expect("a map");
        let error =
            StorageSettings::from_configuration(&unchecked).expect_err("`soon` is no duration").to_string();
        assert!(error.starts_with("`s3.socket.timeout` cannot be `soon`"), "{error}");
    }

    #[cfg(feature = "s3")]
    #[test]
    fn large_objects_have_larger_parts() {
        let settings = S3Settings::default();
        assert_eq!(settings.part_bytes_of(1), S3_PART_BYTES);
        assert_eq!(settings.part_bytes_of(S3_PART_BYTES * S3_MAX_PARTS), S3_PART_BYTES);
        assert_eq!(settings.part_bytes_of(S3_PART_BYTES * S3_MAX_PARTS + 1), S3_PART_BYTES + 1);
    }
}
