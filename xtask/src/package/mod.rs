//! `cargo xtask package`: the Debian package of this machine's architecture.
//!
//! Builds the programs in release, lays them out with what is in `deploy/`, and lets `dpkg-deb` pack that. With `--verify` the package is
//! installed, used, upgraded and removed in a root that is thrown away: `deploy/debian/verify`.
//! Invariant: the tree is made anew each time, so that nothing of an earlier package is in the next one.

mod notices;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Cargo;
use crate::exit::MachineLacks;
use crate::program::Built;
use crate::setup;
use crate::steps::Outcome;
use crate::workspace::Workspace;

use tree::Package;

const HELP: &str = "\
Builds the Debian package for this machine's architecture and prints its path.

It holds the programs, their systemd units and /etc/thalweg/config.yaml; deploy/README.md says how to use it. Needs dpkg-deb,
gzip, md5sum and strip (packages dpkg, gzip, coreutils and binutils).

Usage: cargo xtask package [OPTIONS]

Options:
      --programs <DIRECTORY>  take the programs from here instead of building them in release, to try a package
      --verify                then install it, run jobs with what it has installed, upgrade it to a second version,
                              remove and purge it, and look at what is left; in an overlay over this machine's root, of
                              which nothing remains. Needs root
  -h, --help                  print this help

Examples:
  sudo apt install ./$(cargo xtask package)
  cargo xtask package --verify
  cargo xtask package --programs target/debug --verify

Exit codes: 0 built (and verified), 1 a build or a check failed, 2 bad arguments, 3 the machine lacks something.
";

/// What is behind the version of the second package: newer for dpkg, and the same programs.
const SECOND: &str = "+again";

/// What a package needs of this machine.
const NEEDS: [&str; 5] = ["dpkg-deb", "git", "gzip", "md5sum", "strip"];

/// The job with which an installed package shows that it works.
const JOB: &str = "unbounded_counter";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Where the programs are, if they are not to be built.
    programs: Option<PathBuf>,
    verify: bool,
}

/// `cargo xtask package`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    let Some(options) = read_arguments(arguments)? else { return Ok(()) };
    if let Some(missing) = missing() {
        return Err(MachineLacks(missing).into());
    }
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[])?);
    let package = Package::of_this_machine(&workspace)?;
    let package = if options.programs.is_some() { package.quickly() } else { package };
    let (built, job) = match &options.programs {
        Some(directory) => {
            let job = directory.join("examples").join(JOB);
            (Built::in_directory(directory, &tree::PROGRAMS.map(|(name, _)| name)), job)
        }
        None => {
            if options.verify {
                let built = Built::cluster_and_examples(&cargo)?;
                let job = built.find(JOB)?.to_owned();
                (built, job)
            } else {
                (Built::package(&cargo)?, PathBuf::new())
            }
        }
    };
    let file = build(&package, &workspace, &cargo, &built, options.verify.then_some(&job))?;
    println!("{}", file.strip_prefix(&workspace.root).unwrap_or(&file).display());
    Ok(())
}

/// What this machine lacks to build packages, and what to do about it.
fn missing() -> Option<String> {
    let missing: Vec<_> = NEEDS.into_iter().filter(|name| !setup::is_program(name)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "this machine lacks {}; install the packages dpkg, git, gzip, coreutils and binutils",
            missing.join(" and ")
        )
    })
}

/// The options; nothing when it was only the help.
fn read_arguments(arguments: &mut lexopt::Parser) -> Result<Option<Options>> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("programs") => {
                let directory = PathBuf::from(arguments.value()?);
                let directory = std::path::absolute(&directory);
                options.programs = Some(directory.context("the current directory is gone")?);
            }
            lexopt::Arg::Long("verify") => options.verify = true,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// Builds the package; with a job it is verified too.
fn build(
    package: &Package,
    workspace: &Workspace,
    cargo: &Cargo,
    built: &Built,
    job: Option<&PathBuf>,
) -> Result<PathBuf> {
    let notices = notices::collect(cargo)?;
    let file = package.build(built, &notices)?;
    if let Some(job) = job {
        let second = package.newer(SECOND).build(built, &notices)?;
        let verified = verify(workspace, &file, &second, job);
        fs::remove_file(&second).with_context(|| format!("cannot remove {}", second.display()))?;
        verified?;
    }
    Ok(file)
}

fn verify(workspace: &Workspace, first: &Path, second: &Path, job: &Path) -> Result<()> {
    let script = workspace.root.join("deploy/debian/verify");
    let status = Command::new(&script).args([first, second, job]).status();
    let status = status.with_context(|| format!("cannot start {}", script.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(3) => {
            Err(MachineLacks("the package was built and not verified; the reason is above".into()).into())
        }
        _ => bail!("the package does not do what it should ({status}), see above"),
    }
}

/// Verifies a package of the programs in a directory of cargo's, where that is possible: the step of `cargo xtask test`.
///
/// # Errors
/// When something cannot be started, or the package does not do what it should.
pub fn check(workspace: &Workspace, cargo: &Cargo) -> Result<Outcome> {
    if let Some(missing) = missing() {
        return Ok(Outcome::Skipped(missing));
    }
    let built = Built::development(cargo)?;
    let job = built.find(JOB)?.to_owned();
    let package = Package::of_this_machine(workspace)?.quickly();
    match build(&package, workspace, cargo, &built, Some(&job)) {
        Ok(file) => {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
            Ok(Outcome::Passed)
        }
        Err(error) if error.is::<MachineLacks>() => Ok(Outcome::Skipped(error.to_string())),
        Err(error) => Err(error),
    }
}

/// What the program says, without the line's end.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let read = |arguments: &[&str]| read_arguments(&mut lexopt::Parser::from_args(arguments));
        assert_eq!(read(&[]).expect("valid"), Some(Options::default()));
        let options = read(&["--programs", "/built", "--verify"]).expect("valid");
        assert_eq!(options, Some(Options { programs: Some("/built".into()), verify: true }));
        assert_eq!(read(&["--help"]).expect("valid"), None);
        assert!(read(&["--programs"]).is_err() && read(&["--fast"]).is_err());
    }
}
