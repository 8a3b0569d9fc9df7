//! `thalweg submit`: uploads a job's binary if the cluster lacks it, then follows the job until it has ended.
//!
//! Invariant: the submission's id is made once for the whole command, so that however often the connection breaks there
//! is one job.

use anyhow::Context;
use thalweg_common::id::SubmissionId;
use thalweg_proto::client::{GivenProperties, SubmitOptions};
use thalweg_proto::model::SubmitResult;

use super::Session;
use super::follow::{Followed, conclude, follow, news};
use crate::arguments::SubmitArguments;
use crate::exit::Exit;
use crate::human::{indented, one_line};
use crate::notice::{self, Progress};

pub(super) async fn run(session: &Session, arguments: SubmitArguments) -> anyhow::Result<Exit> {
    let configuration = arguments.configuration()?;
    let properties = GivenProperties::These(arguments.properties.read()?);
    let submission_id = SubmissionId::random().context(
        "cannot make a submission id: the system gives no random bytes; check that /dev/urandom is there",
    )?;
    let begin = arguments.restore.begin();
    let options = SubmitOptions {
        binary: arguments.binary,
        arguments: arguments.arguments,
        configuration: configuration
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        properties,
        submission_id,
    };
    let client = session.client().await?;
    let result = {
        let mut progress = Progress::new();
        client.submit_with(options, begin, |step| progress.step(step)).await?
    };
    for warning in &result.warnings {
        notice::say(&format!("warning: {warning}"));
    }
    session.output.line(&result, accepted)?;
    if arguments.detach {
        return Ok(Exit::Success);
    }
    // A program asked for two lines: the accepted job and its end.
    let tell = |event: &_| match session.output.is_json() {
        true => Ok(()),
        false => session.output.text(&news(event, session.now_ms())),
    };
    let followed = follow(&client, result.job_id, tell).await?;
    if let Followed::Ended(event) = &followed
        && session.output.is_json()
    {
        session.output.line(&**event, |_| String::new())?;
    }
    Ok(conclude(&followed, result.job_id))
}

fn accepted(result: &SubmitResult) -> String {
    let report = result.report.as_ref().map_or(String::new(), |report| indented(&report.to_string(), ""));
    format!("{report}Submitted {} as job {}\n", one_line(&result.name), result.job_id)
}
