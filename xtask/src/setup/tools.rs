//! Cargo's companions: rustfmt, clippy, cargo-nextest and cargo-deny.
//!
//! The last two are installed at a pinned version when they are missing. An installed one of another version is used as
//! it is: whoever installed it had a reason.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::cargo;
use crate::clock::{Stopwatch, seconds};
use crate::exit::MachineLacks;

/// A subcommand of cargo that a command of ours needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Rustfmt,
    Clippy,
    Nextest,
    Deny,
}

impl Tool {
    fn subcommand(self) -> &'static str {
        match self {
            Self::Rustfmt => "fmt",
            Self::Clippy => "clippy",
            Self::Nextest => "nextest",
            Self::Deny => "deny",
        }
    }

    /// The program and arguments that install it. Without optimisation: these tools wait for others most of their time,
    /// and it halves what installing them costs.
    fn installation(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Rustfmt => ("rustup", &["component", "add", "rustfmt"]),
            Self::Clippy => ("rustup", &["component", "add", "clippy"]),
            Self::Nextest => (
                "cargo",
                &[
                    "install",
                    "--locked",
                    "--debug",
                    "--no-default-features",
                    "--features=default-no-update",
                    "cargo-nextest@0.9.143",
                ],
            ),
            Self::Deny => ("cargo", &["install", "--locked", "--debug", "cargo-deny@0.20.2"]),
        }
    }

    /// What `cargo <subcommand> --version` says, when it exists.
    fn version(self) -> Option<String> {
        let output = Command::new(cargo::program()).args([self.subcommand(), "--version"]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
    }
}

/// Installs the tool when it is missing.
///
/// # Errors
/// [`MachineLacks`] with the command to run by hand.
pub fn ensure(tool: Tool) -> Result<()> {
    if tool.version().is_some() {
        return Ok(());
    }
    let (program, arguments) = tool.installation();
    let line = format!("{program} {}", arguments.join(" "));
    eprintln!("    `cargo {}` is missing; installing it, a few minutes, once: {line}", tool.subcommand());
    let stopwatch = Stopwatch::start();
    let status = Command::new(program)
        .args(arguments)
        // Away from this workspace: its target directory, its configuration, its profiles.
        .current_dir(env::temp_dir())
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0")
        .status();
    match status {
        Ok(status) if status.success() && tool.version().is_some() => {
            eprintln!("    `cargo {}` installed in {}", tool.subcommand(), seconds(stopwatch.elapsed()));
            Ok(())
        }
        Ok(status) => Err(lacks(tool, &line, &status.to_string())),
        Err(error) => Err(lacks(tool, &line, &error.to_string())),
    }
}

fn lacks(tool: Tool, line: &str, why: &str) -> anyhow::Error {
    MachineLacks(format!(
        "`cargo {}` is missing and could not be installed ({why}). Run: {line}",
        tool.subcommand()
    ))
    .into()
}

/// One line for people: what is there and in which version.
pub fn describe(tool: Tool) -> String {
    tool.version().unwrap_or_else(|| format!("cargo {}: missing", tool.subcommand()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installations_are_pinned_and_locked() {
        for tool in [Tool::Nextest, Tool::Deny] {
            let (program, arguments) = tool.installation();
            assert_eq!(program, "cargo");
            assert!(arguments.contains(&"--locked"), "{arguments:?}");
            let package = arguments.last().expect("the package comes last");
            let (_, version) = package.split_once('@').expect("a pinned version");
            assert_eq!(version.split('.').count(), 3, "{package}");
        }
    }

    #[test]
    fn a_failure_names_the_command_to_run() {
        let (program, arguments) = Tool::Deny.installation();
        let error = lacks(Tool::Deny, &format!("{program} {}", arguments.join(" ")), "exit status: 101");
        assert!(
            error.to_string().ends_with("Run: cargo install --locked --debug cargo-deny@0.20.2"),
            "{error}"
        );
        assert!(error.is::<MachineLacks>());
    }
}
