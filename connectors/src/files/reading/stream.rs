//! The bytes of a file from some place on, in order and without compression.
//!
//! Files are compressed if their name ends in `.gz`, `.gzip`, `.zst` or `.zstd`; such files are read from their beginning, whatever is wanted of
//! them. Invariant: a few chunks are under way at the most.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use thalweg_common::failure::Failure;
use thalweg_common::limits::{FILE_SOURCE_CHUNK_BYTES, FILE_SOURCE_CHUNKS_AHEAD};

use super::access::Access;

/// What there is of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Bytes(Bytes),
    /// Not yet: whoever asks is woken.
    Waiting,
    End,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the name of a file.
    pub(super) fn of(path: &str) -> Self {
        let extension =
            path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
        match extension {
            Some("gz" | "gzip") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A file that is read on and on.
pub(super) struct Stream {
    access: Access,
    path: String,
    /// Up to where was asked for bytes.
    asked: u64,
    length: u64,
    decompressor: Decompressor,
    is_over: bool,
}

enum Decompressor {
    None,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("path", &self.path).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Stream {
    /// The bytes of a file from `start` on, which is 0 if it is compressed.
    pub(super) fn new(access: Access, path: &str, start: u64, length: u64) -> Result<Self, Failure> {
        let decompressor = match Compression::of(path) {
            Compression::None => Decompressor::None,
            Compression::Gzip => Decompressor::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Compression::Zstd => {
                let decoder = zstd::stream::write::Decoder::new(Vec::new());
                Decompressor::Zstd(decoder.map_err(|error| damaged(path, &error))?)
            }
        };
        Ok(Self { access, path: path.to_owned(), asked: start, length, decompressor, is_over: false })
    }

    /// The next bytes, of which at least those before `wanted` will be needed.
    pub(super) fn next(&mut self, wanted: u64) -> Result<Next, Failure> {
        loop {
            if self.is_over {
                return Ok(Next::End);
            }
            self.ask(wanted);
            if self.access.asked() == 0 {
                self.is_over = true;
                let rest = self.decompressor.finish().map_err(|error| damaged(&self.path, &error))?;
                return Ok(if rest.is_empty() { Next::End } else { Next::Bytes(rest) });
            }
            let Some(bytes) = self.access.take()? else { return Ok(Next::Waiting) };
            let bytes = self.decompressor.push(bytes).map_err(|error| damaged(&self.path, &error))?;
            if !bytes.is_empty() {
                return Ok(Next::Bytes(bytes));
            }
        }
    }

    /// Asks beforehand for what is wanted; behind that, for one chunk at a time.
    fn ask(&mut self, wanted: u64) {
        let ahead = if self.access.is_remote() { FILE_SOURCE_CHUNKS_AHEAD } else { 1 };
        while self.asked < self.length && self.access.asked() < ahead {
            let is_wanted = self.asked < wanted;
            if !is_wanted && self.access.asked() > 0 {
                return;
            }
            let chunk = match (self.access.is_remote(), is_wanted) {
                (true, true) => FILE_SOURCE_CHUNK_BYTES,
                // Of this machine, or the end of a line behind a range: little is enough.
                _ => FILE_SOURCE_CHUNK_BYTES / 16,
            };
            let mut end = self.asked.saturating_add(chunk).min(self.length);
            if is_wanted {
                end = end.min(wanted);
            }
            self.access.ask(self.asked..end);
            self.asked = end;
        }
    }
}

impl Decompressor {
    fn push(&mut self, bytes: Bytes) -> std::io::Result<Bytes> {
        match self {
            Self::None => Ok(bytes),
            Self::Gzip(decoder) => {
                decoder.write_all(&bytes)?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Self::Zstd(decoder) => {
                decoder.write_all(&bytes)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
        }
    }

    /// What is left at the end of the file.
    fn finish(&mut self) -> std::io::Result<Bytes> {
        match self {
            Self::None => Ok(Bytes::new()),
            Self::Gzip(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Self::Zstd(decoder) => {
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
        }
    }
}

fn damaged(path: &str, error: &std::io::Error) -> Failure {
    Failure::user(format!("{path} cannot be decompressed: {error}; it is damaged or its name is wrong: replace it or leave it out"))
        .permanent()
}
