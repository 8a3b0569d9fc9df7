//! The files of `thalweg pki`: their names, and how they are written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The authority's certificate and key.
pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const AUTHORITY_KEY: &str = "ca.key";

/// What a host has.
pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "certificate.key";
pub(super) const TRUSTED: &str = "trusted-certificates.pem";
pub(super) const TOKEN: &str = "token";

/// The directory with what clients have.
pub(super) const CLIENTS: &str = "clients";

/// What everybody may read, and what nobody else may.
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// The first of these that exists in `directory`.
pub(super) fn first_there(directory: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| directory.join(name)).find(|path| path.symlink_metadata().is_ok())
}

/// Makes a directory that nobody else may look into, unless it is there.
pub(super) fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    create(path, text, PUBLIC)
}

pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    create(path, text, SECRET)
}

pub(super) fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    exchange(path, text, PUBLIC)
}

pub(super) fn replace_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    exchange(path, text, SECRET)
}

pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let read = std::fs::read_to_string(path);
    read.with_context(|| format!("cannot read {}; `thalweg pki init` makes an authority", path.display()))
}

/// A token that nobody guesses, as one line.
pub(super) fn random_token(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect())
}

/// Writes a new file with this mode from its beginning.
fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file: File = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already, and nothing is overwritten", path.display())
        }
        opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a file in the place of another one, so that nobody ever sees half of it.
fn exchange(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    if let Err(error) = std::fs::remove_file(&new)
        && error.kind() != ErrorKind::NotFound
    {
        bail!("cannot remove {}, which an earlier try has left: {error}", new.display());
    }
    create(&new, text, mode)?;
    std::fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_their_owners_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        make_directory(&inner).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        let key = inner.join(KEY);
        write_secret(&key, "first").unwrap();
        assert_eq!(mode(&key), 0o600);
        assert!(write_secret(&key, "second").unwrap_err().to_string().contains("nothing is overwritten"));
        assert_eq!(read(&key).unwrap(), "first");
        replace_secret(&key, "third").unwrap();
        assert_eq!((read(&key).unwrap().as_str(), mode(&key)), ("third", 0o600));
        assert_eq!(first_there(&inner, &[AUTHORITY, KEY]), Some(key));
        assert_ne!(random_token(32).unwrap(), random_token(32).unwrap());
        assert_eq!(random_token(32).unwrap().trim().len(), 64);
    }
}
