//! `thalweg why`: why windows and timers of a job have not fired. Tasks are asked at this moment; what their answers mean is said by
//! [`thalweg_proto::why`]. The text is a pure function of both.

use serde::Serialize;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::SubtaskId;
use thalweg_proto::model::time::{InputTime, JobTime};
use thalweg_proto::why::{Cause, Holder, Waiting, why};

use super::Session;
use super::time::watermark;
use crate::exit::Exit;
use crate::human::{ago, count, duration, moment, one_line, span_ms};
use crate::table::{Align, Table};

/// Channels into a task that are listed, the ones furthest behind.
const SHOWN_INPUTS: usize = 16;

/// The answer, as programs read it.
#[derive(Serialize)]
struct Answer {
    /// What each operator with timers waits for.
    waiting: Vec<Waiting>,
    /// What the tasks have told.
    #[serde(flatten)]
    time: JobTime,
}

pub(super) async fn run(session: &Session, reference: &str) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, reference).await?;
    let time = client.time(job_id).await?;
    let answer = Answer { waiting: why(&time), time };
    session.output.result(&answer, |answer| text(&answer.time, &answer.waiting))?;
    Ok(Exit::Success)
}

fn text(time: &JobTime, waiting: &[Waiting]) -> String {
    let graph = &time.graph;
    let mut text = format!("{} is {}", one_line(&time.job.name), time.job.status);
    if !time.job.reason.is_empty() {
        text.push_str(&format!(": {}", one_line(&time.job.reason)));
    }
    text.push('\n');
    for subtask in &time.missing {
        text.push_str(&format!(
            "{} has not answered: it is busy in a call of its code, or is being restarted.\n",
            task(graph, *subtask)
        ));
    }
    if waiting.is_empty() {
        text.push_str(match time.tasks.is_empty() {
            true => "No task runs, so there is nothing to tell.\n",
            false => "No operator has keys, so there are no windows and no timers.\n",
        });
        return text;
    }
    text.push('\n');
    text.push_str(&table(waiting));
    // Subtasks that wait for the same are told of together.
    let mut reasons: Vec<(String, Vec<&Waiting>)> = Vec::new();
    for waiting in waiting.iter().filter(|waiting| !waiting.held_back_by.is_empty()) {
        let reason = reason(graph, time, waiting);
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, who)) => who.push(waiting),
            None => reasons.push((reason, vec![waiting])),
        }
    }
    for (reason, who) in reasons {
        let names: Vec<String> = who.iter().map(|waiting| name(waiting)).collect();
        text.push_str(&format!("\n{}\n{reason}", names.join(", ")));
        text.extend(who.first().map(|waiting| inputs(graph, time, waiting)));
    }
    text
}

/// The channels into the task of an operator that goes by them, those that are waited for in front.
fn inputs(graph: &JobGraph, time: &JobTime, waiting: &Waiting) -> String {
    let is_own = waiting.held_back_by.first().is_some_and(|holder| holder.subtask == waiting.subtask);
    let task = time.tasks.iter().find(|task| task.subtask == waiting.subtask && !is_own);
    let Some(task) = task.filter(|task| !task.inputs.is_empty()) else { return String::new() };
    let mut inputs: Vec<&InputTime> = task.inputs.iter().collect();
    inputs.sort_by_key(|input| (input.ended, input.idle, input.watermark));
    let mut table =
        Table::new(&[("INPUT FROM", Align::Left), ("WATERMARK", Align::Left), ("STATE", Align::Left)])
            .indented("    ");
    for input in inputs.iter().take(SHOWN_INPUTS) {
        let state = match (input.ended, input.idle, input.idle_since_ms) {
            (true, ..) => "ended".into(),
            (_, true, Some(since_ms)) => format!("idle for {}", duration(span_ms(since_ms, task.now_ms))),
            (_, true, None) => "idle".into(),
            _ => "active".into(),
        };
        table.row([self::task(graph, input.sender), watermark(input.watermark), state]);
    }
    let more = inputs.len().saturating_sub(SHOWN_INPUTS);
    let more = if more > 0 {
        format!("    and {} more; --json has all\n", count(more as u64))
    } else {
        String::new()
    };
    table.render() + &more
}

fn name(waiting: &Waiting) -> String {
    format!("{} {}", one_line(&waiting.operator), waiting.subtask.index)
}

fn task(graph: &JobGraph, subtask: SubtaskId) -> String {
    let vertex = graph.vertices.get(subtask.vertex as usize);
    vertex
        .map_or_else(|| subtask.to_string(), |vertex| format!("{} {}", one_line(&vertex.name), subtask.index))
}

fn table(waiting: &[Waiting]) -> String {
    let mut table = Table::new(&[
        ("OPERATOR", Align::Left),
        ("SUBTASK", Align::Right),
        ("WATERMARK", Align::Left),
        ("EARLIEST TIMER", Align::Left),
        ("MISSING", Align::Right),
    ]);
    for waiting in waiting {
        table.row([
            waiting.operator.clone(),
            waiting.subtask.index.to_string(),
            watermark(waiting.watermark_ms),
            waiting.earliest_timer_ms.map_or_else(|| "none".into(), moment),
            waiting
                .missing_ms
                .filter(|_| waiting.watermark_ms != Some(i64::MAX))
                .map_or_else(|| "-".into(), duration),
        ]);
    }
    table.render()
}

/// Why time is no further, a line for each step upstream.
fn reason(graph: &JobGraph, time: &JobTime, waiting: &Waiting) -> String {
    let mut text = String::new();
    if waiting.missing_ms == Some(0) {
        text.push_str("  The watermark has passed the timer: it fires as soon as the output has room.\n");
    }
    for holder in &waiting.held_back_by {
        text.push_str(&format!("  {}\n", step(graph, holder)));
        if let Cause::Origin { .. } = holder.cause {
            text.push_str(&others(time, holder));
        }
    }
    text
}

fn step(graph: &JobGraph, holder: &Holder) -> String {
    let who = format!("{} {}", one_line(&holder.operator), holder.subtask.index);
    let at = match holder.watermark_ms {
        None => "has no watermark yet".to_string(),
        watermark_ms => format!("is at {}", watermark(watermark_ms)),
    };
    match &holder.cause {
        Cause::Upstream => format!("waits for {who}, which {at}: the least of its active inputs"),
        Cause::AllIdle { since_ms } => {
            let since = since_ms.map_or_else(String::new, |since_ms| format!(" since {}", moment(since_ms)));
            format!(
                "all inputs are idle{since}: time goes on with the next record. The latest was {who}, which {at}"
            )
        }
        Cause::Ended => "all inputs have ended, and the last watermark is on its way".to_string(),
        Cause::NoSplits => {
            format!(
                "held back by {who}, which has no split, so no watermark; it is idle, and nobody waits for it alone"
            )
        }
        Cause::NoStrategy => format!(
            "there is no watermark strategy behind the source {who}: nothing in event time fires before the end of the input. Call \
             watermarks() on its stream"
        ),
        Cause::NoAnswer => {
            format!("{} has not answered, so it is not known whom it waits for", task(graph, holder.subtask))
        }
        Cause::Origin { split, last_record_ms, silent_ms, idle, idleness_ms, waits_for_others } => {
            let split =
                split.as_ref().map_or_else(String::new, |split| format!(", split {}", one_line(split)));
            let last = ago(last_record_ms.saturating_add_unsigned(*silent_ms), *last_record_ms);
            let idleness = match (idle, idleness_ms) {
                _ if *waits_for_others => "it waits for the sources with which it is aligned".to_string(),
                (true, _) => "it is idle, so time stands still until a record comes".to_string(),
                (false, Some(idleness_ms)) => {
                    format!("it is idle when none has come for {}", duration(*idleness_ms))
                }
                (false, None) => {
                    "it never counts as idle, because the strategy has no with_idleness()".to_string()
                }
            };
            format!("held back by {who}{split}, which {at}: its last record came {last}, and {idleness}")
        }
    }
}

/// How many splits the same strategy has beside the one that holds back.
fn others(time: &JobTime, holder: &Holder) -> String {
    let Some(task) = time.tasks.iter().find(|task| task.subtask == holder.subtask) else {
        return String::new();
    };
    let splits = task.origins.iter().filter(|origin| origin.split.is_some()).count();
    if splits < 2 {
        return String::new();
    }
    let idle = task.origins.iter().filter(|origin| origin.idle).count();
    format!("    of {} splits there, {} of them idle\n", count(splits as u64), count(idle as u64))
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
