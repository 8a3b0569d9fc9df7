//! `thalweg state` as people use it: build a savepoint, look into it, change it, compare, and check a job against it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{JobGraph, Operator, PROTOCOL_VERSION, StateDescriptor, StateKind, Vertex};
use thalweg_common::id::OperatorId;
use thalweg_common::record::Record as _;
use thalweg_common::schema::{Field, Schema};

/// The plan of a job that counts, whose totals have these fields.
fn plan(fields: &[Field]) -> String {
    let schema = Schema::Struct { name: "Total".into(), fields: fields.to_vec() };
    let total = StateDescriptor::new("total", StateKind::Value, schema);
    let count = Operator {
        node: 0,
        id: OperatorId(7),
        uid: Some("count".into()),
        name: "Count".into(),
        kind: "process".into(),
        location: "src/main.rs:1".into(),
        inputs: vec![],
        input_tag: None,
        states: vec![total],
        key_schema: Some(String::schema()),
        time: None,
    };
    let vertex = Vertex {
        name: "Count".into(),
        parallelism: 2,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators: vec![count],
    };
    let graph = JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: "words".into(),
        vertices: vec![vertex],
        edges: vec![],
        checkpointing: CheckpointConfig::default(),
        restart_strategy: RestartStrategy::None,
        warnings: vec![],
    };
    format!("the author prints this\nTHALWEG-PLAN {}\n", serde_json::to_string(&graph).unwrap())
}

fn records() -> Field {
    Field::new("records", Schema::primitive("u32"))
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.path().join(name), text).unwrap();
        self.path(name)
    }
}

/// How the program ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program, told of no cluster, to its end.
fn state(arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.arg("state").args(arguments).env_remove("THALWEG_JOBMANAGER").stdin(Stdio::null());
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn done(arguments: &[&str]) -> String {
    let ended = state(arguments);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    ended.stdout
}

/// A savepoint with these totals.
fn savepoint(files: &Files, name: &str, totals: &[(&str, u32)]) -> String {
    let line = |(key, records): &(&str, u32)| {
        json!({"operator": "count", "state": "total", "key": key, "value": {"records": records}}).to_string()
            + "\n"
    };
    let entries = files.write(&format!("{name}.jsonl"), &totals.iter().map(line).collect::<String>());
    let (plan, path) = (files.write("plan.txt", &plan(&[records()])), files.path(name));
    let written = done(&["write", &path, "--job", &plan, "--entries", &entries]);
    assert!(
        written.starts_with(&format!("Wrote file://{path}: {} lines, 1 files, ", totals.len())),
        "{written}"
    );
    path
}

#[test]
fn a_savepoint_is_built_inspected_and_exported() {
    let files = Files::new();
    let path = savepoint(&files, "first", &[("a", 1), ("b", 2), ("c", 3)]);
    let text = done(&["inspect", &path]);
    for part in
        ["words (", "Count (uid count)", "max parallelism 128, keys of type string", "total  value  Total"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let inspected: Value = serde_json::from_str(&done(&["inspect", &path, "--output", "json"])).unwrap();
    assert_eq!(inspected["operators"][0]["states"][0]["counts"]["keys"], 3);
    let quick: Value =
        serde_json::from_str(&done(&["inspect", &path, "--quick", "--output", "json"])).unwrap();
    assert_eq!(quick["operators"][0]["states"][0]["counts"], Value::Null);

    let lines: Vec<Value> =
        done(&["export", &path]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let a = lines.iter().find(|line| line["key"] == "a").unwrap();
    assert_eq!(a["value"], json!({"records": 1}));
    let group = a["group"].to_string();
    let one = done(&["export", &path, "--operator", "count", "--state", "total", "--groups", &group]);
    assert!(one.contains(r#""key":"a""#), "{one}");
}

#[test]
fn savepoints_are_changed_and_compared() {
    let files = Files::new();
    let first = savepoint(&files, "first", &[("a", 1), ("b", 2), ("c", 3)]);
    let fixes = files.write(
        "fixes.jsonl",
        "{\"operator\":\"count\",\"state\":\"total\",\"key\":\"a\",\"value\":{\"records\":9}}\n\
         {\"operator\":\"count\",\"state\":\"total\",\"key\":\"b\",\"delete\":true}\n\
         {\"operator\":\"count\",\"state\":\"total\",\"key\":\"d\",\"value\":{\"records\":4}}\n",
    );
    let second = files.path("second");
    done(&["write", &second, "--on", &first, "--entries", &fixes]);
    let text = done(&["diff", &first, &second]);
    for part in [
        "~ count total \"a\" = {\"records\":1} -> {\"records\":9}\n",
        "- count total \"b\" = {\"records\":2}\n",
        "+ count total \"d\" = {\"records\":4}\n",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let report: Value =
        serde_json::from_str(&done(&["diff", &first, &second, "--limit", "1", "--output", "json"])).unwrap();
    let counted = &report["operators"][0]["states"][0];
    assert_eq!(
        [&counted["added"], &counted["removed"], &counted["changed"], &counted["unchanged"]],
        [&json!(1), &json!(1), &json!(1), &json!(1)]
    );
    assert_eq!(report["differences"].as_array().unwrap().len(), 1);
    assert_eq!(done(&["diff", &first, &first]), "All state is the same.\n");
}

#[test]
fn a_job_is_checked_before_anything_is_touched() {
    let files = Files::new();
    let path = savepoint(&files, "first", &[("a", 1)]);
    let wide = Field::new("records", Schema::primitive("u64"));
    let venue = Field::new("venue", String::schema());
    let good = files.write("good.txt", &plan(&[wide, venue.clone().with_default(vec![0; 8])]));
    let text = done(&["check", &path, "--job", &good]);
    assert!(text.starts_with("compatible after migration\n"), "{text}");
    assert!(text.contains("state `total`: field `venue` is added with its default\n"), "{text}");

    let bad = files.write("bad.txt", &plan(&[records(), venue]));
    let ended = state(&["check", &path, "--job", &bad]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""));
    assert!(
        ended.stdout.contains("field `venue` is new and has no default; put #[record(default)]"),
        "{ended:?}"
    );
    let ended = state(&["check", &path, "--job", &bad, "--output", "json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &report["accepted"]), (Some(1), &json!(false)));

    // What can be checked can be written as the newer version.
    let migrated = files.path("migrated");
    let none = files.write("none.jsonl", "");
    done(&["write", &migrated, "--on", &path, "--job", &good, "--entries", &none]);
    let lines = done(&["export", &migrated]);
    assert!(lines.contains(r#""value":{"records":1,"venue":""}"#), "{lines}");
}

#[test]
fn what_goes_wrong_is_one_line_with_its_cause_and_cure() {
    let files = Files::new();
    let path = savepoint(&files, "first", &[("a", 1)]);
    let plan = files.write("plan.txt", &plan(&[records()]));
    let wrong = files
        .write("wrong.jsonl", "\n{\"operator\":\"cuont\",\"state\":\"total\",\"key\":\"a\",\"value\":1}\n");
    let none = files.write("none.jsonl", "");
    let (other, missing) = (files.path("other"), files.path("missing"));
    for (arguments, told) in [
        (&["inspect", &missing][..], "there is no savepoint in file://"),
        (
            &["export", &path, "--operator", "cuont"],
            "there is no operator `cuont` in the savepoint; it has `Count` (uid `count`)",
        ),
        (&["write", &other, "--job", &plan, "--entries", &wrong], "line 2: there is no operator `cuont`"),
        (&["write", &path, "--job", &plan, "--entries", &none], "there is a savepoint in file://"),
        (&["write", &other, "--job", &wrong, "--entries", &none], "is neither a plan nor a state manifest"),
        (&["check", &path, "--job", &missing], "No such file"),
    ] {
        let ended = state(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("thalweg: ") && ended.stderr.contains(told), "{ended:?}");
    }
    assert!(!Path::new(&other).exists(), "nothing was written");
    for arguments in
        [&["write", &other, "--entries", &none][..], &["export", &path, "--groups", "x"], &["inspect"]]
    {
        let ended = state(arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
}
