//! One request of lines to CloudWatch Logs, and the group and stream that it needs.

use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_cloudwatchlogs::types::{InputLogEvent, RejectedLogEventsInfo};
use thalweg_common::telemetry::LogLine;

use super::shipping::LogSettings;
use crate::cloudwatch::connect::{self, Patience};

/// One try: whoever sends tries again by itself, with pauses in which it can be told to end.
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(10),
    attempt: Duration::from_secs(10),
    tries: 1,
    max_pause: Duration::ZERO,
};

/// A way to a log stream.
pub(super) struct CloudWatchLogs {
    client: Client,
    group: String,
    stream: String,
}

/// Why lines did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Cause and cure.
    pub(super) message: String,
    /// Whether the same lines will never arrive.
    pub(super) is_permanent: bool,
}

impl CloudWatchLogs {
    /// Prepares the way; nothing is asked yet.
    pub(super) async fn connect(settings: &LogSettings) -> Self {
        let shared = connect::load(&settings.place, PATIENCE).await;
        let mut config = aws_sdk_cloudwatchlogs::config::Builder::from(&shared);
        if let Some(endpoint) = &settings.place.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let client = Client::from_conf(config.build());
        Self { client, group: settings.group.clone(), stream: settings.stream.clone() }
    }

    /// Sends lines, which must fit into one request; answers how many were not taken. Makes group and stream if they are not there.
    pub(super) async fn put(&self, lines: &[LogLine]) -> Result<usize, Problem> {
        match self.try_put(lines).await {
            Err((code, _)) if code.as_deref() == Some("ResourceNotFoundException") => {
                self.create().await?;
                self.try_put(lines).await.map_err(|(_, problem)| problem)
            }
            result => result.map_err(|(_, problem)| problem),
        }
    }

    async fn try_put(&self, lines: &[LogLine]) -> Result<usize, (Option<String>, Problem)> {
        let events = lines.iter().map(|line| {
            InputLogEvent::builder().timestamp(line.timestamp_ms).message(&line.text).build().map_err(
                |error| {
                    let message = format!("a log line cannot be sent: {error}");
                    (None, Problem { message, is_permanent: true })
                },
            )
        });
        let events: Vec<InputLogEvent> = events.collect::<Result<_, _>>()?;
        let request = self.client.put_log_events().log_group_name(&self.group).log_stream_name(&self.stream);
        match request.set_log_events(Some(events)).send().await {
            Ok(answer) => Ok(answer.rejected_log_events_info().map_or(0, |info| rejected(info, lines.len()))),
            Err(error) => {
                let problem = self.explain("PutLogEvents", error.code(), &DisplayErrorContext(&error));
                Err((error.code().map(str::to_owned), problem))
            }
        }
    }

    /// Makes the stream, and the group if that is missing too. Another process may be faster.
    async fn create(&self) -> Result<(), Problem> {
        match self.create_stream().await {
            Err((Some(code), _)) if code == "ResourceNotFoundException" => {
                self.create_group().await?;
                self.create_stream().await.map_err(|(_, problem)| problem)
            }
            result => result.map_err(|(_, problem)| problem),
        }
    }

    async fn create_stream(&self) -> Result<(), (Option<String>, Problem)> {
        let request = self.client.create_log_stream().log_group_name(&self.group);
        match request.log_stream_name(&self.stream).send().await {
            Err(error) if error.code() != Some("ResourceAlreadyExistsException") => {
                let problem = self.explain("CreateLogStream", error.code(), &DisplayErrorContext(&error));
                Err((error.code().map(str::to_owned), problem))
            }
            _ => Ok(()),
        }
    }

    async fn create_group(&self) -> Result<(), Problem> {
        match self.client.create_log_group().log_group_name(&self.group).send().await {
            Err(error) if error.code() != Some("ResourceAlreadyExistsException") => {
                Err(self.explain("CreateLogGroup", error.code(), &DisplayErrorContext(&error)))
            }
            _ => Ok(()),
        }
    }

    fn explain(&self, action: &str, code: Option<&str>, error: &dyn std::fmt::Display) -> Problem {
        let Self { group, stream, .. } = self;
        let cure = match code {
            Some("AccessDenied" | "AccessDeniedException") if action == "PutLogEvents" => {
                format!("allow this machine's role the action `logs:PutLogEvents` on `{group}`")
            }
            Some("AccessDenied" | "AccessDeniedException") => format!(
                "allow this machine's role the action `logs:{action}`, or make the log group `{group}` and in it the stream `{stream}`"
            ),
            Some(
                "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "ExpiredTokenException"
                | "ExpiredToken"
                | "InvalidSignatureException"
                | "SignatureDoesNotMatch",
            ) => "check the credentials of this machine, and its clock".to_owned(),
            Some("InvalidParameterException") => {
                "check `logs.cloudwatch.group` and `logs.cloudwatch.stream`".to_owned()
            }
            _ => "check `logs.cloudwatch.region` and `.endpoint`, the credentials, and the way there"
                .to_owned(),
        };
        Problem {
            message: format!("CloudWatch Logs does not take lines ({action}: {error}); {cure}"),
            is_permanent: code == Some("InvalidParameterException"),
        }
    }
}

/// How many of so many lines were not taken: the first ones are too old, or the last ones too new.
fn rejected(info: &RejectedLogEventsInfo, lines: usize) -> usize {
    let index = |index: i32| usize::try_from(index).unwrap_or(0).min(lines);
    let old = [info.too_old_log_event_end_index(), info.expired_log_event_end_index()];
    let old = old.into_iter().flatten().map(index).max().unwrap_or(0);
    let new = info.too_new_log_event_start_index().map_or(0, |start| lines - index(start));
    (old + new).min(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudwatch::connect::Place;

    #[tokio::test]
    async fn errors_name_the_permission_that_is_missing() {
        let place = Place { region: Some("eu-west-1".into()), ..Place::default() };
        let settings = LogSettings { group: "/g".into(), stream: "s".into(), place };
        let logs = CloudWatchLogs::connect(&settings).await;
        for (action, code, cure, is_permanent) in [
            ("PutLogEvents", Some("AccessDeniedException"), "`logs:PutLogEvents` on `/g`", false),
            (
                "CreateLogGroup",
                Some("AccessDeniedException"),
                "`logs:CreateLogGroup`, or make the log group `/g`",
                false,
            ),
            ("CreateLogStream", Some("AccessDeniedException"), "`logs:CreateLogStream`, or make", false),
            ("PutLogEvents", Some("UnrecognizedClientException"), "check the credentials", false),
            ("PutLogEvents", Some("InvalidParameterException"), "check `logs.cloudwatch.group`", true),
            ("PutLogEvents", None, "check `logs.cloudwatch.region`", false),
        ] {
            let problem = logs.explain(action, code, &"it said no");
            assert!(problem.message.contains("it said no") && problem.message.contains(cure), "{problem:?}");
            assert_eq!(problem.is_permanent, is_permanent, "{problem:?}");
        }
    }

    #[test]
    fn what_is_not_taken_is_counted() {
        let info = RejectedLogEventsInfo::builder();
        assert_eq!(rejected(&info.clone().build(), 10), 0);
        let old = info.too_old_log_event_end_index(3).expired_log_event_end_index(2);
        assert_eq!(rejected(&old.clone().build(), 10), 3);
        assert_eq!(rejected(&old.clone().too_new_log_event_start_index(8).build(), 10), 5);
        assert_eq!(rejected(&old.too_new_log_event_start_index(0).build(), 10), 10);
    }
}
