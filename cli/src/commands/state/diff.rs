//! `thalweg state diff`: how two savepoints or checkpoints differ.

use serde::Serialize;
use thalweg_savepoint::{DiffReport, Difference, diff};

use super::Session;
use super::source::Source;
use crate::exit::Exit;
use crate::human::{count, one_line};
use crate::state_arguments::DiffArguments;
use crate::table::{Align, Table};

#[derive(Serialize)]
struct Result {
    #[serde(flatten)]
    report: DiffReport,
    /// As many as were asked for.
    differences: Vec<Difference>,
}

pub(super) async fn run(session: &Session, arguments: &DiffArguments) -> anyhow::Result<Exit> {
    let first = Source::open(&arguments.first).await?;
    let second = Source::open(&arguments.second).await?;
    let mut differences = Vec::new();
    let report = diff(&first.savepoint, &second.savepoint, |difference| {
        if differences.len() < arguments.limit {
            differences.push(difference);
        }
        Ok::<bool, anyhow::Error>(differences.len() < arguments.limit)
    })
    .await?;
    session.output.result(&Result { report, differences }, text)?;
    Ok(Exit::Success)
}

fn text(Result { report, differences }: &Result) -> String {
    if report.is_empty() {
        return "All state is the same.\n".into();
    }
    let mut text = String::new();
    let only = [("first", &report.only_in_first), ("second", &report.only_in_second)];
    for (which, operators) in only {
        for operator in operators {
            text.push_str(&format!("Only the {which} one has operator {}\n", one_line(operator)));
        }
    }
    let mut table = Table::new(&[
        ("OPERATOR", Align::Left),
        ("STATE", Align::Left),
        ("ADDED", Align::Right),
        ("REMOVED", Align::Right),
        ("CHANGED", Align::Right),
        ("UNCHANGED", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for operator in &report.operators {
        for state in &operator.states {
            table.row([
                operator.operator.clone(),
                state.state.clone(),
                count(state.added),
                count(state.removed),
                count(state.changed),
                count(state.unchanged),
                state
                    .not_compared
                    .as_ref()
                    .map_or_else(String::new, |reason| format!("not compared: {reason}")),
            ]);
        }
        if operator.items_differ {
            let note = "the items of the source or sink differ".to_string();
            let none = || "-".to_string();
            table.row([operator.operator.clone(), none(), none(), none(), none(), none(), note]);
        }
    }
    text.push_str(&table.render());
    for difference in differences {
        text.push_str(&line(difference));
    }
    text
}

/// `+ count total "a" = 3`, `- count total "a" = 3`, `~ count total "a" = 3 -> 4`.
fn line(difference: &Difference) -> String {
    let Difference { operator, state, key, map_key, before, after, .. } = difference;
    let key = map_key.as_ref().map_or_else(|| key.to_string(), |map_key| format!("{key}[{map_key}]"));
    let (sign, value) = match (before, after) {
        (Some(before), Some(after)) => ('~', format!("{before} -> {after}")),
        (Some(before), None) => ('-', before.to_string()),
        (None, Some(after)) => ('+', after.to_string()),
        (None, None) => (' ', String::new()),
    };
    one_line(&format!("{sign} {operator} {state} {key} = {value}")) + "\n"
}
