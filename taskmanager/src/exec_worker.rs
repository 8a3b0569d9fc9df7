//! The step between the task manager and a job's binary: `taskmanager exec-worker --parent PID -- BINARY ARGUMENTS...`.
//!
//! Runs in the new process, makes sure that it dies with its task manager, and becomes the binary. It is a program of its
//! own and not a hook between fork and exec, because such a hook needs unsafe code.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// By how much a worker is preferred over everything else when the kernel needs memory: the task manager must survive.
const OOM_SCORE_ADJUSTMENT: &str = "500";

/// How often a binary that somebody still holds open for writing is tried again.
const BUSY_ATTEMPTS: u32 = 100;

/// Time between two attempts.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Becomes the job's binary. Returns only when that fails.
///
/// # Errors
/// When the parent is gone already or the binary cannot be executed.
pub fn exec(
    parent: i32,
    binary: &Path,
    arguments: &[OsString],
) -> Result<std::convert::Infallible, ExecError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ExecError::DeathSignal(error.into()))?;
    // The parent may have died before the signal was asked for.
    if getppid() != Pid::from_raw(parent) {
        return Err(ExecError::Orphan);
    }
    // Refused in some sandboxes: then the kernel chooses by size alone, which usually meets the worker too.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT);
    let mut attempts = 0;
    loop {
        let error = Command::new(binary).args(arguments).exec();
        // A process that is just being started elsewhere may hold a copy of the descriptor that wrote the binary, until
        // it has become its own program.
        attempts += 1;
        if error.kind() != io::ErrorKind::ExecutableFileBusy || attempts == BUSY_ATTEMPTS {
            return Err(ExecError::Exec { binary: binary.to_path_buf(), error });
        }
        std::thread::park_timeout(BUSY_PAUSE);
    }
}

/// Why the job's binary does not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kernel does not promise to end the worker with its task manager.
    #[error("cannot ask for a signal at the task manager's death: {0}")]
    DeathSignal(io::Error),
    /// The task manager has died already.
    #[error("the task manager that started this worker is gone")]
    Orphan,
    /// The binary cannot be executed.
    #[error(
        "cannot execute {}: {error}; build the job for this machine's architecture and C library",
        .binary.display()
    )]
    Exec {
        /// The job's binary.
        binary: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
}
