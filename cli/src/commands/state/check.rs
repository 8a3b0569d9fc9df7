//! `thalweg state check`: whether a version of a job can be restored from a savepoint.

use serde::Serialize;
use thalweg_common::manifest::{Report, check};
use thalweg_savepoint::Savepoint;

use super::{Session, manifest};
use crate::exit::Exit;
use crate::human::indented;
use crate::state_arguments::CheckArguments;

#[derive(Serialize)]
struct Checked {
    accepted: bool,
    needs_migration: bool,
    refusals: Vec<String>,
    #[serde(flatten)]
    report: Report,
}

pub(super) async fn run(session: &Session, arguments: &CheckArguments) -> anyhow::Result<Exit> {
    let declared = manifest(&arguments.job)?;
    let savepoint = Savepoint::open_uri(&arguments.savepoint).await?;
    let report = check(&savepoint.metadata().manifest, &declared, arguments.allow_non_restored_state);
    let checked = Checked {
        accepted: report.is_accepted(),
        needs_migration: report.needs_migration(),
        refusals: report.refusals(),
        report,
    };
    session.output.result(&checked, |checked| indented(&checked.report.to_string(), ""))?;
    Ok(if checked.accepted { Exit::Success } else { Exit::Failure })
}
