//! Configuration files: flat `key: value` lines with `#` comments, as in `flink-conf.yaml`.
//!
//! A subset of YAML on purpose: a line is a setting or it is wrong, and the error tells which line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::limits::MAX_CONFIG_FILE_BYTES;

use super::{ConfigError, Configuration, checked};

impl Configuration {
    /// Reads settings from lines of the form `key: value`. Empty lines and lines that start with `#` are skipped; a `#`
    /// after a blank starts a comment; a value may stand in single or double quotes.
    ///
    /// # Errors
    /// The first wrong line, by its number.
    pub fn from_yaml_like(text: &str) -> Result<Self, ConfigError> {
        let mut configuration = Self::new();
        let mut first_lines = BTreeMap::new();
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            configuration
                .read_line(text, line, &mut first_lines)
                .map_err(|problem| ConfigError::Line { line, problem: Box::new(problem) })?;
        }
        Ok(configuration)
    }

    /// Reads settings from a file, see [`Configuration::from_yaml_like`].
    ///
    /// # Errors
    /// If the file cannot be read, or its first wrong line.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason| ConfigError::Unreadable { path: path.to_owned(), reason };
        let mut text = String::new();
        let mut bounded = File::open(path).map_err(unreadable)?.take(MAX_CONFIG_FILE_BYTES + 1);
        bounded.read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_CONFIG_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), limit_bytes: MAX_CONFIG_FILE_BYTES });
        }
        Self::from_yaml_like(&text)
            .map_err(|problem| ConfigError::File { path: path.to_owned(), problem: Box::new(problem) })
    }

    fn read_line(
        &mut self,
        text: &str,
        line: usize,
        first_lines: &mut BTreeMap<&'static str, usize>,
    ) -> Result<(), ConfigError> {
        let setting = text.trim_start_matches('\u{feff}').trim();
        if setting.is_empty() || setting.starts_with('#') || setting == "---" {
            return Ok(());
        }
        let not_a_setting = || ConfigError::NotASetting {
            text: setting.to_owned(),
            form: "key: value",
            example: "parallelism.default: 4",
        };
        let (key, rest) = setting.split_once(':').ok_or_else(not_a_setting)?;
        if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
            return Err(not_a_setting());
        }
        let value = value_of(rest).ok_or_else(not_a_setting)?;
        let (key, value) = checked(key.trim(), value)?;
        if let Some(first_line) = first_lines.insert(key.name, line) {
            return Err(ConfigError::Duplicate { key: key.name, first_line });
        }
        self.values.insert(key.name.to_owned(), value);
        Ok(())
    }
}

/// What stands behind the colon, without quotes and comment; `None` if a quote is not closed, text follows a closed one,
/// or nothing is there.
fn value_of(rest: &str) -> Option<&str> {
    let rest = rest.trim();
    if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (value, after) = rest[1..].split_once(quote)?;
        let after = after.trim();
        return (after.is_empty() || after.starts_with('#')).then_some(value);
    }
    let comment = rest.char_indices().find(|&(at, character)| {
        character == '#' && rest[..at].chars().next_back().is_none_or(char::is_whitespace)
    });
    let value = comment.map_or(rest, |(at, _)| &rest[..at]).trim();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::keys;

    fn error(text: &str) -> String {
        Configuration::from_yaml_like(text).expect_err("this text is wrong").to_string()
    }

    #[test]
    fn lines_comments_and_quotes() {
        let configuration = Configuration::from_yaml_like(
            "\u{feff}---\n# comment\n\n  heartbeat.interval: 1 s   # comment\r\npipeline.name: \"a # b: c\" # comment\n\
             execution.checkpointing.dir: file:///data/c#1\njobmanager.rpc.address: 'jm-1:6123,jm-2:6123'\n\
             taskmanager.numberOfTaskSlots:\t8",
        )
        .expect("all lines are right");
        assert_eq!(configuration.duration(&keys::HEARTBEAT_INTERVAL), Some(Duration::from_secs(1)));
        assert_eq!(configuration.text(&keys::PIPELINE_NAME), Some("a # b: c"));
        assert_eq!(configuration.text(&keys::CHECKPOINTING_DIRECTORY), Some("file:///data/c#1"));
        assert_eq!(configuration.text(&keys::JOB_MANAGER_ADDRESS), Some("jm-1:6123,jm-2:6123"));
        assert_eq!(configuration.integer(&keys::TASK_SLOTS), Some(8));
        assert_eq!(configuration.iter().count(), 5);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, wanted) in [
            (
                "heartbeat.interval: 1 s\n\nhearbeat.timeout: 2 s",
                "line 3: unknown configuration key `hearbeat.timeout`; did you mean `heartbeat.timeout`?",
            ),
            (
                "heartbeat.interval 1 s",
                "line 1: `heartbeat.interval 1 s` is not a setting; write `key: value`, for example \
                 `parallelism.default: 4`",
            ),
            (
                "taskmanager:\n  numberOfTaskSlots: 4",
                "line 1: `taskmanager:` is not a setting; write `key: value`, for example `parallelism.default: 4`",
            ),
            (
                "# x\nparallelism.default:4",
                "line 2: `parallelism.default:4` is not a setting; write `key: value`, for example \
                 `parallelism.default: 4`",
            ),
            (
                "parallelism.default: many",
                "line 1: `parallelism.default` cannot be `many`; write a whole number from 1 to 32768, for example `4`",
            ),
            (
                "restart-strategy: none\nrestart-strategy.type: none",
                "line 2: `restart-strategy.type` is already set in line 1; remove one of the two lines",
            ),
            (
                "pipeline.name: \"open",
                "line 1: `pipeline.name: \"open` is not a setting; write `key: value`, for example \
                 `parallelism.default: 4`",
            ),
        ] {
            assert_eq!(error(text), wanted);
        }
    }

    #[test]
    fn files_are_read_and_named_in_errors() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("thalweg.yaml");
        std::fs::write(&path, "parallelism.default: 3\n").expect("writable");
        let configuration = Configuration::from_file(&path).expect("the file is right");
        assert_eq!(configuration.integer(&keys::PARALLELISM_DEFAULT), Some(3));

        std::fs::write(&path, "parallelism.default: 3\nnonsense\n").expect("writable");
        let error = Configuration::from_file(&path).expect_err("line 2 is wrong").to_string();
        assert!(error.contains("thalweg.yaml, line 2: `nonsense` is not a setting"), "{error}");

        let error = Configuration::from_file(&directory.path().join("missing"))
            .expect_err("no such file")
            .to_string();
        assert!(error.contains("missing: No such file") && error.contains("check its path"), "{error}");

        std::fs::write(&path, " ".repeat(MAX_CONFIG_FILE_BYTES as usize + 1)).expect("writable");
        assert!(matches!(Configuration::from_file(&path), Err(ConfigError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "(?s).{0,200}") {
            let _ = Configuration::from_yaml_like(&text);
        }

        #[test]
        fn any_quoted_name_is_read_back(name in "[^\"\\r\\n]{0,40}[a-z]") {
            let configuration = Configuration::from_yaml_like(&format!("pipeline.name: \"{name}\" # c")).expect("valid");
            prop_assert_eq!(configuration.text(&keys::PIPELINE_NAME), Some(name.trim()));
        }
    }
}
