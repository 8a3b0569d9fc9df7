//! The programs that tests run against: an S3 (`ministack`, in Python) and a Kinesis (`kinesis-local`, in JavaScript), each installed once
//! into the cache, in a directory of its own.
//!
//! Invariants: a peer is used only when it is complete; two setups at once install it once; the version is part of the place, so that
//! another version never takes over.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::environment::BuildEnvironment;
use super::packages::is_program;
use crate::clock::{Stopwatch, seconds};
use crate::exit::MachineLacks;

/// A program that tests run against.
struct Peer {
    /// What it is for tests.
    role: &'static str,
    package: &'static str,
    /// Its own dependencies are those that its authors allow.
    version: &'static str,
    /// What it lacks that its package does not name.
    addition: Option<&'static str>,
    /// Tells tests where the program is.
    variable: &'static str,
    /// The program in its directory.
    program: &'static str,
    /// What installs it.
    installer: Installer,
}

#[derive(Clone, Copy)]
enum Installer {
    Pip,
    Npm,
}

const PEERS: [Peer; 2] = [
    Peer {
        role: "S3 peer",
        package: "ministack",
        version: "1.5.33",
        // Without it the peer does not read the protocol in which CloudWatch is spoken to.
        addition: Some("cbor2==6.2.1"),
        variable: "THALWEG_S3_PEER",
        program: "bin/ministack",
        installer: Installer::Pip,
    },
    Peer {
        role: "Kinesis peer",
        package: "kinesis-local",
        version: "0.6.2",
        addition: None,
        variable: "THALWEG_KINESIS_PEER",
        program: "node_modules/kinesis-local/main.js",
        installer: Installer::Npm,
    },
];

/// Installs the peers that are missing, and tells tests where they are.
///
/// # Errors
/// [`MachineLacks`] with what to do by hand.
pub fn ensure(environment: &mut BuildEnvironment) -> Result<()> {
    PEERS.iter().try_for_each(|peer| peer.ensure(environment))
}

impl Peer {
    fn ensure(&self, environment: &mut BuildEnvironment) -> Result<()> {
        if let Some(chosen) = env::var_os(self.variable)
            && Path::new(&chosen).is_file()
        {
            environment.set(self.variable, chosen);
            return Ok(());
        }
        let directory = super::cache_directory()?.join("peers").join(self.place());
        // Written last: without it somebody was interrupted.
        let complete = directory.join("complete");
        if !self.is_complete(&complete) {
            self.install(&directory, &complete)
                .map_err(|error| MachineLacks(self.advice(&directory, &error)))?;
        }
        environment.set(self.variable, self.program_in(&directory));
        Ok(())
    }

    /// Whether everything is there: an older setup may have left something out.
    fn is_complete(&self, complete: &Path) -> bool {
        fs::read_to_string(complete).is_ok_and(|contents| contents == self.contents())
    }

    fn contents(&self) -> String {
        [self.version].into_iter().chain(self.addition).collect::<Vec<_>>().join(" ")
    }

    fn place(&self) -> String {
        format!("{}-{}", self.package, self.version)
    }

    fn program_in(&self, directory: &Path) -> PathBuf {
        directory.join(self.program)
    }

    fn advice(&self, directory: &Path, error: &anyhow::Error) -> String {
        let Self { role, package, version, variable, .. } = self;
        let program = self.program_in(directory);
        let (needs, by_hand) = self.installer.by_hand(directory, self);
        format!(
            "the {role} of the tests ({package} {version}) could not be installed ({error:#}). It needs {needs}. Or install it by hand, \
             {by_hand}, and set {variable} to {}",
            program.display()
        )
    }

    fn install(&self, directory: &Path, complete: &Path) -> Result<()> {
        let parent = directory.parent().context("the cache directory has no parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        let lock = File::create(parent.join(format!("{}.lock", self.place())))
            .context("cannot create the lock file")?;
        lock.lock().context("cannot wait for another installation")?;
        if self.is_complete(complete) {
            return Ok(()); // Whoever held the lock has installed it.
        }
        let stopwatch = Stopwatch::start();
        let Self { package, version, .. } = self;
        eprintln!(
            "    installing {package} {version} into {}: half a minute, once on this machine",
            directory.display()
        );
        // An interrupted installation is begun anew. Scripts name their interpreter by its path, so nothing can be moved later.
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        self.installer.run(directory, self)?;
        let program = self.program_in(directory);
        if !program.is_file() {
            bail!("it was installed, but there is no {}", program.display());
        }
        fs::write(complete, self.contents())
            .with_context(|| format!("cannot write {}", complete.display()))?;
        eprintln!("    {package} installed in {}", seconds(stopwatch.elapsed()));
        Ok(())
    }
}

impl Installer {
    fn run(self, directory: &Path, peer: &Peer) -> Result<()> {
        let Peer { package, version, addition, .. } = peer;
        match self {
            Self::Pip => {
                if !is_program("python3") {
                    bail!("there is no python3");
                }
                run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
                let requirement = format!("{package}=={version}");
                let mut pip = Command::new(directory.join("bin/pip"));
                run(pip.args(["install", "--quiet", "--no-input", &requirement]).args(addition))
            }
            Self::Npm => {
                if !is_program("npm") || !is_program("node") {
                    bail!("there is no node with npm");
                }
                fs::create_dir_all(directory)
                    .with_context(|| format!("cannot create {}", directory.display()))?;
                let requirement = format!("{package}@{version}");
                let mut npm = Command::new("npm");
                npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
                run(npm.arg(directory).arg(requirement))
            }
        }
    }

    /// What it needs, and the commands that do the same.
    fn by_hand(self, directory: &Path, peer: &Peer) -> (&'static str, String) {
        let Peer { package, version, addition, .. } = peer;
        let addition = addition.map(|addition| format!(" {addition}")).unwrap_or_default();
        let directory = directory.display();
        match self {
            Self::Pip => (
                "python3 with venv and pip (Debian: apt-get install -y python3-venv) and access to a Python package index",
                format!(
                    "python3 -m venv {directory} && {directory}/bin/pip install {package}=={version}{addition}"
                ),
            ),
            Self::Npm => (
                "node and npm (Debian: apt-get install -y nodejs npm) and access to a registry of npm",
                format!("npm install --prefix {directory} {package}@{version}"),
            ),
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_advice_names_the_cause_and_a_command_that_can_be_pasted() {
        for (peer, cause, package, by_hand) in [
            (
                &PEERS[0],
                "there is no python3",
                "python3-venv",
                "/cache/x/bin/pip install ministack==1.5.33 cbor2==",
            ),
            (&PEERS[1], "there is no node", "nodejs", "npm install --prefix /cache/x kinesis-local@0.6.2"),
        ] {
            let advice = peer.advice(Path::new("/cache/x"), &anyhow!(cause));
            for part in [cause, package, by_hand, peer.variable] {
                assert!(advice.contains(part), "{advice}");
            }
        }
    }

    #[test]
    fn a_program_that_fails_says_so() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("it fails").to_string();
        assert!(error.starts_with("sh failed (exit status: 3"), "{error}");
    }
}
