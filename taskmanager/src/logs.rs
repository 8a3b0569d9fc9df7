//! What workers wrote: `<data-dir>/logs/<job id>/<worker id>.out` and `.err`, and what was rotated behind a number.
//!
//! Workers write to the files themselves, so output survives them and costs the task manager nothing. Only ends of files
//! are ever read. All functions here block.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thalweg_common::id::{JobId, WorkerId};
use thalweg_common::limits::{MAX_FAILURE_TEXT_BYTES, STDERR_TAIL_LINES};
use thalweg_proto::v1;

/// What is read of each log when nothing else is asked for.
const DEFAULT_TAIL_BYTES: u64 = 64 * 1024;

/// Most bytes of all logs of a job in one answer.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Where the logs of a job are.
pub(crate) fn directory(logs: &Path, job: JobId) -> PathBuf {
    logs.join(job.to_string())
}

/// A worker's standard output.
pub(crate) fn stdout(directory: &Path, worker: WorkerId) -> PathBuf {
    directory.join(format!("{worker}.out"))
}

/// A worker's standard error.
pub(crate) fn stderr(directory: &Path, worker: WorkerId) -> PathBuf {
    directory.join(format!("{worker}.err"))
}

/// The last lines of a worker's standard error, for people. A log that cannot be read says so in its place.
pub(crate) fn last_lines(path: &Path) -> String {
    let bytes = match tail(path, MAX_FAILURE_TEXT_BYTES as u64) {
        Ok(bytes) => bytes,
        Err(error) => return format!("({} cannot be read: {error})", path.display()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(STDERR_TAIL_LINES)..].join("\n")
}

/// The ends of all logs of a job, those written last at the end. The oldest are left out when there are too many.
///
/// # Errors
/// When a directory or file cannot be read. A job without logs has none.
pub(crate) fn tails(directory: &Path, tail_bytes: u64) -> io::Result<Vec<v1::LogPart>> {
    let tail_bytes = if tail_bytes == 0 { DEFAULT_TAIL_BYTES } else { tail_bytes.min(MAX_ANSWER_BYTES) };
    let mut left = MAX_ANSWER_BYTES;
    let mut parts = Vec::new();
    let logs = by_age(directory)?.into_iter().rev();
    for (source, path) in logs.filter_map(|(_, path)| Some((source(&path)?, path))) {
        let data = tail(&path, tail_bytes.min(left))?;
        left -= data.len() as u64;
        if !data.is_empty() {
            parts.push(v1::LogPart { source, data: data.into() });
        }
        if left == 0 {
            break;
        }
    }
    parts.reverse();
    Ok(parts)
}

fn by_age(directory: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    Ok(files)
}

/// `stdout` or `stderr`, with the worker's id.
fn source(path: &Path) -> Option<String> {
    let worker = path.file_stem()?.to_str()?;
    match path.extension()?.to_str()? {
        "out" => Some(format!("stdout {worker}")),
        "err" => Some(format!("stderr {worker}")),
        _ => None,
    }
}

/// The last bytes of a file.
fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut data = Vec::new();
    // A file may grow while it is read.
    file.take(bytes).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.err");
        assert!(last_lines(&path).contains("cannot be read"));
        let lines: Vec<String> = (0..STDERR_TAIL_LINES + 9).map(|line| format!("line {line}")).collect();
        std::fs::write(&path, lines.join("\n") + "\n").expect("writes");
        assert_eq!(last_lines(&path), lines[9..].join("\n"));
        std::fs::write(&path, "x".repeat(10 * MAX_FAILURE_TEXT_BYTES)).expect("writes");
        assert_eq!(last_lines(&path).len(), MAX_FAILURE_TEXT_BYTES);
        std::fs::write(&path, b"\xff broken").expect("writes");
        assert_eq!(last_lines(&path), "\u{fffd} broken");
    }

    #[test]
    fn tails_are_cut_named_and_in_order() {
        let root = tempfile::tempdir().expect("a directory");
        let job = directory(root.path(), JobId(5));
        assert_eq!(tails(&job, 0).expect("no logs are fine"), []);
        std::fs::create_dir(&job).expect("creates");
        let worker = WorkerId(6);
        std::fs::write(stdout(&job, worker), "0123456789").expect("writes");
        std::fs::write(stderr(&job, worker), "").expect("writes");
        std::fs::write(stderr(&job, WorkerId(7)), "abc").expect("writes");
        let older = SystemTime::UNIX_EPOCH;
        File::options()
            .append(true)
            .open(stdout(&job, worker))
            .expect("opens")
            .set_modified(older)
            .expect("sets");
        let parts = tails(&job, 4).expect("reads");
        let parts: Vec<_> = parts.iter().map(|part| (part.source.clone(), part.data.as_ref())).collect();
        assert_eq!(
            parts,
            [(format!("stdout {worker}"), &b"6789"[..]), (format!("stderr {}", WorkerId(7)), b"abc"),]
        );
    }
}
