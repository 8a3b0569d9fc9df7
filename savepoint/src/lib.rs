//! The savepoint format: all state of a job in a form that outlives the version, the parallelism and the store that wrote it.
//!
//! A savepoint is one directory of any storage: data files, which subtasks write each on its own, and `_metadata`, which is
//! written last and makes it a savepoint. Data files hold keyed entries in their record encoding, by state and key group, and
//! the items of sources and sinks; the metadata holds the [state manifest](thalweg_common::manifest) with the schema of
//! everything, so that nobody needs the program that wrote it. Used by tasks, by the job manager and by `thalweg state`; knows of
//! no runtime and no store.
//!
//! ```
//! # use std::sync::Arc;
//! use thalweg_common::graph::{StateDescriptor, StateKind};
//! use thalweg_common::id::{JobId, OperatorId};
//! use thalweg_common::key_group::{KeyGroupRange, key_group, key_hash};
//! use thalweg_common::manifest::{OperatorManifest, StateManifest};
//! use thalweg_common::record::Record as _;
//! use thalweg_common::storage;
//! use thalweg_savepoint::{Metadata, OperatorWriter, Savepoint, SavepointError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), SavepointError> {
//! # let directory = std::env::temp_dir().join(format!("thalweg-savepoint-example-{}", std::process::id()));
//! # let directory = directory.display();
//! let id = OperatorId(7);
//! let total = StateDescriptor::new("total", StateKind::Value, u64::schema());
//! let count = OperatorManifest {
//!     id,
//!     uid: Some("count".into()),
//!     name: "Count".into(),
//!     parallelism: 1,
//!     max_parallelism: 128,
//!     key_schema: Some(String::schema()),
//!     states: vec![total],
//! };
//!
//! // Each subtask writes its part.
//! let storage = storage::open(&format!("file://{directory}"))?;
//! let key = "a".to_string();
//! let group = key_group(key_hash(&key, &mut Vec::new()), 128);
//! let mut entry = Vec::new();
//! (key, 3u64).encode(&mut entry);
//! let mut writer = OperatorWriter::new(storage.clone(), id, "0-a1");
//! writer.entries("total", group, &entry).await?;
//! let files = writer.finish().await?;
//!
//! // The job manager writes the metadata.
//! let manifest = StateManifest { job_name: "words".into(), operators: vec![count] };
//! Metadata::new(JobId(1), 4, 0, manifest, files).write(&*storage).await?;
//!
//! // Anybody reads it.
//! let savepoint = Savepoint::open(storage.clone()).await?;
//! let mut found = Vec::new();
//! savepoint
//!     .visit(id, KeyGroupRange { start: 0, end: 128 }, |state, group, entries| {
//!         found.push((state.to_string(), group, entries.to_vec()));
//!         Ok::<_, SavepointError>(())
//!     })
//!     .await?;
//! assert_eq!(found, [("total".to_string(), group, entry)]);
//! # storage.delete_prefix("").await?;
//! # Ok(())
//! # }
//! ```

mod data_file;
mod diff;
mod error;
mod export;
mod import;
mod inspect;
mod lines;
mod metadata;
pub mod part;
mod reader;
mod writer;

pub use diff::{DiffReport, Difference, OperatorDiff, StateDiff, diff};
pub use error::{ImportError, SavepointError};
pub use export::{Selection, export};
pub use import::{Import, ImportSummary};
pub use inspect::{Counts, GroupCount, Inspection, OperatorInspection, StateInspection, inspect};
pub use lines::{EntryLine, ItemLine, Line};
pub use metadata::{DataFile, METADATA_FILE, Metadata, directory_name};
pub use reader::Savepoint;
pub use writer::OperatorWriter;
