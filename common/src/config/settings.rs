//! The settings of a program, and where each of them comes from.
//!
//! Stands at the start of `jobmanager` and `taskmanager`. Later ones win: the file, [`PROPERTIES_VARIABLE`] in the environment, the
//! flags `-D`. Flags that have a name of their own win over all of them; their programs see to that.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::info;

use super::file::{Setting, read, read_file};
use super::{ConfigError, ConfigKey, Configuration, keys};

/// The environment variable with the directory of `config.yaml`, where no file is named; as `FLINK_CONF_DIR`.
pub const CONF_DIR_VARIABLE: &str = "THALWEG_CONF_DIR";

/// The environment variable with settings in the form of a file, for containers; as `FLINK_PROPERTIES`.
pub const PROPERTIES_VARIABLE: &str = "THALWEG_PROPERTIES";

/// The file in [`CONF_DIR_VARIABLE`].
const FILE_NAME: &str = "config.yaml";

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Where in it the value stands, counted from 1.
        line: usize,
    },
    /// The environment variable [`PROPERTIES_VARIABLE`].
    Environment {
        /// Where in it the value stands, counted from 1.
        line: usize,
    },
    /// A flag `-D`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment { line } => write!(formatter, "${PROPERTIES_VARIABLE}:{line}"),
            Self::Flag => formatter.write_str("-D"),
        }
    }
}

/// A configuration with the origin of everything that is set.
///
/// ```
/// use thalweg_common::config::{Origin, Settings, keys};
///
/// let environment = |name: &str| (name == "THALWEG_PROPERTIES").then(|| "heartbeat: {interval: 1 s, timeout: 5 s}".to_owned());
/// let settings = Settings::layered(None, environment, &["heartbeat.timeout=9 s".to_owned()])?;
/// assert_eq!(settings.configuration().text(&keys::HEARTBEAT_TIMEOUT), Some("9 s"));
/// assert_eq!(settings.origin(&keys::HEARTBEAT_TIMEOUT), Some(&Origin::Flag));
/// assert_eq!(settings.origin(&keys::HEARTBEAT_INTERVAL), Some(&Origin::Environment { line: 1 }));
/// assert_eq!(settings.origin(&keys::TASK_SLOTS), None, "the default");
/// # Ok::<(), thalweg_common::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    configuration: Configuration,
    origins: BTreeMap<&'static str, Origin>,
}

impl Settings {
    /// The settings of this process: of `file`, or else of `config.yaml` in [`CONF_DIR_VARIABLE`] if that is set; then those of
    /// its environment; then `assignments`, each `key=value`.
    ///
    /// # Errors
    /// If a file cannot be read, or the first setting that is wrong, with where it stands.
    pub fn load(file: Option<&Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        // What is not Unicode is no setting either, and is refused as such.
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::layered(file, variable, assignments)
    }

    /// The same with another environment.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn layered(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        assignments: &[String],
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        let usual = || environment(CONF_DIR_VARIABLE).map(|directory| Path::new(&directory).join(FILE_NAME));
        if let Some(path) = file.map(Path::to_owned).or_else(usual) {
            let read = read_file(&path)?;
            settings.layer(read, |line| Origin::File { path: path.clone(), line });
        }
        if let Some(text) = environment(PROPERTIES_VARIABLE) {
            let read = read(&text).map_err(|problem| ConfigError::Environment {
                variable: PROPERTIES_VARIABLE,
                problem: Box::new(problem),
            })?;
            settings.layer(read, |line| Origin::Environment { line });
        }
        for assignment in assignments {
            let key = settings.configuration.assign(assignment)?;
            settings.origins.insert(key.name, Origin::Flag);
        }
        Ok(settings)
    }

    fn layer(&mut self, settings: Vec<Setting>, origin: impl Fn(usize) -> Origin) {
        for Setting { key, value, line } in settings {
            self.configuration.values.insert(key.name.to_owned(), value);
            self.origins.insert(key.name, origin(line));
        }
    }

    /// What is set.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// What is set, without origins.
    #[must_use]
    pub fn into_configuration(self) -> Configuration {
        self.configuration
    }

    /// Where the key was set, or `None` if it has its default.
    #[must_use]
    pub fn origin(&self, key: &ConfigKey) -> Option<&Origin> {
        self.origins.get(key.name)
    }

    /// Writes what is set to the log, as the first lines of a program that starts.
    pub fn log(&self) {
        for (name, origin) in &self.origins {
            let value = keys::find(name).and_then(|key| self.configuration.text(key)).unwrap_or_default();
            info!("Loading configuration property: {name}, {value} ({origin})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn later_layers_win_and_every_setting_knows_its_own() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.yaml");
        let text = "# of this machine\ntaskmanager:\n  numberOfTaskSlots: 2\n  host: from-file\nparallelism.default: 3\n";
        std::fs::write(&path, text).expect("writable");
        let environment = |name: &str| match name {
            CONF_DIR_VARIABLE => Some(directory.path().display().to_string()),
            PROPERTIES_VARIABLE => {
                Some("taskmanager.host: from-environment\nparallelism.default: 5".to_owned())
            }
            _ => None,
        };
        let flags = ["parallelism.default=7".to_owned()];
        let settings = Settings::layered(None, environment, &flags).expect("all layers are right");
        let shown = |key| {
            let origin = settings.origin(key).expect("set").to_string();
            (settings.configuration().text(key).expect("set").to_owned(), origin)
        };
        assert_eq!(shown(&keys::TASK_SLOTS), ("2".into(), format!("{}:3", path.display())));
        assert_eq!(
            shown(&keys::TASK_MANAGER_HOST),
            ("from-environment".into(), "$THALWEG_PROPERTIES:1".into())
        );
        assert_eq!(shown(&keys::PARALLELISM_DEFAULT), ("7".into(), "-D".into()));
        assert_eq!(settings.origin(&keys::JOB_MANAGER_PORT), None);
    }

    #[test]
    fn a_named_file_takes_the_place_of_the_usual_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("mine");
        std::fs::write(&path, "parallelism.default: 3").expect("writable");
        let environment = |name: &str| (name == CONF_DIR_VARIABLE).then(|| "/nowhere".to_owned());
        let settings = Settings::layered(Some(&path), environment, &[]).expect("the named one is there");
        assert_eq!(settings.into_configuration().integer(&keys::PARALLELISM_DEFAULT), Some(3));

        let error = Settings::layered(None, environment, &[]).expect_err("the usual one is not").to_string();
        assert!(error.starts_with("cannot read the configuration file /nowhere/config.yaml: "), "{error}");
    }

    #[test]
    fn errors_name_the_layer() {
        let environment =
            |name: &str| (name == PROPERTIES_VARIABLE).then(|| "parallelism.default: many".to_owned());
        let error = Settings::layered(None, environment, &[]).expect_err("no number").to_string();
        assert!(
            error.starts_with(
                "environment variable THALWEG_PROPERTIES, line 1: `parallelism.default` cannot be"
            )
        );
        let flags = ["parallelism=3".to_owned()];
        let error = Settings::layered(None, nothing, &flags).expect_err("no such key").to_string();
        assert!(error.starts_with("unknown configuration key `parallelism`"), "{error}");
    }
}
