//! What a refusal of a service, or the lack of an answer, means; and what to tell people.
//!
//! Invariants: what is shown of an answer never has credentials in it; every failure says a cause and a cure.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use thalweg_common::failure::Failure;
use thalweg_common::limits::S3_ERROR_TEXT_BYTES;
use thalweg_common::task_scope::with_causes;

/// What to do about a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Too much was asked: later, and for ever.
    Throttled,
    /// The service or the network is in trouble: later, but not for ever.
    Passing,
    /// The iterator is too old: a new one.
    ExpiredIterator,
    /// There is no such thing.
    NotFound,
    /// Not allowed.
    Denied,
    /// The credentials are wrong, expired or not there.
    BadCredentials,
    /// Anything else that will be refused again.
    Refused,
}

/// Why a request did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// The service's word for it, or our own.
    pub(crate) code: String,
    /// What the service says more.
    pub(crate) text: String,
}

impl Problem {
    /// Reads an error of a client. `code` and `message` are what the service's error says of itself.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>, code: Option<&str>, message: Option<&str>) -> Self
    where
        E: Error + 'static,
    {
        let passing = |code: &str, text: String| Self { kind: Kind::Passing, code: code.to_owned(), text };
        match error {
            SdkError::ServiceError(refusal) => {
                let status = refusal.raw().status().as_u16();
                Self::of_refusal(status, code, message)
            }
            SdkError::TimeoutError(_) => passing("Timeout", "no answer in time".to_owned()),
            SdkError::ResponseError(_) => passing("BrokenAnswer", short(&with_causes(error))),
            _ => match find::<CredentialsError>(error) {
                // What a source of credentials says is not repeated: some quote what they have read.
                Some(CredentialsError::ProviderTimedOut(_)) => {
                    passing("Credentials", "the source of the credentials did not answer in time".to_owned())
                }
                Some(error) => {
                    let text = match error {
                        CredentialsError::CredentialsNotLoaded(_) => "there are no credentials",
                        CredentialsError::InvalidConfiguration(_) => {
                            "the source of the credentials is configured wrongly"
                        }
                        _ => "the source of the credentials failed",
                    };
                    Self { kind: Kind::BadCredentials, code: "Credentials".to_owned(), text: text.to_owned() }
                }
                None if matches!(error, SdkError::DispatchFailure(_)) => {
                    passing("Unreachable", short(&with_causes(error)))
                }
                None => {
                    Self { kind: Kind::Refused, code: "Request".to_owned(), text: short(&with_causes(error)) }
                }
            },
        }
    }

    /// What a refusal means: by its code, or by its status where there is none.
    pub(crate) fn of_refusal(status: u16, code: Option<&str>, message: Option<&str>) -> Self {
        let code = code.unwrap_or_default();
        let kind = match code {
            "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "TooManyRequestsException" => Kind::Throttled,
            "ExpiredIteratorException" => Kind::ExpiredIterator,
            "ResourceNotFoundException" => Kind::NotFound,
            "ResourceInUseException"
            | "InternalFailure"
            | "InternalFailureException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "RequestTimeout" => Kind::Passing,
            "AccessDeniedException"
            | "AccessDenied"
            | "KMSAccessDeniedException"
            | "KMSDisabledException"
            | "KMSNotFoundException"
            | "KMSInvalidStateException"
            | "KMSOptInRequired" => Kind::Denied,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => Kind::BadCredentials,
            _ => match status {
                401 | 403 => Kind::Denied,
                408 => Kind::Passing,
                429 => Kind::Throttled,
                500.. => Kind::Passing,
                _ => Kind::Refused,
            },
        };
        // Some services repeat the credentials there.
        let text = message.filter(|_| kind != Kind::BadCredentials).map(short).unwrap_or_default();
        let code = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
        Self { kind, code, text }
    }

    /// Whether something is there already, or used by another.
    pub(crate) fn is_in_use(&self) -> bool {
        self.code == "ResourceInUseException"
    }

    /// The failure of whoever was `doing` something with `what` (`the stream orders`).
    pub(crate) fn failure(&self, doing: impl fmt::Display, what: impl fmt::Display) -> Failure {
        let cure = match self.kind {
            Kind::Throttled => "ask less often, or give it more capacity".to_owned(),
            Kind::Passing => "check the network and the endpoint, and see how the service is".to_owned(),
            Kind::ExpiredIterator => "see why it was not used for five minutes".to_owned(),
            Kind::NotFound => {
                format!("check that {what} exists in this account and region, and how its name is written")
            }
            Kind::Denied => {
                format!(
                    "allow the role or user that runs the task manager this action on {what}, and the use of its key if it is encrypted"
                )
            }
            Kind::BadCredentials => {
                "give the task manager valid credentials, or check `aws.credentials.provider`; tokens expire"
                    .to_owned()
            }
            Kind::Refused => "correct the settings of the connector".to_owned(),
        };
        Failure::external(format!("cannot {doing} {what}: {self}; {cure}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.code)?;
        match self.text.trim_end_matches('.') {
            "" => Ok(()),
            text => write!(formatter, ": {text}"),
        }
    }
}

/// An error of this type among the causes of another one.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Bounded, because services say as much as they like.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(S3_ERROR_TEXT_BYTES);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_code_then_by_its_status() {
        for (status, code, kind) in [
            (400, Some("ProvisionedThroughputExceededException"), Kind::Throttled),
            (400, Some("LimitExceededException"), Kind::Throttled),
            (400, Some("ExpiredIteratorException"), Kind::ExpiredIterator),
            (400, Some("ResourceNotFoundException"), Kind::NotFound),
            (400, Some("AccessDeniedException"), Kind::Denied),
            (400, Some("ExpiredTokenException"), Kind::BadCredentials),
            (400, Some("InvalidArgumentException"), Kind::Refused),
            (500, Some("InternalFailure"), Kind::Passing),
            (500, Some("SomethingNew"), Kind::Passing),
            (503, None, Kind::Passing),
            (429, None, Kind::Throttled),
            (403, None, Kind::Denied),
        ] {
            assert_eq!(Problem::of_refusal(status, code, None).kind, kind, "{status} {code:?}");
        }
    }

    #[test]
    fn a_failure_says_cause_and_cure_and_no_credentials() {
        let missing = Problem::of_refusal(
            400,
            Some("ResourceNotFoundException"),
            Some("Stream orders under account 1 not found."),
        );
        let text = missing.failure("list the shards of", "the stream orders").message;
        assert_eq!(
            text,
            "cannot list the shards of the stream orders: ResourceNotFoundException: Stream orders under account 1 not found; check that \
             the stream orders exists in this account and region, and how its name is written"
        );
        let expired = Problem::of_refusal(400, Some("ExpiredTokenException"), Some("token AKIA123 expired"));
        assert!(!expired.failure("read", "it").message.contains("AKIA123"));
    }
}
