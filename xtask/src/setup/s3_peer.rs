//! The S3 that tests run against: `ministack`, a Python program, installed once into the cache in an environment of its own.
//!
//! Invariants: the program appears under its final name only when it is complete; two setups at once install it once; the
//! version is part of the place, so that another version never takes over.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::environment::BuildEnvironment;
use super::packages::is_program;
use crate::clock::{Stopwatch, seconds};
use crate::exit::MachineLacks;

/// The package and its version. Its own dependencies are those that its authors allow.
const PACKAGE: &str = "ministack";
const VERSION: &str = "1.5.33";

/// Without it the peer does not read the protocol in which CloudWatch is spoken to.
const ADDITION: &str = "cbor2==6.2.1";

/// Tells tests where the program is.
const VARIABLE: &str = "THALWEG_S3_PEER";

/// Installs the peer when it is missing, and tells tests where it is.
///
/// # Errors
/// [`MachineLacks`] with what to do by hand.
pub fn ensure(environment: &mut BuildEnvironment) -> Result<()> {
    if let Some(chosen) = env::var_os(VARIABLE)
        && Path::new(&chosen).is_file()
    {
        environment.set(VARIABLE, chosen);
        return Ok(());
    }
    let directory = super::cache_directory()?.join("peers").join(format!("{PACKAGE}-{VERSION}"));
    let program = directory.join("bin").join(PACKAGE);
    // Written last: without it somebody was interrupted.
    let complete = directory.join("complete");
    if !is_complete(&complete) {
        install(&directory, &complete).map_err(|error| MachineLacks(advice(&directory, &error)))?;
    }
    environment.set(VARIABLE, program);
    Ok(())
}

/// Whether everything is there; an older setup may have left something out.
fn is_complete(complete: &Path) -> bool {
    fs::read_to_string(complete).is_ok_and(|text| text == marker())
}

fn marker() -> String {
    format!("{VERSION} {ADDITION}")
}

fn advice(directory: &Path, error: &anyhow::Error) -> String {
    let directory = directory.display();
    format!(
        "the S3 peer of the tests ({PACKAGE} {VERSION}) could not be installed ({error:#}). It needs python3 with venv and pip \
         (Debian: apt-get install -y python3-venv) and access to a Python package index. Or install it by hand, \
         python3 -m venv {directory} && {directory}/bin/pip install {PACKAGE}=={VERSION} {ADDITION}, and set {VARIABLE} to \
         {directory}/bin/{PACKAGE}"
    )
}

fn install(directory: &Path, complete: &Path) -> Result<()> {
    let parent = directory.parent().context("the cache directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = File::create(parent.join(format!("{PACKAGE}-{VERSION}.lock")))
        .context("cannot create the lock file")?;
    lock.lock().context("cannot wait for another installation")?;
    if is_complete(complete) {
        return Ok(()); // Whoever held the lock has installed it.
    }
    if !is_program("python3") {
        bail!("there is no python3");
    }
    let stopwatch = Stopwatch::start();
    eprintln!(
        "    installing {PACKAGE} {VERSION} into {}: half a minute, once on this machine",
        directory.display()
    );
    // An interrupted installation is begun anew. Scripts name their interpreter by its path, so nothing can be moved later.
    if !complete.is_file() && directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
    let requirement = format!("{PACKAGE}=={VERSION}");
    let install = ["install", "--quiet", "--no-input", &requirement, ADDITION];
    run(Command::new(directory.join("bin/pip")).args(install))?;
    let program = directory.join("bin").join(PACKAGE);
    if !program.is_file() {
        bail!("it was installed, but there is no {}", program.display());
    }
    fs::write(complete, marker()).with_context(|| format!("cannot write {}", complete.display()))?;
    eprintln!("    {PACKAGE} installed in {}", seconds(stopwatch.elapsed()));
    Ok(())
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
        let advice = advice(Path::new("/cache/peers/ministack-1.5.33"), &anyhow!("there is no python3"));
        assert!(
            advice.contains("there is no python3") && advice.contains("apt-get install -y python3-venv"),
            "{advice}"
        );
        assert!(
            advice.contains("/cache/peers/ministack-1.5.33/bin/pip install ministack==1.5.33 cbor2==6.2.1"),
            "{advice}"
        );
        assert!(advice.contains("THALWEG_S3_PEER"), "{advice}");
    }

    #[test]
    fn a_program_that_fails_says_so() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("it fails").to_string();
        assert!(error.starts_with("sh failed (exit status: 3"), "{error}");
    }
}
