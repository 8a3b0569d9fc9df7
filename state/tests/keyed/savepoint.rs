//! Keyed state through a savepoint into another version of the job, at another parallelism.

use std::collections::BTreeMap;

use thalweg_common::Record;
use thalweg_common::graph::StateKind;
use thalweg_common::id::{JobId, OperatorId};
use thalweg_common::key_group::groups_of;
use thalweg_common::manifest::{OperatorManifest, StateManifest, check};
use thalweg_common::record::Record as _;
use thalweg_common::storage;
use thalweg_savepoint::{Metadata, OperatorWriter, Savepoint, SavepointError};
use thalweg_state::{
    Declarations, Declare, KeyedStore, MapState, RestoreError, StateSnapshot, ValueState, migrate_states,
};

const COUNT: OperatorId = OperatorId(7);
const MAX_PARALLELISM: u32 = 128;
const KEYS: u64 = 1_000;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
struct OldTotal {
    records: u32,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
struct NewTotal {
    records: u64,
    #[record(default)]
    last: Option<String>,
}

struct Job<T, V> {
    total: ValueState<T>,
    pages: MapState<String, V>,
}

/// The states of a version of the job whose types are `T` and `V`, declared.
fn declared<T: thalweg_common::record::Record, V: thalweg_common::record::Record>()
-> (Job<T, V>, Declarations<u64>) {
    let mut job = Job { total: ValueState::default(), pages: MapState::default() };
    let mut declarations = Declarations::default();
    job.total.declare("total", &mut declarations);
    job.pages.declare("pages", &mut declarations);
    (job, declarations)
}

fn manifest(declarations: &Declarations<u64>, parallelism: u32) -> StateManifest {
    let count = OperatorManifest {
        id: COUNT,
        uid: Some("count".into()),
        name: "Count".into(),
        parallelism,
        max_parallelism: MAX_PARALLELISM,
        key_schema: Some(u64::schema()),
        states: declarations.descriptors().unwrap(),
    };
    StateManifest { job_name: "words".into(), operators: vec![count] }
}

/// A savepoint of the older version at parallelism 2.
async fn write(directory: &std::sync::Arc<dyn storage::Storage>) {
    let mut files = Vec::new();
    for subtask in 0..2 {
        let (job, declarations) = declared::<OldTotal, u16>();
        let owned = groups_of(subtask, 2, MAX_PARALLELISM);
        let mut store = KeyedStore::<u64>::new("count", declarations, MAX_PARALLELISM, owned).unwrap();
        for key in 0..KEYS {
            let Ok(mut at) = store.select(key) else { continue };
            job.total.set(&mut at, OldTotal { records: key as u32 });
            job.pages.insert(&mut at, format!("/{}", key % 7), key as u16);
        }
        let mut writer = OperatorWriter::new(directory.clone(), COUNT, &format!("{subtask}-a1"));
        for (name, state) in store.snapshot().unwrap() {
            for (group, piece) in state.pieces().unwrap() {
                writer.entries(&name, group, piece).await.unwrap();
            }
        }
        files.extend(writer.finish().await.unwrap());
    }
    let manifest = manifest(&declared::<OldTotal, u16>().1, 2);
    Metadata::new(JobId(1), 4, 0, manifest, files).write(&**directory).await.unwrap();
}

#[tokio::test]
async fn a_newer_version_restores_it_at_every_parallelism() {
    let directory = tempfile::tempdir().unwrap();
    let directory = storage::open(directory.path().to_str().unwrap()).unwrap();
    write(&directory).await;
    let savepoint = Savepoint::open(directory).await.unwrap();
    let found = savepoint.metadata().manifest.operator(COUNT).unwrap().clone();
    for parallelism in [1, 3, 4, 8] {
        let report = check(
            &savepoint.metadata().manifest,
            &manifest(&declared::<NewTotal, i64>().1, parallelism),
            false,
        );
        assert!(report.is_accepted(), "{report}");
        let mut keys = 0;
        for subtask in 0..parallelism {
            let owned = groups_of(subtask, parallelism, MAX_PARALLELISM);
            let mut states: BTreeMap<String, StateSnapshot> = BTreeMap::new();
            let visitor = |state: &str, group, entries: &[u8]| {
                let snapshot = states.entry(state.to_string()).or_insert_with(|| StateSnapshot {
                    descriptor: found.state(state).unwrap().clone(),
                    key_schema: found.key_schema.clone().unwrap(),
                    groups: BTreeMap::new(),
                });
                snapshot.groups.entry(group).or_default().0.extend_from_slice(entries);
                Ok::<_, SavepointError>(())
            };
            savepoint.visit(COUNT, owned, visitor).await.unwrap();
            let (job, declarations) = declared::<NewTotal, i64>();
            let descriptors = declarations.descriptors().unwrap();
            let states = migrate_states("count", states, &descriptors, &u64::schema(), 0, false).unwrap();
            let mut store = KeyedStore::<u64>::new("count", declarations, MAX_PARALLELISM, owned).unwrap();
            store.restore(&states).unwrap();
            let mine: Vec<u64> = store.keys().unwrap();
            keys += mine.len() as u64;
            for key in mine {
                let at = store.select(key).unwrap();
                assert_eq!(job.total.get(&at), Some(&NewTotal { records: key, last: None }));
                assert_eq!(job.pages.get(&at, &format!("/{}", key % 7)), Some(&(key as i64)));
            }
        }
        assert_eq!(keys, KEYS, "parallelism {parallelism}");
    }
}

fn snapshot() -> BTreeMap<String, StateSnapshot> {
    let (job, declarations) = declared::<OldTotal, u16>();
    let mut store =
        KeyedStore::<u64>::new("count", declarations, MAX_PARALLELISM, groups_of(0, 1, MAX_PARALLELISM))
            .unwrap();
    job.total.set(&mut store.select(3).unwrap(), OldTotal { records: 5 });
    store.snapshot().unwrap()
}

#[test]
fn what_cannot_be_migrated_names_operator_state_and_reason() {
    let descriptors = declared::<NewTotal, u8>().1.descriptors().unwrap();
    let error =
        migrate_states("count", snapshot(), &descriptors, &u64::schema(), 0, false).unwrap_err().to_string();
    for part in ["`pages`", "`count`", "`[value]` was u16 and is u8 now, which cannot hold every value"] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    let descriptors = declared::<NewTotal, u16>().1.descriptors().unwrap();
    let error = migrate_states("count", snapshot(), &descriptors, &u128::schema(), 0, false).unwrap_err();
    assert!(matches!(error, RestoreError::KeyChanged { .. }), "{error}");

    let mut damaged = snapshot();
    damaged.get_mut("total").unwrap().groups.values_mut().for_each(|entries| entries.0.truncate(9));
    let error = migrate_states("count", damaged, &descriptors, &u64::schema(), 0, false).unwrap_err();
    assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");

    let total = &descriptors[..1];
    assert_eq!((total[0].name.as_str(), total[0].kind), ("total", StateKind::Value));
    let error = migrate_states("count", snapshot(), total, &u64::schema(), 0, false).unwrap_err();
    assert!(matches!(error, RestoreError::Undeclared { state, .. } if state == "pages"));
    let states = migrate_states("count", snapshot(), total, &u64::schema(), 0, true).unwrap();
    assert_eq!(states.keys().collect::<Vec<_>>(), ["total"]);
}
