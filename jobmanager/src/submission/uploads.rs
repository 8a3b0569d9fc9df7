//! Job binaries that were uploaded to be run later: a blob each, and an empty file beside the blobs that names it.
//!
//! `<data directory>/blobs/uploads/<SHA-256>_<name>`. As Flink's, an upload stays with the job manager that took it; a job that was made
//! from it does not need it. Invariant: a blob with such a name is not removed as one that nobody needs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use thalweg_common::Timestamp;
use thalweg_common::limits::REST_MAX_UPLOADS;
use thalweg_proto::blob::BlobHash;

use super::BlobStore;

/// Longest part of a file's name that is kept.
const MAX_NAME_CHARACTERS: usize = 100;

/// An uploaded job binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) hash: BlobHash,
    /// Of the file that was uploaded.
    pub(crate) name: String,
    /// Milliseconds since the epoch.
    pub(crate) uploaded_ms: Timestamp,
}

impl Upload {
    /// What names it.
    pub(crate) fn id(&self) -> String {
        format!("{}_{}", self.hash, self.name)
    }
}

/// An upload could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// There are too many.
    #[error(
        "{REST_MAX_UPLOADS} job binaries are uploaded already; delete one that is not needed (`DELETE /jars/ID`)"
    )]
    TooMany,
    /// The disk.
    #[error("cannot keep the upload: {0}; check the disk's free space and permissions")]
    Disk(#[from] io::Error),
}

impl BlobStore {
    /// All uploads, the newest first. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn uploads(&self) -> io::Result<Vec<Upload>> {
        let entries = match fs::read_dir(self.uploads_directory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut uploads = Vec::new();
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name();
            let Some((hash, name)) = file.to_str().and_then(|file| file.split_once('_')) else { continue };
            let Ok(hash) = hash.parse() else { continue };
            let since = entry.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let uploaded_ms = Timestamp::try_from(since.as_millis()).unwrap_or(Timestamp::MAX);
            uploads.push(Upload { hash, name: name.to_string(), uploaded_ms });
        }
        uploads.sort_by(|a, b| b.uploaded_ms.cmp(&a.uploaded_ms).then_with(|| a.name.cmp(&b.name)));
        Ok(uploads)
    }

    /// Names a blob that is here as an upload. Blocks.
    ///
    /// # Errors
    /// When there are too many, or the disk fails.
    pub(crate) fn keep_upload(&self, hash: BlobHash, name: &str) -> Result<Upload, UploadError> {
        let name = clean(name);
        let uploads = self.uploads()?;
        if let Some(known) = uploads.iter().find(|known| known.hash == hash && known.name == name) {
            return Ok(known.clone());
        }
        if uploads.len() >= REST_MAX_UPLOADS {
            return Err(UploadError::TooMany);
        }
        let upload = Upload { hash, name, uploaded_ms: 0 };
        fs::create_dir_all(self.uploads_directory())?;
        File::create(self.uploads_directory().join(upload.id()))?.sync_all()?;
        Ok(upload)
    }

    /// Forgets an upload; its blob goes when others need its place. Says whether there was one. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn forget_upload(&self, upload: &Upload) -> io::Result<bool> {
        match fs::remove_file(self.uploads_directory().join(upload.id())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// The blobs that are uploads.
    pub(super) fn uploaded(&self) -> io::Result<BTreeSet<BlobHash>> {
        Ok(self.uploads()?.into_iter().map(|upload| upload.hash).collect())
    }

    fn uploads_directory(&self) -> PathBuf {
        self.directory().join("uploads")
    }
}

/// A file's name without its directories and without what means something to shells and URLs.
fn clean(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let word = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => character,
        _ => '_',
    };
    let cleaned: String = last.chars().map(word).take(MAX_NAME_CHARACTERS).collect();
    if cleaned.is_empty() { "job".to_string() } else { cleaned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_bounded_and_keep_their_blobs() {
        let folder = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(folder.path()).expect("a store");
        assert_eq!(store.uploads().expect("none yet"), []);
        for number in 0..REST_MAX_UPLOADS {
            let hash = BlobHash::of(number.to_string().as_bytes());
            store.keep_upload(hash, &format!("../a b/job {number}")).expect("there is room");
            store.keep_upload(hash, &format!("job {number}")).expect("the same again");
        }
        let other = BlobHash::of(b"one more");
        assert!(matches!(store.keep_upload(other, "x"), Err(UploadError::TooMany)));
        let uploads = store.uploads().expect("readable");
        assert_eq!(uploads.len(), REST_MAX_UPLOADS);
        assert!(uploads.iter().all(|upload| upload.name.starts_with("job_")), "{uploads:?}");
        assert!(store.forget_upload(&uploads[0]).expect("removed"));
        assert!(!store.forget_upload(&uploads[0]).expect("gone"));
        store.keep_upload(other, "").expect("there is room again");
        assert!(store.uploaded().expect("readable").contains(&other));
    }
}
