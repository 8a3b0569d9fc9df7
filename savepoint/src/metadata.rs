//! The `_metadata` file, which makes a directory a savepoint: whose it is, what state there is, and which files hold it.
//!
//! Form: the magic `THWGSVPT`, a version (u32), JSON, and the xxh3 of all of that (u64), integers little-endian. JSON, so that a
//! person can read it and later versions can add to it. Paths in it are relative to its directory, which may be moved or copied
//! as a whole. Invariant: it is written last and once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thalweg_common::Timestamp;
use thalweg_common::id::{CheckpointId, JobId, OperatorId};
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::limits::MAX_CHECKPOINT_METADATA_BYTES;
use thalweg_common::manifest::StateManifest;
use thalweg_common::storage::Storage;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::SavepointError;

/// The file's name in the directory of the savepoint.
pub const METADATA_FILE: &str = "_metadata";

const MAGIC: &[u8; 8] = b"THWGSVPT";
/// What is written, and the newest that is read. All older ones are read too.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();

/// What a savepoint consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The job that it was taken of.
    #[serde(with = "thalweg_common::id::as_text")]
    pub job_id: JobId,
    /// Its number, from the same row as the job's checkpoints.
    pub savepoint_id: CheckpointId,
    /// When it was triggered, in milliseconds since the epoch.
    pub triggered_ms: Timestamp,
    /// The program that wrote it, for people.
    pub written_by: String,
    /// All operators with their states.
    pub manifest: StateManifest,
    /// The data files. Where the same key is in several, the last one counts.
    pub files: Vec<DataFile>,
}

/// A data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Whose state it holds.
    #[serde(with = "thalweg_common::id::as_text")]
    pub operator: OperatorId,
    /// Relative to the savepoint's directory.
    pub path: String,
    /// The subtask that wrote it, if one did: its items go to that subtask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtask: Option<u32>,
    /// Its size.
    pub size_bytes: u64,
    /// Its xxh3.
    pub checksum: u64,
    /// From its first to its last key group; nothing if it has no keyed state.
    pub groups: Option<KeyGroupRange>,
    /// Bytes of entries by keyed state, before compression.
    pub states: BTreeMap<String, u64>,
    /// How many items of a source or sink it has.
    pub items: u64,
    /// Their bytes, before compression.
    pub item_bytes: u64,
    /// How many of the items are [parts](crate::part), which can go to any subtask.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parts: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DataFile {
    /// A list of data files on its way from a task to the job manager, in the form in which the metadata has it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn encode_list(files: &[Self]) -> Result<Vec<u8>, SavepointError> {
        serde_json::to_vec(files)
            .map_err(|error| SavepointError::damaged("a list of data files", error.to_string()))
    }

    /// The list that [`encode_list`](Self::encode_list) made.
    ///
    /// # Errors
    /// When it is no such list.
    pub fn decode_list(bytes: &[u8]) -> Result<Vec<Self>, SavepointError> {
        serde_json::from_slice(bytes)
            .map_err(|error| SavepointError::damaged("a list of data files", error.to_string()))
    }
}

/// The usual name of a savepoint's directory.
#[must_use]
pub fn directory_name(job_id: JobId, savepoint_id: CheckpointId) -> String {
    let short: String = job_id.to_string().chars().take(6).collect();
    format!("savepoint-{short}-{savepoint_id}")
}

impl Metadata {
    /// Of a savepoint that this program writes.
    #[must_use]
    pub fn new(
        job_id: JobId,
        savepoint_id: CheckpointId,
        triggered_ms: Timestamp,
        manifest: StateManifest,
        files: Vec<DataFile>,
    ) -> Self {
        let written_by = concat!("thalweg ", env!("CARGO_PKG_VERSION")).to_string();
        Self { job_id, savepoint_id, triggered_ms, written_by, manifest, files }
    }

    /// Writes the file, which completes the savepoint. To write the same once more is no error.
    ///
    /// # Errors
    /// When the manifest or a file contradicts the rest, the storage refuses, or another savepoint is there already.
    pub async fn write(&self, directory: &dyn Storage) -> Result<(), SavepointError> {
        let bytes = self.encode()?;
        if directory.put_if_absent(METADATA_FILE, bytes.clone().into()).await? {
            return Ok(());
        }
        if directory.get(METADATA_FILE).await? == bytes {
            return Ok(());
        }
        Err(SavepointError::Exists { directory: directory.uri().to_string() })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub async fn read(directory: &dyn Storage) -> Result<Self, SavepointError> {
        let bytes = match directory.get(METADATA_FILE).await {
            Err(error) if error.is_not_found() => {
                return Err(SavepointError::Missing { directory: directory.uri().to_string() });
            }
            other => other?,
        };
        let file = format!("{METADATA_FILE} in {}", directory.uri());
        Self::decode(&file, &bytes)
    }

    /// The files of an operator, in their order.
    pub fn files_of(&self, operator: OperatorId) -> impl Iterator<Item = &DataFile> {
        self.files.iter().filter(move |file| file.operator == operator)
    }

    fn encode(&self) -> Result<Vec<u8>, SavepointError> {
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        serde_json::to_writer(&mut bytes, self)
            .map_err(|error| SavepointError::damaged(METADATA_FILE, error.to_string()))?;
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        if bytes.len() > MAX_CHECKPOINT_METADATA_BYTES {
            return Err(SavepointError::MetadataTooLarge { bytes: bytes.len() });
        }
        // What cannot be read back, such as a schema nested too deeply, is found while the job still runs.
        Self::decode(METADATA_FILE, &bytes)?;
        Ok(bytes)
    }

    fn decode(file: &str, bytes: &[u8]) -> Result<Self, SavepointError> {
        let damaged = |reason: String| SavepointError::damaged(file, reason);
        let Some((content, checksum)) =
            bytes.split_last_chunk::<8>().filter(|(content, _)| content.len() >= HEADER_BYTES)
        else {
            return Err(damaged(format!("it has only {} bytes", bytes.len())));
        };
        let (header, body) = content.split_at(HEADER_BYTES);
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it is no metadata of a savepoint".into()));
        }
        let version = version.try_into().map_or(0, u32::from_le_bytes);
        if version == 0 || version > VERSION {
            return Err(SavepointError::Newer { file: file.to_string(), version, supported: VERSION });
        }
        if xxh3_64(content).to_le_bytes() != *checksum {
            return Err(damaged("its checksum is wrong".into()));
        }
        let metadata: Self = serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
        metadata.check(file)?;
        Ok(metadata)
    }

    /// Checks that the files fit the manifest.
    fn check(&self, name: &str) -> Result<(), SavepointError> {
        self.manifest.validate()?;
        let sizes = self
            .files
            .iter()
            .flat_map(|file| file.states.values().chain([&file.size_bytes, &file.items, &file.item_bytes]));
        // So that nobody who adds some of them up has to think of an overflow.
        if sizes.copied().try_fold(0u64, u64::checked_add).is_none() {
            return Err(SavepointError::damaged(name, "the sizes in it cannot be"));
        }
        let mut paths = BTreeSet::new();
        for file in &self.files {
            let damaged =
                |reason: &str| Err(SavepointError::damaged(name, format!("{} {reason}", file.path)));
            let Some(operator) = self.manifest.operator(file.operator) else {
                return damaged("is of an operator that the manifest lacks");
            };
            if !paths.insert(&file.path) {
                return damaged("is named twice");
            }
            if file
                .groups
                .is_some_and(|groups| groups.start >= groups.end || groups.end > operator.max_parallelism)
            {
                return damaged("has key groups that its operator lacks");
            }
            let is_keyed = |state: &String| operator.state(state).is_some_and(|state| state.kind.is_keyed());
            if !file.states.keys().all(is_keyed) || file.states.is_empty() != file.groups.is_none() {
                return damaged("has states that its operator lacks");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use thalweg_common::storage;

    fn empty() -> Metadata {
        Metadata::new(JobId(3), 4, 5, StateManifest::default(), Vec::new())
    }

    #[test]
    fn it_is_written_once_and_says_what_is_wrong() {
        let bytes = empty().encode().unwrap();
        assert_eq!(Metadata::decode("m", &bytes).unwrap(), empty());
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 2;
            bytes
        };
        let table = [
            (vec![], "only 0 bytes"),
            (flipped(0), "no metadata of a savepoint"),
            (flipped(8), "version 3 of the savepoint format"),
            (flipped(20), "checksum"),
            (bytes[..bytes.len() - 1].to_vec(), "checksum"),
        ];
        for (bytes, expected) in table {
            let error = Metadata::decode("m", &bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
    }

    #[tokio::test]
    async fn another_savepoint_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage::open(directory.path().to_str().unwrap()).unwrap();
        let missing = Metadata::read(&*storage).await.unwrap_err().to_string();
        assert!(missing.contains("there is no savepoint in"), "{missing}");
        empty().write(&*storage).await.unwrap();
        empty().write(&*storage).await.unwrap();
        let other = Metadata { savepoint_id: 5, ..empty() };
        let error = other.write(&*storage).await.unwrap_err();
        assert!(matches!(error, SavepointError::Exists { .. }), "{error}");
        assert_eq!(Metadata::read(&*storage).await.unwrap(), empty());
    }

    #[test]
    fn files_must_fit_the_manifest() {
        let file = DataFile {
            operator: OperatorId(1),
            path: "a".into(),
            subtask: None,
            size_bytes: 1,
            checksum: 1,
            groups: None,
            states: BTreeMap::new(),
            items: 0,
            item_bytes: 0,
            parts: 0,
        };
        let error = Metadata { files: vec![file.clone()], ..empty() }.encode().unwrap_err().to_string();
        assert!(error.contains("an operator that the manifest lacks"), "{error}");
        let files = [u64::MAX, 1].map(|size_bytes| DataFile { size_bytes, ..file.clone() });
        let error = Metadata { files: files.to_vec(), ..empty() }.encode().unwrap_err().to_string();
        assert!(error.contains("the sizes in it cannot be"), "{error}");
    }

    #[test]
    fn a_directory_is_named_after_job_and_number() {
        assert_eq!(directory_name(JobId(0x00c0_ffee << 96), 12), "savepoint-00c0ff-12");
    }
}
