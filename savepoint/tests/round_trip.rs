//! Savepoints through the whole library: written by several subtasks, read by others, shown, compared, built and damaged.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use thalweg_common::entries::StateMigration;
use thalweg_common::graph::StateKind;
use thalweg_common::key_group::{KeyGroupRange, groups_of};
use thalweg_common::record::Record;
use thalweg_common::schema::Schema;
use thalweg_savepoint::{Import, ImportError, Savepoint, SavepointError, Selection, diff, inspect};

use support::*;

const KEYS: u32 = 500;

#[tokio::test]
async fn every_parallelism_finds_each_key_once() {
    let (_directory, storage) = temporary();
    write(&storage, KEYS).await;
    let savepoint = Savepoint::open(storage).await.unwrap();
    savepoint.verify().await.unwrap();
    let manifests = (manifest::<first::Total>(), manifest::<second::Total>());
    let states = [&manifests.0, &manifests.1]
        .map(|manifest| manifest.operator(COUNT).unwrap().state("total").unwrap());
    let migration = StateMigration::new(states[0], states[1], &String::schema()).unwrap();
    for parallelism in [1, 2, 3, 4, 8, 128] {
        let mut found = BTreeMap::new();
        for subtask in 0..parallelism {
            let groups = groups_of(subtask, parallelism, MAX_PARALLELISM);
            let visitor = |state: &str, group, entries: &[u8]| {
                assert!(groups.contains(group));
                if state == "total" {
                    let mut migrated = Vec::new();
                    migration.migrate(entries, &mut migrated).unwrap();
                    let mut rest = migrated.as_slice();
                    while !rest.is_empty() {
                        let (key, total) = <(String, second::Total)>::decode(&mut rest).unwrap();
                        assert_eq!(group_of(&key, MAX_PARALLELISM), group);
                        assert_eq!(found.insert(key, total), None);
                    }
                }
                Ok::<_, SavepointError>(())
            };
            savepoint.visit(COUNT, groups, visitor).await.unwrap();
        }
        assert_eq!(found.len(), KEYS as usize, "parallelism {parallelism}");
        let expected = |number: u32| {
            let first::Total { records, last } = total(number);
            second::Total { venue: String::new(), count: records.into(), last }
        };
        assert!((0..KEYS).all(|number| found[&key(number)] == expected(number)));
    }
    assert_eq!(savepoint.items(SOURCE).await.unwrap(), [vec![0, 0xff], vec![1, 0xff]]);
}

#[tokio::test]
async fn an_inspection_counts_entries_keys_and_skew() {
    let (_directory, storage) = temporary();
    let metadata = write(&storage, KEYS).await;
    let savepoint = Savepoint::open(storage).await.unwrap();
    let inspection = inspect(&savepoint, true).await.unwrap();
    assert_eq!((inspection.job_name.as_str(), inspection.savepoint_id, inspection.files), ("words", 12, 4));
    assert_eq!(inspection.size_bytes, metadata.files.iter().map(|file| file.size_bytes).sum::<u64>());
    let source = &inspection.operators[0];
    assert_eq!((source.items, source.item_bytes, source.states[0].counts.is_none()), (2, 4, true));
    let count = &inspection.operators[1];
    assert_eq!(count.key_type.as_deref(), Some("string"));
    let totals = count.states[0].counts.as_ref().unwrap();
    assert_eq!((totals.entries, totals.keys), (u64::from(KEYS), u64::from(KEYS)));
    assert_eq!(totals.groups.iter().map(|group| group.bytes).sum::<u64>(), count.states[0].bytes);
    assert!(totals.groups.is_sorted_by_key(|group| group.group));
    let largest = totals.groups.iter().map(|group| group.keys).max().unwrap();
    assert!((totals.skew - largest as f64 * 128.0 / f64::from(KEYS)).abs() < 1e-9);
    assert_eq!(totals.largest_entry_bytes, encoded(&(key(399), total(399))).len() as u64);
    let pages = count.states[1].counts.as_ref().unwrap();
    let expected: u64 = (0..KEYS).map(|number| u64::from(number % 3)).sum();
    assert_eq!(
        (pages.entries, pages.keys),
        (expected, (0..KEYS).filter(|number| number % 3 > 0).count() as u64)
    );
    let quick = inspect(&savepoint, false).await.unwrap();
    assert!(quick.operators[1].states[0].counts.is_none());
    assert_eq!(quick.operators[1].states[0].bytes, count.states[0].bytes);
}

#[tokio::test]
async fn what_is_exported_builds_the_same_savepoint() {
    let (_directory, storage) = temporary();
    write(&storage, KEYS).await;
    let savepoint = Savepoint::open(storage).await.unwrap();
    let exported = lines(&savepoint, &Selection::default()).await;
    let line = format!(
        r#"{{"operator":"count","state":"total","group":{},"key":"key-3","value":{{"last":"word 3","records":3}}}}"#,
        group_of(&key(3), MAX_PARALLELISM)
    );
    assert!(exported.contains(&line), "{}", exported[2]);
    assert!(exported.contains(&r#"{"operator":"0000000000000001","item":"01ff"}"#.to_string()));

    let mut import = Import::new(manifest::<first::Total>()).unwrap();
    add_lines(&mut import, &exported);
    let (_other, storage) = temporary();
    let summary = import.write(storage.clone(), JOB, 1, 0).await.unwrap();
    assert_eq!(summary.lines, exported.len() as u64);
    let again = Import::new(manifest::<first::Total>()).unwrap().write(storage.clone(), JOB, 1, 0).await;
    assert!(again.unwrap_err().to_string().contains("there is a savepoint in"));
    let built = Savepoint::open(storage).await.unwrap();
    built.verify().await.unwrap();
    let mut differences = 0;
    let report = diff(&savepoint, &built, |_| {
        differences += 1;
        Ok::<_, SavepointError>(true)
    })
    .await
    .unwrap();
    assert!(differences == 0 && report.is_empty(), "{report:?}");
    assert_eq!(report.operators[1].states[0].unchanged, u64::from(KEYS));
}

/// They are a map of times by key, whatever the store that has them.
#[tokio::test]
async fn timers_are_shown_and_built_like_other_state() {
    let mut manifest = manifest::<first::Total>();
    let times = Schema::Map(Box::new(i64::schema()), Box::new(<()>::schema()));
    manifest.operators[1].states.push(state("_timer_state/event_time", StateKind::Timers, times));
    let mut import = Import::new(manifest).unwrap();
    let line = |at: i64| {
        let group = group_of(&key(3), MAX_PARALLELISM);
        format!(
            r#"{{"operator":"count","state":"_timer_state/event_time","group":{group},"key":"key-3","map_key":{at},"value":[]}}"#
        )
    };
    let written = [line(-1), line(60_000)];
    add_lines(&mut import, &written);
    let (_directory, storage) = temporary();
    import.write(storage.clone(), JOB, 1, 0).await.unwrap();
    let savepoint = Savepoint::open(storage).await.unwrap();
    let mut shown = lines(&savepoint, &Selection::default()).await;
    shown.sort();
    assert_eq!(shown, written);
    assert_eq!(
        inspect(&savepoint, true).await.unwrap().operators[1].states[2]
            .counts
            .as_ref()
            .map(|counts| counts.entries),
        Some(2)
    );
}

/// Tasks restore on threads of a runtime that has several.
#[tokio::test]
async fn reading_and_writing_may_move_between_threads() {
    fn movable<T: Send>(future: T) -> T {
        future
    }
    let (_directory, storage) = temporary();
    write(&storage, 1).await;
    let savepoint = movable(Savepoint::open(storage.clone())).await.unwrap();
    let all = KeyGroupRange { start: 0, end: MAX_PARALLELISM };
    let mut pieces = 0;
    let visitor = |_: &str, _, _: &[u8]| {
        pieces += 1;
        Ok::<_, SavepointError>(())
    };
    movable(savepoint.visit(COUNT, all, visitor)).await.unwrap();
    assert_eq!(pieces, 1);
    movable(savepoint.verify()).await.unwrap();
    let mut writer = thalweg_savepoint::OperatorWriter::new(storage, COUNT, "9-a1");
    movable(writer.entries("total", 0, &[1])).await.unwrap();
    assert_eq!(movable(writer.finish()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_selection_takes_operator_state_and_groups() {
    let (_directory, storage) = temporary();
    write(&storage, KEYS).await;
    let savepoint = Savepoint::open(storage).await.unwrap();
    let total = Selection { operator: Some("Count".into()), state: Some("total".into()), groups: None };
    assert_eq!(lines(&savepoint, &total).await.len(), KEYS as usize);
    let half = Selection { groups: Some(KeyGroupRange { start: 0, end: 64 }), ..total };
    let expected = (0..KEYS).filter(|number| group_of(&key(*number), MAX_PARALLELISM) < 64).count();
    assert_eq!(lines(&savepoint, &half).await.len(), expected);
    let error = savepoint.operator("cuont").unwrap_err().to_string();
    assert_eq!(error, "there is no operator `cuont` in the savepoint; it has `lines`, `Count` (uid `count`)");
}

#[tokio::test]
async fn lines_on_top_of_a_savepoint_replace_add_and_delete() {
    let (_directory, storage) = temporary();
    write(&storage, KEYS).await;
    let base = Savepoint::open(storage).await.unwrap();
    // Of the second version of the job, with twice as many key groups.
    let mut newer = manifest::<second::Total>();
    newer.operators[1].max_parallelism = 2 * MAX_PARALLELISM;
    let mut import = Import::on(base.clone(), Some(newer)).unwrap();
    add_lines(
        &mut import,
        &[
            r#"{"operator":"count","state":"total","key":"key-3","value":{"count":7,"last":null}}"#
                .to_string(),
            r#"{"operator":"count","state":"total","key":"new","value":{"venue":"x","count":8,"last":"y"}}"#
                .to_string(),
            r#"{"operator":"count","state":"total","key":"key-4","delete":true}"#.to_string(),
            r#"{"operator":"count","state":"by-page","key":"key-5","map_key":1,"delete":true}"#.to_string(),
            String::new(),
            r#"{"operator":"lines","item":"aa"}"#.to_string(),
        ],
    );
    let (_other, storage) = temporary();
    import.write(storage.clone(), JOB, 13, 0).await.unwrap();
    let changed = Savepoint::open(storage).await.unwrap();
    let mut differences = Vec::new();
    let report = diff(&base, &changed, |difference| {
        differences.push(serde_json::to_value(difference).unwrap());
        Ok::<_, SavepointError>(true)
    })
    .await
    .unwrap();
    let total = &report.operators[1].states[0];
    assert_eq!((total.added, total.removed, total.changed, total.unchanged), (1, 1, 1, u64::from(KEYS) - 2));
    let pages = &report.operators[1].states[1];
    assert_eq!((pages.added, pages.removed, pages.changed), (0, 1, 0));
    assert!(report.operators[0].items_differ && !report.is_empty());
    let of = |key: &str| differences.iter().find(|difference| difference["key"] == key).unwrap();
    // A missing field got its default, and the older value is shown as the newer type reads it.
    assert_eq!(of("key-3")["after"], serde_json::json!({"venue": "", "count": 7, "last": null}));
    assert_eq!(of("key-3")["before"], serde_json::json!({"venue": "", "count": 3, "last": "word 3"}));
    assert_eq!(of("new")["before"], serde_json::Value::Null);
    assert_eq!((&of("key-5")["map_key"], &of("key-5")["before"]), (&1.into(), &1.25.into()));
    let all = KeyGroupRange { start: 0, end: 2 * MAX_PARALLELISM };
    let mut group = None;
    changed
        .visit(COUNT, all, |_, found, entries| {
            let mut rest = entries;
            if String::decode(&mut rest).unwrap() == key(3) {
                group = Some(found);
            }
            Ok::<_, SavepointError>(())
        })
        .await
        .unwrap();
    assert_eq!(group, Some(group_of(&key(3), 2 * MAX_PARALLELISM)));
}

#[tokio::test]
async fn lines_that_do_not_fit_are_refused_with_their_number() {
    let table = [
        (r#"{"operator":"cuont","state":"total","key":"a","value":1}"#, "no operator `cuont` with state"),
        (
            r#"{"operator":"count","state":"totl","key":"a","value":1}"#,
            "has no keyed state `totl`; it has total, by-page",
        ),
        (
            r#"{"operator":"count","state":"total","key":1,"value":1}"#,
            "`key`: the value should be string, and is 1",
        ),
        (
            r#"{"operator":"count","state":"total","key":"a","value":{"records":-1,"last":null}}"#,
            "`value`: records should be u32, and is -1",
        ),
        (r#"{"operator":"count","state":"by-page","key":"a","value":1}"#, "the line has no `map_key`"),
        (
            r#"{"operator":"count","state":"total","key":"a","map_key":1,"value":1}"#,
            "the line has a `map_key`",
        ),
        (r#"{"operator":"count","state":"total","key":"a","delete":true}"#, "nothing to delete"),
        (r#"{"operator":"count","item":"00"}"#, "has no items: it is neither a source nor a sink"),
    ];
    for (line, expected) in table {
        let mut import = Import::new(manifest::<first::Total>()).unwrap();
        import.line("").unwrap();
        let error = import.line(line).unwrap_err().to_string();
        assert!(
            error.starts_with("line 2: ") && error.contains(expected),
            "{error} should contain {expected}"
        );
    }
    let (_directory, storage) = temporary();
    write(&storage, 3).await;
    let base = Savepoint::open(storage).await.unwrap();
    let mut without = manifest::<first::Total>();
    without.operators.pop();
    let error = Import::on(base, Some(without)).unwrap_err();
    assert!(
        matches!(&error, ImportError::Base { reason } if reason.contains("is not in the job any more")),
        "{error}"
    );
}

#[tokio::test]
async fn missing_truncated_and_corrupt_files_say_which_and_what_to_do() {
    let (directory, storage) = temporary();
    let metadata = write(&storage, KEYS).await;
    let savepoint = Savepoint::open(storage.clone()).await.unwrap();
    let path = metadata.files_of(COUNT).next().unwrap().path.clone();
    let on_disk = directory.path().join(&path);
    let good = std::fs::read(&on_disk).unwrap();
    let mut corrupt = good.clone();
    corrupt[good.len() / 2] ^= 1;
    for (bytes, expected) in [
        (Some(corrupt), "its checksum is wrong"),
        (Some(good[..99].to_vec()), "it has 99 bytes instead of"),
        (None, "it is missing"),
    ] {
        match bytes {
            Some(bytes) => std::fs::write(&on_disk, bytes).unwrap(),
            None => std::fs::remove_file(&on_disk).unwrap(),
        }
        for error in [savepoint.verify().await.unwrap_err(), inspect(&savepoint, true).await.unwrap_err()] {
            let error = error.to_string();
            assert!(
                error.contains(&path) && error.contains(expected) && error.contains("use another savepoint"),
                "{error}"
            );
        }
    }
    // What the metadata says is still there to be seen.
    inspect(&savepoint, false).await.unwrap();
    let metadata = directory.path().join("_metadata");
    let bytes = std::fs::read(&metadata).unwrap();
    std::fs::write(&metadata, &bytes[..bytes.len() / 2]).unwrap();
    let error = Savepoint::open(storage).await.unwrap_err().to_string();
    assert!(error.contains("_metadata") && error.contains("is damaged"), "{error}");
}

#[tokio::test]
async fn much_state_is_cut_into_files() {
    let (_directory, storage) = temporary();
    let mut writer = thalweg_savepoint::OperatorWriter::new(storage.clone(), COUNT, "0-a1");
    // Random enough that it cannot be compressed.
    let mut number = 1u64;
    let mut block = vec![0u8; 1 << 20];
    block.iter_mut().for_each(|byte| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (number >> 56) as u8;
    });
    for group in 0..70 {
        writer.entries("total", group, &block).await.unwrap();
    }
    let files = writer.finish().await.unwrap();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|file| file.size_bytes < 34 << 20));
    let groups: Vec<(u32, u32)> =
        files.iter().map(|file| file.groups.unwrap()).map(|groups| (groups.start, groups.end)).collect();
    assert_eq!(groups, [(0, 32), (32, 64), (64, 70)]);
}
