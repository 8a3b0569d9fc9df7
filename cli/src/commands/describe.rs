//! `thalweg describe`: everything about a job, in sections: the job, its vertices and tasks, its checkpoints, its failures,
//! its history. The sections are pure functions of the cluster's answer and the present time.

use thalweg_proto::model::{
    FailureRecord, JobDetails, StatusChange, SubtaskDetails, TaskCounters, VertexDetails,
};

use super::{Session, load, own, time};
use crate::exit::Exit;
use crate::human::{ago, bytes, count, date_time, duration, indented, one_line, span_ms};
use crate::table::{Align, Table, properties};

/// Regions that are listed one by one.
const SHOWN_REGIONS: usize = 32;

/// Subtasks of a region that are listed, as vertex and index.
const SHOWN_SUBTASKS: usize = 12;

pub(super) async fn run(session: &Session, reference: &str) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, reference).await?;
    let details = client.describe(job_id).await?;
    session.output.result(&details, |details| text(details, session.now_ms()))?;
    Ok(Exit::Success)
}

fn text(details: &JobDetails, now_ms: i64) -> String {
    let sections = [
        job(details, now_ms),
        section("Warnings", &lines(&details.warnings)),
        section("Vertices", &details.vertices.iter().map(vertex).collect::<Vec<_>>().join("\n")),
        section("Failover regions", &regions(details)),
        section("Checkpoints", &checkpoints(details, now_ms)),
        section("Failures", &details.failures.iter().rev().map(failure).collect::<String>()),
        section("History", &history(&details.history)),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A body under its heading; nothing without a body.
fn section(heading: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("{heading}\n{body}") }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("  {}\n", one_line(text))).collect()
}

fn job(details: &JobDetails, now_ms: i64) -> String {
    let summary = &details.summary;
    let moment = |time_ms| format!("{} ({})", date_time(time_ms), ago(now_ms, time_ms));
    let tasks = format!("{} of {}", count(summary.tasks_running.into()), count(summary.tasks_total.into()));
    let lasted = duration(span_ms(summary.start_time_ms, summary.end_time_ms.unwrap_or(now_ms)));
    let mut rows = vec![
        ("Job", summary.name.clone()),
        ("Id", summary.job_id.to_string()),
        ("Status", summary.status.to_string()),
    ];
    if !summary.reason.is_empty() {
        rows.push(("Reason", summary.reason.clone()));
    }
    rows.push(("Attempt", count(summary.attempt.into())));
    rows.push(("Started", moment(summary.start_time_ms)));
    rows.extend(summary.end_time_ms.map(|time_ms| ("Ended", moment(time_ms))));
    rows.push(("Duration", lasted));
    rows.push(("Tasks running", tasks));
    rows.extend(details.sha256.map(|sha256| ("Binary", format!("sha256 {sha256}"))));
    if !details.arguments.is_empty() {
        rows.push(("Arguments", details.arguments.join(" ")));
    }
    for (position, (key, value)) in details.configuration.iter().enumerate() {
        rows.push((if position == 0 { "Configuration" } else { "" }, format!("{key}: {value}")));
    }
    let all = |(group, map)| std::iter::repeat(group).zip(map);
    for (position, (group, (key, value))) in details.properties.groups().flat_map(all).enumerate() {
        rows.push((if position == 0 { "Properties" } else { "" }, format!("{group}: {key}: {value}")));
    }
    properties(&rows)
}

fn vertex(vertex: &VertexDetails) -> String {
    let mut table = Table::new(&[
        ("SUBTASK", Align::Right),
        ("STATUS", Align::Left),
        ("TASK MANAGER", Align::Left),
        ("ATTEMPT", Align::Right),
        ("RECORDS IN", Align::Right),
        ("RECORDS OUT", Align::Right),
        ("BYTES IN", Align::Right),
        ("BYTES OUT", Align::Right),
        ("STATE", Align::Right),
    ])
    .indented("    ");
    for SubtaskDetails { counters, task_manager, attempt, .. } in &vertex.subtasks {
        table.row([
            counters.subtask.index.to_string(),
            counters.status.to_string(),
            if task_manager.is_empty() { "-".into() } else { task_manager.clone() },
            count((*attempt).into()),
            count(counters.records_in),
            count(counters.records_out),
            bytes(counters.bytes_in),
            bytes(counters.bytes_out),
            bytes(counters.state_bytes),
        ]);
    }
    let heading = format!(
        "  {}: {} (parallelism {}, at most {}){}\n",
        vertex.vertex,
        one_line(&vertex.name),
        count(vertex.parallelism.into()),
        count(vertex.max_parallelism.into()),
        load::summary(vertex)
    );
    if vertex.subtasks.is_empty() {
        return heading;
    }
    let restored = origins(&vertex.subtasks.iter().collect::<Vec<_>>());
    let restored = restored.map_or_else(String::new, |origins| format!("    restored {origins}\n"));
    heading + &table.render() + &load::table(vertex) + &time::table(vertex) + &own::table(vertex) + &restored
}

/// The subtasks that are restarted together, a line for each region; many are counted only.
fn regions(details: &JobDetails) -> String {
    let regions = &details.regions;
    if regions.len() <= 1 || regions.len() > SHOWN_REGIONS {
        let all = "a failure restarts all tasks";
        return match regions.len() {
            0 => String::new(),
            1 => format!("  1: {all}\n"),
            many => format!("  {}; --json lists them\n", count(many as u64)),
        };
    }
    let mut table =
        Table::new(&[("REGION", Align::Right), ("TASKS", Align::Right), ("SUBTASKS", Align::Left)])
            .indented("  ");
    for region in regions {
        let subtasks: Vec<_> =
            region.subtasks.iter().map(|id| format!("{}/{}", id.vertex, id.index)).collect();
        let more = subtasks.len().saturating_sub(SHOWN_SUBTASKS);
        let mut shown = subtasks[..subtasks.len() - more].join(" ");
        if more > 0 {
            shown.push_str(&format!(" and {} more", count(more as u64)));
        }
        table.row([region.region.to_string(), count(region.subtasks.len() as u64), shown]);
    }
    table.render()
}

/// Where what these tasks restored came from; nothing if they have read no files of a checkpoint.
fn origins(subtasks: &[&SubtaskDetails]) -> Option<String> {
    let sum = |of: fn(&TaskCounters) -> u64| subtasks.iter().map(|one| of(&one.counters)).sum::<u64>();
    let local = sum(|counters| counters.restored_local_bytes);
    let remote = sum(|counters| counters.restored_remote_bytes);
    let text = || {
        format!(
            "{} from copies on its machines and {} from the checkpoint's storage",
            bytes(local),
            bytes(remote)
        )
    };
    (local + remote > 0).then(text)
}

fn checkpoints(details: &JobDetails, now_ms: i64) -> String {
    let checkpoints = &details.checkpoints;
    let mut text = format!(
        "  {} completed, {} failed{}\n",
        count(checkpoints.completed),
        count(checkpoints.failed),
        if checkpoints.in_progress { ", one in progress" } else { "" }
    );
    if let Some(latest) = &checkpoints.latest {
        text.push_str(&format!(
            "  latest: {}, {}, took {}, {}{}\n",
            latest.id,
            ago(now_ms, latest.time_ms),
            duration(latest.duration_ms),
            bytes(latest.bytes),
            if latest.path.is_empty() { String::new() } else { format!(", at {}", one_line(&latest.path)) }
        ));
    }
    if let Some(restored) = checkpoints.restored_id {
        let subtasks = details.vertices.iter().flat_map(|vertex| &vertex.subtasks);
        // The others were not restarted.
        let present: Vec<_> = subtasks.filter(|one| one.attempt == details.summary.attempt).collect();
        let origins = origins(&present).map_or_else(String::new, |origins| format!(": {origins}"));
        text.push_str(&format!("  the present attempt was restored from checkpoint {restored}{origins}\n"));
    }
    text
}

/// A failure with its details. The cluster tells the newest last; people read it first.
fn failure(record: &FailureRecord) -> String {
    let place = match (record.task.as_str(), record.task_manager.as_str()) {
        ("", "") => String::new(),
        (task, "") => format!(", task {task}"),
        ("", task_manager) => format!(", {task_manager}"),
        (task, task_manager) => format!(", task {task} on {task_manager}"),
    };
    let heading = format!("{}  attempt {}{place}", date_time(record.time_ms), record.attempt);
    format!(
        "  {}\n{}{}",
        one_line(&heading),
        indented(&record.failure.message, "    "),
        indented(&record.failure.details, "      ")
    )
}

fn history(changes: &[StatusChange]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("TIME", Align::Left),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("ATTEMPT", Align::Right),
        ("REASON", Align::Left),
    ])
    .indented("  ");
    for change in changes {
        table.row([
            date_time(change.time_ms),
            change.from.to_string(),
            change.to.to_string(),
            count(change.attempt.into()),
            change.reason.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use thalweg_common::failure::Failure;
    use thalweg_common::id::{JobId, SubtaskId};
    use thalweg_common::properties::RuntimeProperties;
    use thalweg_common::status::{JobStatus, TaskStatus};
    use thalweg_proto::metrics::TaskMetrics;
    use thalweg_proto::model::{
        CheckpointSummary, CompletedCheckpoint, JobSummary, MetricScope, MetricValue, OperatorCounters,
        RegionDetails, UserMetric,
    };

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn subtask(index: u32, task_manager: &str) -> SubtaskDetails {
        let counters = TaskCounters {
            subtask: SubtaskId { vertex: 0, index },
            status: TaskStatus::Running,
            records_in: 1_234_567,
            records_out: 7,
            bytes_in: 1_258_291,
            bytes_out: 0,
            late_records_dropped: 0,
            records_in_errors: 0,
            state_bytes: 1_536,
            unassigned_splits: None,
            restored_local_bytes: 0,
            restored_remote_bytes: 0,
            busy_ns: 3_800_000_000,
            idle_ns: 0,
            back_pressured_ns: 6_200_000_000,
            input_queue_length: 8,
            output_queue_length: 1,
            available_credit_bytes: 0,
            current_input_watermark: None,
            current_output_watermark: None,
            watermark_alignment_drift_ms: None,
            operators: Vec::new(),
            name: String::new(),
        };
        SubtaskDetails {
            metrics: TaskMetrics::between(None, &counters),
            counters,
            task_manager: task_manager.into(),
            attempt: 2,
        }
    }

    const PROPERTIES: &str = r#"[{"PropertyGroupId": "Consumer", "PropertyMap": {"aws.region": "eu-west-1", "flink.stream.initpos": "LATEST"}}]"#;

    fn details() -> JobDetails {
        JobDetails {
            summary: JobSummary {
                job_id: JobId(255),
                name: "word_count".into(),
                status: JobStatus::Restarting,
                attempt: 2,
                start_time_ms: NOW - 63_000,
                end_time_ms: None,
                tasks_total: 2,
                tasks_running: 0,
                reason: "waiting for 2 of 4 slots".into(),
            },
            vertices: vec![VertexDetails {
                vertex: 0,
                name: "source -> split".into(),
                parallelism: 2,
                max_parallelism: 128,
                subtasks: vec![subtask(0, "tm-1"), subtask(1, "")],
            }],
            size_bytes: 0,
            regions: vec![],
            graph: None,
            checkpoints: CheckpointSummary {
                completed: 3,
                failed: 1,
                latest: Some(CompletedCheckpoint {
                    id: 4,
                    time_ms: NOW - 12_000,
                    duration_ms: 250,
                    bytes: 1_536,
                    path: "/data/chk-4".into(),
                }),
                in_progress: true,
                restored_id: Some(3),
            },
            failures: vec![FailureRecord {
                time_ms: NOW - 20_000,
                attempt: 1,
                task: "split 0/1".into(),
                task_manager: "tm-2".into(),
                failure: Failure::external("the worker was killed by signal 9")
                    .with_details("line 1\nline 2"),
            }],
            history: vec![StatusChange {
                time_ms: NOW - 60_000,
                from: JobStatus::Created,
                to: JobStatus::Running,
                attempt: 1,
                reason: String::new(),
            }],
            sha256: None,
            arguments: vec!["--input".into(), "/data".into()],
            configuration: BTreeMap::from([
                ("parallelism.default".into(), "2".into()),
                ("pipeline.name".into(), "word_count".into()),
            ]),
            properties: RuntimeProperties::from_json(PROPERTIES).expect("right"),
            warnings: vec!["main.rs:7: `reduce` has no uid".into()],
        }
    }

    #[test]
    fn everything_is_told_in_sections() {
        let expected = "\
Job            word_count
Id             000000000000000000000000000000ff
Status         RESTARTING
Reason         waiting for 2 of 4 slots
Attempt        2
Started        2023-11-14 22:12:17 UTC (1m 03s ago)
Duration       1m 03s
Tasks running  0 of 2
Arguments      --input /data
Configuration  parallelism.default: 2
               pipeline.name: word_count
Properties     Consumer: aws.region: eu-west-1
               Consumer: flink.stream.initpos: LATEST

Warnings
  main.rs:7: `reduce` has no uid

Vertices
  0: source -> split (parallelism 2, at most 128), busy up to 38 %, back-pressured up to 62 % (HIGH)
    SUBTASK  STATUS   TASK MANAGER  ATTEMPT  RECORDS IN  RECORDS OUT  BYTES IN  BYTES OUT    STATE
          0  RUNNING  tm-1                2   1,234,567            7   1.2 MiB        0 B  1.5 KiB
          1  RUNNING  -                   2   1,234,567            7   1.2 MiB        0 B  1.5 KiB
    SUBTASK  BUSY  IDLE  BACK-PRESSURED  LEVEL  RECORDS IN/S  RECORDS OUT/S  BYTES IN/S  BYTES OUT/S  QUEUED IN  QUEUED OUT  CREDIT
          0  38 %   0 %            62 %  HIGH        123,457            0.7   122.9 KiB          0 B          8           1       -
          1  38 %   0 %            62 %  HIGH        123,457            0.7   122.9 KiB          0 B          8           1       -

Checkpoints
  3 completed, 1 failed, one in progress
  latest: 4, 12 s ago, took 250 ms, 1.5 KiB, at /data/chk-4
  the present attempt was restored from checkpoint 3

Failures
  2023-11-14 22:13:00 UTC  attempt 1, task split 0/1 on tm-2
    the worker was killed by signal 9
      line 1
      line 2

History
  TIME                     FROM     TO       ATTEMPT  REASON
  2023-11-14 22:12:20 UTC  CREATED  RUNNING        1
";
        assert_eq!(text(&details(), NOW), expected);
    }

    #[test]
    fn regions_are_shown_with_their_subtasks() {
        let mut details = details();
        assert_eq!(regions(&details), "");
        let region = |region, subtasks: std::ops::Range<u32>| RegionDetails {
            region,
            subtasks: subtasks.map(|index| SubtaskId { vertex: region, index }).collect(),
        };
        details.regions = vec![region(0, 0..2)];
        assert_eq!(regions(&details), "  1: a failure restarts all tasks\n");
        details.regions = vec![region(0, 0..2), region(1, 0..14)];
        let expected = "  REGION  TASKS  SUBTASKS
       0      2  0/0 0/1
       1     14  1/0 1/1 1/2 1/3 1/4 1/5 1/6 1/7 1/8 1/9 1/10 1/11 and 2 more
";
        assert_eq!(regions(&details), expected);
        details.regions = (0..40).map(|number| region(number, 0..1)).collect();
        assert_eq!(regions(&details), "  40; --json lists them\n");
    }

    #[test]
    fn watermarks_are_shown_where_there_are_some() {
        let mut details = details();
        assert_eq!(time::table(&details.vertices[0]), "");
        details.vertices[0].subtasks[1].metrics.current_input_watermark = Some(1_648_030_809_281);
        details.vertices[0].subtasks[1].metrics.current_output_watermark = Some(i64::MAX);
        let expected = "    SUBTASK  INPUT WATERMARK              OUTPUT WATERMARK
          0  -                            -
          1  2022-03-23 10:20:09.281 UTC  end of input
";
        assert_eq!(time::table(&details.vertices[0]), expected);
        details.vertices[0].subtasks[1].metrics.watermark_alignment_drift = Some(1_500);
        let aligned = time::table(&details.vertices[0]);
        assert!(
            aligned.contains("AHEAD OF GROUP") && aligned.ends_with("end of input               1.5 s\n"),
            "{aligned}"
        );
    }

    #[test]
    fn the_last_restart_tells_where_its_state_came_from() {
        let mut details = details();
        for (subtask, (attempt, local, remote)) in
            details.vertices[0].subtasks.iter_mut().zip([(2, 3_072, 1_024), (1, 50, 0)])
        {
            subtask.attempt = attempt;
            subtask.counters.restored_local_bytes = local;
            subtask.counters.restored_remote_bytes = remote;
        }
        let text = text(&details, NOW);
        let total = "restored from checkpoint 3: 3.0 KiB from copies on its machines and 1.0 KiB from the checkpoint's storage\n";
        assert!(text.contains(total), "{text}");
        assert!(text.contains("    restored 3.0 KiB from copies on its machines and 1.0 KiB from"), "{text}");
    }

    #[test]
    fn metrics_of_functions_are_shown_where_there_are_some() {
        let mut details = details();
        assert_eq!(own::table(&details.vertices[0]), "");
        let metric = |name: &str, value| {
            let scope = vec![MetricScope { name: "Tokenizer".into(), value: None }];
            UserMetric { scope, name: name.into(), value }
        };
        let metrics = vec![metric("Words", MetricValue::Counter(6)), metric("Lag", MetricValue::Gauge(0.5))];
        let operator = OperatorCounters { name: "split".into(), metrics, ..OperatorCounters::default() };
        details.vertices[0].subtasks[1].counters.operators = vec![operator];
        let expected = "    SUBTASK  OPERATOR  METRIC           VALUE
          1  split     Tokenizer.Words  6
          1  split     Tokenizer.Lag    0.5
";
        assert_eq!(own::table(&details.vertices[0]), expected);
    }

    #[test]
    fn tasks_that_do_not_run_have_no_load() {
        let mut details = details();
        for (index, subtask) in details.vertices[0].subtasks.iter_mut().enumerate() {
            if index == 0 {
                subtask.metrics.available_credit_bytes = 262_144;
            } else {
                subtask.metrics.rates = None;
            }
        }
        let loads = load::table(&details.vertices[0]);
        assert_eq!(loads.lines().count(), 2, "{loads}");
        assert!(loads.ends_with(" 256.0 KiB\n"), "{loads}");
        details.vertices[0].subtasks.remove(0);
        assert_eq!(
            (load::table(&details.vertices[0]), load::summary(&details.vertices[0])),
            Default::default()
        );
    }

    #[test]
    fn sections_without_content_are_left_out() {
        let mut details = details();
        details.warnings.clear();
        details.failures.clear();
        details.history.clear();
        details.vertices.clear();
        let text = text(&details, NOW);
        for heading in ["Warnings", "Failures", "History", "Vertices"] {
            assert!(!text.contains(heading), "{text}");
        }
        assert!(text.contains("Checkpoints"), "{text}");
    }

    #[test]
    fn newest_failures_come_first() {
        let mut details = details();
        details.failures.push(FailureRecord {
            time_ms: NOW,
            attempt: 2,
            task: String::new(),
            task_manager: String::new(),
            failure: Failure::internal("newest"),
        });
        let text = text(&details, NOW);
        assert!(text.find("newest") < text.find("signal 9"), "{text}");
    }
}
