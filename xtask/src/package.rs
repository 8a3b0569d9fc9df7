//! `cargo xtask package`: the Debian package of this machine's architecture.
//!
//! Builds the programs in release, lays them out with what is in `deploy/`, and lets `dpkg-deb` pack that.
//! Invariant: the tree is made anew each time, so that nothing of an earlier package is in the next one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Cargo;
use crate::exit::MachineLacks;
use crate::program::Built;
use crate::setup;
use crate::workspace::Workspace;

const HELP: &str = "\
Builds the Debian package for this machine's architecture and prints its path.

It holds the programs, their systemd units and /etc/thalweg/config.yaml; deploy/README.md says how to use it. Needs dpkg-deb
and strip (packages dpkg and binutils).

Usage: cargo xtask package

Options:
  -h, --help  print this help

Example:
  sudo apt install ./$(cargo xtask package)

Exit codes: 0 built, 1 a build failed, 3 the machine lacks something.
";

/// Who reads, writes and executes what is installed.
const PROGRAM: u32 = 0o755;
const TEXT: u32 = 0o644;

/// What is installed from `deploy/` as it is: where it is, where it goes.
const TEXTS: [(&str, &str); 4] = [
    ("config.yaml", "etc/thalweg/config.yaml"),
    ("systemd/thalweg-jobmanager.service", "usr/lib/systemd/system/thalweg-jobmanager.service"),
    ("systemd/thalweg-taskmanager.service", "usr/lib/systemd/system/thalweg-taskmanager.service"),
    ("README.md", "usr/share/doc/thalweg/README.md"),
];

/// The programs and their places. Only the command is in the path of every user: the names of the others are common.
const PROGRAMS: [(&str, &str); 3] = [
    ("thalweg", "usr/bin/thalweg"),
    ("jobmanager", "usr/lib/thalweg/jobmanager"),
    ("taskmanager", "usr/lib/thalweg/taskmanager"),
];

/// What dpkg runs when it installs and removes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// `cargo xtask package`.
pub fn run(arguments: &mut lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        None => {}
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => {
            print!("{HELP}");
            return Ok(());
        }
        Some(other) => return Err(other.unexpected().into()),
    }
    let missing: Vec<_> = ["dpkg-deb", "strip"].into_iter().filter(|name| !setup::is_program(name)).collect();
    if !missing.is_empty() {
        let advice =
            format!("this machine lacks {}; install the packages dpkg and binutils", missing.join(" and "));
        return Err(MachineLacks(advice).into());
    }
    let workspace = Workspace::find()?;
    let cargo = Cargo::new(&workspace, setup::prepare(&workspace, &[])?);
    let built = Built::package(&cargo)?;
    let package = Package::of_this_machine(&workspace)?;
    let tree = package.lay_out(&built)?;
    let file = tree.with_extension("deb");
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&file);
    output(&mut command)?;
    fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    println!("{}", file.strip_prefix(&workspace.root).unwrap_or(&file).display());
    Ok(())
}

/// A package that is about to be built.
struct Package {
    root: PathBuf,
    version: String,
    architecture: String,
    /// The C library that the programs were linked with: an older one may lack what they need.
    libc: String,
}

impl Package {
    fn of_this_machine(workspace: &Workspace) -> Result<Self> {
        let libc = output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "libc6"]))?;
        Ok(Self {
            root: workspace.root.clone(),
            version: version(&workspace.root)?,
            architecture: output(Command::new("dpkg").arg("--print-architecture"))?,
            libc: libc.split('-').next().unwrap_or_default().to_owned(),
        })
    }

    /// The tree that is packed.
    fn lay_out(&self, built: &Built) -> Result<PathBuf> {
        let name = format!("thalweg_{}_{}", self.version, self.architecture);
        let tree = self.root.join("target/package").join(name);
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        }
        let deploy = self.root.join("deploy");
        for (from, to) in TEXTS {
            install(&deploy.join(from), &tree.join(to), TEXT)?;
        }
        for (name, to) in PROGRAMS {
            let to = tree.join(to);
            install(built.find(name)?, &to, PROGRAM)?;
            output(Command::new("strip").arg(&to))?;
        }
        install(&self.root.join("LICENSE"), &tree.join("usr/share/doc/thalweg/copyright"), TEXT)?;
        let debian = deploy.join("debian");
        for script in SCRIPTS {
            install(&debian.join(script), &tree.join("DEBIAN").join(script), PROGRAM)?;
        }
        install(&debian.join("conffiles"), &tree.join("DEBIAN/conffiles"), TEXT)?;
        let template = debian.join("control");
        let template =
            fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        let control = self.control(&template, size(&tree)?.div_ceil(1024));
        fs::write(tree.join("DEBIAN/control"), control).context("cannot write the control file")?;
        Ok(tree)
    }

    fn control(&self, template: &str, kib: u64) -> String {
        template
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", &self.architecture)
            .replace("@LIBC@", &self.libc)
            .replace("@KIB@", &kib.to_string())
    }
}

/// The version of the workspace.
fn version(root: &Path) -> Result<String> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.map(str::to_owned).context("the workspace's Cargo.toml has no version")
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The bytes of all files below.
fn size(directory: &Path) -> Result<u64> {
    let unreadable = || format!("cannot read {}", directory.display());
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let metadata = entry.metadata().with_context(unreadable)?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
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
    fn everything_that_is_installed_is_in_the_checkout_and_the_control_file_has_no_gaps() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
        for (from, _) in TEXTS {
            assert!(root.join("deploy").join(from).is_file(), "deploy/{from}");
        }
        for script in SCRIPTS {
            let text = fs::read_to_string(root.join("deploy/debian").join(script)).expect("it is there");
            assert!(text.starts_with("#!/bin/sh\nset -e\n"), "{script} stops at the first failure");
        }
        let template = fs::read_to_string(root.join("deploy/debian/control")).expect("it is there");
        let version = version(&root).expect("the workspace has one");
        let package = Package { root, version, architecture: "arm64".into(), libc: "2.36".into() };
        let control = package.control(&template, 12);
        assert!(
            !control.contains('@') || control.matches('@').count() == 1,
            "only the maintainer's address: {control}"
        );
        assert!(
            control.contains("Architecture: arm64\n") && control.contains("libc6 (>= 2.36)"),
            "{control}"
        );
        assert!(control.contains("Installed-Size: 12\n"), "{control}");
    }
}
