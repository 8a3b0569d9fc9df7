//! `thalweg state inspect`: what a savepoint or checkpoint consists of.

use serde::Serialize;
use thalweg_savepoint::{Inspection, OperatorInspection, StateInspection, inspect};

use super::Session;
use super::source::{Checkpoint, Source};
use crate::exit::Exit;
use crate::human::{bytes, count, date_time, one_line};
use crate::state_arguments::InspectArguments;
use crate::table::{Align, Table, properties};

#[derive(Serialize)]
struct Result {
    #[serde(flatten)]
    inspection: Inspection,
    /// Absent for a savepoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Checkpoint>,
}

pub(super) async fn run(session: &Session, arguments: &InspectArguments) -> anyhow::Result<Exit> {
    let source = Source::open(&arguments.savepoint).await?;
    let mut inspection = inspect(&source.savepoint, !arguments.quick).await?;
    if let Some(checkpoint) = &source.checkpoint {
        inspection.uri.clone_from(&checkpoint.uri);
    }
    let result = Result { inspection, checkpoint: source.checkpoint };
    session.output.result(&result, text)?;
    Ok(Exit::Success)
}

fn text(Result { inspection, checkpoint }: &Result) -> String {
    let files = format!("{}, {}", count(inspection.files as u64), bytes(inspection.size_bytes));
    let mut lines = vec![
        (if checkpoint.is_some() { "Checkpoint" } else { "Savepoint" }, inspection.uri.clone()),
        ("Number", inspection.savepoint_id.to_string()),
        ("Job", format!("{} ({})", inspection.job_name, inspection.job_id)),
        ("Triggered", date_time(inspection.triggered_ms)),
    ];
    match checkpoint {
        None => lines.extend([("Written by", inspection.written_by.clone()), ("Files", files)]),
        Some(checkpoint) => {
            let (stored, shared) = (bytes(checkpoint.stored_bytes), count(checkpoint.shared_files as u64));
            lines.push(("Stored", format!("{stored}, {shared} shared files")));
            lines.push(("As savepoint", files));
            if checkpoint.in_flight_bytes > 0 {
                let in_flight = bytes(checkpoint.in_flight_bytes);
                lines.push(("On their way", format!("{in_flight} of records, which are not shown")));
            }
        }
    }
    let mut text = properties(&lines);
    inspection.operators.iter().for_each(|operator| text.push_str(&operator_text(operator)));
    text
}

fn operator_text(operator: &OperatorInspection) -> String {
    let name = match &operator.uid {
        Some(uid) => format!("{} (uid {uid})", operator.name),
        None => format!("{} (id {})", operator.name, operator.id),
    };
    let keys = match &operator.key_type {
        Some(key) => format!(", max parallelism {}, keys of type {key}", operator.max_parallelism),
        None => String::new(),
    };
    let mut text = format!(
        "\n{}\n  parallelism {}{}; {} in {} files\n",
        one_line(&name),
        operator.parallelism,
        one_line(&keys),
        bytes(operator.size_bytes),
        count(operator.files as u64)
    );
    if operator.items > 0 {
        let (items, size) = (count(operator.items), bytes(operator.item_bytes));
        text.push_str(&format!("  {items} items of a source or sink, {size}\n"));
    }
    let keyed: Vec<&StateInspection> = operator.states.iter().filter(|state| state.kind.is_keyed()).collect();
    if keyed.is_empty() {
        return text;
    }
    let mut table = Table::new(&[
        ("STATE", Align::Left),
        ("KIND", Align::Left),
        ("TYPE", Align::Left),
        ("BYTES", Align::Right),
        ("ENTRIES", Align::Right),
        ("KEYS", Align::Right),
        ("GROUPS", Align::Right),
        ("SKEW", Align::Right),
        ("LARGEST GROUP", Align::Left),
    ])
    .indented("  ");
    for state in keyed {
        let counts = state.counts.as_ref();
        let number = |number: Option<u64>| number.map_or_else(|| "-".into(), count);
        let largest = counts.and_then(|counts| counts.groups.iter().max_by_key(|group| group.keys));
        table.row([
            state.name.clone(),
            state.kind.to_string(),
            state.value_type.clone(),
            bytes(state.bytes),
            number(counts.map(|counts| counts.entries)),
            number(counts.map(|counts| counts.keys)),
            number(counts.map(|counts| counts.groups.len() as u64)),
            counts.map_or_else(|| "-".into(), |counts| format!("{:.2}", counts.skew)),
            largest.map_or_else(String::new, |group| {
                format!("{}, with {} keys", group.group, count(group.keys))
            }),
        ]);
    }
    text + &table.render()
}
