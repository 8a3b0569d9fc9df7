//! RocksDB's archive: compiled once per machine, version and set of features, then linked by every profile.
//!
//! Compiling RocksDB takes about a quarter of an hour on two cores, and cargo would do it again for every profile and
//! every clean build. So `librocksdb.a` is kept outside the checkout, and `ROCKSDB_LIB_DIR` points every cargo command
//! at it; the headers still come from the crate.
//!
//! Invariants: the archive appears under its final name only when it is complete; two setups at once build it once; a
//! failed build is a warning, because cargo can still compile RocksDB by itself.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::environment::BuildEnvironment;
use crate::cargo::Cargo;
use crate::clock::{Stopwatch, pause, seconds};
use crate::workspace::Workspace;

const ARCHIVE: &str = "librocksdb.a";

/// Features of the crate `rocksdb` that change the Rust code, not what is in the archive.
const FEATURES_OF_THE_BINDINGS: [&str; 6] =
    ["bindgen-runtime", "bindgen-static", "multi-threaded-cf", "raw-ptr", "serde1", "valgrind"];

/// How often a long build says that it is alive.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Points cargo at the archive, after building it when it is missing.
pub fn configure(workspace: &Workspace, environment: &mut BuildEnvironment) {
    if let Some(chosen) = env::var_os("ROCKSDB_LIB_DIR")
        && holds_rocksdb(Path::new(&chosen))
    {
        environment.set("ROCKSDB_LIB_DIR", chosen);
        environment.set_default("ROCKSDB_STATIC", "1");
        return;
    }
    let directory = match archive_directory(workspace) {
        Ok(Some(directory)) => directory,
        // No crate here uses RocksDB.
        Ok(None) => return,
        Err(error) => return warn(&error),
    };
    match ensure(workspace, environment, &directory) {
        Ok(()) => {
            environment.set("ROCKSDB_LIB_DIR", directory);
            environment.set("ROCKSDB_STATIC", "1");
        }
        Err(error) => warn(&error),
    }
}

fn warn(error: &anyhow::Error) {
    eprintln!(
        "warning: no RocksDB archive could be kept for later ({error:#}); cargo compiles RocksDB by itself, about a \
         quarter of an hour for each profile"
    );
}

/// An archive, or a shared library for those who choose one.
fn holds_rocksdb(directory: &Path) -> bool {
    [ARCHIVE, "librocksdb.so"].iter().any(|name| directory.join(name).is_file())
}

/// Where this workspace's archive belongs: `<cache>/rocksdb/librocksdb-sys-<version>-<features>`.
fn archive_directory(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let Some(version) = locked_version(&lock, "librocksdb-sys") else { return Ok(None) };
    let name = ["librocksdb-sys".to_owned(), version].into_iter().chain(archive_features(workspace));
    Ok(Some(super::cache_directory()?.join("rocksdb").join(name.collect::<Vec<_>>().join("-"))))
}

/// The version in `Cargo.lock`, without the build metadata that follows a plus sign.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')?;
    Some(version.split('+').next().unwrap_or(version).to_owned())
}

/// The compressions and options that our crates compile into the archive, in alphabetical order.
fn archive_features(workspace: &Workspace) -> Vec<String> {
    let mut features: Vec<String> = workspace
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.name == "rocksdb")
        .flat_map(|dependency| {
            let default = dependency.default_features.then(|| "default".to_owned());
            dependency.features.iter().cloned().chain(default)
        })
        .filter(|feature| !FEATURES_OF_THE_BINDINGS.contains(&feature.as_str()))
        .collect();
    features.sort();
    features.dedup();
    features
}

fn ensure(workspace: &Workspace, environment: &BuildEnvironment, directory: &Path) -> Result<()> {
    if directory.join(ARCHIVE).is_file() {
        return Ok(());
    }
    let parent = directory.parent().context("the cache directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = File::create(beside(directory, "lock")).context("cannot create the lock file")?;
    lock.lock().context("cannot wait for another build of RocksDB")?;
    if directory.join(ARCHIVE).is_file() {
        return Ok(()); // Whoever held the lock has built it.
    }
    let stopwatch = Stopwatch::start();
    eprintln!("    compiling RocksDB into {}: about 15 minutes, once on this machine", directory.display());
    let scratch = beside(directory, "build");
    let built = build(workspace, environment, &scratch).and_then(|archive| install(&archive, directory));
    if let Err(error) = fs::remove_dir_all(&scratch)
        && scratch.exists()
    {
        eprintln!("warning: {} can be deleted by hand: {error}", scratch.display());
    }
    built?;
    eprintln!("    RocksDB compiled in {}", seconds(stopwatch.elapsed()));
    Ok(())
}

/// `<directory>.<suffix>`. Not `with_extension`, which would take the end of the version for an extension.
fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut path = directory.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// Compiles the bindings' crate into a scratch directory and answers where the archive came to lie.
fn build(workspace: &Workspace, environment: &BuildEnvironment, scratch: &Path) -> Result<PathBuf> {
    let target_directory: OsString = scratch.into();
    let mut command = Cargo::new(workspace, environment.clone()).command([
        "build".into(),
        "--release".into(),
        "--package".into(),
        "librocksdb-sys".into(),
        "--target-dir".into(),
        target_directory,
    ]);
    command
        .env_remove("ROCKSDB_LIB_DIR")
        .env_remove("ROCKSDB_STATIC")
        // 45 MB instead of ten times as much.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    wait_and_report(command, scratch)?;
    find_archive(scratch).context("cargo succeeded, but there is no librocksdb.a in its target directory")
}

fn wait_and_report(mut command: Command, scratch: &Path) -> Result<()> {
    let mut child: Child = command.spawn().context("cannot start cargo")?;
    let stopwatch = Stopwatch::start();
    let mut next_report = REPORT_EVERY;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for cargo")? {
            if !status.success() {
                bail!("compiling librocksdb-sys failed ({status})");
            }
            return Ok(());
        }
        if stopwatch.elapsed() >= next_report {
            next_report += REPORT_EVERY;
            let objects = object_files(scratch);
            eprintln!("    RocksDB: {objects} files compiled after {}", seconds(stopwatch.elapsed()));
        }
        pause(Duration::from_millis(200));
    }
}

/// Output directories of the bindings' build script.
fn output_directories(scratch: &Path) -> Vec<PathBuf> {
    let build = scratch.join("release/build");
    let is_bindings = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("librocksdb-sys-"))
    };
    fs::read_dir(build)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_bindings)
        .map(|path| path.join("out"))
        .collect()
}

fn object_files(scratch: &Path) -> usize {
    let is_object = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "o");
    output_directories(scratch)
        .into_iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten().filter(is_object))
        .count()
}

fn find_archive(scratch: &Path) -> Option<PathBuf> {
    output_directories(scratch)
        .into_iter()
        .map(|directory| directory.join(ARCHIVE))
        .find(|path| path.is_file())
}

/// Copies the archive beside its final name and renames it, so that nobody ever links half of it.
fn install(archive: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let incoming = directory.join(format!(".{ARCHIVE}.{}", std::process::id()));
    fs::copy(archive, &incoming).with_context(|| format!("cannot write {}", incoming.display()))?;
    File::open(&incoming).and_then(|file| file.sync_all()).context("cannot flush the archive to the disk")?;
    fs::rename(&incoming, directory.join(ARCHIVE)).context("cannot rename the archive")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, DependencyKind, Package};

    const LOCK: &str = "\
[[package]]
name = \"librocksdb\"
version = \"9.9.9\"

[[package]]
name = \"librocksdb-sys\"
version = \"0.19.0+11.8.1\"
source = \"registry+https://example.com/index\"
";

    #[test]
    fn the_version_comes_from_the_lock_file_without_build_metadata() {
        assert_eq!(locked_version(LOCK, "librocksdb-sys").as_deref(), Some("0.19.0"));
        assert_eq!(locked_version(LOCK, "librocksdb").as_deref(), Some("9.9.9"));
        assert_eq!(locked_version(LOCK, "rocksdb"), None);
    }

    #[test]
    fn only_features_that_change_the_archive_name_it() {
        let uses_rocksdb = |features: &[&str]| Package {
            name: "thalweg-jobmanager".into(),
            manifest: "jobmanager/Cargo.toml".into(),
            dependencies: vec![Dependency {
                name: "rocksdb".into(),
                kind: DependencyKind::Normal,
                optional: true,
                default_features: false,
                features: features.iter().map(|&feature| feature.into()).collect(),
            }],
        };
        let workspace = Workspace {
            root: PathBuf::new(),
            packages: vec![uses_rocksdb(&["zstd", "bindgen-runtime", "lz4"]), uses_rocksdb(&["lz4"])],
        };
        assert_eq!(archive_features(&workspace), ["lz4", "zstd"]);
    }

    #[test]
    fn names_beside_the_directory_keep_its_whole_version() {
        let lock = beside(Path::new("cache/librocksdb-sys-0.19.0"), "lock");
        assert_eq!(lock, Path::new("cache/librocksdb-sys-0.19.0.lock"));
    }

    #[test]
    fn an_archive_in_the_scratch_directory_is_found_and_moved_as_a_whole() {
        let cache = tempfile::tempdir().expect("a temporary directory");
        let scratch = cache.path().join("scratch");
        assert_eq!(find_archive(&scratch), None, "nothing was built yet");

        // cargo makes one directory for the compiled build script and one for what it wrote.
        let script = scratch.join("release/build/librocksdb-sys-1111");
        let out = scratch.join("release/build/librocksdb-sys-2222/out");
        fs::create_dir_all(&script).expect("directory");
        fs::create_dir_all(&out).expect("directory");
        fs::write(out.join("db.o"), "").expect("object");
        fs::write(out.join(ARCHIVE), "the archive").expect("archive");
        assert_eq!(object_files(&scratch), 1);

        let directory = cache.path().join("rocksdb/librocksdb-sys-0.19.0-lz4-zstd");
        install(&find_archive(&scratch).expect("found"), &directory).expect("installed");
        assert!(holds_rocksdb(&directory));
        assert_eq!(fs::read_to_string(directory.join(ARCHIVE)).expect("readable"), "the archive");
        assert_eq!(
            fs::read_dir(&directory).expect("readable").count(),
            1,
            "nothing is left beside the archive"
        );
    }
}
