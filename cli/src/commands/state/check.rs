//! `thalweg state check`: whether a version of a job can begin with a savepoint, or with a checkpoint.

use serde::Serialize;
use thalweg_common::manifest::{Report, check};
use thalweg_common::storage;
use thalweg_proto::checkpoint::CheckpointMetadata;
use thalweg_savepoint::Savepoint;

use super::{Session, declared};
use crate::exit::Exit;
use crate::human::indented;
use crate::state_arguments::CheckArguments;

#[derive(Serialize)]
struct Checked {
    accepted: bool,
    needs_migration: bool,
    refusals: Vec<String>,
    /// What else a checkpoint is refused for, which is not migrated.
    #[serde(skip)]
    misfit: Option<String>,
    #[serde(flatten)]
    report: Report,
}

pub(super) async fn run(session: &Session, arguments: &CheckArguments) -> anyhow::Result<Exit> {
    let allow = arguments.allow_non_restored_state;
    let declared = declared(&arguments.job)?;
    let checked = match CheckpointMetadata::find(&arguments.savepoint, storage::open).await? {
        None => {
            let savepoint = Savepoint::open_uri(&arguments.savepoint).await?;
            Checked::new(check(&savepoint.metadata().manifest, &declared.manifest, allow), None)
        }
        Some((_, checkpoint)) => {
            let report = check(&checkpoint.manifest, &declared.manifest, allow);
            let fits = match &declared.graph {
                Some(graph) => checkpoint.check_foreign(graph, allow),
                None => checkpoint.check_states(&declared.manifest, allow),
            };
            let misfit = fits.err().filter(|_| report.is_accepted());
            Checked::new(report, misfit)
        }
    };
    session.output.result(&checked, text)?;
    Ok(if checked.accepted { Exit::Success } else { Exit::Failure })
}

impl Checked {
    fn new(report: Report, misfit: Option<String>) -> Self {
        let refusals: Vec<_> = report.refusals().into_iter().chain(misfit.clone()).collect();
        let accepted = refusals.is_empty();
        Self { accepted, needs_migration: report.needs_migration(), refusals, misfit, report }
    }
}

fn text(checked: &Checked) -> String {
    match &checked.misfit {
        None => indented(&checked.report.to_string(), ""),
        Some(misfit) => indented(&format!("the checkpoint does not fit: {misfit}"), ""),
    }
}
