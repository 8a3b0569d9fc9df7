//! `thalweg why` and `thalweg explain` against a small job manager.

use serde_json::json;
use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{Edge, JobGraph, Operator, PLAN_PREFIX, PROTOCOL_VERSION, Partitioning, Vertex};
use thalweg_common::id::OperatorId;
use thalweg_common::status::JobStatus::Running;
use thalweg_proto::v1;

use super::support::{Cluster, Script, details, summary};
use super::{ID, json_of, one_job};

/// `clicks -> strategy`, then `sessions` behind a hash edge; one subtask each.
fn graph() -> JobGraph {
    let operator = |id: u64, name: &str, kind: &str, inputs: &[u32]| Operator {
        node: 0,
        id: OperatorId(id),
        uid: None,
        name: name.into(),
        kind: kind.into(),
        location: "src/main.rs:1".into(),
        inputs: inputs.to_vec(),
        input_tag: None,
        states: vec![],
        key_schema: None,
        time: None,
    };
    let vertex = |name: &str, operators| Vertex {
        name: name.into(),
        parallelism: 1,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators,
    };
    JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: "word_count".into(),
        vertices: vec![
            vertex(
                "clicks -> strategy",
                vec![operator(1, "clicks", "source", &[]), operator(2, "strategy", "watermarks", &[0])],
            ),
            vertex("sessions", vec![operator(3, "sessions", "window", &[])]),
        ],
        edges: vec![Edge {
            source: 0,
            source_operator: 1,
            tag: None,
            target: 1,
            partitioning: Partitioning::Hash,
            schema_fingerprint: 0,
        }],
        checkpointing: CheckpointConfig::default(),
        restart_strategy: RestartStrategy::None,
        warnings: vec![],
    }
}

fn subtask(vertex: u32) -> Option<v1::SubtaskId> {
    Some(v1::SubtaskId { vertex, index: 0 })
}

fn times() -> v1::JobTime {
    let origin = v1::OriginTime {
        operator_id: 2,
        split: "shard-12".into(),
        watermark: Some(1_648_030_887_170),
        last_record_ms: 1_648_030_890_000,
        ..v1::OriginTime::default()
    };
    let now_ms = 1_648_030_925_000;
    let input =
        v1::InputTime { sender: subtask(0), watermark: Some(1_648_030_887_170), ..Default::default() };
    let timer = v1::OperatorTime { operator_id: 3, earliest_timer_ms: Some(1_648_030_897_170) };
    let source = v1::TaskTime { subtask: subtask(0), now_ms, origins: vec![origin], ..Default::default() };
    let sessions = v1::TaskTime {
        subtask: subtask(1),
        now_ms,
        watermark: Some(1_648_030_887_170),
        inputs: vec![input],
        operators: vec![timer],
        ..Default::default()
    };
    v1::JobTime {
        summary: Some(summary(7, "word_count", Running)),
        graph: serde_json::to_string(&graph()).unwrap(),
        tasks: vec![sessions, source],
        missing: vec![],
    }
}

#[tokio::test]
async fn why_names_the_split_that_holds_a_window_back() {
    let cluster = Cluster::start(Script { time: Some(times()), ..one_job() }).await;
    let ended = cluster.run(&["why", "word_count"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        "word_count is RUNNING",
        "sessions        0  2022-03-23 10:21:27.170 UTC  2022-03-23 10:21:37.170 UTC     10 s",
        "    INPUT FROM            WATERMARK                    STATE\n    clicks -> strategy 0  2022-03-23 10:21:27.170 UTC  active\n",
        "held back by strategy 0, split shard-12, which is at 2022-03-23 10:21:27.170 UTC: its last record came 35 s ago",
    ] {
        assert!(ended.stdout.contains(part), "{part} is missing in {}", ended.stdout);
    }
    let answer = json_of(&cluster.run(&["why", ID, "--json"]).await.stdout);
    let waiting = &answer["waiting"][0];
    assert_eq!((&waiting["operator"], &waiting["missing_ms"]), (&json!("sessions"), &json!(10_000)));
    let holder = &waiting["held_back_by"][0];
    assert_eq!((&holder["cause"], &holder["split"]), (&json!("origin"), &json!("shard-12")));
    assert_eq!(answer["tasks"][1]["inputs"][0]["watermark"], 1_648_030_887_170_i64);
}

#[tokio::test]
async fn explain_shows_the_plan_of_a_job_and_of_an_executable() {
    let plan = serde_json::to_string(&graph()).unwrap();
    let details = v1::JobDetails { graph: plan.clone(), ..details(7) };
    let cluster = Cluster::start(Script { details: Some(details), ..one_job() }).await;
    let ended = cluster.run(&["explain", "word_count"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("   <- 0: strategy, HASH\n"), "{}", ended.stdout);
    assert_eq!(
        json_of(&cluster.run(&["explain", ID, "--json"]).await.stdout)["edges"][0]["partitioning"],
        "hash"
    );

    let described = json_of(&cluster.run(&["describe", ID, "--json"]).await.stdout);
    let region = json!([{"region": 0, "subtasks": [{"vertex": 0, "index": 0}, {"vertex": 1, "index": 0}]}]);
    assert_eq!(described["regions"], region);

    // An executable that tells its plan, and what it was given.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job");
    let script = format!(
        "#!/bin/sh\necho \"got $1 $THALWEG_MODE $THALWEG_CONFIGURATION\" >&2\necho '{PLAN_PREFIX}{plan}'\n"
    );
    std::fs::write(&path, script + "test \"$1\" = good\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    let path = path.to_str().unwrap();
    let ended = cluster.run(&["explain", path, "-D", "parallelism.default=3", "--", "good"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with("Job word_count: 2 vertices, 2 tasks, 1 failover region\n"),
        "{}",
        ended.stdout
    );
    let ended = cluster.run(&["explain", path, "--", "bad"]).await;
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("cannot be planned") && ended.stderr.contains("got bad plan"),
        "{}",
        ended.stderr
    );
    let ended = cluster.run(&["explain", "word_count", "--", "x"]).await;
    assert!(ended.stderr.contains("is no file"), "{}", ended.stderr);
}
