//! What a savepoint consists of: operators, states, sizes, and how keys are spread over key groups.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use thalweg_common::Timestamp;
use thalweg_common::entries::EntryLayout;
use thalweg_common::graph::StateKind;
use thalweg_common::id::{CheckpointId, JobId, OperatorId};
use thalweg_common::key_group::{KeyGroup, encoded_key_hash};
use thalweg_common::manifest::OperatorManifest;

use crate::error::SavepointError;
use crate::reader::Savepoint;

/// What a savepoint consists of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Where it is.
    pub uri: String,
    /// The job that it was taken of.
    #[serde(with = "thalweg_common::id::as_text")]
    pub job_id: JobId,
    /// The job's name.
    pub job_name: String,
    /// Its number.
    pub savepoint_id: CheckpointId,
    /// When it was triggered.
    pub triggered_ms: Timestamp,
    /// The program that wrote it.
    pub written_by: String,
    /// How many data files it has.
    pub files: usize,
    /// Bytes of all data files.
    pub size_bytes: u64,
    /// Its operators.
    pub operators: Vec<OperatorInspection>,
}

/// An operator in a savepoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatorInspection {
    /// Its id.
    #[serde(with = "thalweg_common::id::as_text")]
    pub id: OperatorId,
    /// Its uid, if it has one.
    pub uid: Option<String>,
    /// Its name.
    pub name: String,
    /// How many subtasks it had.
    pub parallelism: u32,
    /// The number of its key groups.
    pub max_parallelism: u32,
    /// The type of its keys, if it has keyed state.
    pub key_type: Option<String>,
    /// How many data files it has.
    pub files: usize,
    /// Bytes of its data files.
    pub size_bytes: u64,
    /// Items of a source or sink.
    pub items: u64,
    /// Their bytes.
    pub item_bytes: u64,
    /// Its states.
    pub states: Vec<StateInspection>,
}

/// A state in a savepoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateInspection {
    /// Its name.
    pub name: String,
    /// Its form.
    pub kind: StateKind,
    /// The type of its values.
    pub value_type: String,
    /// Bytes of its entries, before compression.
    pub bytes: u64,
    /// What was counted; nothing if that was not asked for, if it is not keyed, or if only its own code can read it.
    pub counts: Option<Counts>,
}

/// Entries and keys of a state.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Counts {
    /// Keys of a value state, pairs of a map state.
    pub entries: u64,
    /// Different keys.
    pub keys: u64,
    /// Bytes of the largest entry.
    pub largest_entry_bytes: u64,
    /// How many times as many keys the largest key group has as an average one; 1 if they are spread evenly.
    pub skew: f64,
    /// The key groups that have entries.
    pub groups: Vec<GroupCount>,
}

/// A key group of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupCount {
    /// Its number.
    pub group: KeyGroup,
    /// Different keys.
    pub keys: u64,
    /// Keys of a value state, pairs of a map state.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Looks into a savepoint. With `counts` every file is read, and checked on the way; without, only the metadata.
///
/// # Errors
/// When a file is missing or damaged.
pub async fn inspect(savepoint: &Savepoint, counts: bool) -> Result<Inspection, SavepointError> {
    let metadata = savepoint.metadata();
    let mut operators = Vec::new();
    for operator in &metadata.manifest.operators {
        let mut counted = if counts { count(savepoint, operator).await? } else { BTreeMap::new() };
        let files = || metadata.files_of(operator.id);
        let states = operator.states.iter().map(|state| StateInspection {
            name: state.name.clone(),
            kind: state.kind,
            value_type: state.schema.to_string(),
            bytes: files().filter_map(|file| file.states.get(&state.name)).sum(),
            counts: counted.remove(&state.name),
        });
        operators.push(OperatorInspection {
            id: operator.id,
            uid: operator.uid.clone(),
            name: operator.name.clone(),
            parallelism: operator.parallelism,
            max_parallelism: operator.max_parallelism,
            key_type: operator.key_schema.as_ref().map(ToString::to_string),
            files: files().count(),
            size_bytes: files().map(|file| file.size_bytes).sum(),
            items: files().map(|file| file.items).sum(),
            item_bytes: files().map(|file| file.item_bytes).sum(),
            states: states.collect(),
        });
    }
    Ok(Inspection {
        uri: savepoint.uri().to_string(),
        job_id: metadata.job_id,
        job_name: metadata.manifest.job_name.clone(),
        savepoint_id: metadata.savepoint_id,
        triggered_ms: metadata.triggered_ms,
        written_by: metadata.written_by.clone(),
        files: metadata.files.len(),
        size_bytes: metadata.files.iter().map(|file| file.size_bytes).sum(),
        operators,
    })
}

/// One key group while it is counted.
#[derive(Default)]
struct Group {
    /// Hashes of 64 bits tell keys apart well enough to count them.
    keys: HashSet<u64>,
    entries: u64,
    bytes: u64,
}

async fn count(
    savepoint: &Savepoint,
    operator: &OperatorManifest,
) -> Result<BTreeMap<String, Counts>, SavepointError> {
    let Some(key_schema) = &operator.key_schema else { return Ok(BTreeMap::new()) };
    let keyed = operator.states.iter().filter(|state| state.kind.is_keyed());
    let layouts: BTreeMap<&str, EntryLayout> = keyed
        .filter_map(|state| Some((state.name.as_str(), EntryLayout::of(state, key_schema).ok()?)))
        .collect();
    let mut counts: BTreeMap<String, Counts> =
        layouts.keys().map(|name| (name.to_string(), Counts::default())).collect();
    for groups in savepoint.passes(operator) {
        let mut counted: BTreeMap<(&str, KeyGroup), Group> = BTreeMap::new();
        let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
        savepoint
            .visit(operator.id, groups, |state, group, mut entries| {
                let Some((name, layout)) = layouts.get_key_value(state) else { return Ok(()) };
                let counted = counted.entry((*name, group)).or_default();
                let largest = largest.entry(name).or_default();
                counted.bytes += entries.len() as u64;
                while !entries.is_empty() {
                    let before = entries.len();
                    let entry = layout
                        .take(&mut entries)
                        .map_err(|error| SavepointError::damaged_state(&operator.label(), state, &error))?;
                    counted.keys.insert(encoded_key_hash(entry.key));
                    counted.entries += 1;
                    *largest = (*largest).max((before - entries.len()) as u64);
                }
                Ok::<_, SavepointError>(())
            })
            .await?;
        for (name, bytes) in largest {
            if let Some(counts) = counts.get_mut(name) {
                counts.largest_entry_bytes = counts.largest_entry_bytes.max(bytes);
            }
        }
        for ((name, group), Group { keys, entries, bytes }) in counted {
            if let Some(counts) = counts.get_mut(name) {
                counts.entries += entries;
                counts.keys += keys.len() as u64;
                counts.groups.push(GroupCount { group, keys: keys.len() as u64, entries, bytes });
            }
        }
    }
    for counts in counts.values_mut() {
        let largest = counts.groups.iter().map(|group| group.keys).max().unwrap_or(0);
        if counts.keys > 0 {
            counts.skew = largest as f64 * f64::from(operator.max_parallelism) / counts.keys as f64;
        }
    }
    Ok(counts)
}
