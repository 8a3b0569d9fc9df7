//! Builds a savepoint from lines of JSON, by itself or on top of another savepoint.
//!
//! The lines are held in memory until the savepoint is written; the savepoint below is not. Invariant: every entry lies in the group that its key's
//! hash says, under the max parallelism of the manifest, so that a job can be started from what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use thalweg_common::Timestamp;
use thalweg_common::entries::{EntryLayout, StateMigration};
use thalweg_common::graph::StateDescriptor;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::key_group::{KeyGroup, KeyGroupRange, encoded_key_hash, key_group};
use thalweg_common::limits::SAVEPOINT_BLOCK_BYTES;
use thalweg_common::manifest::{OperatorManifest, StateManifest, check};
use thalweg_common::schema::Schema;
use thalweg_common::schema::json::from_json;
use thalweg_common::storage::Storage;

use crate::error::{ImportError, SavepointError};
use crate::lines::{Read, read};
use crate::metadata::{DataFile, METADATA_FILE, Metadata};
use crate::reader::Savepoint;
use crate::writer::OperatorWriter;

/// The part of the names of files that are written here.
const PART: &str = "import";

/// Lines that become a savepoint.
#[derive(Debug)]
pub struct Import {
    manifest: StateManifest,
    base: Option<Savepoint>,
    /// Values by place; nothing where an entry is taken away.
    entries: BTreeMap<Place, Option<Vec<u8>>>,
    /// By the operator's position, in the order of the lines.
    items: BTreeMap<usize, Vec<Vec<u8>>>,
    lines: u64,
}

/// Where an entry belongs. Sorted as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    operator: usize,
    state: usize,
    group: KeyGroup,
    /// Key and map key, one behind the other.
    key: Vec<u8>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportSummary {
    /// Where.
    pub uri: String,
    /// Lines that were read.
    pub lines: u64,
    /// Data files.
    pub files: usize,
    /// Their bytes.
    pub size_bytes: u64,
}

impl Import {
    /// A savepoint with nothing but the lines. `manifest` says which operators and states there are, as that of a job's plan does.
    ///
    /// # Errors
    /// When the manifest contradicts itself.
    pub fn new(manifest: StateManifest) -> Result<Self, ImportError> {
        manifest.validate().map_err(SavepointError::from)?;
        Ok(Self { manifest, base: None, entries: BTreeMap::new(), items: BTreeMap::new(), lines: 0 })
    }

    /// All that is in `base`, with the entries of the lines in place of those with the same keys. With a manifest it becomes a
    /// savepoint of that version of the job: values are migrated, and keys get the groups of its max parallelism.
    ///
    /// # Errors
    /// When the manifest contradicts itself, or state of the savepoint does not fit into it.
    pub fn on(base: Savepoint, manifest: Option<StateManifest>) -> Result<Self, ImportError> {
        let manifest = manifest.unwrap_or_else(|| base.metadata().manifest.clone());
        let mut import = Self::new(manifest)?;
        let mut found = base.metadata().manifest.clone();
        for operator in &mut found.operators {
            // Entries are put into their groups anew, so that the max parallelism may change here.
            if let Some(declared) = import.manifest.operator(operator.id) {
                operator.max_parallelism = declared.max_parallelism;
            }
        }
        if let Some(reason) = check(&found, &import.manifest, false).refusals().into_iter().next() {
            return Err(ImportError::Base { reason });
        }
        import.base = Some(base);
        Ok(import)
    }

    /// Adds a line; an empty one is nothing. Of lines with the same key the last one counts; if an operator has lines with items, they take the
    /// place of all its items.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn line(&mut self, text: &str) -> Result<(), ImportError> {
        self.lines += 1;
        if text.trim().is_empty() {
            return Ok(());
        }
        let number = self.lines;
        let fail = |reason: String| ImportError::line(number, reason);
        match read(text).map_err(fail)? {
            Read::Item { operator, item } => {
                let position = self.position(&operator).map_err(fail)?;
                if self.manifest.operators[position].states.iter().all(|state| state.kind.is_keyed()) {
                    let reason =
                        "has no items: it is neither a source nor a sink; write `state`, `key` and `value`";
                    return Err(fail(format!("`{operator}` {reason}")));
                }
                self.items.entry(position).or_default().push(item);
            }
            Read::Entry { operator, state, key, map_key, value } => {
                let position = self.position(&operator).map_err(fail)?;
                let (place, value) = self.entry(position, &state, &key, map_key, value).map_err(fail)?;
                if value.is_none() && self.base.is_none() {
                    return Err(fail(
                        "there is nothing to delete: the savepoint is built from nothing".into(),
                    ));
                }
                self.entries.insert(place, value);
            }
        }
        Ok(())
    }

    /// Writes the savepoint into an empty directory.
    ///
    /// # Errors
    /// When there is a savepoint already, the one below cannot be read, or the storage refuses.
    pub async fn write(
        self,
        directory: Arc<dyn Storage>,
        job_id: JobId,
        savepoint_id: CheckpointId,
        now_ms: Timestamp,
    ) -> Result<ImportSummary, ImportError> {
        if directory.exists(METADATA_FILE).await.map_err(SavepointError::from)? {
            return Err(SavepointError::Exists { directory: directory.uri().to_string() }.into());
        }
        let mut files = Vec::new();
        for position in 0..self.manifest.operators.len() {
            files.extend(self.write_operator(&directory, position, now_ms).await?);
        }
        let metadata = Metadata::new(job_id, savepoint_id, now_ms, self.manifest, files);
        metadata.write(&*directory).await?;
        Ok(ImportSummary {
            uri: directory.uri().to_string(),
            lines: self.lines,
            files: metadata.files.len(),
            size_bytes: metadata.files.iter().map(|file| file.size_bytes).sum(),
        })
    }

    fn position(&self, reference: &str) -> Result<usize, String> {
        let found = self.manifest.find(reference).map(|operator| operator.id);
        let position = self.manifest.operators.iter().position(|operator| Some(operator.id) == found);
        position.ok_or_else(|| {
            let known: Vec<String> = self.manifest.operators.iter().map(OperatorManifest::label).collect();
            format!(
                "there is no operator `{reference}` with state, or several of this name; there are {}",
                known.join(", ")
            )
        })
    }

    fn entry(
        &self,
        position: usize,
        state: &str,
        key: &Value,
        map_key: Option<Value>,
        value: Option<Value>,
    ) -> Result<(Place, Option<Vec<u8>>), String> {
        let operator = &self.manifest.operators[position];
        let keyed = operator.states.iter().enumerate().filter(|(_, state)| state.kind.is_keyed());
        let Some((number, descriptor)) = keyed.clone().find(|(_, descriptor)| descriptor.name == state)
        else {
            let known: Vec<&str> = keyed.map(|(_, state)| state.name.as_str()).collect();
            return Err(format!(
                "{} has no keyed state `{state}`; it has {}",
                operator.label(),
                if known.is_empty() { "none".to_string() } else { known.join(", ") }
            ));
        };
        let key_schema = operator.key_schema.as_ref().ok_or("it has no keys")?;
        let mut encoded = Vec::new();
        from_json(key_schema, key, &mut encoded).map_err(|error| format!("`key`: {error}"))?;
        let group = key_group(encoded_key_hash(&encoded), operator.max_parallelism);
        let value_schema = match (descriptor.kind, &descriptor.schema, map_key) {
            (kind, Schema::Map(key, value), Some(map_key)) if kind.is_map() => {
                from_json(key, &map_key, &mut encoded).map_err(|error| format!("`map_key`: {error}"))?;
                value.as_ref()
            }
            (kind, ..) if kind.is_map() => {
                return Err(format!("`{state}` is a map state, and the line has no `map_key`"));
            }
            (_, _, Some(_)) => {
                return Err(format!("`{state}` is no map state, and the line has a `map_key`"));
            }
            (_, schema, None) => schema,
        };
        let mut bytes = Vec::new();
        if let Some(value) = &value {
            from_json(value_schema, value, &mut bytes).map_err(|error| format!("`value`: {error}"))?;
        }
        let place = Place { operator: position, state: number, group, key: encoded };
        Ok((place, value.map(|_| bytes)))
    }

    async fn write_operator(
        &self,
        directory: &Arc<dyn Storage>,
        position: usize,
        now_ms: Timestamp,
    ) -> Result<Vec<DataFile>, ImportError> {
        let operator = &self.manifest.operators[position];
        let mut writer = OperatorWriter::new(directory.clone(), operator.id, PART);
        if let Some(base) = &self.base {
            self.copy_base(base, position, now_ms, &mut writer).await?;
        }
        let mine = self.entries.iter().filter(|(place, _)| place.operator == position);
        for (place, value) in mine {
            if let (Some(value), Some(state)) = (value, operator.states.get(place.state)) {
                let entry = [place.key.as_slice(), value].concat();
                writer.entries(&state.name, place.group, &entry).await?;
            }
        }
        let items = match (self.items.get(&position), &self.base) {
            (Some(items), _) => items.clone(),
            (None, Some(base)) => base.items(operator.id).await?,
            (None, None) => Vec::new(),
        };
        for item in &items {
            writer.item(item).await?;
        }
        Ok(writer.finish().await?)
    }

    /// Copies what is below, file by file, without the entries that the lines replace.
    async fn copy_base(
        &self,
        base: &Savepoint,
        position: usize,
        now_ms: Timestamp,
        writer: &mut OperatorWriter,
    ) -> Result<(), ImportError> {
        let operator = &self.manifest.operators[position];
        let Some(found) = base.metadata().manifest.operator(operator.id) else { return Ok(()) };
        let replaced: BTreeSet<usize> =
            self.entries.keys().filter(|place| place.operator == position).map(|place| place.state).collect();
        let mut copies = BTreeMap::new();
        for (number, state) in operator.states.iter().enumerate() {
            if let (Some(before), true) = (found.state(&state.name), state.kind.is_keyed()) {
                let is_replaced = replaced.contains(&number);
                let mut copy = Copy::of(operator, found, number, before, is_replaced)?;
                copy.migration = copy.migration.at(now_ms);
                copies.insert(state.name.as_str(), copy);
            }
        }
        let all = KeyGroupRange { start: 0, end: found.max_parallelism };
        for file in base.metadata().files_of(operator.id) {
            let mut pieces: Vec<(String, KeyGroup, Vec<u8>)> = Vec::new();
            base.visit_file(file, all, |state, group, entries| {
                let Some(copy) = copies.get(state) else { return Ok(()) };
                let place =
                    |key: Vec<u8>, group| Place { operator: position, state: copy.number, group, key };
                copy.entries(group, entries, |group, key, entry| {
                    if key.is_none_or(|key| !self.entries.contains_key(&place(key.to_vec(), group))) {
                        pieces.push((state.to_string(), group, entry.to_vec()));
                    }
                })
            })
            .await?;
            for (state, group, entries) in pieces {
                writer.entries(&state, group, &entries).await?;
            }
        }
        Ok(())
    }
}

/// How the entries of one state are taken over from the savepoint below.
struct Copy<'a> {
    operator: &'a OperatorManifest,
    number: usize,
    state: &'a StateDescriptor,
    migration: StateMigration,
    /// If they can be told apart.
    layout: Option<EntryLayout>,
    /// Whether every entry must be looked at, because some are replaced or all go to other groups.
    by_entry: bool,
}

impl<'a> Copy<'a> {
    fn of(
        operator: &'a OperatorManifest,
        found: &OperatorManifest,
        number: usize,
        before: &StateDescriptor,
        is_replaced: bool,
    ) -> Result<Self, SavepointError> {
        let state = &operator.states[number];
        let unreadable = |unreadable| SavepointError::Unreadable { operator: operator.label(), unreadable };
        let unit = Schema::Tuple(Vec::new());
        let key_schema = operator.key_schema.as_ref().unwrap_or(&unit);
        let migration = StateMigration::new(before, state, key_schema).map_err(unreadable)?;
        let by_entry = is_replaced || found.max_parallelism != operator.max_parallelism;
        let layout = match EntryLayout::of(state, key_schema) {
            Ok(layout) => Some(layout),
            Err(error) if by_entry => return Err(unreadable(error)),
            Err(_) => None,
        };
        Ok(Self { operator, number, state, migration, layout, by_entry })
    }

    /// Hands over pieces of entries in their new form: the group, key and map key if it is a single entry, the bytes.
    fn entries(
        &self,
        group: KeyGroup,
        entries: &[u8],
        mut visitor: impl FnMut(KeyGroup, Option<&[u8]>, &[u8]),
    ) -> Result<(), SavepointError> {
        let damaged = |error| SavepointError::damaged_state(&self.operator.label(), &self.state.name, &error);
        let mut migrated = Vec::new();
        let mut rest = entries;
        if !self.migration.is_identity() {
            self.migration.migrate(entries, &mut migrated).map_err(damaged)?;
            rest = &migrated;
        }
        let Some(layout) = &self.layout else {
            visitor(group, None, rest);
            return Ok(());
        };
        if !self.by_entry {
            for piece in layout.split(rest, SAVEPOINT_BLOCK_BYTES).map_err(damaged)? {
                visitor(group, None, piece);
            }
            return Ok(());
        }
        while !rest.is_empty() {
            let all = rest;
            let entry = layout.take(&mut rest).map_err(damaged)?;
            let group = key_group(encoded_key_hash(entry.key), self.operator.max_parallelism);
            let name = entry.key.len() + entry.map_key.map_or(0, <[u8]>::len);
            visitor(group, Some(&all[..name]), &all[..all.len() - rest.len()]);
        }
        Ok(())
    }
}
