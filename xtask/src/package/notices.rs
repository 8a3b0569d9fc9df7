//! Whose libraries are in the programs, and under what terms: what a package that holds them must say.
//!
//! Invariant: a text that several libraries have is there once, and all that have it name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::output;
use crate::cargo::Cargo;

/// What the programs are linked with, one line for each library: its name and version, its licence.
const TREE: [&str; 12] = [
    "tree",
    "--edges=normal",
    "--prefix=none",
    "--no-dedupe",
    "--format={p}|{l}",
    "--package=thalweg-jobmanager",
    "--package=thalweg-taskmanager",
    "--package=thalweg-cli",
    "--features=thalweg-cli/rocksdb",
    "--offline",
    "--quiet",
    "--color=never",
];

/// How files begin that say terms.
const NAMES: [&str; 5] = ["license", "licence", "copying", "copyright", "notice"];

/// The text of the package's file.
///
/// # Errors
/// When cargo does not answer, or a file cannot be read.
pub(super) fn collect(cargo: &Cargo) -> Result<String> {
    let metadata = output(&mut cargo.command(["metadata", "--format-version=1", "--offline"]))?;
    let places = places(&serde_json::from_str(&metadata).context("cargo metadata is not JSON")?);
    let linked = libraries(&output(&mut cargo.command(TREE))?);
    if linked.is_empty() {
        bail!("cargo names no library that the programs are linked with");
    }
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    let mut list =
        String::from("The programs of Thalweg contain these libraries; the texts of their terms follow.\n\n");
    for (library, licence) in &linked {
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{library}: {licence}");
        let Some(place) = places.get(library) else { continue };
        for text in terms(place)? {
            texts.entry(text).or_default().push(library.clone());
        }
    }
    for (text, of) in texts {
        let _ = write!(list, "\n{}\n{}\n\n{}\n", "=".repeat(80), of.join(", "), text.trim_end());
    }
    Ok(list)
}

/// Names with versions, and licences, of what `cargo tree` lists. Our own have a path behind their version.
fn libraries(tree: &str) -> BTreeSet<(String, String)> {
    let line = |line: &str| {
        let (library, licence) = line.split_once('|')?;
        let is_ours = library.contains(" (/");
        let library = library.split(" (").next()?;
        (!is_ours).then(|| (library.to_owned(), licence.trim().to_owned()))
    };
    tree.lines().filter_map(line).collect()
}

/// Where each library's files are, by its name and version.
fn places(metadata: &Value) -> BTreeMap<String, PathBuf> {
    let place = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let library = format!("{} v{}", package["name"].as_str()?, package["version"].as_str()?);
        Some((library, manifest.parent()?.to_owned()))
    };
    metadata["packages"].as_array().into_iter().flatten().filter_map(place).collect()
}

/// The texts of a library's terms.
fn terms(place: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", place.display());
    let mut texts = Vec::new();
    for entry in fs::read_dir(place).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|begin| name.starts_with(begin)) && entry.path().is_file() {
            let bytes = fs::read(entry.path()).with_context(unreadable)?;
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_others_are_listed_once() {
        let tree = "thalweg-cli v0.1.0 (/src/cli)|Apache-2.0\nserde v1.0.9|MIT OR Apache-2.0\nserde_derive v1.0.9 (proc-macro)|MIT\n\
                    serde v1.0.9|MIT OR Apache-2.0\n\n";
        let expected = [("serde v1.0.9", "MIT OR Apache-2.0"), ("serde_derive v1.0.9", "MIT")];
        let expected = expected.map(|(library, licence)| (library.to_owned(), licence.to_owned()));
        assert_eq!(libraries(tree), BTreeSet::from(expected));
    }

    #[test]
    fn terms_are_found_by_their_files_names() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["LICENSE-MIT", "NOTICE.txt", "README.md"] {
            fs::write(directory.path().join(name), name).expect("a file");
        }
        fs::create_dir(directory.path().join("licenses")).expect("a folder");
        let mut found = terms(directory.path()).expect("readable");
        found.sort();
        assert_eq!(found, ["LICENSE-MIT", "NOTICE.txt"]);
        let metadata = serde_json::json!({"packages": [
            {"name": "serde", "version": "1.0.9", "manifest_path": "/registry/serde-1.0.9/Cargo.toml"},
        ]});
        assert_eq!(places(&metadata)["serde v1.0.9"], Path::new("/registry/serde-1.0.9"));
    }
}
