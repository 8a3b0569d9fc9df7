//! Terraform: whether what is in `deploy/terraform` is written as it should be, valid, and plans what it promises.
//!
//! All of it happens without a cloud: `terraform test` runs against a provider that only pretends. The module is copied first, because
//! Terraform writes beside what it reads. Invariants: a machine without Terraform, or without a way to the provider, skips this and says so; what
//! was found wrong fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};

use crate::setup;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The environment variable with the directory in which providers lie, on a machine that cannot fetch them.
const PLUGINS: &str = "THALWEG_TERRAFORM_PLUGINS";

/// What is checked: folders below the module's. The first one has tests too.
const MODULES: [&str; 2] = [".", "examples/fleet"];

/// Checks the module and its example.
///
/// # Errors
/// When files cannot be copied or Terraform cannot be started.
pub fn check(workspace: &Workspace) -> Result<Outcome> {
    if !setup::is_program("terraform") {
        return Ok(Outcome::Skipped("terraform is not installed".into()));
    }
    let terraform = Terraform::prepare(workspace)?;
    let outcome = terraform.check_all();
    fs::remove_dir_all(&terraform.copy)
        .with_context(|| format!("cannot remove {}", terraform.copy.display()))?;
    outcome
}

struct Terraform {
    copy: PathBuf,
    /// Where providers lie, if they are not fetched.
    plugins: Option<PathBuf>,
}

impl Terraform {
    fn prepare(workspace: &Workspace) -> Result<Self> {
        let copy = workspace.root.join("target").join(format!("terraform-{}", std::process::id()));
        copy_tree(&workspace.root.join("deploy/terraform"), &copy)?;
        let plugins = std::env::var_os(PLUGINS).filter(|set| !set.is_empty()).map(PathBuf::from);
        Ok(Self { copy, plugins })
    }

    fn check_all(&self) -> Result<Outcome> {
        let written = self.run(".", &["fmt", "-check", "-recursive", "-diff"])?;
        if !written.status.success() {
            return Ok(failed("run `terraform fmt -recursive` in deploy/terraform", &written));
        }
        for module in MODULES {
            let mut init = vec!["init", "-backend=false", "-input=false", "-no-color"];
            let plugins =
                self.plugins.as_ref().map(|directory| format!("-plugin-dir={}", directory.display()));
            init.extend(plugins.as_deref());
            let prepared = self.run(module, &init)?;
            if !prepared.status.success() {
                return Ok(self.judge_init(&prepared));
            }
            let valid = self.run(module, &["validate", "-no-color"])?;
            if !valid.status.success() {
                return Ok(failed(&format!("deploy/terraform/{module} is not valid"), &valid));
            }
        }
        let tested = self.run(MODULES[0], &["test", "-no-color"])?;
        if !tested.status.success() {
            return Ok(failed("the module does not plan what its tests say", &tested));
        }
        Ok(Outcome::Passed)
    }

    fn run(&self, module: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("terraform");
        command.args(arguments).current_dir(self.copy.join(module)).env("CHECKPOINT_DISABLE", "1");
        command.output().with_context(|| format!("cannot start {command:?}"))
    }

    /// A provider that cannot be fetched says nothing about the module; one that was given and does not fit does.
    fn judge_init(&self, output: &Output) -> Outcome {
        let is_unreachable = text(output).contains("Failed to query available provider packages");
        match &self.plugins {
            None if is_unreachable => Outcome::Skipped(format!(
                "the form is right; the rest needs the provider, which cannot be fetched: set {PLUGINS} to a directory that has it"
            )),
            _ => failed("Terraform cannot be initialised", output),
        }
    }
}

fn failed(what: &str, output: &Output) -> Outcome {
    eprint!("{}", text(output));
    Outcome::Failed(format!("{what}, see above"))
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Copies files and folders, but for what Terraform has left there.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".terraform") {
            continue;
        }
        if entry.file_type().with_context(failed)?.is_dir() {
            copy_tree(&entry.path(), &to.join(name))?;
        } else {
            fs::copy(entry.path(), to.join(name)).with_context(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn what_terraform_left_is_not_copied_and_the_rest_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("examples/.terraform")).expect("a folder");
        for name in ["main.tf", ".terraform.lock.hcl", "examples/main.tf", "examples/.terraform/provider"] {
            fs::write(from.join(name), name).expect("a file");
        }
        copy_tree(&from, &to).expect("copies");
        assert!(to.join("main.tf").is_file() && to.join("examples/main.tf").is_file());
        assert!(!to.join(".terraform.lock.hcl").exists() && !to.join("examples/.terraform").exists());
    }

    #[test]
    fn a_provider_out_of_reach_is_skipped_but_not_one_that_was_given() {
        let output = |text: &str| Output {
            status: ExitStatus::from_raw(256),
            stdout: Vec::new(),
            stderr: text.as_bytes().to_vec(),
        };
        let unreachable = output("Error: Failed to query available provider packages\nno such host\n");
        let online = Terraform { copy: PathBuf::new(), plugins: None };
        assert!(
            matches!(online.judge_init(&unreachable), Outcome::Skipped(reason) if reason.contains(PLUGINS))
        );
        assert!(matches!(online.judge_init(&output("Error: Unsupported block type")), Outcome::Failed(_)));
        let given = Terraform { copy: PathBuf::new(), plugins: Some("plugins".into()) };
        assert!(matches!(given.judge_init(&unreachable), Outcome::Failed(_)));
    }
}
