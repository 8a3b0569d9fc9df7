//! Running cargo: the same program, in the workspace's root, with the environment that the setup found.
//!
//! Invariant: what `cargo run` put into this process' environment (`CARGO_PKG_*`, `CARGO_MANIFEST_*`, ...) is not handed
//! on. Some build scripts are run again whenever one of those changes, so a build started from here and one started by
//! hand would undo each other.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::BuildEnvironment;
use crate::workspace::Workspace;

/// Starts cargo in a workspace.
#[derive(Debug)]
pub struct Cargo {
    root: PathBuf,
    environment: BuildEnvironment,
}

/// The cargo that runs us, or the one in the path.
pub fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

impl Cargo {
    pub fn new(workspace: &Workspace, environment: BuildEnvironment) -> Self {
        Self { root: workspace.root.clone(), environment }
    }

    /// A cargo command that is not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_set_by_cargo_run) {
                command.env_remove(name);
            }
        }
        self.environment.apply(&mut command);
        command
    }

    /// Runs cargo with our own input and output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the text holds the whole command, to be repeated by hand.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        let status = self.command(arguments).status().context("cannot start cargo")?;
        if !status.success() {
            bail!("`{}` failed ({status})", display(arguments));
        }
        Ok(())
    }
}

/// The command as one would type it.
pub fn display(arguments: &[&str]) -> String {
    arguments.iter().fold(String::from("cargo"), |mut line, argument| {
        let quoted = argument.contains([' ', '(', '\'', '&', '|']);
        // Writing to a string cannot fail.
        let _ = if quoted { write!(line, " \"{argument}\"") } else { write!(line, " {argument}") };
        line
    })
}

fn is_set_by_cargo_run(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || matches!(name, "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        assert_eq!(display(&["clippy", "--", "-D", "warnings"]), "cargo clippy -- -D warnings");
        assert_eq!(
            display(&["nextest", "-E", "not package(chaos)"]),
            "cargo nextest -E \"not package(chaos)\""
        );
    }

    #[test]
    fn only_variables_of_cargo_run_are_withheld() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"] {
            assert!(is_set_by_cargo_run(name), "{name}");
        }
        for name in ["CARGO_TARGET_DIR", "CARGO_INCREMENTAL", "CARGO_HOME", "CARGO", "PATH", "RUSTFLAGS"] {
            assert!(!is_set_by_cargo_run(name), "{name}");
        }
    }
}
