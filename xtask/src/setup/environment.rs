//! What every cargo command needs in its environment: where libclang and the RocksDB archive are.
//!
//! It is handed to the cargo commands that we start and written to `.cargo/machine.toml`, which `.cargo/config.toml`
//! includes when it exists, so that plain cargo commands and editors find the same.
//! Invariants: a value that the user has set is never replaced; the file changes only when a value does.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// Relative to the workspace's root; git ignores it.
const MACHINE_CONFIGURATION: &str = ".cargo/machine.toml";

/// Variables for cargo. Empty when nothing was found that is not found by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildEnvironment {
    variables: Vec<(&'static str, OsString)>,
}

impl BuildEnvironment {
    /// Sets a variable to the user's value, if there is one, or to this.
    pub fn set_default(&mut self, name: &'static str, value: impl Into<OsString>) {
        match env::var_os(name).filter(|present| !present.is_empty()) {
            Some(present) => self.set(name, present),
            None => self.set(name, value),
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.variables.retain(|(present, _)| *present != name);
        self.variables.push((name, value.into()));
    }

    pub fn apply(&self, command: &mut Command) {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Writes the variables where plain cargo commands find them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, root: &Path) -> Result<()> {
        let path = root.join(MACHINE_CONFIGURATION);
        let text = self.to_toml();
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn to_toml(&self) -> String {
        let mut toml = String::from(
            "# What `cargo xtask setup` found on this machine. It is written again by every run.\n[env]\n",
        );
        for (name, value) in &self.variables {
            let value = value.to_string_lossy().replace('\\', r"\\").replace('"', "\\\"");
            // Writing to a string cannot fail.
            let _ = writeln!(toml, "{name} = \"{value}\"");
        }
        toml
    }

    /// One line for each variable, for people.
    pub fn describe(&self) -> String {
        self.variables.iter().map(|(name, value)| format!("{name}={}\n", value.to_string_lossy())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_a_cargo_configuration() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(root.path().join(".cargo")).expect("directory");
        let mut environment = BuildEnvironment::default();
        environment.set("ROCKSDB_LIB_DIR", "/somewhere");
        environment.set("ROCKSDB_LIB_DIR", "/a \"quoted\" place");
        environment.set("ROCKSDB_STATIC", "1");
        environment.save(root.path()).expect("written");
        let text = fs::read_to_string(root.path().join(MACHINE_CONFIGURATION)).expect("readable");
        let (_, variables) = text.split_once("[env]\n").expect("a table");
        assert_eq!(variables, "ROCKSDB_LIB_DIR = \"/a \\\"quoted\\\" place\"\nROCKSDB_STATIC = \"1\"\n");
    }

    #[test]
    fn what_the_user_has_set_stays() {
        let mut environment = BuildEnvironment::default();
        environment.set_default("PATH", "/nowhere");
        environment.set_default("THALWEG_NO_SUCH_VARIABLE", "/somewhere");
        let path = env::var("PATH").expect("set");
        assert_eq!(environment.describe(), format!("PATH={path}\nTHALWEG_NO_SUCH_VARIABLE=/somewhere\n"));
    }
}
