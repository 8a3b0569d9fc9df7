//! What the connectors' tests share: the context of a subtask, and readable directories.

use std::path::Path;
use std::sync::Arc;

use thalweg_common::clock::ManualClock;
use thalweg_common::id::{JobId, OperatorId};
use thalweg_common::storage::StorageFactory;
use thalweg_runtime::io::Io;
use thalweg_runtime::operator::{OpenContext, OperatorMetrics};

/// Subtask `subtask_index` of `parallelism` in the first attempt of a job, with a clock that stands still.
pub fn context(subtask_index: u32, parallelism: u32) -> OpenContext {
    OpenContext {
        job_id: JobId(1),
        job_name: "test".to_string(),
        attempt: 1,
        operator_id: OperatorId(1),
        operator_name: "files".to_string(),
        subtask_index,
        parallelism,
        max_parallelism: 128,
        is_local: true,
        clock: Arc::new(ManualClock::new(0)),
        metrics: OperatorMetrics::default(),
        io: Io::default(),
        storages: StorageFactory::default(),
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory can be listed");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
