//! `thalweg state export`: the entries of a savepoint or checkpoint, a line of JSON each.

use thalweg_savepoint::{Selection, export};

use super::Session;
use super::source::Source;
use crate::exit::Exit;
use crate::state_arguments::ExportArguments;

/// Lines are written together until they have so many bytes.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) async fn run(session: &Session, arguments: ExportArguments) -> anyhow::Result<Exit> {
    let source = Source::open(&arguments.savepoint).await?;
    let ExportArguments { operator, state, groups, .. } = arguments;
    let selection = Selection { operator, state, groups };
    let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER_BYTES);
    export(&source.savepoint, &selection, |line| {
        serde_json::to_writer(&mut buffer, &line)?;
        buffer.push(b'\n');
        if buffer.len() >= BUFFER_BYTES {
            session.output.bytes(&buffer)?;
            buffer.clear();
        }
        Ok::<(), anyhow::Error>(())
    })
    .await?;
    session.output.bytes(&buffer)?;
    Ok(Exit::Success)
}
