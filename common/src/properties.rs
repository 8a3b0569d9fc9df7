//! Runtime properties of a job: groups of keys and values that its program reads, as the managed service for Flink has them.
//!
//! On a command's way: read from a file (`application_properties.json`) or flags, kept with the job in the log, and given to its program in
//! every mode. Invariants: nothing is larger than the limits say; [`shown`](RuntimeProperties::shown) and `Debug` never tell a value whose
//! key looks like a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::limits::{
    MAX_PROPERTIES_FILE_BYTES, MAX_PROPERTIES_PER_GROUP, MAX_PROPERTY_CHARACTERS,
    MAX_PROPERTY_GROUP_ID_CHARACTERS, MAX_PROPERTY_GROUPS, MAX_RUNTIME_PROPERTIES_BYTES,
};

/// The variable in which workers and plans are given theirs, as JSON.
pub const RUNTIME_PROPERTIES_VARIABLE: &str = "THALWEG_RUNTIME_PROPERTIES";

/// What is shown in place of a secret.
pub const HIDDEN: &str = "******";

/// What the key of a secret has in it, in lower case: Flink's words, and those of AWS.
const SECRETS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api-key",
    "access-key",
    "accesskey",
    "private-key",
    "jaas.config",
    "credential.value",
];

/// Whether a key is one whose value nobody should read in an output or a log.
///
/// ```
/// use thalweg_common::properties::is_secret;
///
/// assert!(is_secret("aws.credentials.basic.secretkey") && is_secret("ssl.truststore.password"));
/// assert!(!is_secret("aws.region"));
/// ```
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRETS.iter().any(|word| key.contains(word))
}

/// Groups of keys and values.
///
/// ```
/// use thalweg_common::properties::RuntimeProperties;
///
/// let file = r#"[{"PropertyGroupId": "ProducerConfigProperties", "PropertyMap": {"aws.region": "eu-west-1"}}]"#;
/// let mut properties = RuntimeProperties::from_json(file)?;
/// properties.set_assignment("ProducerConfigProperties:stream.name=orders")?;
/// assert_eq!(properties.group("ProducerConfigProperties")["stream.name"], "orders");
/// assert!(properties.group("Missing").is_empty());
/// # Ok::<(), thalweg_common::properties::PropertiesError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuntimeProperties(BTreeMap<String, BTreeMap<String, String>>);

/// One group in the form of the managed service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Group {
    property_group_id: String,
    property_map: BTreeMap<String, String>,
}

/// Properties that cannot be; the message says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PropertiesError(String);

fn wrong(message: impl Into<String>) -> PropertiesError {
    PropertiesError(message.into())
}

impl fmt::Debug for RuntimeProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RuntimeProperties").field(&self.shown().0).finish()
    }
}

impl RuntimeProperties {
    /// From the text of an `application_properties.json`: an array of `{"PropertyGroupId": ..., "PropertyMap": {...}}`.
    ///
    /// # Errors
    /// When the text has another form, a group comes twice, or a limit is exceeded.
    pub fn from_json(text: &str) -> Result<Self, PropertiesError> {
        let groups: Vec<Group> = serde_json::from_str(text).map_err(|error| {
            wrong(format!(
                "they are no JSON array of property groups ({error}); write \
                 [{{\"PropertyGroupId\": \"NAME\", \"PropertyMap\": {{\"key\": \"text\"}}}}]"
            ))
        })?;
        Self::from_groups(groups.into_iter().map(|group| (group.property_group_id, group.property_map)))
    }

    /// From the text of such a file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, and as [`from_json`](Self::from_json); the message names the file.
    pub fn from_file(path: &Path) -> Result<Self, PropertiesError> {
        let named = |error: &dyn fmt::Display| {
            wrong(format!("the runtime properties in {}: {error}", path.display()))
        };
        // Before it is read: it may be anything.
        let too_large = |bytes: u64| {
            wrong(format!("they have {bytes} bytes, at most {MAX_PROPERTIES_FILE_BYTES} are allowed"))
        };
        let metadata = std::fs::metadata(path);
        let bytes = metadata.map_err(|error| named(&format_args!("{error}; check the path")))?.len();
        if bytes > MAX_PROPERTIES_FILE_BYTES {
            return Err(named(&too_large(bytes)));
        }
        let text = std::fs::read_to_string(path);
        Self::from_json(&text.map_err(|error| named(&error))?).map_err(|error| named(&error))
    }

    /// From groups with their ids.
    ///
    /// # Errors
    /// When a group comes twice or a limit is exceeded.
    pub fn from_groups(
        groups: impl IntoIterator<Item = (String, BTreeMap<String, String>)>,
    ) -> Result<Self, PropertiesError> {
        let mut properties = Self::default();
        for (id, map) in groups {
            if properties.0.contains_key(&id) {
                return Err(wrong(format!(
                    "the property group `{id}` is there twice; put its properties together"
                )));
            }
            properties.0.insert(id, map);
        }
        properties.check()?;
        Ok(properties)
    }

    /// From a file, if there is one, and assignments, which win over it.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file) and [`set_assignment`](Self::set_assignment).
    pub fn from_flags(file: Option<&Path>, assignments: &[String]) -> Result<Self, PropertiesError> {
        let mut properties = file.map_or_else(|| Ok(Self::default()), Self::from_file)?;
        assignments.iter().try_for_each(|assignment| properties.set_assignment(assignment))?;
        Ok(properties)
    }

    /// In the same form, as workers and plans are given it. With secrets.
    ///
    /// # Errors
    /// None that is known: text is always JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let groups: Vec<Group> = self
            .groups()
            .map(|(id, map)| Group { property_group_id: id.to_owned(), property_map: map.clone() })
            .collect();
        serde_json::to_string(&groups)
    }

    /// Sets one, as `GROUP:KEY=VALUE`. Group ids have no colon, keys no equals sign.
    ///
    /// # Errors
    /// When the text has another form or a limit is exceeded.
    pub fn set_assignment(&mut self, assignment: &str) -> Result<(), PropertiesError> {
        let parts = assignment.split_once('=').and_then(|(name, value)| Some((name.split_once(':')?, value)));
        let Some(((group, key), value)) = parts else {
            // Not the text: its value may be a secret.
            let name = assignment.split('=').next().unwrap_or_default();
            return Err(wrong(format!(
                "the property `{name}` is not written as `GROUP:KEY=VALUE`, as in `ConsumerConfigProperties:aws.region=eu-west-1`"
            )));
        };
        self.set(group, key, value)
    }

    /// Sets one.
    ///
    /// # Errors
    /// When a limit is exceeded.
    pub fn set(&mut self, group: &str, key: &str, value: &str) -> Result<(), PropertiesError> {
        self.0.entry(group.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self.check()
    }

    /// The properties of a group; none if there is no such group.
    #[must_use]
    pub fn group(&self, id: &str) -> BTreeMap<String, String> {
        self.0.get(id).cloned().unwrap_or_default()
    }

    /// All groups with their properties, by id.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>)> {
        self.0.iter().map(|(id, map)| (id.as_str(), map))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same for people: values of keys that look like secrets are hidden.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        for (key, value) in shown.0.values_mut().flatten() {
            if is_secret(key) {
                HIDDEN.clone_into(value);
            }
        }
        shown
    }

    fn check(&self) -> Result<(), PropertiesError> {
        if self.0.len() > MAX_PROPERTY_GROUPS {
            return Err(wrong(format!(
                "there are {} property groups, at most {MAX_PROPERTY_GROUPS} are allowed; put some together",
                self.0.len()
            )));
        }
        self.0.iter().try_for_each(|(id, map)| check_group(id, map))?;
        let bytes = self.to_json().map_err(|error| wrong(error.to_string()))?.len();
        if bytes > MAX_RUNTIME_PROPERTIES_BYTES {
            return Err(wrong(format!(
                "the runtime properties have {bytes} bytes as JSON, at most {MAX_RUNTIME_PROPERTIES_BYTES} are allowed; put what is \
                 large into a file that the job reads"
            )));
        }
        Ok(())
    }
}

fn check_group(id: &str, map: &BTreeMap<String, String>) -> Result<(), PropertiesError> {
    let is_id = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
    if !(1..=MAX_PROPERTY_GROUP_ID_CHARACTERS).contains(&id.len()) || !id.chars().all(is_id) {
        return Err(wrong(format!(
            "`{}` is no id of a property group; it has 1 to {MAX_PROPERTY_GROUP_ID_CHARACTERS} letters, digits, dots, underscores and hyphens",
            id.chars().take(MAX_PROPERTY_GROUP_ID_CHARACTERS).collect::<String>()
        )));
    }
    if !(1..=MAX_PROPERTIES_PER_GROUP).contains(&map.len()) {
        return Err(wrong(format!(
            "the property group `{id}` has {} properties, and 1 to {MAX_PROPERTIES_PER_GROUP} are allowed; leave an empty one out, and divide a \
             large one",
            map.len()
        )));
    }
    for (key, value) in map {
        let name: String = key.chars().take(64).collect();
        let (of_key, of_value) = (key.chars().count(), value.chars().count());
        let allowed = 1..=MAX_PROPERTY_CHARACTERS;
        if !allowed.contains(&of_key) || !allowed.contains(&of_value) {
            return Err(wrong(format!(
                "the property `{name}` of `{id}` has a key of {of_key} and a value of {of_value} characters, and both have 1 to \
                 {MAX_PROPERTY_CHARACTERS}"
            )));
        }
        // Neither can be in the environment of a process.
        if key.contains('\0') || value.contains('\0') {
            return Err(wrong(format!("the property `{name}` of `{id}` has a zero character; remove it")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FILE: &str = r#"[
        {"PropertyGroupId": "consumer.config.0", "PropertyMap": {"aws.region": "eu-west-1", "flink.stream.initpos": "LATEST"}},
        {"PropertyGroupId": "Producer", "PropertyMap": {"aws.credentials.basic.secretkey": "very hidden"}}
    ]"#;

    #[test]
    fn the_file_of_the_managed_service_is_read_and_written() {
        let properties = RuntimeProperties::from_json(FILE).unwrap();
        assert_eq!(properties.group("consumer.config.0").len(), 2);
        assert_eq!(properties.group("consumer.config.0")["aws.region"], "eu-west-1");
        assert_eq!(RuntimeProperties::from_json(&properties.to_json().unwrap()).unwrap(), properties);
        assert!(RuntimeProperties::from_json("[]").unwrap().is_empty());
    }

    #[test]
    fn an_assignment_names_group_and_key() {
        let mut properties = RuntimeProperties::from_json(FILE).unwrap();
        properties.set_assignment("consumer.config.0:aws.endpoint=http://127.0.0.1:1?a=b").unwrap();
        assert_eq!(properties.group("consumer.config.0")["aws.endpoint"], "http://127.0.0.1:1?a=b");
        properties.set_assignment("New:a:b=c").unwrap();
        assert_eq!(properties.group("New")["a:b"], "c");
        for text in ["New.key=hidden", "New:key", "=hidden"] {
            let error = properties.set_assignment(text).unwrap_err().to_string();
            assert!(error.contains("GROUP:KEY=VALUE") && !error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn secrets_are_shown_to_nobody() {
        let properties = RuntimeProperties::from_json(FILE).unwrap();
        let texts = [format!("{properties:?}"), properties.shown().to_json().unwrap()];
        for text in texts {
            assert!(
                text.contains(HIDDEN) && text.contains("eu-west-1") && !text.contains("very hidden"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        let group = |id: &str, map: &str| format!(r#"[{{"PropertyGroupId": "{id}", "PropertyMap": {map}}}]"#);
        let many =
            |number: usize, one: &dyn Fn(usize) -> String| (0..number).map(one).collect::<Vec<_>>().join(",");
        let twice = format!("[{0},{0}]", r#"{"PropertyGroupId": "A", "PropertyMap": {"a": "b"}}"#);
        let groups = many(51, &|n| format!(r#"{{"PropertyGroupId": "A{n}", "PropertyMap": {{"a": "b"}}}}"#));
        let large = many(20, &|n| {
            let map = many(4, &|key| format!(r#""{key}": "{}""#, "x".repeat(2_000)));
            format!(r#"{{"PropertyGroupId": "A{n}", "PropertyMap": {{{map}}}}}"#)
        });
        for (text, expected) in [
            (r#"{"A": {"a": "b"}}"#.to_owned(), "no JSON array of property groups"),
            (group("A", r#"{"a": 5}"#), "line 1 column"),
            (r#"[{"PropertyGroup": "A", "PropertyMap": {}}]"#.to_owned(), "unknown field `PropertyGroup`"),
            (twice, "is there twice"),
            (group("a b", r#"{"a": "b"}"#), "letters, digits, dots"),
            (group("", r#"{"a": "b"}"#), "is no id of a property group"),
            (group("A", "{}"), "leave an empty one out"),
            (group("A", &format!("{{{}}}", many(51, &|n| format!(r#""{n}": "b""#)))), "has 51 properties"),
            (group("A", r#"{"a": ""}"#), "a value of 0 characters"),
            (group("A", &format!(r#"{{"a": "{}"}}"#, "x".repeat(2_049))), "a value of 2049 characters"),
            (format!("[{groups}]"), "at most 50 are allowed"),
            (format!("[{large}]"), "put what is large into a file"),
        ] {
            let error = RuntimeProperties::from_json(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
