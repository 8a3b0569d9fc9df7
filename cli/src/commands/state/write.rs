//! `thalweg state write`: a savepoint built from lines of JSON.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use thalweg_common::id::JobId;
use thalweg_common::limits::MAX_STATE_LINE_BYTES;
use thalweg_common::storage;
use thalweg_savepoint::{Import, Savepoint};

use super::{Session, manifest};
use crate::exit::Exit;
use crate::human::{bytes, count};
use crate::state_arguments::WriteArguments;

pub(super) async fn run(session: &Session, arguments: &WriteArguments) -> anyhow::Result<Exit> {
    let declared = arguments.job.as_deref().map(manifest).transpose()?;
    let base = match &arguments.on {
        Some(uri) => Some(Savepoint::open_uri(uri).await?),
        None => None,
    };
    let (job_id, number) = match &base {
        Some(base) => (base.metadata().job_id, base.metadata().savepoint_id),
        None => (JobId::random().context("cannot make an id: the system gives no random bytes")?, 0),
    };
    let mut import = match (base, declared) {
        (Some(base), declared) => Import::on(base, declared)?,
        (None, Some(declared)) => Import::new(declared)?,
        (None, None) => bail!("say what to build: the job's plan with --job, or a savepoint with --on"),
    };
    read(&arguments.entries, &mut import)?;
    let directory = storage::open(&arguments.directory)?;
    let summary = import.write(directory, job_id, number, session.now_ms()).await?;
    session.output.result(&summary, |summary| {
        let (lines, files) = (count(summary.lines), count(summary.files as u64));
        format!("Wrote {}: {lines} lines, {files} files, {}\n", summary.uri, bytes(summary.size_bytes))
    })?;
    Ok(Exit::Success)
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
