//! Job binaries by content: their name is the SHA-256 of their bytes.
//!
//! Stands wherever a binary is sent, stored or fetched, so that all of them hash and name it alike. Invariant: two
//! blobs of one name have the same bytes.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thalweg_common::limits::UPLOAD_CHUNK_BYTES;

use crate::convert::Malformed;

/// The SHA-256 of a blob. Its text is 64 lower-case hexadecimal digits, also the blob's file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// The hash of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = BlobHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash and size in bytes of a file. Reads all of it: call it where blocking is allowed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = BlobHasher::default();
        let mut buffer = vec![0; UPLOAD_CHUNK_BYTES];
        let mut size_bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((hasher.finish(), size_bytes));
            }
            hasher.update(&buffer[..read]);
            size_bytes += read as u64;
        }
    }

    /// As it travels.
    #[must_use]
    pub fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The hash in a field.
    ///
    /// # Errors
    /// When there are not exactly 32 bytes.
    pub fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, Malformed> {
        let problem = |_| Malformed::new(field, format!("is {} bytes long instead of 32", bytes.len()));
        bytes.try_into().map(Self).map_err(problem)
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the name of a blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the SHA-256 of a blob: expected 64 lower-case hexadecimal digits")]
pub struct InvalidBlobHash(String);

impl FromStr for BlobHash {
    type Err = InvalidBlobHash;

    fn from_str(text: &str) -> Result<Self, InvalidBlobHash> {
        let invalid = || InvalidBlobHash(text.to_string());
        let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.as_bytes().iter().all(lower_hex) {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(hash))
    }
}

/// Hashes a blob piece by piece, as it arrives.
#[derive(Clone, Default)]
pub struct BlobHasher(Sha256);

impl BlobHasher {
    /// The next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(self) -> BlobHash {
        BlobHash(self.0.finalize().into())
    }
}

impl fmt::Debug for BlobHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of FIPS 180-2 for `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn text_wire_and_pieces_agree() {
        let hash = BlobHash::of(b"abc");
        assert_eq!(hash.to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(hash));
        assert_eq!(BlobHash::from_wire("sha256", &hash.to_wire()), Ok(hash));
        let mut hasher = BlobHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), hash);
    }

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("binary");
        let bytes = vec![7; UPLOAD_CHUNK_BYTES + 1];
        std::fs::write(&path, &bytes).expect("writes");
        assert_eq!(BlobHash::of_file(&path).expect("reads"), (BlobHash::of(&bytes), bytes.len() as u64));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "ff", &ABC[1..], &ABC.to_uppercase(), &format!("../{}", &ABC[3..]), &"ä".repeat(32)]
        {
            assert!(text.parse::<BlobHash>().is_err(), "{text}");
        }
        assert_eq!(BlobHash::from_wire("sha256", &[0; 31]).map_err(|error| error.field), Err("sha256"));
    }
}
