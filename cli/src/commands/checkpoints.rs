//! `thalweg checkpoints`: what of a job can be restored, and what its last checkpoints took, in the words of Flink's dashboard; and
//! `thalweg checkpoint`, which takes one.
//! The tables are pure functions of the cluster's answer and the present time.

use anyhow::bail;
use serde::Serialize;
use thalweg_common::id::CheckpointId;
use thalweg_proto::model::{
    CheckpointStatistics, CheckpointStatus, Checkpoints, RetainedCheckpoint, SubtaskCheckpoint,
};

use super::Session;
use crate::arguments::CheckpointsArguments;
use crate::exit::Exit;
use crate::human::{ago, bytes, count, duration, indented, micros, span_ms};
use crate::table::{Align, Table, properties};

pub(super) async fn run(session: &Session, arguments: &CheckpointsArguments) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, &arguments.job.reference).await?;
    let checkpoints = client.checkpoints(job_id).await?;
    match arguments.details {
        None => session.output.result(&checkpoints, |all| overview(all, session.now_ms()))?,
        Some(id) => {
            let Some(wanted) = checkpoints.history.iter().find(|one| one.id == id) else {
                bail!("{}", unknown(id, &checkpoints));
            };
            session.output.result(wanted, |one| details(one, session.now_ms()))?;
        }
    }
    Ok(Exit::Success)
}

/// A checkpoint that was asked for.
#[derive(Debug, Serialize)]
struct Taken {
    job_id: String,
    checkpoint_id: CheckpointId,
}

pub(super) async fn take(session: &Session, reference: &str) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, reference).await?;
    let taken = Taken { job_id: job_id.to_string(), checkpoint_id: client.checkpoint(job_id).await? };
    session.output.result(&taken, |taken| format!("Checkpoint {} is complete\n", taken.checkpoint_id))?;
    Ok(Exit::Success)
}

fn unknown(id: CheckpointId, checkpoints: &Checkpoints) -> String {
    let known: Vec<_> = checkpoints.history.iter().map(|one| one.id.to_string()).collect();
    let known = if known.is_empty() { "none yet".to_string() } else { known.join(", ") };
    format!(
        "nothing is known about checkpoint {id}; the leading job manager remembers the last ones: {known}"
    )
}

fn overview(checkpoints: &Checkpoints, now_ms: i64) -> String {
    let summary = &checkpoints.summary;
    let in_progress = checkpoints.history.iter().filter(|one| one.status == CheckpointStatus::InProgress);
    let mut rows = vec![
        ("Completed", count(summary.completed)),
        ("Failed", count(summary.failed)),
        ("In progress", in_progress.count().to_string()),
    ];
    rows.extend(summary.restored_id.map(|id| ("Restored", id.to_string())));
    let mut text = properties(&rows);
    text.push_str("\nRetained\n");
    text.push_str(&if checkpoints.retained.is_empty() {
        "  none\n".to_string()
    } else {
        retained(&checkpoints.retained, now_ms)
    });
    if !checkpoints.history.is_empty() {
        text.push_str("\nHistory\n");
        text.push_str(&history(&checkpoints.history, now_ms));
    }
    text
}

/// The newest first.
fn retained(checkpoints: &[RetainedCheckpoint], now_ms: i64) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("COMPLETED", Align::Left),
        ("DURATION", Align::Right),
        ("STATE", Align::Right),
        ("PATH", Align::Left),
    ])
    .indented("  ");
    for checkpoint in checkpoints.iter().rev() {
        let path = if checkpoint.path.is_empty() { "-" } else { &checkpoint.path };
        let unreadable = match checkpoint.unreadable.as_str() {
            "" => String::new(),
            reason => format!(" (not readable: {reason})"),
        };
        table.row([
            checkpoint.id.to_string(),
            ago(now_ms, checkpoint.completed_ms),
            duration(span_ms(checkpoint.triggered_ms, checkpoint.completed_ms)),
            bytes(checkpoint.size_bytes),
            format!("{path}{unreadable}"),
        ]);
    }
    table.render()
}

/// The newest first.
fn history(checkpoints: &[CheckpointStatistics], now_ms: i64) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("STATUS", Align::Left),
        ("ACKNOWLEDGED", Align::Right),
        ("TRIGGERED", Align::Left),
        ("END TO END", Align::Right),
        ("CHECKPOINTED DATA", Align::Right),
        ("FULL DATA", Align::Right),
        ("FAILURE", Align::Left),
    ])
    .indented("  ");
    for one in checkpoints.iter().rev() {
        table.row([
            one.id.to_string(),
            one.status.to_string(),
            acknowledged(one),
            ago(now_ms, one.triggered_ms),
            duration(one.duration_ms),
            bytes(one.incremental_bytes()),
            bytes(one.state_bytes()),
            one.failure.clone(),
        ]);
    }
    table.render()
}

fn acknowledged(one: &CheckpointStatistics) -> String {
    format!("{}/{}", count(one.subtasks.len() as u64), count(one.subtasks_total.into()))
}

/// One checkpoint with what every subtask's part took.
fn details(one: &CheckpointStatistics, now_ms: i64) -> String {
    let mut text = properties(&[
        ("Checkpoint", format!("{}{}", one.id, if one.is_final { " (final)" } else { "" })),
        ("Status", one.status.to_string()),
        ("Attempt", count(one.attempt.into())),
        ("Triggered", ago(now_ms, one.triggered_ms)),
        ("End to end", duration(one.duration_ms)),
        ("Acknowledged", acknowledged(one)),
        ("Checkpointed data", bytes(one.incremental_bytes())),
        ("Full data", bytes(one.state_bytes())),
    ]);
    if !one.failure.is_empty() {
        text.push_str("Failure\n");
        text.push_str(&indented(&one.failure, "  "));
    }
    if one.subtasks.is_empty() {
        return text;
    }
    let mut table = Table::new(&[
        ("VERTEX", Align::Right),
        ("SUBTASK", Align::Right),
        ("END TO END", Align::Right),
        ("START DELAY", Align::Right),
        ("ALIGNMENT", Align::Right),
        ("SYNC", Align::Right),
        ("ASYNC", Align::Right),
        ("CHECKPOINTED DATA", Align::Right),
        ("FULL DATA", Align::Right),
        ("PROCESSED (PERSISTED)", Align::Right),
    ]);
    for part in &one.subtasks {
        table.row(row(part));
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

fn row(part: &SubtaskCheckpoint) -> [String; 10] {
    let phases = &part.phases;
    [
        part.subtask.vertex.to_string(),
        part.subtask.index.to_string(),
        duration(part.end_to_end_ms),
        micros(phases.start_delay_us),
        micros(phases.alignment_us),
        micros(phases.sync_us),
        micros(phases.async_us),
        bytes(phases.incremental_bytes),
        bytes(part.state_bytes),
        format!("{} ({})", bytes(phases.aligned_bytes), bytes(phases.persisted_bytes)),
    ]
}

#[cfg(test)]
mod tests {
    use thalweg_common::id::SubtaskId;
    use thalweg_proto::convert::CheckpointPhases;
    use thalweg_proto::model::CheckpointSummary;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn part(index: u32, sync_us: u64) -> SubtaskCheckpoint {
        SubtaskCheckpoint {
            subtask: SubtaskId { vertex: 1, index },
            end_to_end_ms: 40,
            state_bytes: 10 << 20,
            phases: CheckpointPhases {
                start_delay_us: 2_000,
                alignment_us: 12_345,
                sync_us,
                async_us: 25_000_000,
                aligned_bytes: 2_048,
                persisted_bytes: 0,
                incremental_bytes: 512,
            },
        }
    }

    fn checkpoints() -> Checkpoints {
        let completed = CheckpointStatistics {
            id: 7,
            attempt: 2,
            status: CheckpointStatus::Completed,
            is_final: false,
            triggered_ms: NOW - 12_000,
            duration_ms: 40,
            failure: String::new(),
            subtasks_total: 2,
            subtasks: vec![part(0, 150), part(1, 1_500)],
        };
        let failed = CheckpointStatistics {
            id: 8,
            status: CheckpointStatus::Failed,
            triggered_ms: NOW - 2_000,
            duration_ms: 1_000,
            failure: "disk full".into(),
            subtasks: vec![],
            ..completed.clone()
        };
        let retained = |id, unreadable: &str| RetainedCheckpoint {
            id,
            attempt: 2,
            triggered_ms: NOW - 12_000,
            completed_ms: NOW - 11_950,
            size_bytes: 20 << 20,
            path: format!("file:///c/chk-{id}/_metadata"),
            is_final: false,
            unreadable: unreadable.into(),
        };
        Checkpoints {
            summary: CheckpointSummary {
                completed: 6,
                failed: 2,
                latest: None,
                in_progress: false,
                restored_id: Some(6),
            },
            retained: vec![retained(6, ""), retained(7, "cut off")],
            history: vec![completed, failed],
        }
    }

    #[test]
    fn the_overview_tells_what_is_kept_and_how_the_last_ones_went() {
        let expected = "\
Completed    6
Failed       2
In progress  0
Restored     6

Retained
  ID  COMPLETED  DURATION     STATE  PATH
   7  11 s ago      50 ms  20.0 MiB  file:///c/chk-7/_metadata (not readable: cut off)
   6  11 s ago      50 ms  20.0 MiB  file:///c/chk-6/_metadata

History
  ID  STATUS     ACKNOWLEDGED  TRIGGERED  END TO END  CHECKPOINTED DATA  FULL DATA  FAILURE
   8  FAILED              0/2  2 s ago         1.0 s                0 B        0 B  disk full
   7  COMPLETED           2/2  12 s ago        40 ms            1.0 KiB   20.0 MiB
";
        assert_eq!(overview(&checkpoints(), NOW), expected);
    }

    #[test]
    fn the_details_tell_the_phases_of_every_subtask() {
        let expected = "\
Checkpoint         7
Status             COMPLETED
Attempt            2
Triggered          12 s ago
End to end         40 ms
Acknowledged       2/2
Checkpointed data  1.0 KiB
Full data          20.0 MiB

VERTEX  SUBTASK  END TO END  START DELAY  ALIGNMENT    SYNC  ASYNC  CHECKPOINTED DATA  FULL DATA  PROCESSED (PERSISTED)
     1        0       40 ms       2.0 ms      12 ms  150 µs   25 s              512 B   10.0 MiB          2.0 KiB (0 B)
     1        1       40 ms       2.0 ms      12 ms  1.5 ms   25 s              512 B   10.0 MiB          2.0 KiB (0 B)
";
        assert_eq!(details(&checkpoints().history[0], NOW), expected);
        let failed = details(&checkpoints().history[1], NOW);
        assert!(failed.ends_with("Failure\n  disk full\n"), "{failed}");
    }

    #[test]
    fn what_is_forgotten_is_said() {
        assert!(unknown(3, &checkpoints()).ends_with("the last ones: 7, 8"));
    }
}
