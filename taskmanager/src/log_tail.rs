//! Reads what workers write to their standard error, for whoever sends it elsewhere.
//!
//! Files wait for the sender as long as they are not rotated away, so nothing of a worker is dropped because the way is slow. Invariants: only
//! whole lines are read, each once; what was there before the task manager started was for an earlier one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thalweg_common::clock::{Clock, SystemClock};
use thalweg_common::limits::MAX_COPIED_LINE_BYTES;
use thalweg_common::task_scope::{BlockingError, TaskScope, blocking};
use thalweg_common::telemetry::{LogCopies, LogLine};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::log_rotation::entries;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of one file that are read at a time. A line that is longer is read in pieces.
const PIECE_BYTES: u64 = 4 * MAX_COPIED_LINE_BYTES as u64;

/// Makes a line of a file ready to be sent: from the file's name, the line and the time at which it was read.
pub type LineOfFile = fn(&str, &str, i64) -> LogLine;

/// How lines of workers get on their way.
#[derive(Debug, Clone)]
pub struct LogForwarding {
    /// The way.
    pub copies: LogCopies,
    /// What becomes of each line.
    pub line: LineOfFile,
}

/// Reads the logs of all jobs in `logs` as long as `scope` lives, and once more at its end, when the workers have ended.
pub(crate) fn start(logs: PathBuf, forwarding: LogForwarding, scope: &TaskScope) {
    let token = scope.token();
    scope.spawn_fallible("logs of workers", async move {
        let mut tails = Tails::new(logs);
        let mut due = tokio::time::interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let goes_on = token.run_until_cancelled(due.tick()).await.is_some();
            let lines;
            (lines, tails) = blocking("read logs", move || {
                let lines = tails.read();
                (lines, tails)
            })
            .await?;
            match lines {
                Ok(lines) => forwarding.forward(lines, &token).await,
                Err(error) => {
                    tracing::warn!("logs of workers are not sent: {error}; check the data directory");
                }
            }
            if !goes_on {
                return Ok::<_, BlockingError>(());
            }
            if tails.is_behind {
                due.reset_immediately();
            }
        }
    });
}

impl LogForwarding {
    /// Sends lines on their way, as fast as it takes them; at the end without waiting for it.
    async fn forward(&self, lines: Vec<(String, String)>, token: &CancellationToken) {
        let now_ms = SystemClock::new().now_ms();
        for (file, line) in lines {
            let line = (self.line)(&file, &line, now_ms);
            tokio::select! {
                biased;
                () = token.cancelled() => self.copies.offer(line),
                _ = self.copies.add(line.clone()) => {}
            }
        }
    }
}

/// How far each file was read.
struct Tails {
    logs: PathBuf,
    read_bytes: HashMap<PathBuf, u64>,
    has_begun: bool,
    /// Whether there may be more than was read.
    is_behind: bool,
}

impl Tails {
    fn new(logs: PathBuf) -> Self {
        Self { logs, read_bytes: HashMap::new(), has_begun: false, is_behind: false }
    }

    /// Whole lines that were not read yet, with their file's name: a piece of each file.
    fn read(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        let mut known = HashMap::new();
        let mut is_behind = false;
        for job in entries(&self.logs)? {
            for file in entries(&job)? {
                if file.extension().is_none_or(|extension| extension != "err") {
                    continue;
                }
                let length = match fs::metadata(&file) {
                    Ok(metadata) => metadata.len(),
                    // Its job is forgotten.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let from = self.read_bytes.get(&file).copied();
                // What a worker of an earlier task manager wrote was there first.
                let from = from.unwrap_or(if self.has_begun { 0 } else { length });
                let read = self.read_file(&file, from, length, &mut lines)?;
                is_behind |= read < from || read - from >= PIECE_BYTES / 2;
                known.insert(file, read);
            }
        }
        self.read_bytes = known;
        self.has_begun = true;
        self.is_behind = is_behind;
        Ok(lines)
    }

    /// Reads on behind so many bytes; answers how far.
    fn read_file(
        &self,
        file: &Path,
        from: u64,
        length: u64,
        lines: &mut Vec<(String, String)>,
    ) -> io::Result<u64> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if from <= length {
            return Ok(from + piece(file, from, length, &name, lines)?);
        }
        // It was rotated: what was not read then is in the newest of the old logs.
        let old = PathBuf::from(format!("{}.1", file.display()));
        if let Ok(old_length) = fs::metadata(&old).map(|metadata| metadata.len())
            && from < old_length
        {
            let read = piece(&old, from, old_length, &name, lines)?;
            let is_through = read == 0 || from + read >= old_length;
            return if is_through { Ok(0) } else { Ok(from + read) };
        }
        Ok(0)
    }
}

/// The lines that are complete between two places of a file; answers how many bytes they are.
fn piece(file: &Path, from: u64, to: u64, name: &str, lines: &mut Vec<(String, String)>) -> io::Result<u64> {
    if from == to {
        return Ok(0);
    }
    let mut bytes = Vec::new();
    let mut opened = File::open(file)?;
    opened.seek(SeekFrom::Start(from))?;
    opened.take((to - from).min(PIECE_BYTES)).read_to_end(&mut bytes)?;
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1);
    // A line that is longer than a piece is cut; one that only has no end yet is read when it has.
    let complete = complete.unwrap_or(if bytes.len() as u64 == PIECE_BYTES { bytes.len() } else { 0 });
    let text = String::from_utf8_lossy(&bytes[..complete]);
    lines.extend(text.lines().filter(|line| !line.is_empty()).map(|line| (name.to_owned(), line.to_owned())));
    Ok(complete as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Write;

    fn texts(tails: &mut Tails) -> Vec<String> {
        tails.read().unwrap().into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn each_whole_line_is_read_once() {
        let logs = tempfile::tempdir().unwrap();
        let job = logs.path().join("job");
        fs::create_dir(&job).unwrap();
        fs::write(job.join("old.err"), "of an earlier task manager\n").unwrap();
        let mut tails = Tails::new(logs.path().to_owned());
        assert!(texts(&mut tails).is_empty());
        fs::write(job.join("w.out"), "printed\n").unwrap();
        let mut log = File::options().create(true).append(true).open(job.join("w.err")).unwrap();
        log.write_all(b"first\nsecond\nhalf").unwrap();
        assert_eq!(tails.read().unwrap()[0], ("w.err".to_owned(), "first".to_owned()));
        assert!(texts(&mut tails).is_empty(), "half a line waits for its end");
        log.write_all(b" a line\n").unwrap();
        assert_eq!(texts(&mut tails), ["half a line"]);
        fs::write(job.join("old.err"), "of an earlier task manager\nand more\n").unwrap();
        assert_eq!(texts(&mut tails), ["and more"]);
    }

    #[test]
    fn rotation_loses_nothing() {
        let logs = tempfile::tempdir().unwrap();
        let job = logs.path().join("job");
        fs::create_dir(&job).unwrap();
        let mut tails = Tails::new(logs.path().to_owned());
        assert!(texts(&mut tails).is_empty());
        let file = job.join("w.err");
        fs::write(&file, "one\n").unwrap();
        assert_eq!(texts(&mut tails), ["one"]);
        // Written and rotated before anybody looked.
        fs::write(job.join("w.err.1"), "one\ntwo\n").unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(texts(&mut tails), ["two"]);
        fs::write(&file, "three\n").unwrap();
        assert_eq!(texts(&mut tails), ["three"]);
    }

    #[test]
    fn a_line_without_end_is_read_in_pieces() {
        let logs = tempfile::tempdir().unwrap();
        let job = logs.path().join("job");
        fs::create_dir(&job).unwrap();
        let mut tails = Tails::new(logs.path().to_owned());
        assert!(texts(&mut tails).is_empty());
        fs::write(job.join("w.err"), "x".repeat(PIECE_BYTES as usize + 10)).unwrap();
        assert_eq!(texts(&mut tails)[0].len(), PIECE_BYTES as usize);
        assert!(texts(&mut tails).is_empty());
    }

    #[tokio::test]
    async fn lines_get_on_their_way() {
        let logs = tempfile::tempdir().unwrap();
        let (copies, mut sent) = LogCopies::new();
        let scope = TaskScope::new("test");
        let line: LineOfFile = |file, text, now_ms| LogLine::new(now_ms, format!("{file}: {text}"));
        start(logs.path().to_owned(), LogForwarding { copies, line }, &scope);
        let job = logs.path().join("job");
        fs::create_dir(&job).unwrap();
        // However far the first look is: lines that come later are new.
        let mut log = File::options().create(true).append(true).open(job.join("w.err")).unwrap();
        let line = loop {
            log.write_all(b"again\n").unwrap();
            if let Ok(line) = tokio::time::timeout(Duration::from_secs(2), sent.recv()).await {
                break line.unwrap();
            }
        };
        assert_eq!(line.text, "w.err: again");
        scope.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}
