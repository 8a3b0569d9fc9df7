//! The operating system's packages: compilers, make and libclang; for tests of the dashboard a browser and what drives it.
//!
//! Stands first in the setup. On Debian and Ubuntu, as root, it installs what is missing; elsewhere it names the command.
//! Invariant: nothing is installed when nothing is missing.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::libclang;
use crate::exit::MachineLacks;

/// Something that is needed from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Program(&'static str),
    Libclang,
}

const FOR_BUILDS: [Need; 4] =
    [Need::Program("gcc"), Need::Program("g++"), Need::Program("make"), Need::Libclang];

const FOR_TESTS: [Need; 2] = [Need::Program("chromium"), Need::Program("chromedriver")];

/// Makes sure that compilers, make and libclang are there.
///
/// # Errors
/// [`MachineLacks`] with the command that installs what is missing.
pub fn ensure_for_builds() -> Result<()> {
    ensure(&FOR_BUILDS)
}

/// Makes sure that the browser is there in which tests look at the dashboard.
///
/// # Errors
/// As [`ensure_for_builds`].
pub fn ensure_for_tests() -> Result<()> {
    ensure(&FOR_TESTS)
}

fn ensure(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || !is_program("apt-get") {
        return Err(MachineLacks(advice(&missing)).into());
    }
    install(&missing);
    let still_missing = self::missing(needs);
    if still_missing.is_empty() { Ok(()) } else { Err(MachineLacks(advice(&still_missing)).into()) }
}

fn missing(needs: &[Need]) -> Vec<Need> {
    let is_there = |need: &Need| match need {
        Need::Program(name) => is_program(name),
        Need::Libclang => libclang::find().is_some(),
    };
    needs.iter().copied().filter(|need| !is_there(need)).collect()
}

/// Whether the path leads to a program of this name.
pub fn is_program(name: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(name).is_file()))
}

fn advice(missing: &[Need]) -> String {
    let names: Vec<_> = missing.iter().map(|need| need.name()).collect();
    let packages: Vec<_> = missing.iter().map(|need| need.packages()[0]).collect();
    let mut advice = format!(
        "this machine lacks {}. On Debian or Ubuntu run as root: apt-get update && apt-get install -y --no-install-recommends {}",
        names.join(", "),
        packages.join(" ")
    );
    if missing.contains(&Need::Libclang) {
        advice.push_str(
            " (or libclang-dev, where that package does not exist). Where libclang is in an unusual place, set LIBCLANG_PATH to its directory",
        );
    }
    advice
}

/// Tries to install; what did not work shows when one looks again.
fn install(missing: &[Need]) {
    apt_get(&["update"]);
    for need in missing {
        let installed = need
            .packages()
            .iter()
            .any(|package| apt_get(&["install", "-y", "--no-install-recommends", package]));
        if !installed {
            eprintln!("warning: apt-get could not install {}", need.name());
        }
    }
}

fn apt_get(arguments: &[&str]) -> bool {
    eprintln!("    apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    match status {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("warning: cannot start apt-get: {error}");
            false
        }
    }
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Program(name) => name,
            Self::Libclang => "libclang (bindgen reads RocksDB's header with it)",
        }
    }

    /// Debian's packages that hold it, best first. libclang1-14 is the library alone: a tenth of libclang-dev.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Program("gcc") => &["gcc"],
            Self::Program("g++") => &["g++"],
            Self::Program("chromium") => &["chromium"],
            Self::Program("chromedriver") => &["chromium-driver"],
            Self::Program(_) => &["make"],
            Self::Libclang => &["libclang1-14", "libclang-dev"],
        }
    }
}

/// Where gcc keeps the headers that belong to the compiler, such as `stddef.h`.
pub fn gcc_include() -> Option<String> {
    let output = Command::new("gcc").arg("-print-file-name=include").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    // A gcc that does not know answers the bare word.
    Path::new(&directory).is_absolute().then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_command_that_can_be_pasted() {
        let advice = advice(&[Need::Program("g++"), Need::Libclang]);
        assert!(advice.contains("apt-get install -y --no-install-recommends g++ libclang1-14"), "{advice}");
        assert!(advice.contains("LIBCLANG_PATH"), "{advice}");
        assert!(!super::advice(&[Need::Program("make")]).contains("LIBCLANG_PATH"));
        let browser = super::advice(&FOR_TESTS);
        assert!(browser.ends_with("--no-install-recommends chromium chromium-driver"), "{browser}");
    }

    #[test]
    fn programs_are_looked_up_in_the_path() {
        assert!(is_program("sh"));
        assert!(!is_program("there-is-no-such-program"));
    }
}
