//! Records that are lines: those of a range of a file are the lines that start in it, the last of which may end behind it.
//!
//! A line ends with `\n` or `\r\n`; the last one needs no end. Positions are those of lines in the file without its compression.

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_TEXT_LINE_BYTES;
use thalweg_runtime::batch::Batch;

use super::super::split::FileRange;
use super::access::Access;
use super::stream::{Compression, Next, Stream};
use super::{Bad, Progress, RangeReader};
use crate::formats::{BadRecord, Decoder};

/// Text that is decoded in one call at most, so that a barrier never waits long behind long lines.
const POLL_BYTES: u64 = 1024 * 1024;

/// What Windows programs put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The lines of a range.
#[derive(Debug)]
pub(super) struct Lines<D> {
    decoder: D,
    stream: Stream,
    path: String,
    /// The beginning of a line of which only a part has come.
    head: Vec<u8>,
    chunk: Bytes,
    /// Where the next line starts.
    at: u64,
    /// Lines that start here or later are not of the range.
    end: u64,
    /// Bytes in front of the first line, which belong to another one; or, of a compressed file, that were read before.
    skip: Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Nothing,
    /// To the end of a line.
    Line,
    /// To this place.
    To(u64),
}

impl<D: Decoder> Lines<D> {
    pub(super) fn open(decoder: D, access: Access, range: &FileRange) -> Result<Self, Failure> {
        let is_plain = Compression::of(&range.path) == Compression::None;
        let (start, at, skip) = match range.offset {
            Some(offset) if is_plain => (offset, offset, Skip::Nothing),
            Some(offset) => (0, 0, Skip::To(offset)),
            // The byte before tells whether a line starts right there.
            None if range.start > 0 => (range.start - 1, range.start - 1, Skip::Line),
            None => (0, 0, Skip::Nothing),
        };
        let stream = Stream::new(access, &range.path, start, range.length)?;
        let end = if is_plain { range.end } else { u64::MAX };
        Ok(Self {
            decoder,
            stream,
            path: range.path.clone(),
            head: Vec::new(),
            chunk: Bytes::new(),
            at,
            end,
            skip,
        })
    }

    /// Decodes the lines of the chunk, as long as `more` of them are wanted.
    fn take_lines(
        &mut self,
        out: &mut Batch<D::Out>,
        more: impl Fn(&Self, &Batch<D::Out>) -> bool,
        bad: &mut Bad<'_>,
    ) -> Result<(), Failure> {
        let chunk = std::mem::take(&mut self.chunk);
        let mut rest = &chunk[..];
        while more(self, out) && !self.is_behind() {
            let Some(length) = memchr::memchr(b'\n', rest) else { break };
            let (line, behind) = rest.split_at(length + 1);
            rest = behind;
            if self.head.is_empty() {
                self.meet(line, out, bad)?;
            } else {
                let mut whole = std::mem::take(&mut self.head);
                whole.extend_from_slice(line);
                self.meet(&whole, out, bad)?;
            }
        }
        self.chunk = chunk.slice_ref(rest);
        Ok(())
    }

    fn meet(&mut self, line: &[u8], out: &mut Batch<D::Out>, bad: &mut Bad<'_>) -> Result<(), Failure> {
        let start = self.at;
        self.at += line.len() as u64;
        match self.skip {
            Skip::Line => {
                self.skip = Skip::Nothing;
                return Ok(());
            }
            Skip::To(place) if start < place => return Ok(()),
            Skip::To(_) => self.skip = Skip::Nothing,
            Skip::Nothing => {}
        }
        let mut text = line.strip_suffix(b"\n").unwrap_or(line);
        text = text.strip_suffix(b"\r").unwrap_or(text);
        if start == 0 {
            text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        }
        if text.is_empty() && D::SKIPS_EMPTY_LINES {
            return Ok(());
        }
        let Err(malformed) = self.decoder.decode(text, out) else { return Ok(()) };
        let origin = &self.path;
        bad.meet(&malformed, |reason| BadRecord {
            bytes: text.to_vec(),
            origin: origin.clone(),
            position: format!("byte {start}"),
            reason,
        })
    }

    /// What is in front of the range, of which no end of a line has come, cannot be needed.
    fn is_behind(&self) -> bool {
        let here = self.at + self.head.len() as u64;
        match self.skip {
            Skip::Line => here >= self.end,
            Skip::Nothing | Skip::To(_) => self.at >= self.end,
        }
    }
}

impl<D: Decoder> RangeReader<D::Out> for Lines<D> {
    fn poll(&mut self, out: &mut Batch<D::Out>, max: usize, bad: &mut Bad<'_>) -> Result<Progress, Failure> {
        let begin = self.at;
        let more = |lines: &Self, out: &Batch<D::Out>| out.len() < max && lines.at - begin < POLL_BYTES;
        while more(self, out) {
            self.take_lines(out, more, bad)?;
            if !more(self, out) {
                break;
            }
            if self.is_behind() {
                return Ok(Progress::End);
            }
            // What is left of the chunk is the beginning of a line.
            self.head.extend_from_slice(&self.chunk);
            self.chunk.clear();
            if self.head.len() > MAX_TEXT_LINE_BYTES {
                return Err(Failure::user(format!(
                    "the line that starts at byte {} of {} is longer than {MAX_TEXT_LINE_BYTES} bytes; is it a text file?",
                    self.at, self.path
                ))
                .permanent());
            }
            match self.stream.next(self.end)? {
                Next::Bytes(bytes) => self.chunk = bytes,
                Next::Waiting => return Ok(Progress::Waiting),
                Next::End if self.head.is_empty() => return Ok(Progress::End),
                Next::End => {
                    let last = std::mem::take(&mut self.head);
                    self.meet(&last, out, bad)?;
                }
            }
        }
        Ok(Progress::Read)
    }

    fn offset(&self) -> Option<u64> {
        match self.skip {
            Skip::Nothing => Some(self.at),
            Skip::To(place) => Some(place),
            Skip::Line => None,
        }
    }
}
