//! Where the programs are that tests run against: as the environment says, or where `cargo xtask setup` puts them, because not every way to
//! run tests hands on the environment that it wrote down.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A program that `cargo xtask setup` installs.
pub(crate) struct Installed {
    /// What it is for tests.
    pub(crate) role: &'static str,
    /// Says where it is.
    pub(crate) variable: &'static str,
    /// The name of its directory, in front of its version.
    pub(crate) package: &'static str,
    /// Its place there.
    pub(crate) program: &'static str,
}

impl Installed {
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let Self { role, variable, .. } = self;
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(program) = set(variable) {
            ensure!(
                program.is_file(),
                "there is no {role} at {}, where {variable} says it is; unset it and run `cargo xtask setup`",
                program.display()
            );
            return Ok(program);
        }
        let cache = set("THALWEG_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("thalweg")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/thalweg")));
        let installed = cache.and_then(|cache| self.newest_in(&cache.join("peers")));
        installed.with_context(|| {
            format!("the {role} of the tests is not installed; run `cargo xtask setup`, which installs it")
        })
    }

    /// The newest of those that were installed completely.
    fn newest_in(&self, peers: &Path) -> Option<PathBuf> {
        let entries = std::fs::read_dir(peers).ok()?;
        let directories = entries.flatten().map(|entry| entry.path());
        let is_mine = |directory: &PathBuf| {
            let name = directory.file_name().and_then(|name| name.to_str());
            let version = name.and_then(|name| name.strip_prefix(self.package)?.strip_prefix('-'));
            version.is_some() && directory.join("complete").is_file()
        };
        let newest = directories.filter(is_mine).max()?;
        Some(newest.join(self.program)).filter(|program| program.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_installation_is_used() {
        let installed =
            Installed { role: "peer", variable: "NOT_SET", package: "ministack", program: "bin/ministack" };
        let peers = tempfile::tempdir().expect("a directory");
        assert_eq!(installed.newest_in(&peers.path().join("missing")), None);
        for (name, complete) in [
            ("ministack-1.5.33", true),
            ("ministack-1.5.34", true),
            ("ministack-1.5.35", false),
            ("other-9", true),
        ] {
            let directory = peers.path().join(name);
            std::fs::create_dir_all(directory.join("bin")).expect("a directory");
            std::fs::write(directory.join("bin/ministack"), "").expect("a file");
            if complete {
                std::fs::write(directory.join("complete"), "").expect("a file");
            }
        }
        assert_eq!(
            installed.newest_in(peers.path()),
            Some(peers.path().join("ministack-1.5.34/bin/ministack"))
        );
    }
}
