//! What an answer of S3, or the lack of one, means.
//!
//! Stands between the client and the retries. Answers on which a caller acts (there is no such object, there is one
//! already) are told apart from problems; those have a cause that decides about trying again.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;

use super::super::RemoteCause;
use crate::aws::cause;
use crate::limits::S3_ERROR_TEXT_BYTES;
use crate::task_scope::with_causes;

/// Why a request did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// The store has understood it and says no; the caller knows what that means.
    Answer(Answer),
    /// Anything else.
    Fault { cause: RemoteCause, reason: String },
}

/// What a store says no with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is no such object.
    NotFound,
    /// The condition of the request does not hold.
    ConditionFailed,
    /// Somebody else writes the same object at the same time.
    Conflict,
    /// There is no such multipart upload (any more).
    NoSuchUpload,
    /// The object does not have these bytes.
    BadRange,
}

impl Problem {
    pub(super) fn fault(cause: RemoteCause, reason: impl Into<String>) -> Self {
        Self::Fault { cause, reason: reason.into() }
    }

    /// The cause and reason, for a caller that has no use for the answers.
    pub(super) fn into_fault(self) -> (RemoteCause, String) {
        match self {
            Self::Fault { cause, reason } => (cause, reason),
            Self::Answer(Answer::Conflict) => {
                (RemoteCause::Changing, "somebody else writes the same object at the same time".to_owned())
            }
            Self::Answer(answer) => {
                (RemoteCause::Refused, format!("the store unexpectedly answers {answer:?}"))
            }
        }
    }
}

/// The begin of what a store answers with, without its content.
#[derive(Debug, Clone, Copy, Default)]
struct Reply<'a> {
    status: u16,
    code: Option<&'a str>,
    message: Option<&'a str>,
    bucket_region: Option<&'a str>,
}

/// Reads an error of the client.
pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Problem
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(refusal) => {
            let (response, error) = (refusal.raw(), refusal.err());
            judge(Reply {
                status: response.status().as_u16(),
                code: error.code(),
                message: error.message(),
                bucket_region: response.headers().get("x-amz-bucket-region"),
            })
        }
        SdkError::TimeoutError(_) => Problem::fault(RemoteCause::Timeout, "no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            Problem::fault(RemoteCause::Timeout, short(&with_causes(error)))
        }
        SdkError::ResponseError(response) => {
            // It broke off, or comes from something else on the way. Whatever its status says, its words are missing.
            let status = response.raw().status().as_u16();
            Problem::fault(
                RemoteCause::Unavailable,
                short(&format!("an answer cannot be read (HTTP {status}): {}", with_causes(error))),
            )
        }
        _ => match cause::<CredentialsError>(error) {
            Some(error) => of_credentials(error),
            None if matches!(error, SdkError::DispatchFailure(_)) => {
                Problem::fault(RemoteCause::Unreachable, short(&with_causes(error)))
            }
            None => Problem::fault(RemoteCause::Refused, short(&with_causes(error))),
        },
    }
}

fn of_credentials(error: &CredentialsError) -> Problem {
    match error {
        CredentialsError::ProviderTimedOut(_) => {
            Problem::fault(RemoteCause::Timeout, "the source of the credentials did not answer in time")
        }
        // What a source of credentials says is not repeated: some quote what they have read.
        CredentialsError::CredentialsNotLoaded(_) => {
            Problem::fault(RemoteCause::NoCredentials, "there are no credentials")
        }
        CredentialsError::InvalidConfiguration(_) => {
            Problem::fault(RemoteCause::NoCredentials, "the source of the credentials is configured wrongly")
        }
        _ => Problem::fault(RemoteCause::NoCredentials, "the source of the credentials failed"),
    }
}

/// Reads an error while the content of an answer arrives.
pub(super) fn of_content(error: &ByteStreamError) -> Problem {
    Problem::fault(RemoteCause::Unreachable, short(&format!("the answer broke off: {}", with_causes(error))))
}

/// Reads one of the errors in an answer about many objects.
pub(super) fn of_one(code: Option<&str>, message: Option<&str>) -> Problem {
    judge(Reply { status: 0, code, message, bucket_region: None })
}

/// What a refusal means: by its code, or by its status where there is none, as in answers to HEAD.
fn judge(reply: Reply<'_>) -> Problem {
    let Reply { status, code, .. } = reply;
    let cause = match (code.unwrap_or_default(), status) {
        ("NoSuchKey" | "NotFound", _) => return Problem::Answer(Answer::NotFound),
        ("PreconditionFailed", _) | ("", 412) => return Problem::Answer(Answer::ConditionFailed),
        ("ConditionalRequestConflict", _) => return Problem::Answer(Answer::Conflict),
        ("NoSuchUpload", _) => return Problem::Answer(Answer::NoSuchUpload),
        ("InvalidRange", _) | ("", 416) => return Problem::Answer(Answer::BadRange),
        ("NoSuchBucket", _) => RemoteCause::NoSuchBucket,
        ("", 404) => return Problem::Answer(Answer::NotFound),
        ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) => RemoteCause::Denied,
        (
            "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "SignatureDoesNotMatch"
            | "TokenRefreshRequired",
            _,
        ) => RemoteCause::BadCredentials,
        ("RequestTimeTooSkewed", _) => RemoteCause::ClockSkew,
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        ) => RemoteCause::WrongRegion,
        (code, _) if code.starts_with("KMS.") => RemoteCause::Encryption,
        (
            "SlowDown"
            | "SlowDownRead"
            | "SlowDownWrite"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "ServiceUnavailable"
            | "Busy",
            _,
        ) => RemoteCause::Throttled,
        ("RequestTimeout" | "RequestTimeoutException", _) => RemoteCause::Timeout,
        ("OperationAborted", _) => RemoteCause::Changing,
        // What arrived there is not what was sent.
        ("BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "InternalError", _) => {
            RemoteCause::Unavailable
        }
        ("NotImplemented", _) | (_, 501) => RemoteCause::NotImplemented,
        (_, 300..=399) => RemoteCause::WrongRegion,
        (_, 401 | 403) => RemoteCause::Denied,
        (_, 408) => RemoteCause::Timeout,
        (_, 429 | 503) => RemoteCause::Throttled,
        (_, 500..) => RemoteCause::Unavailable,
        _ => RemoteCause::Refused,
    };
    Problem::Fault { cause, reason: reason_of(cause, reply) }
}

fn reason_of(cause: RemoteCause, reply: Reply<'_>) -> String {
    let code = reply.code.unwrap_or(match cause {
        RemoteCause::WrongRegion => "it is elsewhere",
        // The word by which people search logs.
        RemoteCause::Denied => "AccessDenied",
        _ => "the store refuses it",
    });
    let mut reason = code.to_owned();
    // Some stores repeat the credentials there.
    if let Some(message) = reply.message.filter(|_| cause != RemoteCause::BadCredentials) {
        reason.push_str(": ");
        reason.push_str(message.trim_end_matches('.'));
    }
    if let (RemoteCause::WrongRegion, Some(region)) = (cause, reply.bucket_region) {
        reason.push_str("; the bucket is in the region ");
        reason.push_str(region);
    }
    if reply.status != 0 {
        reason.push_str(&format!(" (HTTP {})", reply.status));
    }
    short(&reason)
}

/// The text without line breaks, and not too long.
fn short(text: &str) -> String {
    let mut text: String =
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    if text.len() > S3_ERROR_TEXT_BYTES {
        let end = (0..=S3_ERROR_TEXT_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply<'a>(status: u16, code: &'a str) -> Reply<'a> {
        Reply {
            status,
            code: Some(code).filter(|code| !code.is_empty()),
            message: Some("Because."),
            bucket_region: None,
        }
    }

    #[test]
    fn answers() {
        for (status, code, wanted) in [
            (404, "NoSuchKey", Answer::NotFound),
            (404, "NotFound", Answer::NotFound),
            (404, "", Answer::NotFound),
            (404, "NoSuchUpload", Answer::NoSuchUpload),
            (412, "PreconditionFailed", Answer::ConditionFailed),
            (412, "", Answer::ConditionFailed),
            (409, "ConditionalRequestConflict", Answer::Conflict),
            (416, "InvalidRange", Answer::BadRange),
        ] {
            assert_eq!(judge(reply(status, code)), Problem::Answer(wanted), "{status} {code}");
        }
    }

    #[test]
    fn causes() {
        for (status, code, wanted) in [
            (404, "NoSuchBucket", RemoteCause::NoSuchBucket),
            (403, "AccessDenied", RemoteCause::Denied),
            (403, "", RemoteCause::Denied),
            (403, "SignatureDoesNotMatch", RemoteCause::BadCredentials),
            (400, "ExpiredToken", RemoteCause::BadCredentials),
            (403, "RequestTimeTooSkewed", RemoteCause::ClockSkew),
            (301, "PermanentRedirect", RemoteCause::WrongRegion),
            (301, "", RemoteCause::WrongRegion),
            (400, "AuthorizationHeaderMalformed", RemoteCause::WrongRegion),
            (400, "KMS.DisabledException", RemoteCause::Encryption),
            (503, "SlowDown", RemoteCause::Throttled),
            (503, "", RemoteCause::Throttled),
            (429, "", RemoteCause::Throttled),
            (500, "InternalError", RemoteCause::Unavailable),
            (502, "", RemoteCause::Unavailable),
            (400, "RequestTimeout", RemoteCause::Timeout),
            (400, "BadDigest", RemoteCause::Unavailable),
            (409, "OperationAborted", RemoteCause::Changing),
            (501, "NotImplemented", RemoteCause::NotImplemented),
            (400, "InvalidArgument", RemoteCause::Refused),
            (0, "InternalError", RemoteCause::Unavailable),
        ] {
            let Problem::Fault { cause, reason } = judge(reply(status, code)) else {
                unreachable!("{status} {code} is a fault")
            };
            assert_eq!(cause, wanted, "{status} {code}");
            assert!(!reason.is_empty() && !reason.ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn reasons_hold_no_credentials_and_are_short() {
        let answer = |code| Reply {
            status: 403,
            code: Some(code),
            message: Some("The key AKIDEXAMPLE\nis unknown."),
            bucket_region: Some("eu-west-1"),
        };
        let Problem::Fault { reason, .. } = judge(answer("InvalidAccessKeyId")) else {
            unreachable!("a fault")
        };
        assert_eq!(reason, "InvalidAccessKeyId (HTTP 403)");
        let Problem::Fault { reason, .. } = judge(answer("PermanentRedirect")) else {
            unreachable!("a fault")
        };
        assert!(reason.contains("the bucket is in the region eu-west-1"), "{reason}");
        assert!(!reason.contains('\n'));
        assert!(short(&"ü".repeat(1_000)).len() <= S3_ERROR_TEXT_BYTES + '…'.len_utf8());
    }
}
