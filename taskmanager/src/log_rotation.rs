//! Keeps the logs of workers from filling the disk: a log that has become too large is copied to `NAME.1` and emptied; what was there
//! moves on to `NAME.2`, and so on.
//!
//! Workers write to their files without asking, so nobody can give them another file: a line that is written between the copy and
//! its end may be lost. They append, so that an emptied file begins at its beginning.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thalweg_common::task_scope::{TaskScope, blocking};
use tokio::time::MissedTickBehavior;

/// How often sizes are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// A log that is larger is rotated: `taskmanager.log.max-size`.
    pub max_bytes: u64,
    /// Old logs of each that are kept: `env.log.max`.
    pub old_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_bytes: 100 << 20, old_files: 10 }
    }
}

/// Rotates the logs of all jobs in `logs` as long as `scope` lives.
pub(crate) fn start(logs: PathBuf, limits: LogLimits, scope: &TaskScope) {
    let token = scope.token();
    scope.spawn("log rotation", async move {
        let mut due = tokio::time::interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while token.run_until_cancelled(due.tick()).await.is_some() {
            let logs = logs.clone();
            match blocking("rotate logs", move || rotate(&logs, limits)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!("logs of workers are not rotated: {error}; check the data directory")
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
    });
}

/// Rotates what is too large in the directories of all jobs.
fn rotate(logs: &Path, limits: LogLimits) -> io::Result<()> {
    for job in entries(logs)? {
        for file in entries(&job)? {
            let is_written =
                file.extension().is_some_and(|extension| extension == "out" || extension == "err");
            if is_written && fs::metadata(&file)?.len() > limits.max_bytes {
                rotate_file(&file, limits.old_files)?;
            }
        }
    }
    Ok(())
}

fn rotate_file(file: &Path, old_files: u32) -> io::Result<()> {
    let old = |number: u32| PathBuf::from(format!("{}.{number}", file.display()));
    for number in (1..old_files).rev().filter(|number| old(*number).exists()) {
        fs::rename(old(number), old(number + 1))?;
    }
    if old_files > 0 {
        fs::copy(file, old(1))?;
    }
    File::options().write(true).open(file)?.set_len(0)
}

/// What is in a directory; nothing if there is none.
pub(crate) fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        // A job's directory may go at any time, and a file may lie among them.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_is_too_large_moves_on_and_its_writer_begins_anew() {
        let logs = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_bytes: 10, old_files: 2 };
        rotate(&logs.path().join("none"), limits).unwrap();
        let job = logs.path().join("job");
        fs::create_dir(&job).unwrap();
        fs::write(logs.path().join("a file"), "").unwrap();
        let (log, other) = (job.join("w.err"), job.join("w.out"));
        fs::write(&other, "small").unwrap();
        fs::write(job.join("w.core"), "not a log, whatever its size").unwrap();
        let mut writer = File::options().create(true).append(true).open(&log).unwrap();
        for round in ["first round\n", "second round\n", "third round\n"] {
            writer.write_all(round.as_bytes()).unwrap();
            rotate(logs.path(), limits).unwrap();
        }
        writer.write_all(b"last\n").unwrap();
        rotate(logs.path(), limits).unwrap();
        let read = |name: &str| fs::read_to_string(job.join(name)).ok();
        assert_eq!(read("w.err").as_deref(), Some("last\n"));
        assert_eq!(read("w.err.1").as_deref(), Some("third round\n"));
        assert_eq!(read("w.err.2").as_deref(), Some("second round\n"));
        assert_eq!((read("w.err.3"), read("w.out.1"), read("w.core.1")), (None, None, None));

        writer.write_all(b"too large again\n").unwrap();
        rotate(logs.path(), LogLimits { max_bytes: 10, old_files: 0 }).unwrap();
        assert_eq!((read("w.err").as_deref(), read("w.err.1").as_deref()), (Some(""), Some("third round\n")));
    }
}
