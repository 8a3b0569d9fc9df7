//! Snapshots and what they took, on their way from a task to the job manager and into a checkpoint's metadata.
//!
//! Invariant: a path that comes from outside stays inside the job's checkpoint directory, that of a shared file below
//! [`SHARED_DIRECTORY`].

use serde::{Deserialize, Serialize};
use thalweg_common::id::{Attempt, CheckpointId, SubtaskId};
use thalweg_common::limits::{INLINE_STATE_BYTES, MAX_SHARED_FILES, MAX_STORAGE_PATH_BYTES};

use super::{Malformed, required};
use crate::v1;

/// Where one task's snapshot is and how to check it. Part of a checkpoint's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHandle {
    /// Where its bytes are.
    pub location: SnapshotLocation,
    /// How many they are.
    pub size_bytes: u64,
    /// Their xxh3.
    pub checksum: u64,
    /// Files that the snapshot has in common with others.
    pub shared: Vec<SharedFile>,
}

impl SnapshotHandle {
    /// The size of the snapshot with its shared files, in bytes.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.shared.iter().fold(self.size_bytes, |sum, file| sum.saturating_add(file.size_bytes))
    }
}

/// The directory of shared files in a job's checkpoint directory.
pub const SHARED_DIRECTORY: &str = "shared";

/// A file that several checkpoints may have in common: it never changes once it is there. Part of a checkpoint's metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SharedFile {
    /// Relative to the job's checkpoint directory; made by [`SharedFile::path`].
    pub path: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The xxh3 of its bytes.
    pub checksum: u64,
}

impl SharedFile {
    /// The path of a file that `subtask` uploads for `checkpoint`; `name` is unique among these. Attempt and checkpoint are
    /// in it so that a job manager which finds the file knows whether anybody may still want it.
    #[must_use]
    pub fn path(attempt: Attempt, checkpoint: CheckpointId, subtask: SubtaskId, name: &str) -> String {
        let SubtaskId { vertex, index } = subtask;
        format!("{SHARED_DIRECTORY}/a{attempt}-c{checkpoint}-{vertex}-{index}-{name}")
    }

    /// The attempt and the checkpoint that uploaded the file of this path; absent if [`SharedFile::path`] did not make it.
    #[must_use]
    pub fn uploaded_by(path: &str) -> Option<(Attempt, CheckpointId)> {
        let name = path.strip_prefix(SHARED_DIRECTORY)?.strip_prefix("/a")?;
        let (attempt, rest) = name.split_once("-c")?;
        let (checkpoint, _) = rest.split_once('-')?;
        Some((attempt.parse().ok()?, checkpoint.parse().ok()?))
    }
}

impl From<SharedFile> for v1::SharedFile {
    fn from(file: SharedFile) -> Self {
        Self { path: file.path, size_bytes: file.size_bytes, checksum: file.checksum }
    }
}

impl TryFrom<v1::SharedFile> for SharedFile {
    type Error = Malformed;

    fn try_from(file: v1::SharedFile) -> Result<Self, Malformed> {
        let is_shared = file.path.strip_prefix(SHARED_DIRECTORY).is_some_and(|rest| rest.starts_with('/'));
        if !is_shared || !stays_inside(&file.path) {
            let problem = format!("`{}` is no path below `{SHARED_DIRECTORY}/`", file.path);
            return Err(Malformed::new("snapshot.shared.path", problem));
        }
        Ok(Self { path: file.path, size_bytes: file.size_bytes, checksum: file.checksum })
    }
}

/// Whether it is a relative path that leads nowhere else.
fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= MAX_STORAGE_PATH_BYTES
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// What one subtask's part of a checkpoint took. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPhases {
    /// From the trigger to the first barrier, by the clocks of two machines.
    pub start_delay_us: u64,
    /// From the first barrier to the last.
    pub alignment_us: u64,
    /// While the task stood still.
    pub sync_us: u64,
    /// Beside the processing: encoding, writing, uploading.
    pub async_us: u64,
    /// Bytes that came over remote channels during the alignment.
    pub aligned_bytes: u64,
    /// In-flight data that is part of the snapshot.
    pub persisted_bytes: u64,
    /// What was uploaded for this checkpoint.
    pub incremental_bytes: u64,
}

impl From<CheckpointPhases> for v1::CheckpointPhases {
    fn from(phases: CheckpointPhases) -> Self {
        Self {
            start_delay_us: phases.start_delay_us,
            alignment_us: phases.alignment_us,
            sync_us: phases.sync_us,
            async_us: phases.async_us,
            aligned_bytes: phases.aligned_bytes,
            persisted_bytes: phases.persisted_bytes,
            incremental_bytes: phases.incremental_bytes,
        }
    }
}

impl From<v1::CheckpointPhases> for CheckpointPhases {
    fn from(phases: v1::CheckpointPhases) -> Self {
        Self {
            start_delay_us: phases.start_delay_us,
            alignment_us: phases.alignment_us,
            sync_us: phases.sync_us,
            async_us: phases.async_us,
            aligned_bytes: phases.aligned_bytes,
            persisted_bytes: phases.persisted_bytes,
            incremental_bytes: phases.incremental_bytes,
        }
    }
}

/// Where the bytes of a snapshot are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotLocation {
    /// Here: at most [`INLINE_STATE_BYTES`].
    Inline(Vec<u8>),
    /// In a file, relative to the job's checkpoint directory.
    File(String),
    /// In the data files of a savepoint, which this lists as the savepoint's metadata does.
    DataFiles(Vec<u8>),
}

impl From<SnapshotHandle> for v1::SnapshotHandle {
    fn from(handle: SnapshotHandle) -> Self {
        let location = match handle.location {
            SnapshotLocation::Inline(bytes) => v1::snapshot_handle::Location::Inline(bytes.into()),
            SnapshotLocation::File(path) => v1::snapshot_handle::Location::File(v1::SnapshotFile { path }),
            SnapshotLocation::DataFiles(list) => v1::snapshot_handle::Location::DataFiles(list.into()),
        };
        Self {
            location: Some(location),
            size_bytes: handle.size_bytes,
            checksum: handle.checksum,
            shared: handle.shared.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::SnapshotHandle> for SnapshotHandle {
    type Error = Malformed;

    fn try_from(handle: v1::SnapshotHandle) -> Result<Self, Malformed> {
        let location = match required("snapshot.location", handle.location)? {
            v1::snapshot_handle::Location::Inline(bytes) => {
                if bytes.len() > INLINE_STATE_BYTES || bytes.len() as u64 != handle.size_bytes {
                    let problem = format!(
                        "has {} bytes, announced {}, allowed {INLINE_STATE_BYTES}",
                        bytes.len(),
                        handle.size_bytes
                    );
                    return Err(Malformed::new("snapshot.inline", problem));
                }
                SnapshotLocation::Inline(bytes.into())
            }
            v1::snapshot_handle::Location::File(file) => {
                if !stays_inside(&file.path) {
                    let problem =
                        format!("`{}` is no relative path inside a checkpoint directory", file.path);
                    return Err(Malformed::new("snapshot.file.path", problem));
                }
                SnapshotLocation::File(file.path)
            }
            v1::snapshot_handle::Location::DataFiles(list) => SnapshotLocation::DataFiles(list.into()),
        };
        if handle.shared.len() > MAX_SHARED_FILES {
            let problem = format!("names {} files, allowed are {MAX_SHARED_FILES}", handle.shared.len());
            return Err(Malformed::new("snapshot.shared", problem));
        }
        let shared = handle.shared.into_iter().map(SharedFile::try_from).collect::<Result<_, _>>()?;
        Ok(Self { location, size_bytes: handle.size_bytes, checksum: handle.checksum, shared })
    }
}

/// The snapshot in a field that must be there.
///
/// # Errors
/// When it is absent or malformed.
pub fn snapshot(
    field: &'static str,
    handle: Option<v1::SnapshotHandle>,
) -> Result<SnapshotHandle, Malformed> {
    required(field, handle)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_survive_and_stay_inside_their_directory() {
        let subtask = SubtaskId { vertex: 0, index: 1 };
        let shared = |name| SharedFile {
            path: SharedFile::path(2, 3, subtask, name),
            size_bytes: 1 << 20,
            checksum: 5,
        };
        let inline = SnapshotHandle {
            location: SnapshotLocation::Inline(vec![1, 2]),
            size_bytes: 2,
            checksum: 7,
            shared: vec![shared("x"), shared("y")],
        };
        assert_eq!(inline.state_bytes(), 2 + (2 << 20));
        let file = SnapshotHandle {
            location: SnapshotLocation::File("chk-3/0-1-a2".into()),
            size_bytes: 70_000,
            checksum: u64::MAX,
            shared: vec![],
        };
        for handle in [inline.clone(), file.clone()] {
            assert_eq!(snapshot("snapshot", Some(handle.clone().into())), Ok(handle));
        }
        for path in ["", "/etc/passwd", "../x", "a//b", "a/../b", "./a", "a/"] {
            let handle = SnapshotHandle { location: SnapshotLocation::File(path.into()), ..file.clone() };
            let error = snapshot("snapshot", Some(handle.into())).expect_err(path);
            assert_eq!(error.field, "snapshot.file.path");
        }
        for path in ["shared", "shared/", "chk-3/x", "shared/../x", "sharedx/y"] {
            let outside = SnapshotHandle {
                shared: vec![SharedFile { path: path.into(), ..shared("x") }],
                ..inline.clone()
            };
            let error = snapshot("snapshot", Some(outside.into())).expect_err(path);
            assert_eq!(error.field, "snapshot.shared.path");
        }
        let lying = v1::SnapshotHandle { size_bytes: 3, ..inline.into() };
        assert_eq!(snapshot("snapshot", Some(lying)).map_err(|error| error.field), Err("snapshot.inline"));
    }

    #[test]
    fn a_shared_file_says_who_uploaded_it() {
        let path = SharedFile::path(2, 17, SubtaskId { vertex: 3, index: 4 }, "000012.sst");
        assert_eq!(path, "shared/a2-c17-3-4-000012.sst");
        assert_eq!(SharedFile::uploaded_by(&path), Some((2, 17)));
        for path in ["shared/000012.sst", "shared/a2-c", "shared/ax-c1-y", "chk-1/a2-c17-3", "shared/a2-c17"]
        {
            assert_eq!(SharedFile::uploaded_by(path), None, "{path}");
        }
    }

    #[test]
    fn phases_survive() {
        let phases = CheckpointPhases {
            start_delay_us: 1,
            alignment_us: 2,
            sync_us: 3,
            async_us: 4,
            aligned_bytes: 5,
            persisted_bytes: 6,
            incremental_bytes: 7,
        };
        assert_eq!(CheckpointPhases::from(v1::CheckpointPhases::from(phases)), phases);
    }
}
