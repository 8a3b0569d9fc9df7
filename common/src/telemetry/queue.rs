//! Between those who log and where the lines go: a bounded queue, and a thread that writes.
//!
//! Whoever logs waits for nothing but a lock that is held for a moment. Invariant: when the reader of the output does not keep up,
//! lines are dropped and counted, and the next line that is written says how many.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::limits::LOG_QUEUE_LINES;

/// The way into the queue. Clones are ways into the same one.
#[derive(Clone, Default)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    dropped: u64,
    /// Whether lines were taken out that are not written yet.
    is_writing: bool,
}

impl Queue {
    /// Starts the thread that writes to `output`. `dropped` makes the line that says how many are missing.
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as the program, below everything that has a scope"
    )]
    pub(super) fn start(output: impl Write + Send + 'static, dropped: fn(u64) -> String) -> Self {
        let queue = Self::default();
        let shared = Arc::clone(&queue.shared);
        std::thread::spawn(move || shared.write_to(output, dropped));
        queue
    }

    /// Waits until everything is written, for `patience` at most.
    pub(super) fn flush(&self, patience: Duration) {
        let is_busy = |state: &mut State| !state.lines.is_empty() || state.is_writing;
        drop(self.shared.changed.wait_timeout_while(self.shared.state(), patience, is_busy));
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        if state.lines.len() < LOG_QUEUE_LINES {
            state.lines.push_back(line.to_vec());
            self.shared.changed.notify_all();
        } else {
            state.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut output: impl Write, dropped_line: fn(u64) -> String) {
        loop {
            let waited = self.changed.wait_while(self.state(), |state| state.lines.is_empty());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let (lines, dropped) = (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped));
            state.is_writing = true;
            drop(state);
            // There is nobody to tell that the output is gone.
            for line in lines {
                let _ = output.write_all(&line);
            }
            if dropped > 0 {
                let _ = output.write_all(format!("{}\n", dropped_line(dropped)).as_bytes());
            }
            let _ = output.flush();
            self.state().is_writing = false;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// An output that waits for a word before each write, and tells what it was given.
    struct Slow {
        goes_on: Receiver<()>,
        written: SyncSender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.goes_on.recv().map_err(io::Error::other)?;
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Queue, SyncSender<()>, Receiver<String>) {
        let room = LOG_QUEUE_LINES + 10;
        let ((go, goes_on), (written, read)) = (sync_channel(room), sync_channel(room));
        (Queue::start(Slow { goes_on, written }, |lines| format!("{lines} dropped")), go, read)
    }

    #[test]
    fn who_logs_never_waits_and_what_is_dropped_is_counted() {
        let (mut queue, go, read) = slow();
        queue.write_all(b"first\n").expect("never fails");
        // The writer has taken the first one, and stands still.
        while !queue.shared.state().is_writing {
            std::thread::yield_now();
        }
        for _ in 0..LOG_QUEUE_LINES + 7 {
            queue.write_all(b"line\n").expect("never fails");
        }
        for _ in 0..LOG_QUEUE_LINES + 3 {
            go.send(()).expect("the writer lives");
        }
        let written: Vec<_> = read.iter().take(LOG_QUEUE_LINES + 2).collect();
        assert_eq!((written[0].as_str(), written[1].as_str()), ("first\n", "line\n"));
        assert_eq!(written[LOG_QUEUE_LINES + 1], "7 dropped\n");
    }

    #[test]
    fn a_flush_waits_for_what_is_under_way_and_not_for_ever() {
        let (mut queue, go, read) = slow();
        queue.write_all(b"last\n").expect("never fails");
        queue.flush(Duration::from_millis(1));
        assert!(read.try_recv().is_err(), "nobody reads, and the program ends all the same");
        go.send(()).expect("the writer lives");
        queue.flush(Duration::from_secs(30));
        assert_eq!(read.try_recv().as_deref(), Ok("last\n"));
    }
}
