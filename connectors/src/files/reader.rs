//! Reads the lines of one split: those that start in its byte range, the last of which may end behind it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_TEXT_LINE_BYTES;

use super::error::{absolute, failed, failed_at};

/// Bytes that are read from the disk at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// What Windows programs put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An open split.
#[derive(Debug)]
pub(crate) struct SplitReader {
    path: String,
    file: BufReader<File>,
    /// Where the next line starts.
    offset: u64,
    /// The range's end: a line that starts here belongs to the next split.
    end: u64,
}

impl SplitReader {
    /// Opens the split `range` of the file, at the line that starts at `offset` if the split was begun before.
    pub(crate) fn open(path: &str, range: &Range<u64>, offset: Option<u64>) -> Result<Self, Failure> {
        let fail = |error| failed("read", Path::new(path), &error);
        let file = File::open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        if length < range.end {
            return Err(shortened(path, length, range.end));
        }
        let mut reader = Self {
            path: path.to_string(),
            file: BufReader::with_capacity(BUFFER_BYTES, file),
            offset: offset.unwrap_or(range.start),
            end: range.end,
        };
        match offset {
            Some(offset) => reader.seek(offset)?,
            None if range.start > 0 => reader.skip_foreign_line(range.start)?,
            None => {}
        }
        Ok(reader)
    }

    /// Where the next line starts.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line without its end (`\n` or `\r\n`), or nothing when the split is read.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>, Failure> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let mut line = Vec::new();
        // One more than the limit, so that a line of exactly the limit still shows its end.
        let mut bounded = (&mut self.file).take(MAX_TEXT_LINE_BYTES as u64 + 1);
        let read = bounded.read_until(b'\n', &mut line).map_err(|error| self.fail(&error))?;
        let ended = line.last() == Some(&b'\n');
        if read > MAX_TEXT_LINE_BYTES && !ended {
            return Err(Failure::user(format!(
                "the line that starts at byte {} of {} is longer than {MAX_TEXT_LINE_BYTES} bytes; is it a text file?",
                self.offset,
                absolute(Path::new(&self.path)).display()
            ))
            .permanent());
        }
        if read == 0 {
            return Err(shortened(&self.path, self.offset, self.end));
        }
        let start = self.offset;
        self.offset += read as u64;
        if ended {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        let mut text_start = start;
        if start == 0 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
            text_start += BYTE_ORDER_MARK.len() as u64;
        }
        String::from_utf8(line)
            .map(Some)
            .map_err(|error| self.not_utf8(text_start + error.utf8_error().valid_up_to() as u64))
    }

    fn seek(&mut self, offset: u64) -> Result<(), Failure> {
        self.offset = offset;
        self.file.seek(SeekFrom::Start(offset)).map(|_| ()).map_err(|error| self.fail(&error))
    }

    /// The line in which `start` lies belongs to an earlier split, unless it starts right there: the byte before tells.
    fn skip_foreign_line(&mut self, start: u64) -> Result<(), Failure> {
        self.seek(start - 1)?;
        // A line that ends behind the range leaves nothing to read, so there is no need to look further.
        let mut within = (&mut self.file).take(self.end - (start - 1));
        let skipped = within.skip_until(b'\n').map_err(|error| self.fail(&error))?;
        self.offset = start - 1 + skipped as u64;
        Ok(())
    }

    fn fail(&self, error: &std::io::Error) -> Failure {
        let path = absolute(Path::new(&self.path));
        failed_at("read", &format!("{} at byte {}", path.display(), self.offset), error)
    }

    fn not_utf8(&self, offset: u64) -> Failure {
        Failure::user(format!(
            "{} is not UTF-8 text: byte {offset} does not belong to a character; convert the file or leave it out",
            absolute(Path::new(&self.path)).display()
        ))
        .permanent()
    }
}

fn shortened(path: &str, found: u64, expected: u64) -> Failure {
    Failure::external(format!(
        "{} became shorter while it was read ({found} bytes, {expected} expected); write new data to new files",
        absolute(Path::new(path)).display()
    ))
    .permanent()
}
