//! Disks that fill up, turn read-only and come back, for one test and its processes alone.
//!
//! A test that needs them runs again in a mount namespace of its own ([`isolated`]): what it mounts is seen by the processes
//! that it starts and by nobody else, and is gone with the last of them, however the test ends.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Set for a test that is in its namespace.
const INSIDE: &str = "THALWEG_TEST_MOUNT_NAMESPACE";

/// Bytes that are written at once to fill a disk, and then one by one.
const FILLING: [usize; 3] = [1 << 20, 4096, 1];

/// Whether the test `name` of a module (`module_path!()`) goes on here. If not, it has run to its end in a namespace of its own, or it cannot run on this
/// machine, which is printed.
///
/// # Errors
/// When the test has failed in its namespace.
pub fn isolated(module: &str, name: &str) -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    if run("unshare", &["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .is_err()
    {
        println!(
            "skipped: {name} needs root and mount namespaces (`unshare --mount`), which this machine does not give it"
        );
        return Ok(false);
    }
    // Tests are named below their crate.
    let test =
        module.split_once("::").map_or_else(|| name.to_owned(), |(_, below)| format!("{below}::{name}"));
    let inside = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&inside.stdout);
    println!("{said}");
    ensure!(inside.status.success(), "{name} failed in its mount namespace; what it said is above");
    // A name that fits no test would pass without one.
    ensure!(said.contains("1 passed"), "there is no test {test} in this program");
    Ok(false)
}

/// A disk of a test. It is unmounted with this value.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// The file that holds an ext4; none for a disk in memory.
    image: Option<PathBuf>,
}

impl Disk {
    /// A disk in memory with room for so many bytes, at a directory that is made for it.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn in_memory(path: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(path)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(path)?])?;
        Ok(Self { path: path.to_path_buf(), image: None })
    }

    /// Gives a disk in memory another size; what it holds stays.
    ///
    /// # Errors
    /// When it cannot be mounted anew.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        run("mount", &["-o", &format!("remount,size={bytes}"), text(&self.path)?])
    }

    /// Leaves no byte free, by a file of its own that grows from call to call.
    ///
    /// # Errors
    /// When it fails for another reason than that the disk is full.
    pub fn fill(&self) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path.join(".filling"))?;
        for bytes in FILLING {
            let bytes = vec![0; bytes];
            loop {
                match file.write(&bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("cannot fill the disk"),
                }
            }
        }
        Ok(())
    }

    /// A small ext4 in a file, at a directory that is made for it. It turns read-only at the first error, as most disks of
    /// servers do. `None`, with a line that says why, where there are no loop devices.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn ext4(image: &Path, path: &Path, bytes: u64) -> Result<Option<Self>> {
        if !Path::new("/dev/loop-control").exists() {
            println!("skipped: this machine has no loop devices for a disk that turns read-only");
            return Ok(None);
        }
        fs::create_dir_all(path)?;
        File::create(image)?.set_len(bytes)?;
        run("mkfs.ext4", &["-q", "-F", text(image)?])?;
        let disk = Self { path: path.to_path_buf(), image: Some(image.to_path_buf()) };
        disk.mount_image()?;
        Ok(Some(disk))
    }

    fn mount_image(&self) -> Result<()> {
        let image = self.image.as_deref().context("this disk is in memory")?;
        run("mount", &["-o", "loop,errors=remount-ro", text(image)?, text(&self.path)?])
    }

    /// Makes an ext4 find an error: it is read-only then.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn break_down(&self) -> Result<()> {
        let source = Command::new("findmnt").args(["-n", "-o", "SOURCE", text(&self.path)?]).output()?;
        let source = String::from_utf8(source.stdout)?;
        let device = source.trim().strip_prefix("/dev/").context("the disk is not mounted")?;
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1")?;
        let probe = fs::write(self.path.join(".probe"), "x");
        ensure!(
            probe.is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem),
            "the disk did not turn read-only"
        );
        Ok(())
    }

    /// Repairs an ext4 and mounts it again, as whoever looks after the machine does. Processes keep what they have open.
    ///
    /// # Errors
    /// When it cannot be repaired.
    pub fn repair(&self) -> Result<()> {
        let image = self.image.as_deref().context("this disk is in memory")?;
        run("umount", &[text(&self.path)?])?;
        // 1: errors were found, and corrected.
        let checked = Command::new("e2fsck").args(["-p", "-f", text(image)?]).output()?;
        ensure!(checked.status.code().is_some_and(|code| code <= 1), "e2fsck: {checked:?}");
        self.mount_image()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Processes of the test may still have files open there; the namespace ends soon in any case.
        if let Some(path) = self.path.to_str() {
            let _ = run("umount", &["--lazy", path]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is no text")
}
