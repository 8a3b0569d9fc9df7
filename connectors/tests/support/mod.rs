//! What the connectors' tests share: the context of a subtask, and readable directories.

use std::path::Path;

use thalweg_runtime::operator::OpenContext;
use thalweg_runtime::testing::Setup;

/// Subtask `subtask_index` of `parallelism` in the first attempt of a job, with a clock that stands still.
pub fn context(subtask_index: u32, parallelism: u32) -> OpenContext {
    Setup::default().subtask(subtask_index, parallelism).open_context()
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory can be listed");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
