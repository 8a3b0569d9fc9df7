//! `thalweg watch`: every change of a job's state, until it has ended.

use super::Session;
use super::follow::{conclude, follow, news};
use crate::exit::Exit;

pub(super) async fn run(session: &Session, reference: &str) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let job_id = session.job(&client, reference).await?;
    let tell = |event: &_| session.output.line(event, |event| news(event, session.now_ms()));
    let followed = follow(&client, job_id, tell).await?;
    Ok(conclude(&followed, job_id))
}
