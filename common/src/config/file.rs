//! Configuration files: YAML as in Flink's `config.yaml`, keys flat, nested, or both.
//!
//! ```yaml
//! taskmanager:
//!   numberOfTaskSlots: 4
//!   memory.managed.size: 2 gb      # a part of a key may have dots itself
//! execution.checkpointing.interval: 10 s
//! jobmanager.rpc.address: [jm-1, jm-2, jm-3]
//! ```
//! A list is the same as its elements with commas between them. Invariant: what is wrong is refused with its line, and nothing
//! is taken for something else: a key that is set twice, a key without a value, an alias and a second document are errors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::limits::{MAX_CONFIG_DEPTH, MAX_CONFIG_FILE_BYTES};

use super::{ConfigError, ConfigKey, Configuration, checked};

/// A setting of a text, in the canonical form of its key.
#[derive(Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) key: &'static ConfigKey,
    pub(super) value: String,
    /// Where its value stands, counted from 1.
    pub(super) line: usize,
}

impl Configuration {
    /// Reads settings from YAML: mappings of keys, which may be nested, to values or lists of values.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Ok(Self::of(read(text)?))
    }

    /// Reads settings from a file, see [`Configuration::from_yaml`].
    ///
    /// # Errors
    /// If the file cannot be read, or the first thing that is wrong in it.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::of(read_file(path)?))
    }

    fn of(settings: Vec<Setting>) -> Self {
        let values = settings.into_iter().map(|setting| (setting.key.name.to_owned(), setting.value));
        Self { values: values.collect() }
    }
}

/// The settings of a file, in its order.
pub(super) fn read_file(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let unreadable = |reason| ConfigError::Unreadable { path: path.to_owned(), reason };
    let mut text = String::new();
    let mut bounded = File::open(path).map_err(unreadable)?.take(MAX_CONFIG_FILE_BYTES + 1);
    bounded.read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_CONFIG_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit_bytes: MAX_CONFIG_FILE_BYTES });
    }
    read(&text).map_err(|problem| ConfigError::File { path: path.to_owned(), problem: Box::new(problem) })
}

/// The settings of a text, in its order.
pub(super) fn read(text: &str) -> Result<Vec<Setting>, ConfigError> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, line) = match event {
            Ok((event, span)) => (event, span.start.line()),
            Err(error) => {
                let problem = ConfigError::NotYaml { reason: error.info().to_owned() };
                return Err(at(error.marker().line(), problem));
            }
        };
        reader.take(event, line).map_err(|problem| at(line, problem))?;
    }
    Ok(reader.settings)
}

fn at(line: usize, problem: ConfigError) -> ConfigError {
    ConfigError::Line { line, problem: Box::new(problem) }
}

/// What has begun and not ended.
enum Open {
    /// A mapping, with the key whose value comes next.
    Mapping(Option<String>),
    /// A list of values.
    List(Vec<String>),
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    documents: usize,
    settings: Vec<Setting>,
    first_lines: BTreeMap<&'static str, usize>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), ConfigError> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(not_read("a second document begins here; keep one"));
                }
            }
            Event::MappingStart(..) => return self.begin_mapping(),
            Event::MappingEnd => {
                self.open.pop();
                self.value_ended();
            }
            Event::SequenceStart(..) => match self.open.last() {
                Some(Open::Mapping(Some(_))) => self.open.push(Open::List(Vec::new())),
                _ => return Err(not_read("a list can only be the value of a key")),
            },
            Event::SequenceEnd => {
                if let Some(Open::List(elements)) = self.open.pop() {
                    return self.set(elements.join(","), line);
                }
            }
            Event::Scalar(text, style, ..) => return self.scalar(&text, style, line),
            Event::Alias(_) => return Err(not_read("an alias stands for a value here; write the value")),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin_mapping(&mut self) -> Result<(), ConfigError> {
        match self.open.last() {
            None | Some(Open::Mapping(Some(_))) if self.open.len() < MAX_CONFIG_DEPTH => {
                self.open.push(Open::Mapping(None));
                Ok(())
            }
            None | Some(Open::Mapping(Some(_))) => Err(not_read("keys are nested too deeply")),
            Some(_) => Err(not_read("keys can only be nested below a key")),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, line: usize) -> Result<(), ConfigError> {
        let empty = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null");
        match self.open.last_mut() {
            Some(Open::Mapping(key @ None)) => *key = Some(text.trim().to_owned()),
            Some(Open::Mapping(Some(_))) if empty => return Err(not_a_setting(format!("{}:", self.key()))),
            Some(Open::Mapping(Some(_))) => return self.set(text.to_owned(), line),
            Some(Open::List(elements)) => elements.push(text.to_owned()),
            // A file of comments.
            None if empty => {}
            None => return Err(not_a_setting(text.to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, value: String, line: usize) -> Result<(), ConfigError> {
        let (key, value) = checked(&self.key(), &value)?;
        if let Some(first_line) = self.first_lines.insert(key.name, line) {
            return Err(ConfigError::Duplicate { key: key.name, first_line });
        }
        self.settings.push(Setting { key, value, line });
        self.value_ended();
        Ok(())
    }

    /// The whole key of the value that comes next.
    fn key(&self) -> String {
        let parts = self.open.iter().filter_map(|open| match open {
            Open::Mapping(key) => key.as_deref(),
            Open::List(_) => None,
        });
        parts.collect::<Vec<_>>().join(".")
    }

    fn value_ended(&mut self) {
        if let Some(Open::Mapping(key)) = self.open.last_mut() {
            *key = None;
        }
    }
}

fn not_read(reason: &str) -> ConfigError {
    ConfigError::NotYaml { reason: reason.to_owned() }
}

fn not_a_setting(text: String) -> ConfigError {
    ConfigError::NotASetting { text, form: "key: value", example: "parallelism.default: 4" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::keys;

    fn error(text: &str) -> String {
        Configuration::from_yaml(text).expect_err("this text is wrong").to_string()
    }

    #[test]
    fn lines_comments_and_quotes() {
        let configuration = Configuration::from_yaml(
            "\u{feff}---\n# comment\n\nheartbeat.interval: 1 s   # comment\r\npipeline.name: \"a # b: c\" # comment\n\
             execution.checkpointing.dir: file:///data/c#1\njobmanager.rpc.address: 'jm-1:6123,jm-2:6123'\n\
             taskmanager.numberOfTaskSlots:   8",
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
    fn keys_are_flat_nested_or_both_and_lists_are_joined() {
        let nested = Configuration::from_yaml(
            "taskmanager:\n  numberOfTaskSlots: 4\n  memory.managed:\n    size: 2 gb\n  state.local.root-dirs:\n    - /a\n    \
             - /b\njobmanager: {rpc.address: [jm-1, 'jm-2:6123'], rpc.port: 0}\n",
        );
        let flat = Configuration::from_yaml(
            "taskmanager.numberOfTaskSlots: 4\ntaskmanager.memory.managed.size: 2 gb\n\
             taskmanager.state.local.root-dirs: /a,/b\njobmanager.rpc.address: jm-1,jm-2:6123\njobmanager.rpc.port: 0",
        );
        assert_eq!(nested.expect("nested keys"), flat.expect("flat keys"));
        for nothing in ["", "# only a comment\n", "---\n", "{}"] {
            assert_eq!(Configuration::from_yaml(nothing).expect("no settings"), Configuration::new());
        }
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        for (text, line) in [
            ("heartbeat.interval: 1 s\npipeline.name: \"open", "line "),
            ("heartbeat:\n  interval: 2 s\n timeout: 3 s", "line 3: "),
        ] {
            let error = error(text);
            assert!(error.starts_with(line) && error.contains("settings are YAML"), "{error}");
        }
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
                "# x\nparallelism.default:4",
                "line 2: `parallelism.default:4` is not a setting; write `key: value`, for example \
                 `parallelism.default: 4`",
            ),
            (
                "taskmanager:\n  numberOfTaskSlot: 4",
                "line 2: unknown configuration key `taskmanager.numberOfTaskSlot`; did you mean \
                 `taskmanager.numberOfTaskSlots`?",
            ),
            (
                "taskmanager:\n  host:\n",
                "line 2: `taskmanager.host:` is not a setting; write `key: value`, for example `parallelism.default: 4`",
            ),
            (
                "heartbeat.interval: 1 s\n---\nheartbeat.interval: 2 s",
                "line 2: a second document begins here; keep one; settings are YAML, flat as in \
                 `parallelism.default: 4` or nested",
            ),
            (
                "pipeline.name: &n a\nparallelism.default: *n",
                "line 2: an alias stands for a value here; write the value; settings are YAML, flat as in \
                 `parallelism.default: 4` or nested",
            ),
            (
                "- parallelism.default: 4",
                "line 1: a list can only be the value of a key; settings are YAML, flat as in \
                 `parallelism.default: 4` or nested",
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
                "restart-strategy: {type: none}\nrestart-strategy.type: none",
                "line 2: `restart-strategy.type` is already set in line 1; remove one of the two lines",
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

        std::fs::write(&path, "parallelism.default: 3\nparallelism: 2\n").expect("writable");
        let error = Configuration::from_file(&path).expect_err("line 2 is wrong").to_string();
        assert!(error.contains("thalweg.yaml, line 2: unknown configuration key `parallelism`"), "{error}");

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
            let _ = Configuration::from_yaml(&text);
        }

        #[test]
        fn any_quoted_name_is_read_back(name in "[ -&(-~\u{a1}-\u{ff}]{0,40}[a-z]") {
            let configuration = Configuration::from_yaml(&format!("pipeline.name: '{name}' # c")).expect("valid");
            prop_assert_eq!(configuration.text(&keys::PIPELINE_NAME), Some(name.trim()));
        }
    }
}
