//! What people read: sentences for each cause.

use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{PROTOCOL_VERSION, Vertex};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::JobSummary;
use thalweg_proto::model::time::TaskTime;

use super::*;

fn time(missing: Vec<SubtaskId>) -> JobTime {
    let vertex = |name: &str| Vertex {
        name: name.into(),
        parallelism: 2,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators: vec![],
    };
    JobTime {
        job: JobSummary {
            job_id: JobId(1),
            name: "sessions".into(),
            status: JobStatus::Running,
            attempt: 1,
            start_time_ms: 0,
            end_time_ms: None,
            tasks_total: 4,
            tasks_running: 4,
            reason: String::new(),
        },
        graph: JobGraph {
            protocol_version: PROTOCOL_VERSION,
            name: "sessions".into(),
            vertices: vec![vertex("events"), vertex("Session Window")],
            edges: vec![],
            checkpointing: CheckpointConfig::default(),
            restart_strategy: RestartStrategy::None,
            warnings: vec![],
        },
        tasks: vec![],
        missing,
    }
}

fn origin(idle: bool, idleness_ms: Option<u64>, waits_for_others: bool) -> Cause {
    Cause::Origin {
        split: Some("shard-12".into()),
        last_record_ms: 1_648_030_890_000,
        silent_ms: 35_400,
        idle,
        idleness_ms,
        waits_for_others,
    }
}

fn waiting(index: u32, causes: Vec<Cause>) -> Waiting {
    let holder = |cause| Holder {
        subtask: SubtaskId { vertex: 0, index: 1 },
        operator: "Timestamps/Watermarks".into(),
        watermark_ms: Some(1_648_030_887_170),
        cause,
    };
    Waiting {
        operator: "Session Window".into(),
        subtask: SubtaskId { vertex: 1, index },
        watermark_ms: Some(1_648_030_887_170),
        earliest_timer_ms: Some(1_648_030_897_170),
        missing_ms: Some(10_000),
        held_back_by: causes.into_iter().map(holder).collect(),
    }
}

#[test]
fn idle_shard_example_tells_who_holds_the_last_session() {
    let all = [waiting(0, vec![origin(false, None, false)]), waiting(1, vec![origin(false, None, false)])];
    let expected = "\
sessions is RUNNING

OPERATOR        SUBTASK  WATERMARK                    EARLIEST TIMER               MISSING
Session Window        0  2022-03-23 10:21:27.170 UTC  2022-03-23 10:21:37.170 UTC     10 s
Session Window        1  2022-03-23 10:21:27.170 UTC  2022-03-23 10:21:37.170 UTC     10 s

Session Window 0, Session Window 1
  held back by Timestamps/Watermarks 1, split shard-12, which is at 2022-03-23 10:21:27.170 UTC: its last record came 35 s ago, and it \
never counts as idle, because the strategy has no with_idleness()
";
    assert_eq!(text(&time(vec![]), &all), expected);
}

#[test]
fn idle_shard_example_lists_the_inputs_of_a_window() {
    let id = |index| SubtaskId { vertex: 0, index };
    let input = |index, watermark, idle_since_ms: Option<i64>| InputTime {
        sender: id(index),
        edge: 0,
        watermark,
        idle: idle_since_ms.is_some(),
        idle_since_ms,
        ended: false,
    };
    let subtask = SubtaskId { vertex: 1, index: 0 };
    let mut time = time(vec![]);
    time.tasks = vec![TaskTime {
        subtask,
        attempt: 1,
        now_ms: 1_648_030_925_400,
        watermark: Some(1_648_030_809_281),
        inputs: vec![
            input(0, Some(1_648_030_887_170), None),
            input(1, None, Some(1_648_030_910_000)),
            input(2, Some(1_648_030_810_870), None),
            InputTime { ended: true, ..input(3, Some(1), None) },
        ],
        origins: vec![],
        operators: vec![],
    }];
    let expected = "    INPUT FROM  WATERMARK                    STATE
    events 2    2022-03-23 10:20:10.870 UTC  active
    events 0    2022-03-23 10:21:27.170 UTC  active
    events 1    -                            idle for 15 s
    events 3    1970-01-01 00:00:00.001 UTC  ended
";
    assert_eq!(inputs(&time.graph, &time, &waiting(0, vec![Cause::Upstream])), expected);
    let many: Vec<_> = (0..20).map(|index| input(index, Some(5), None)).collect();
    time.tasks[0].inputs = many;
    let listed = inputs(&time.graph, &time, &waiting(0, vec![Cause::Upstream]));
    assert!(listed.lines().count() == 18 && listed.ends_with("and 4 more; --json has all\n"), "{listed}");
}

#[test]
fn each_cause_has_its_sentence() {
    for (cause, words) in [
        (origin(true, Some(15_000), false), "it is idle, so time stands still until a record comes"),
        (origin(false, Some(60_000), false), "it is idle when none has come for 1m 00s"),
        (origin(false, None, true), "it waits for the sources with which it is aligned"),
        (Cause::Upstream, "the least of its active inputs"),
        (Cause::AllIdle { since_ms: Some(0) }, "all inputs are idle since 1970-01-01 00:00:00.000 UTC"),
        (Cause::Ended, "the last watermark is on its way"),
        (Cause::NoSplits, "has no split"),
        (Cause::NoStrategy, "Call watermarks() on its stream"),
        (Cause::NoAnswer, "events 1 has not answered"),
    ] {
        let said = text(&time(vec![]), &[waiting(0, vec![cause.clone()])]);
        assert!(said.contains(words), "{cause:?}: {said}");
    }
    let due = Waiting { missing_ms: Some(0), ..waiting(0, vec![Cause::Ended]) };
    assert!(text(&time(vec![]), &[due]).contains("fires as soon as the output has room"));
}

#[test]
fn who_does_not_answer_is_named_and_jobs_without_timers_say_so() {
    let missing = time(vec![SubtaskId { vertex: 1, index: 1 }]);
    let said = text(&missing, &[]);
    assert!(said.contains("Session Window 1 has not answered") && said.contains("No task runs"), "{said}");
}
