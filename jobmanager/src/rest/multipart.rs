//! `multipart/form-data`, as far as an upload needs it: the bytes of the first part that is a file, as they come.
//!
//! Pure: pieces of the body go in, pieces of the file come out. Invariants: at most a delimiter and a part's head are held back; what is
//! given out was never part of a delimiter.

use bytes::Bytes;
use memchr::memmem;

/// Longest head of a part.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What is no upload of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error(
        "the body is no multipart/form-data with a boundary; send the job binary as a file, as `curl -F jarfile=@FILE` does"
    )]
    NoBoundary,
    #[error("the head of a part is longer than {MAX_HEAD_BYTES} bytes")]
    LongHead,
    #[error("the body ends within the upload; send it again")]
    Ends,
    #[error("no part of the body is a file; send the job binary as a file, as `curl -F jarfile=@FILE` does")]
    NoFile,
}

/// Where the reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In what is not wanted, up to the next delimiter.
    Elsewhere,
    /// Behind a delimiter, in the head of a part.
    Head,
    /// In the file.
    File,
    /// Behind the file.
    Behind,
}

/// Reads one body.
#[derive(Debug)]
pub(super) struct Multipart {
    delimiter: Vec<u8>,
    held: Vec<u8>,
    place: Place,
    name: Option<String>,
}

impl Multipart {
    /// For a body of this `content-type`.
    pub(super) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let mut fields = content_type.split(';').map(str::trim);
        let is_form = fields.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"));
        let boundary =
            fields.find_map(|field| field.strip_prefix("boundary=")).map(|text| text.trim_matches('"'));
        let boundary = boundary.filter(|boundary| is_form && !boundary.is_empty());
        let boundary = boundary.ok_or(MultipartError::NoBoundary)?;
        // The first delimiter has no line in front of it.
        let (held, place) = (b"\r\n".to_vec(), Place::Elsewhere);
        Ok(Self { delimiter: format!("\r\n--{boundary}").into_bytes(), held, place, name: None })
    }

    /// The name of the file, once it has begun.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Takes the next piece of the body and gives what is of the file.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Bytes, MultipartError> {
        self.held.extend_from_slice(piece);
        let mut file = Vec::new();
        while self.step(&mut file)? {}
        Ok(file.into())
    }

    /// The body is at its end.
    pub(super) fn finish(self) -> Result<(), MultipartError> {
        match self.place {
            Place::Behind => Ok(()),
            Place::File => Err(MultipartError::Ends),
            Place::Elsewhere | Place::Head => Err(MultipartError::NoFile),
        }
    }

    /// Goes to the next place if what it needs is there.
    fn step(&mut self, file: &mut Vec<u8>) -> Result<bool, MultipartError> {
        match self.place {
            Place::Behind => {
                self.held.clear();
                Ok(false)
            }
            Place::Head => {
                let Some(end) = memmem::find(&self.held, b"\r\n\r\n") else {
                    let is_long = self.held.len() > MAX_HEAD_BYTES;
                    return if is_long { Err(MultipartError::LongHead) } else { Ok(false) };
                };
                self.name = file_name(&String::from_utf8_lossy(&self.held[..end]));
                self.place = if self.name.is_some() { Place::File } else { Place::Elsewhere };
                self.held.drain(..end + 4);
                Ok(true)
            }
            Place::Elsewhere | Place::File => {
                let is_file = self.place == Place::File;
                let found = memmem::find(&self.held, &self.delimiter);
                let until = found.unwrap_or_else(|| self.held.len().saturating_sub(self.delimiter.len() - 1));
                if is_file {
                    file.extend_from_slice(&self.held[..until]);
                }
                self.held.drain(..until);
                if found.is_none() {
                    return Ok(false);
                }
                self.held.drain(..self.delimiter.len());
                self.place = if is_file { Place::Behind } else { Place::Head };
                Ok(true)
            }
        }
    }
}

/// What a part's head says of the name of its file.
fn file_name(head: &str) -> Option<String> {
    let is_disposition = |line: &&str| line.to_ascii_lowercase().starts_with("content-disposition:");
    let line = head.lines().find(is_disposition)?;
    let name = line.split(';').find_map(|field| field.trim().strip_prefix("filename="))?;
    Some(name.trim_matches('"').to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x-1\"";

    fn read(body: &[u8], size: usize) -> Result<(Option<String>, Vec<u8>), MultipartError> {
        let mut multipart = Multipart::new(TYPE).unwrap();
        let mut file = Vec::new();
        for piece in body.chunks(size) {
            file.extend_from_slice(&multipart.feed(piece)?);
        }
        let name = multipart.file_name().map(str::to_string);
        multipart.finish().map(|()| (name, file))
    }

    fn body(file: &[u8]) -> Vec<u8> {
        let before = "--x-1\r\nContent-Disposition: form-data; name=\"comment\"\r\n\r\nnothing\r\n--x-1\r\ncontent-disposition: \
                      form-data; name=\"jarfile\"; filename=\"job\"\r\nContent-Type: application/x-java-archive\r\n\r\n";
        [before.as_bytes(), file, b"\r\n--x-1--\r\n"].concat()
    }

    proptest! {
        #[test]
        fn the_file_comes_out_whatever_the_pieces_are(
            file in prop::collection::vec(prop::sample::select(b"\r\n-x1a".to_vec()), 0..60),
            size in 1usize..200,
        ) {
            prop_assume!(memmem::find(&file, b"\r\n--x-1").is_none());
            prop_assert_eq!(read(&body(&file), size).unwrap(), (Some("job".to_string()), file));
        }
    }

    #[test]
    fn what_is_no_upload_is_refused() {
        assert_eq!(Multipart::new("application/json").unwrap_err(), MultipartError::NoBoundary);
        assert_eq!(Multipart::new("multipart/form-data").unwrap_err(), MultipartError::NoBoundary);
        assert_eq!(read(b"", 1), Err(MultipartError::NoFile));
        assert_eq!(read(b"--x-1--\r\n", 4), Err(MultipartError::NoFile));
        let whole = body(b"some bytes");
        assert_eq!(read(&whole[..whole.len() - 12], 7), Err(MultipartError::Ends));
        let long = [b"--x-1\r\n".to_vec(), vec![b'a'; MAX_HEAD_BYTES + 10]].concat();
        assert_eq!(read(&long, 1_000), Err(MultipartError::LongHead));
    }
}
