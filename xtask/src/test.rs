//! `cargo xtask test` and `cargo xtask verify`: what must hold before a change is merged.
//!
//! Cheap steps come first. A failed step does not hide the later ones; the table at the end has them all.

use anyhow::Result;

use crate::cargo::{Cargo, display};
use crate::deny;
use crate::exit::Usage;
use crate::package;
use crate::setup::{self, BuildEnvironment, Tool};
use crate::steps::{Outcome, Steps};
use crate::structure;
use crate::terraform;
use crate::workspace::Workspace;

const TEST_HELP: &str = "\
Everything that must pass before a change is merged: setup, format, structure, lints, dependencies,
Terraform (where it is installed), the real programs, all tests (those that kill processes too), the Debian
package (as root on Debian), the examples in the documentation, and jobs that are compiled as users compile
them.

Usage: cargo xtask test [OPTIONS]

Options:
      --no-setup     do not look for what the machine lacks; use the environment as it is
      --only <STEP>  only this step; may be repeated
                     (format, structure, lints, dependencies, advisories, terraform, programs, tests, package,
                     documentation, release)
  -h, --help         print this help

Examples:
  cargo xtask test
  cargo xtask test --no-setup
  cargo xtask test --only structure --only lints

Exit codes: 0 everything passed, 1 something failed (the table names it), 2 bad arguments, 3 the machine lacks something.
";

const VERIFY_HELP: &str = "\
The quick part of `cargo xtask test`: format, structure, lints and the tests that start no cluster.
Takes less than a minute when nothing has to be compiled.

Usage: cargo xtask verify [OPTIONS]

Options:
      --no-setup     do not look for what the machine lacks; use the environment as it is
      --only <STEP>  only this step; may be repeated
                     (format, structure, lints, tests)
  -h, --help         print this help

Examples:
  cargo xtask verify

Exit codes: 0 everything passed, 1 something failed (the table names it), 2 bad arguments, 3 the machine lacks something.
";

/// Names the files only; `cargo fmt --all` shows and does the rest.
const FORMAT: [&str; 5] = ["fmt", "--all", "--check", "--", "-l"];
const LINTS: [&str; 6] = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
/// The programs and job binaries that tests start. Built with the whole workspace, as the tests are, so that both use
/// the same build of every dependency.
pub const PROGRAMS: [&str; 4] = ["build", "--workspace", "--bins", "--examples"];
const ALL_TESTS: [&str; 3] = ["nextest", "run", "--workspace"];
/// Without the tests that start clusters. They are compiled all the same, because clippy looks at them too.
const QUICK_TESTS: [&str; 5] = [
    "nextest",
    "run",
    "--workspace",
    "-E",
    "not (package(thalweg-chaos-tests) or (package(thalweg-benches) and kind(test)))",
];
const DOCUMENTATION: [&str; 3] = ["test", "--doc", "--workspace"];

/// Counts by key as jobs beside plain loops, which must agree: what users run is compiled with optimisation, which once
/// broke code that every test had passed.
const RELEASE: [&str; 12] = [
    "run",
    "--release",
    "--package",
    "thalweg-benches",
    "--bin",
    "local",
    "--",
    "--runs",
    "1",
    "--scale",
    "0.02",
    "--json",
];

/// `cargo xtask test`.
pub fn run_test(arguments: &mut lexopt::Parser) -> Result<()> {
    let steps = [
        Step::Cargo("format", &FORMAT),
        Step::Structure,
        Step::Cargo("lints", &LINTS),
        Step::Cargo("dependencies", &deny::POLICY),
        Step::Advisories,
        Step::Terraform,
        Step::Cargo("programs", &PROGRAMS),
        Step::Cargo("tests", &ALL_TESTS),
        Step::Package,
        Step::Cargo("documentation", &DOCUMENTATION),
        Step::Cargo("release", &RELEASE),
    ];
    run(arguments, TEST_HELP, &[Tool::Rustfmt, Tool::Clippy, Tool::Nextest, Tool::Deny], &steps)
}

/// `cargo xtask verify`.
pub fn run_verify(arguments: &mut lexopt::Parser) -> Result<()> {
    let steps = [
        Step::Cargo("format", &FORMAT),
        Step::Structure,
        Step::Cargo("lints", &LINTS),
        Step::Cargo("tests", &QUICK_TESTS),
    ];
    run(arguments, VERIFY_HELP, &[Tool::Rustfmt, Tool::Clippy, Tool::Nextest], &steps)
}

/// Something that is checked.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A name and the cargo command that does it.
    Cargo(&'static str, &'static [&'static str]),
    Structure,
    Advisories,
    Terraform,
    Package,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Cargo(name, _) => name,
            Self::Structure => "structure",
            Self::Advisories => "advisories",
            Self::Terraform => "terraform",
            Self::Package => "package",
        }
    }

    fn run(self, steps: &mut Steps, workspace: &Workspace, cargo: &Cargo) -> Result<()> {
        let name = self.name();
        match self {
            Self::Cargo(_, arguments) => {
                steps.run(name, &display(arguments), || cargo.run(arguments).map(|()| Outcome::Passed))
            }
            Self::Structure => steps.run(name, "the rules of the house", || structure::check(workspace)),
            Self::Advisories => {
                steps.run(name, &display(&deny::ADVISORIES), || deny::check_advisories(cargo))
            }
            Self::Terraform => {
                steps.run(name, "deploy/terraform, without a cloud", || terraform::check(workspace))
            }
            Self::Package => steps
                .run(name, "install, use, upgrade, remove and purge it", || package::check(workspace, cargo)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    with_setup: bool,
    /// Names of steps; empty for all.
    only: Vec<String>,
}

fn run(arguments: &mut lexopt::Parser, help: &str, tools: &[Tool], steps: &[Step]) -> Result<()> {
    let names: Vec<_> = steps.iter().map(|step| step.name()).collect();
    let Some(options) = read_arguments(arguments, help, &names)? else { return Ok(()) };
    let mut results = Steps::new();
    let workspace = Workspace::find()?;
    let mut environment = BuildEnvironment::default();
    if options.with_setup {
        results.run("setup", "what the machine lacks", || {
            environment = setup::prepare(&workspace, tools)?;
            Ok(Outcome::Passed)
        })?;
    }
    let cargo = Cargo::new(&workspace, environment);
    for step in steps {
        if options.only.is_empty() || options.only.iter().any(|name| name == step.name()) {
            step.run(&mut results, &workspace, &cargo)?;
        }
    }
    results.finish()
}

/// What was asked for; nothing when it was only the help.
fn read_arguments(arguments: &mut lexopt::Parser, help: &str, steps: &[&str]) -> Result<Option<Options>> {
    let mut options = Options { with_setup: true, only: Vec::new() };
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("no-setup") => options.with_setup = false,
            lexopt::Arg::Long("only") => {
                let name = arguments.value()?.to_string_lossy().into_owned();
                if !steps.contains(&name.as_str()) {
                    return Err(Usage(format!(
                        "there is no step `{name}`; the steps are {}",
                        steps.join(", ")
                    ))
                    .into());
                }
                options.only.push(name);
            }
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{help}");
                return Ok(None);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Options>> {
        read_arguments(&mut lexopt::Parser::from_args(arguments), "help\n", &["format", "lints"])
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(read(&[]).expect("valid"), Some(Options { with_setup: true, only: vec![] }));
        let expected = Options { with_setup: false, only: vec!["lints".into()] };
        assert_eq!(read(&["--no-setup", "--only", "lints"]).expect("valid"), Some(expected));
        assert_eq!(read(&["--help"]).expect("valid"), None);
        assert!(read(&["--fast"]).expect_err("unknown").is::<lexopt::Error>());
        let error = read(&["--only", "lint"]).expect_err("unknown");
        assert!(error.is::<Usage>() && error.to_string().contains("format, lints"), "{error}");
    }

    #[test]
    fn the_quick_tests_leave_out_packages_that_exist() {
        let workspace = Workspace::find().expect("the tests run inside the workspace");
        let named = QUICK_TESTS[4].split("package(").skip(1).filter_map(|rest| rest.split_once(')'));
        let left_out: Vec<&str> = named.map(|(package, _)| package).collect();
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        for package in left_out {
            assert!(workspace.packages.iter().any(|candidate| candidate.name == package), "{package}");
        }
    }
}
