//! What is in the package, where it goes, and who may read it.
//!
//! Invariants: permissions do not depend on who builds; the same commit gives the same package, because every time in it is that of the
//! commit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::output;
use crate::program::Built;
use crate::workspace::Workspace;

/// Who reads, writes and executes what is installed.
const PROGRAM: u32 = 0o755;
const TEXT: u32 = 0o644;

const DOCUMENTATION: &str = "usr/share/doc/thalweg";

/// What is installed from the checkout as it is: where it is, where it goes.
const TEXTS: [(&str, &str); 6] = [
    ("deploy/config.yaml", "etc/thalweg/config.yaml"),
    ("deploy/systemd/thalweg-jobmanager.service", "usr/lib/systemd/system/thalweg-jobmanager.service"),
    ("deploy/systemd/thalweg-taskmanager.service", "usr/lib/systemd/system/thalweg-taskmanager.service"),
    ("deploy/README.md", "usr/share/doc/thalweg/README.md"),
    ("deploy/debian/copyright", "usr/share/doc/thalweg/copyright"),
    ("deploy/debian/lintian-overrides", "usr/share/lintian/overrides/thalweg"),
];

/// The programs and their places. Only the command is in the path of every user: the names of the others are common.
pub(super) const PROGRAMS: [(&str, &str); 3] = [
    ("thalweg", "usr/bin/thalweg"),
    ("jobmanager", "usr/lib/thalweg/jobmanager"),
    ("taskmanager", "usr/lib/thalweg/taskmanager"),
];

/// What dpkg runs when it installs and removes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// A package that is about to be built.
#[derive(Debug, Clone)]
pub(super) struct Package {
    root: PathBuf,
    version: String,
    architecture: String,
    /// The C library that the programs were linked with: an older one may lack what they need.
    libc: String,
    /// When the commit was made: seconds since the epoch, and in the form of Debian's changelogs.
    committed: (String, String),
    /// How dpkg-deb compresses: well and slowly, or quickly.
    compression: &'static [&'static str],
}

impl Package {
    pub(super) fn of_this_machine(workspace: &Workspace) -> Result<Self> {
        let libc = output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "libc6"]))?;
        let committed = |form| {
            let format = format!("--format={form}");
            output(Command::new("git").args(["log", "-1", &format]).current_dir(&workspace.root))
        };
        Ok(Self {
            version: version(&workspace.root)?,
            architecture: output(Command::new("dpkg").arg("--print-architecture"))?,
            libc: libc.split('-').next().unwrap_or_default().to_owned(),
            committed: (committed("%ct")?, committed("%cD")?),
            root: workspace.root.clone(),
            compression: &["-Zxz"],
        })
    }

    /// The same, packed quickly: to be tried, not to be handed out.
    pub(super) fn quickly(self) -> Self {
        Self { compression: &["-Zgzip", "-z1"], ..self }
    }

    /// The same with something behind its version.
    pub(super) fn newer(&self, more: &str) -> Self {
        Self { version: format!("{}{more}", self.version), ..self.clone() }
    }

    /// Lays the tree out and packs it; answers the package's file.
    pub(super) fn build(&self, built: &Built, notices: &str) -> Result<PathBuf> {
        let tree = self.lay_out(built, notices)?;
        // Not `with_extension`: the version has dots too.
        let file = PathBuf::from(format!("{}.deb", tree.display()));
        let mut command = Command::new("dpkg-deb");
        command.arg("--root-owner-group").args(self.compression).arg("--build").arg(&tree).arg(&file);
        output(command.env("SOURCE_DATE_EPOCH", &self.committed.0))?;
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        Ok(file)
    }

    /// The tree that is packed.
    fn lay_out(&self, built: &Built, notices: &str) -> Result<PathBuf> {
        let name = format!("thalweg_{}_{}", self.version, self.architecture);
        let tree = self.root.join("target/package").join(name);
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        }
        for (from, to) in TEXTS {
            install(&self.root.join(from), &tree.join(to), TEXT)?;
        }
        for (name, to) in PROGRAMS {
            let to = tree.join(to);
            install(built.find(name)?, &to, PROGRAM)?;
            output(Command::new("strip").arg(&to))?;
        }
        let documentation = tree.join(DOCUMENTATION);
        let news = fs::read_to_string(self.root.join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?;
        for (name, text) in
            [("changelog", self.changelog()), ("CHANGELOG.md", news), ("third-party", notices.to_owned())]
        {
            write(&documentation.join(name), &text)?;
            output(Command::new("gzip").args(["-9n", name]).current_dir(&documentation))?;
        }
        let sums = sums(&tree)?;
        let size = size(&tree)?;
        let debian = self.root.join("deploy/debian");
        for script in SCRIPTS {
            install(&debian.join(script), &tree.join("DEBIAN").join(script), PROGRAM)?;
        }
        install(&debian.join("conffiles"), &tree.join("DEBIAN/conffiles"), TEXT)?;
        write(&tree.join("DEBIAN/md5sums"), &sums)?;
        let template = fs::read_to_string(debian.join("control")).context("cannot read the control file")?;
        write(&tree.join("DEBIAN/control"), &self.control(&template, size.div_ceil(1024)))?;
        open_directories(&tree)?;
        Ok(tree)
    }

    fn control(&self, template: &str, kib: u64) -> String {
        template
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", &self.architecture)
            .replace("@LIBC@", &self.libc)
            .replace("@KIB@", &kib.to_string())
    }

    /// What Debian's tools expect; what has changed is in the project's own changelog.
    fn changelog(&self) -> String {
        let (version, date) = (&self.version, &self.committed.1);
        format!(
            "thalweg ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n \
             -- The Thalweg authors <thalweg@localhost>  {date}\n"
        )
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

fn write(to: &Path, text: &str) -> Result<()> {
    let write = || {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::write(to, text)?;
        fs::set_permissions(to, fs::Permissions::from_mode(TEXT))
    };
    write().with_context(|| format!("cannot write {}", to.display()))
}

/// The files below, the same order everywhere.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() { files.extend(self::files(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// The bytes of all files below.
fn size(directory: &Path) -> Result<u64> {
    let length = |file: &PathBuf| fs::metadata(file).map(|metadata| metadata.len());
    let lengths: std::io::Result<Vec<u64>> = files(directory)?.iter().map(length).collect();
    Ok(lengths.with_context(|| format!("cannot read {}", directory.display()))?.iter().sum())
}

/// The sums by which `dpkg --verify` finds what was changed. Settings may be.
fn sums(tree: &Path) -> Result<String> {
    let files = files(tree)?;
    let names = files.iter().filter_map(|file| file.strip_prefix(tree).ok());
    let names = names.filter(|name| !name.starts_with("etc"));
    Ok(output(Command::new("md5sum").args(names).current_dir(tree))? + "\n")
}

/// Lets everybody into the directories below, whatever the umask of who builds.
fn open_directories(directory: &Path) -> Result<()> {
    let unreadable = || format!("cannot open {}", directory.display());
    fs::set_permissions(directory, fs::Permissions::from_mode(PROGRAM)).with_context(unreadable)?;
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            open_directories(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::is_program;

    fn package(version: &str) -> Package {
        Package {
            root: "..".into(),
            version: version.into(),
            architecture: "arm64".into(),
            libc: "2.36".into(),
            committed: ("1700000000".into(), "Tue, 14 Nov 2023 22:13:20 +0000".into()),
            compression: &["-Zgzip", "-z1"],
        }
    }

    #[test]
    fn everything_that_is_installed_is_in_the_checkout_and_the_control_file_has_no_gaps() {
        let package = package("1.2.3");
        for (from, _) in TEXTS {
            assert!(package.root.join(from).is_file(), "{from}");
        }
        for script in SCRIPTS {
            let text =
                fs::read_to_string(package.root.join("deploy/debian").join(script)).expect("it is there");
            assert!(text.starts_with("#!/bin/sh\nset -e\n"), "{script} stops at the first failure");
        }
        let template = fs::read_to_string(package.root.join("deploy/debian/control")).expect("it is there");
        let control = package.control(&template, 12);
        assert_eq!(control.matches('@').count(), 1, "only the maintainer's address: {control}");
        assert!(
            control.contains("Architecture: arm64\n") && control.contains("libc6 (>= 2.36)"),
            "{control}"
        );
        assert!(control.contains("Installed-Size: 12\n"), "{control}");
        assert!(version(&package.root).is_ok(), "the workspace has one");
        assert!(package.newer("+again").changelog().starts_with("thalweg (1.2.3+again) unstable;"));
    }

    #[test]
    fn the_package_has_everything_in_its_place_with_the_right_permissions() {
        if let Some(name) = ["dpkg-deb", "gzip", "md5sum", "strip"].into_iter().find(|name| !is_program(name))
        {
            eprintln!("skipped: {name} is not installed");
            return;
        }
        // Any program will do: what is packed is not started.
        let any = std::env::current_exe().expect("known");
        let built = Built::of(PROGRAMS.map(|(name, _)| (name.to_owned(), any.clone())));
        // A version of its own, so that no package that was really built is touched.
        let file = package(&format!("0.0.{}", std::process::id()))
            .build(&built, "somebody's terms")
            .expect("packed");
        let contents = output(Command::new("dpkg-deb").arg("--contents").arg(&file)).expect("readable");
        let control = output(Command::new("dpkg-deb").arg("--info").arg(&file)).expect("readable");
        fs::remove_file(&file).expect("removed");
        for (expected, place) in [
            ("-rwxr-xr-x root/root", "./usr/bin/thalweg"),
            ("-rwxr-xr-x root/root", "./usr/lib/thalweg/taskmanager"),
            ("-rw-r--r-- root/root", "./etc/thalweg/config.yaml"),
            ("-rw-r--r-- root/root", "./usr/share/doc/thalweg/changelog.gz"),
            ("-rw-r--r-- root/root", "./usr/share/doc/thalweg/third-party.gz"),
            ("drwxr-xr-x root/root", "./usr/lib/systemd/system/"),
        ] {
            let line = contents.lines().find(|line| line.ends_with(&format!(" {place}")));
            let line = line.unwrap_or_else(|| panic!("{place} is missing: {contents}"));
            assert!(line.starts_with(expected), "{line}");
        }
        for part in ["postinst", "prerm", "postrm", "conffiles", "md5sums"] {
            assert!(control.contains(part), "{part}: {control}");
        }
    }
}
