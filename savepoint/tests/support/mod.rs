//! A job with state of every kind, as two versions of it declare it, and savepoints of it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::id::{JobId, OperatorId};
use thalweg_common::key_group::{groups_of, key_group, key_hash};
use thalweg_common::manifest::{OperatorManifest, StateManifest};
use thalweg_common::record::Record;
use thalweg_common::schema::Schema;
use thalweg_common::storage::{self, Storage};
use thalweg_savepoint::{
    DataFile, Import, Line, Metadata, OperatorWriter, Savepoint, SavepointError, Selection, export,
};

pub const SOURCE: OperatorId = OperatorId(1);
pub const COUNT: OperatorId = OperatorId(0x00c0_ffee_0000_0007);
pub const MAX_PARALLELISM: u32 = 128;
pub const JOB: JobId = JobId(0x00c0_ffee << 96);

pub mod first {
    #[derive(thalweg_common::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub struct Total {
        pub records: u32,
        pub last: Option<String>,
    }
}

pub mod second {
    #[derive(thalweg_common::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub struct Total {
        #[record(default)]
        pub venue: String,
        #[record(rename_from = "records")]
        pub count: u64,
        pub last: Option<String>,
    }
}

pub fn state(name: &str, kind: StateKind, schema: Schema) -> StateDescriptor {
    StateDescriptor::new(name, kind, schema)
}

/// A source and a count whose totals are of the type `T`.
pub fn manifest<T: Record>() -> StateManifest {
    let source = OperatorManifest {
        id: SOURCE,
        uid: None,
        name: "lines".into(),
        parallelism: 2,
        max_parallelism: MAX_PARALLELISM,
        key_schema: None,
        states: vec![state("position", StateKind::Source, Schema::primitive("bytes"))],
    };
    let count = OperatorManifest {
        id: COUNT,
        uid: Some("count".into()),
        name: "Count".into(),
        parallelism: 2,
        max_parallelism: MAX_PARALLELISM,
        key_schema: Some(String::schema()),
        states: vec![
            state("total", StateKind::Value, T::schema()),
            state("by-page", StateKind::Map, BTreeMap::<u16, f64>::schema()),
        ],
    };
    StateManifest { job_name: "words".into(), operators: vec![source, count] }
}

pub fn key(number: u32) -> String {
    format!("key-{number}")
}

pub fn total(number: u32) -> first::Total {
    let last = number.is_multiple_of(3).then(|| format!("word {number}"));
    first::Total { records: number, last }
}

pub fn group_of(key: &String, max_parallelism: u32) -> u32 {
    key_group(key_hash(key, &mut Vec::new()), max_parallelism)
}

pub fn encoded<T: Record>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// Writes a savepoint as two subtasks of each operator do.
pub async fn write(directory: &Arc<dyn Storage>, keys: u32) -> Metadata {
    let metadata = write_files(directory, keys).await;
    metadata.write(&**directory).await.unwrap();
    metadata
}

/// All of it but the metadata.
pub async fn write_files(directory: &Arc<dyn Storage>, keys: u32) -> Metadata {
    let mut files: Vec<DataFile> = Vec::new();
    for subtask in 0..2 {
        let mut writer = OperatorWriter::new(directory.clone(), SOURCE, &format!("{subtask}-a1"));
        writer.item(&[subtask as u8, 0xff]).await.unwrap();
        files.extend(writer.finish().await.unwrap());

        let mut writer = OperatorWriter::new(directory.clone(), COUNT, &format!("{subtask}-a1"));
        let owned = groups_of(subtask, 2, MAX_PARALLELISM);
        let mut mine: Vec<(u32, u32)> =
            (0..keys).map(|number| (group_of(&key(number), MAX_PARALLELISM), number)).collect();
        mine.retain(|(group, _)| owned.contains(*group));
        mine.sort_unstable();
        for (group, number) in &mine {
            let entry = encoded(&(key(*number), total(*number)));
            writer.entries("total", *group, &entry).await.unwrap();
        }
        for (group, number) in &mine {
            for page in 0..*number % 3 {
                let entry = encoded(&(key(*number), page as u16, f64::from(*number) / 4.0));
                writer.entries("by-page", *group, &entry).await.unwrap();
            }
        }
        files.extend(writer.finish().await.unwrap());
    }
    Metadata::new(JOB, 12, 1_700_000_000_000, manifest::<first::Total>(), files)
}

pub fn temporary() -> (tempfile::TempDir, Arc<dyn Storage>) {
    let directory = tempfile::tempdir().unwrap();
    let storage = storage::open(directory.path().to_str().unwrap()).unwrap();
    (directory, storage)
}

/// All lines of a savepoint.
pub async fn lines(savepoint: &Savepoint, selection: &Selection) -> Vec<String> {
    let mut lines = Vec::new();
    export(savepoint, selection, |line: Line| {
        lines.push(serde_json::to_string(&line).unwrap());
        Ok::<_, SavepointError>(())
    })
    .await
    .unwrap();
    lines
}

pub fn add_lines(import: &mut Import, lines: &[String]) {
    lines.iter().for_each(|line| import.line(line).unwrap());
}
