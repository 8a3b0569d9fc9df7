//! The workspace's own programs, built in release and found.
//!
//! Invariant: paths come from cargo's answer, so that target directories, profiles and renamed programs need no guess.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{Cargo, display};
use crate::clock::{Stopwatch, seconds};

/// What is installed on machines of a cluster. Everything that needs a cluster takes it from this one build, because other selections
/// of packages have other features of what they share, and compile all of it again. Job binaries are apart: RocksDB, which the job
/// manager needs, is not to end up in them.
const CLUSTER: [&str; 8] = [
    "build",
    "--release",
    "--package=thalweg-jobmanager",
    "--package=thalweg-taskmanager",
    "--package=thalweg-cli",
    "--features=thalweg-cli/rocksdb",
    "--bins",
    MESSAGES,
];
/// Jobs that need no service, as the pages about them build them.
const EXAMPLES: [&str; 5] = ["build", "--release", "--package=thalweg-examples", "--examples", MESSAGES];
/// The measurements, and their jobs.
const BENCHES: [&str; 6] =
    ["build", "--release", "--package=thalweg-benches", "--bins", "--examples", MESSAGES];
/// A measurement of a job that is built as for production, with the instructions that this machine has.
const PRODUCTION: [&str; 6] = [
    "build",
    "--profile=production",
    "--config=build.rustflags=['-Ctarget-cpu=native']",
    "--package=thalweg-benches",
    MESSAGES,
    "--bin",
];
/// What a run under kills starts, and itself.
const CHAOS: [&str; 7] = [
    "build",
    "--release",
    "--package=thalweg-jobmanager",
    "--package=thalweg-taskmanager",
    "--package=thalweg-chaos-tests",
    "--bins",
    MESSAGES,
];
/// The programs of the step of the same name in `cargo xtask test`.
const DEVELOPMENT: [&str; 5] = ["build", "--workspace", "--bins", "--examples", MESSAGES];
const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// What a demonstration or a measurement starts.
#[derive(Debug, Clone)]
pub struct Programs {
    pub jobmanager: PathBuf,
    pub taskmanager: PathBuf,
    /// The command line client.
    pub thalweg: PathBuf,
    pub word_count: PathBuf,
}

/// The programs that cargo built, by name.
#[derive(Debug)]
pub struct Built(Vec<(String, PathBuf)>);

impl Built {
    /// Builds, in release, the programs of a cluster and jobs for it.
    ///
    /// # Errors
    /// When a build fails.
    pub fn cluster_and_examples(cargo: &Cargo) -> Result<Self> {
        Self::all(cargo, &[&CLUSTER, &EXAMPLES])
    }

    /// Builds the measurements in release, and what they start.
    ///
    /// # Errors
    /// When a build fails.
    pub fn benches(cargo: &Cargo) -> Result<Self> {
        Self::all(cargo, &[&CLUSTER, &EXAMPLES, &BENCHES])
    }

    /// Builds a measurement that starts no program but itself, as jobs are built for production.
    ///
    /// # Errors
    /// When the build fails.
    pub fn production_bench(cargo: &Cargo, name: &str) -> Result<Self> {
        Self::all(cargo, &[&[&PRODUCTION[..], &[name]].concat()])
    }

    /// Builds, in release, what a run under kills needs. All of it is in one directory, where the run looks for it.
    ///
    /// # Errors
    /// When a build fails.
    pub fn chaos(cargo: &Cargo) -> Result<Self> {
        Self::all(cargo, &[&CHAOS])
    }

    /// Builds, in release, what a package holds.
    ///
    /// # Errors
    /// When a build fails.
    pub fn package(cargo: &Cargo) -> Result<Self> {
        Self::all(cargo, &[&CLUSTER])
    }

    /// What the tests have built, with everything that they need.
    ///
    /// # Errors
    /// When a build fails.
    pub fn development(cargo: &Cargo) -> Result<Self> {
        Self::all(cargo, &[&DEVELOPMENT])
    }

    fn all(cargo: &Cargo, selections: &[&[&str]]) -> Result<Self> {
        let stopwatch = Stopwatch::start();
        let mut built = Vec::new();
        for arguments in selections {
            built.extend(build(cargo, arguments)?);
        }
        eprintln!("    built in {}", seconds(stopwatch.elapsed()));
        Ok(Self(built))
    }

    /// Programs that somebody has built already, by the names of their files.
    pub fn in_directory(directory: &Path, names: &[&str]) -> Self {
        Self::of(names.iter().map(|name| ((*name).to_owned(), directory.join(name))))
    }

    /// These programs.
    pub fn of(programs: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        Self(programs.into_iter().collect())
    }

    /// # Errors
    /// When the workspace has no such program.
    pub fn find(&self, name: &str) -> Result<&Path> {
        let found = self.0.iter().find(|(candidate, _)| candidate == name);
        found
            .map(|(_, path)| path.as_path())
            .with_context(|| format!("the workspace has no program `{name}`"))
    }

    /// # Errors
    /// When one of them does not exist.
    pub fn cluster(&self) -> Result<Programs> {
        let find = |name| self.find(name).map(Path::to_path_buf);
        Ok(Programs {
            jobmanager: find("jobmanager")?,
            taskmanager: find("taskmanager")?,
            thalweg: find("thalweg")?,
            word_count: find("word_count")?,
        })
    }
}

fn build(cargo: &Cargo, arguments: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    eprintln!("==> build: {}", display(arguments));
    let output = cargo.command(arguments).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", display(arguments), output.status);
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Names and paths of the programs in cargo's messages, one JSON object a line.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"thalweg_common"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"jobmanager"},"executable":"/t/release/jobmanager"}
{"reason":"compiler-artifact","target":{"kind":["example"],"name":"word_count"},"executable":"/t/release/examples/word_count"}
not json
{"reason":"build-finished","success":true}
"#;
        let built = Built(executables(messages));
        assert_eq!(built.find("jobmanager").expect("built"), Path::new("/t/release/jobmanager"));
        assert_eq!(built.find("word_count").expect("built"), Path::new("/t/release/examples/word_count"));
        assert!(built.cluster().expect_err("not all were built").to_string().contains("taskmanager"));
    }
}
