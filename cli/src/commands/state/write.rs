//! `thalweg state write`: a savepoint built from lines of JSON, from another savepoint, or from a checkpoint.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use thalweg_common::id::JobId;
use thalweg_common::limits::MAX_STATE_LINE_BYTES;
use thalweg_common::storage;
use thalweg_savepoint::Import;

use super::source::Source;
use super::{Session, manifest};
use crate::exit::Exit;
use crate::human::{bytes, count};
use crate::state_arguments::WriteArguments;

pub(super) async fn run(session: &Session, arguments: &WriteArguments) -> anyhow::Result<Exit> {
    let declared = arguments.job.as_deref().map(manifest).transpose()?;
    // A checkpoint's state is in a temporary directory until all is written.
    let source = match &arguments.on {
        Some(address) => Some(open(address).await?),
        None => None,
    };
    let base = source.as_ref().map(|source| source.savepoint.clone());
    let (job_id, number) = match &base {
        Some(base) => (base.metadata().job_id, base.metadata().savepoint_id),
        None => (JobId::random().context("cannot make an id: the system gives no random bytes")?, 0),
    };
    let mut import = match (base, declared) {
        (Some(base), declared) => Import::on(base, declared)?,
        (None, Some(declared)) => Import::new(declared)?,
        (None, None) => {
            bail!("say what to build: the job's plan with --job, or a savepoint or checkpoint with --on")
        }
    };
    if let Some(entries) = &arguments.entries {
        read(entries, &mut import)?;
    }
    let directory = storage::open(&arguments.directory)?;
    let summary = import.write(directory, job_id, number, session.now_ms()).await?;
    session.output.result(&summary, |summary| {
        let (lines, files) = (count(summary.lines), count(summary.files as u64));
        format!("Wrote {}: {lines} lines, {files} files, {}\n", summary.uri, bytes(summary.size_bytes))
    })?;
    Ok(Exit::Success)
}

/// What is built upon. No record may get lost on the way.
async fn open(address: &str) -> anyhow::Result<Source> {
    let source = Source::open(address).await?;
    if let Some(checkpoint) = &source.checkpoint
        && checkpoint.in_flight_bytes > 0
    {
        bail!(
            "{} has {} of records that were on their way, which no savepoint can hold; take a savepoint of the job, or a checkpoint with \
             `execution.checkpointing.unaligned` set to false",
            checkpoint.uri,
            bytes(checkpoint.in_flight_bytes)
        );
    }
    Ok(source)
}

fn read(path: &Path, import: &mut Import) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        return lines(std::io::stdin().lock(), "stdin", import);
    }
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    lines(BufReader::new(file), &name, import)
}

fn lines(mut reader: impl BufRead, name: &str, import: &mut Import) -> anyhow::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        let most = MAX_STATE_LINE_BYTES as u64 + 1;
        let length =
            reader.by_ref().take(most).read_line(&mut line).with_context(|| format!("cannot read {name}"))?;
        if length == 0 {
            return Ok(());
        }
        if length > MAX_STATE_LINE_BYTES {
            bail!(
                "{name} has a line of more than {MAX_STATE_LINE_BYTES} bytes; give each entry a line of its own"
            );
        }
        import.line(&line).with_context(|| name.to_string())?;
    }
}
