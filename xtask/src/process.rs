//! A program that we started: its output in files, its end noticed, and never left behind.
//!
//! Invariants: dropping a [`Process`] kills it; one that is tied to us dies with us even when we are killed ourselves
//! (where `setpriv` exists); it is signalled by its id alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{LOOK_AGAIN_AFTER, Stopwatch, pause, wait_until};
use crate::setup::is_program;
use crate::signal::Interrupt;

/// How long a program may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Never longer than this program, however this one ends.
    Ours,
    /// Longer, if [`Process::leave_running`] says so.
    ItsOwn,
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    left_running: bool,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a program. What it prints goes to `<logs>/<name>.out` and `<logs>/<name>.err`.
    ///
    /// # Errors
    /// When the files cannot be created or the program cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        logs: &Path,
        lifetime: Lifetime,
    ) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.err"));
        let create =
            |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        let child = command(program, lifetime)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(create(&stdout)?)
            .stderr(create(&stderr)?)
            // A Ctrl-C in the terminal is for us; we stop our programs in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, left_running: false, stdout, stderr })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard output that begins with `prefix`; answers what follows it.
    ///
    /// # Errors
    /// When the program ends before that, or the deadline passes; with its last words.
    pub fn wait_for_line(
        &mut self,
        prefix: &str,
        deadline: Duration,
        interrupt: &Interrupt,
    ) -> Result<String> {
        let what = format!("{} to print `{prefix}...`", self.name);
        wait_until(&what, deadline, interrupt, || {
            if let Some(rest) = line_after(&fs::read_to_string(&self.stdout)?, prefix) {
                return Ok(Some(rest));
            }
            match self.ended()? {
                Some(status) => bail!("{} ended ({status}) before it was ready", self.name),
                None => Ok(None),
            }
        })
        .with_context(|| self.last_words())
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When the operating system does not know the process.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))
    }

    /// Sends SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it had ended before: then it was not we who killed it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended by itself ({status}). {}", self.name, self.last_words());
        }
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM).
    ///
    /// # Errors
    /// When the operating system refuses the signal.
    pub fn ask_to_stop(&mut self) -> Result<()> {
        if self.ended()?.is_none()
            && let Some(id) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(id, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))?;
        }
        Ok(())
    }

    /// Lets it live on without us. Meaningful for [`Lifetime::ItsOwn`] only.
    pub fn leave_running(mut self) {
        self.left_running = true;
    }

    /// The end of what it wrote to standard error, for an error message.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("the last lines of {}:\n{end}\n", self.stderr.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.left_running && matches!(self.child.try_wait(), Ok(None)) {
            // It may end in between, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Asks all to stop, and kills those that have not stopped at the deadline.
///
/// # Errors
/// Names those that had to be killed.
pub fn stop_all(processes: &mut [Process], deadline: Duration) -> Result<()> {
    for process in processes.iter_mut() {
        process.ask_to_stop()?;
    }
    let stopwatch = Stopwatch::start();
    let mut stubborn = Vec::new();
    for process in processes {
        while process.ended()?.is_none() {
            if stopwatch.elapsed() >= deadline {
                stubborn.push(process.name.clone());
                process.kill()?;
                break;
            }
            pause(LOOK_AGAIN_AFTER);
        }
    }
    if !stubborn.is_empty() {
        bail!("did not stop when asked to and had to be killed: {}", stubborn.join(", "));
    }
    Ok(())
}

/// The program itself or, to tie its life to ours, through `setpriv`, which replaces itself by it.
fn command(program: &Path, lifetime: Lifetime) -> Command {
    if lifetime == Lifetime::ItsOwn || !is_program("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What follows the prefix on the first complete line that begins with it.
fn line_after(text: &str, prefix: &str) -> Option<String> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .find_map(|line| line.strip_prefix(prefix))
        .map(|rest| rest.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn shell(script: &str, logs: &TempDir) -> Process {
        Process::start("shell", Path::new("sh"), ["-c", script], logs.path(), Lifetime::Ours)
            .expect("started")
    }

    fn logs() -> TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_is_ready_when_it_says_so() {
        let logs = logs();
        let mut process = shell("echo starting; echo ready 127.0.0.1:1; exec sleep 60", &logs);
        let rest = process.wait_for_line("ready ", LONG, &Interrupt::default()).expect("it says so");
        assert_eq!(rest, "127.0.0.1:1");
        process.kill().expect("it runs");
    }

    #[test]
    fn a_program_that_ends_instead_is_quoted() {
        let logs = logs();
        let mut process = shell("echo no such port >&2; exit 3", &logs);
        let error = process.wait_for_line("ready ", LONG, &Interrupt::default()).expect_err("it ends");
        let text = format!("{error:#}");
        assert!(text.contains("exit status: 3") && text.contains("no such port"), "{text}");
        assert!(process.kill().is_err(), "there is nothing left to kill");
    }

    #[test]
    fn half_a_line_is_not_a_line() {
        assert_eq!(line_after("ready 127.0.", "ready "), None);
        assert_eq!(line_after("x\nready 127.0.0.1:1\n", "ready ").as_deref(), Some("127.0.0.1:1"));
    }

    #[test]
    fn stopping_asks_first_and_names_those_that_must_be_killed() {
        let logs = logs();
        let polite = shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", &logs);
        let mut processes = [polite];
        processes[0].wait_for_line("up", LONG, &Interrupt::default()).expect("it runs");
        stop_all(&mut processes, LONG).expect("it stops when asked to");

        let deaf = shell("trap '' TERM; echo up; while :; do sleep 0.01; done", &logs);
        let mut processes = [deaf];
        processes[0].wait_for_line("up", LONG, &Interrupt::default()).expect("it runs");
        let error = stop_all(&mut processes, Duration::ZERO).expect_err("it does not listen");
        assert!(error.to_string().ends_with("shell"), "{error}");
        assert!(processes[0].ended().expect("known").is_some());
    }

    #[test]
    fn a_dropped_program_is_killed_and_one_that_is_left_running_is_not() {
        let logs = logs();
        let process = shell("exec sleep 60", &logs);
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());

        let script = ["-c", "echo up; exec sleep 60"];
        let mut process =
            Process::start("shell", Path::new("sh"), script, logs.path(), Lifetime::ItsOwn).expect("started");
        process.wait_for_line("up", LONG, &Interrupt::default()).expect("it runs");
        let id = process.id();
        process.leave_running();
        assert!(Path::new(&format!("/proc/{id}")).exists());
        let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::KILL).expect("it runs");
    }
}
