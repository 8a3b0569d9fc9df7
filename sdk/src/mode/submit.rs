//! Submit mode: uploads this executable and follows the job until it has ended.

use std::env;

use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::security::Security;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{ClientError, DEFAULT_DEADLINE, GivenProperties, JobClient, SubmitOptions};
use thalweg_proto::model::JobEvent;
use thalweg_proto::transport::Dialer;

use crate::arguments::Arguments;
use crate::environment::Environment;
use crate::error::{Error, Result};

use super::{EXIT_REFUSED, declare, exit, program_name};

/// Exit codes of a submission; 2 is [`EXIT_REFUSED`].
const EXIT_FINISHED: i32 = 0;
const EXIT_FAILED: i32 = 1;
const EXIT_CANCELED: i32 = 3;
const EXIT_UNREACHABLE: i32 = 4;

pub(super) fn run(
    topology: impl FnOnce(&mut Environment) -> Result<()>,
    arguments: Arguments,
    job_managers: Vec<String>,
) -> ! {
    let properties = match arguments.runtime_properties() {
        Ok(properties) => properties,
        Err(error) => exit(EXIT_REFUSED, &error.into()),
    };
    // Declared here first: a mistake is shown at once and needs no upload.
    let environment = Environment::new(&arguments.job, false).with_properties(properties.clone());
    if let Err(error) = declare(topology, environment, &arguments.configuration, &program_name()) {
        exit(EXIT_REFUSED, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => exit(EXIT_FAILED, &error.into()),
    };
    match runtime.block_on(submit(arguments, properties, job_managers)) {
        Ok(code) => std::process::exit(code),
        Err((code, error)) => exit(code, &error),
    }
}

/// Submits and gives the exit code.
async fn submit(
    arguments: Arguments,
    properties: RuntimeProperties,
    job_managers: Vec<String>,
) -> std::result::Result<i32, (i32, Error)> {
    let refused = |error: Error| (EXIT_REFUSED, error);
    let options = SubmitOptions {
        binary: env::current_exe().map_err(|error| refused(error.into()))?,
        arguments: arguments.job,
        configuration: arguments
            .configuration
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        properties: GivenProperties::These(properties),
        submission_id: SubmissionId::random().map_err(|error| refused(error.into()))?,
    };
    let security = Security::of_client().map_err(|error| refused(error.into()))?;
    let connecting = JobClient::connect_with(Dialer::new(security), job_managers, DEFAULT_DEADLINE);
    let client = connecting.await.map_err(client_error)?;
    let accepted = client.submit(options, |step| eprintln!("{step}")).await.map_err(client_error)?;
    for warning in &accepted.warnings {
        eprintln!("Warning: {warning}");
    }
    println!("Job has been submitted with JobID {}", accepted.job_id);
    if arguments.detach { Ok(EXIT_FINISHED) } else { follow(&client, accepted.job_id).await }
}

async fn follow(client: &JobClient, job_id: JobId) -> std::result::Result<i32, (i32, Error)> {
    let mut watch = client.watch(job_id);
    let mut failure = None;
    while let Some(event) = watch.next().await.map_err(client_error)? {
        println!("{}", describe(&event));
        failure = event.failure.or(failure);
        let status = event.summary.status;
        if let (JobStatus::Failed, Some(failure)) = (status, &failure) {
            eprintln!("{failure}");
        }
        if status.is_terminal() {
            return Ok(exit_code(status));
        }
    }
    let message =
        "the cluster has forgotten the job before it told how it ended; raise its number of remembered jobs";
    Err((EXIT_FAILED, Error::new(message)))
}

/// An event in Flink's words.
fn describe(event: &JobEvent) -> String {
    let summary = &event.summary;
    let (name, id) = (&summary.name, summary.job_id);
    let news = match &event.change {
        Some(change) => format!("Job {name} ({id}) switched from {} to {}", change.from, change.to),
        None => format!("Job {name} ({id}) is {}", summary.status),
    };
    match summary.reason.as_str() {
        "" => format!("{news}."),
        reason => format!("{news}: {reason}"),
    }
}

fn exit_code(status: JobStatus) -> i32 {
    match status {
        JobStatus::Finished => EXIT_FINISHED,
        JobStatus::Canceled => EXIT_CANCELED,
        _ => EXIT_FAILED,
    }
}

fn client_error(error: ClientError) -> (i32, Error) {
    let code = if error.is_unreachable() { EXIT_UNREACHABLE } else { EXIT_REFUSED };
    (code, error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_scripts_how_the_job_ended() {
        assert_eq!(exit_code(JobStatus::Finished), 0);
        assert_eq!(exit_code(JobStatus::Failed), 1);
        assert_eq!(exit_code(JobStatus::Canceled), 3);
        assert_eq!(client_error(ClientError::NoAddress).0, 4);
    }
}
