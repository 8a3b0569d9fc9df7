//! The checkout and what cargo knows about it: its root, its packages and what they depend on.
//!
//! Stands before every command: where to run, which crates there are. Invariant: paths of packages and files are
//! relative to the root, so that messages can be clicked and nothing depends on where the checkout lies.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A checkout of this repository.
#[derive(Debug)]
pub struct Workspace {
    pub root: PathBuf,
    pub packages: Vec<Package>,
}

/// One of our crates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    /// Relative to the workspace's root.
    pub manifest: PathBuf,
    pub dependencies: Vec<Dependency>,
}

/// What one of our crates depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    pub kind: DependencyKind,
    pub optional: bool,
    pub default_features: bool,
    pub features: Vec<String>,
}

/// The table of the manifest in which a dependency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyKind {
    Normal,
    Build,
    Development,
}

impl Workspace {
    /// The workspace that this program was started in.
    ///
    /// # Errors
    /// When no workspace is around or cargo cannot read it.
    pub fn find() -> Result<Self> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => env::current_dir().context("cannot tell the current directory")?,
        };
        let root = root_above(&start)?;
        let output = Command::new(crate::cargo::program())
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(&root)
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo cannot read the workspace: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let packages = read_packages(&metadata, &root)?;
        Ok(Self { root, packages })
    }
}

/// The nearest directory upwards whose manifest declares a workspace.
fn root_above(start: &Path) -> Result<PathBuf> {
    for directory in start.ancestors() {
        let manifest = directory.join("Cargo.toml");
        let is_workspace = std::fs::read_to_string(manifest)
            .is_ok_and(|text| text.lines().any(|line| line.trim_end() == "[workspace]"));
        if is_workspace {
            return Ok(directory.to_path_buf());
        }
    }
    bail!("{} is not inside a checkout of Thalweg; change into one", start.display())
}

/// Takes the packages out of `cargo metadata`'s answer.
pub fn read_packages(metadata: &Value, root: &Path) -> Result<Vec<Package>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages
        .iter()
        .map(|package| {
            let manifest = Path::new(text(package, "manifest_path")?);
            Ok(Package {
                name: text(package, "name")?.to_owned(),
                manifest: manifest.strip_prefix(root).unwrap_or(manifest).to_path_buf(),
                dependencies: package["dependencies"]
                    .as_array()
                    .context("cargo metadata: a package without `dependencies`")?
                    .iter()
                    .map(read_dependency)
                    .collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn read_dependency(dependency: &Value) -> Result<Dependency> {
    Ok(Dependency {
        name: text(dependency, "name")?.to_owned(),
        kind: match dependency["kind"].as_str() {
            None => DependencyKind::Normal,
            Some("build") => DependencyKind::Build,
            Some("dev") => DependencyKind::Development,
            Some(other) => bail!("cargo metadata: unknown kind of dependency {other:?}"),
        },
        optional: dependency["optional"].as_bool().unwrap_or(false),
        default_features: dependency["uses_default_features"].as_bool().unwrap_or(true),
        features: dependency["features"]
            .as_array()
            .map(|features| {
                features.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect()
            })
            .unwrap_or_default(),
    })
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata: `{key}` is missing"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packages_are_read_with_kinds_features_and_relative_manifests() {
        let metadata = json!({"packages": [{
            "name": "thalweg-jobmanager",
            "manifest_path": "/checkout/jobmanager/Cargo.toml",
            "dependencies": [
                {"name": "rocksdb", "kind": null, "optional": true, "uses_default_features": false,
                 "features": ["lz4", "zstd"]},
                {"name": "tempfile", "kind": "dev", "optional": false, "features": []},
            ],
        }]});
        let packages = read_packages(&metadata, Path::new("/checkout")).expect("valid metadata");
        let dependency = |name: &str, kind, optional, features: &[&str]| Dependency {
            name: name.into(),
            kind,
            optional,
            default_features: !optional,
            features: features.iter().map(|&feature| feature.into()).collect(),
        };
        assert_eq!(
            packages,
            [Package {
                name: "thalweg-jobmanager".into(),
                manifest: "jobmanager/Cargo.toml".into(),
                dependencies: vec![
                    dependency("rocksdb", DependencyKind::Normal, true, &["lz4", "zstd"]),
                    dependency("tempfile", DependencyKind::Development, false, &[]),
                ],
            }]
        );
    }

    #[test]
    fn the_root_is_the_directory_that_declares_the_workspace() {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let member = outer.path().join("member/src");
        std::fs::create_dir_all(&member).expect("directories");
        std::fs::write(outer.path().join("Cargo.toml"), "[workspace]\nmembers = [\"member\"]\n")
            .expect("written");
        std::fs::write(outer.path().join("member/Cargo.toml"), "[package]\n").expect("written");
        assert_eq!(root_above(&member).expect("found"), outer.path());
    }
}
