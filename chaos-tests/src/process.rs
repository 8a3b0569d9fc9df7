//! One process of a cluster under test: started with its output in files, killed by its own id, never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// The directory of the binaries that this build made: `target/<profile>`.
///
/// # Errors
/// When the test executable is not where cargo puts it.
pub fn binaries() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let deps = executable.parent().context("the test executable has no folder")?;
    let profile = if deps.ends_with("deps") { deps.parent() } else { Some(deps) };
    Ok(profile.context("the test executable is not below a target directory")?.to_path_buf())
}

/// The path of a program or example that this build made.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = binaries()?;
    let candidates = [folder.join(name), folder.join("examples").join(name)];
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("{name} is not built; run `cargo build --workspace --bins --examples` first"),
    }
}

/// The id of a process that this test started, or that one of them started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId(pub u32);

impl ProcessId {
    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal process {}", self.0))
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Whether the process is there and not a zombie.
    pub fn is_alive(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// The processes that it started and that are alive.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn children(self) -> Result<Vec<ProcessId>> {
        let mut children = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let text = fs::read_to_string(thread?.path().join("children"))?;
            children.extend(text.split_whitespace().filter_map(|id| id.parse().ok()).map(ProcessId));
        }
        Ok(children)
    }
}

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `<folder>/<name>.out` and `.err`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_string(), child, stdout, stderr })
    }

    /// Its process id.
    pub fn id(&self) -> ProcessId {
        ProcessId(self.child.id())
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits for a line on standard output that starts with `prefix` and returns the rest of it.
    ///
    /// # Errors
    /// When the process ends or the deadline passes before that.
    pub async fn ready(&mut self, prefix: &str) -> Result<String> {
        let what = format!("{} to print `{prefix}`", self.name);
        let found = wait::until(&what, async || {
            let line = self.stdout().lines().find_map(|line| line.strip_prefix(prefix).map(str::to_string));
            let ended = self.child.try_wait()?;
            Ok(line.map(Ok).or(ended.map(Err)))
        })
        .await?;
        match found {
            Ok(line) => Ok(line.trim().to_string()),
            Err(status) => bail!("{} ended with {status} before it was ready:\n{}", self.name, self.stderr()),
        }
    }

    /// Kills it (SIGKILL) and reaps it.
    ///
    /// # Errors
    /// When it cannot be reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(&what, async || Ok(self.child.try_wait()?)).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left behind.
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("---- {} wrote to stderr ----\n{}", self.name, tail(&self.stderr()));
        }
    }
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(6000);
    text.get(start..).or_else(|| text.get(start + 1..)).or_else(|| text.get(start + 2..)).unwrap_or(text)
}
