//! `thalweg state`: savepoints and checkpoints, without a cluster.

mod check;
mod diff;
mod export;
mod inspect;
mod source;
mod write;

use std::path::Path;

use anyhow::{Context, bail};
use thalweg_common::graph::JobGraph;
use thalweg_common::limits::MAX_CHECKPOINT_METADATA_BYTES;
use thalweg_common::manifest::StateManifest;

use super::Session;
use crate::exit::Exit;
use crate::state_arguments::StateCommand;

/// What the line of a plan starts with that holds the job graph.
const PLAN_PREFIX: &str = "THALWEG-PLAN ";

pub(super) async fn run(session: &Session, command: StateCommand) -> anyhow::Result<Exit> {
    match command {
        StateCommand::Inspect(arguments) => inspect::run(session, &arguments).await,
        StateCommand::Export(arguments) => export::run(session, arguments).await,
        StateCommand::Diff(arguments) => diff::run(session, &arguments).await,
        StateCommand::Check(arguments) => check::run(session, &arguments).await,
        StateCommand::Write(arguments) => write::run(session, &arguments).await,
    }
}

/// What a job declares.
struct Declared {
    manifest: StateManifest,
    /// Absent if there is no more than the manifest.
    graph: Option<JobGraph>,
}

/// The state manifest in a file: a plan as a job's executable prints it, the job graph in it, or a manifest.
fn manifest(path: &Path) -> anyhow::Result<StateManifest> {
    Ok(declared(path)?.manifest)
}

/// The same with the graph, if it is in the file.
fn declared(path: &Path) -> anyhow::Result<Declared> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    if size > MAX_CHECKPOINT_METADATA_BYTES as u64 {
        bail!(
            "{shown} has {size} bytes, more than any plan; name the file that the job's plan was written to"
        );
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let declared = parse(&text).with_context(|| {
        format!("{shown} is neither a plan nor a state manifest; write one with `THALWEG_MODE=plan ./job > plan.txt`")
    })?;
    declared.manifest.validate()?;
    Ok(declared)
}

fn parse(text: &str) -> anyhow::Result<Declared> {
    let of = |graph: JobGraph| Declared { manifest: StateManifest::of(&graph), graph: Some(graph) };
    let graph = text.lines().find_map(|line| line.strip_prefix(PLAN_PREFIX));
    if let Some(graph) = graph {
        return Ok(of(serde_json::from_str(graph)?));
    }
    match serde_json::from_str(text) {
        Ok(graph) => Ok(of(graph)),
        Err(_) => Ok(Declared { manifest: serde_json::from_str(text)?, graph: None }),
    }
}
