//! What a refusal of a service, or the lack of an answer, means; and what to tell people.
//!
//! Invariants: what is shown of an answer never has credentials in it; every failure says a cause and a cure.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use thalweg_common::aws::{NoAddress, cause};
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
    /// There is no host of this name: later, but not for long.
    UnknownHost,
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

impl Kind {
    /// Whether the same may succeed later without anybody changing something.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::Passing | Self::UnknownHost)
    }
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
    pub(crate) fn new(kind: Kind, code: &str, text: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), text: text.into() }
    }

    /// Reads an error of a client. `code` and `message` are what the service's error says of itself.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>, code: Option<&str>, message: Option<&str>) -> Self
    where
        E: Error + 'static,
    {
        match error {
            SdkError::ServiceError(refusal) => {
                let status = refusal.raw().status().as_u16();
                Self::of_refusal(status, code, message)
            }
            SdkError::TimeoutError(_) => Self::new(Kind::Passing, "Timeout", "no answer in time"),
            SdkError::ResponseError(_) => {
                Self::new(Kind::Passing, "BrokenAnswer", short(&with_causes(error)))
            }
            _ => Self::unsent(error, matches!(error, SdkError::DispatchFailure(_))),
        }
    }

    /// A request that did not reach the service: on its way, or because it could not be made.
    fn unsent(error: &(dyn Error + 'static), is_on_its_way: bool) -> Self {
        // Perhaps that of who gives credentials.
        if let Some(NoAddress { host, .. }) = cause::<NoAddress>(error).filter(|found| found.is_unknown()) {
            return Self::new(Kind::UnknownHost, "UnknownHost", format!("there is no host {host}"));
        }
        // What a source of credentials says is not repeated: some quote what they have read.
        let text = match cause::<CredentialsError>(error) {
            None if is_on_its_way => {
                return Self::new(Kind::Passing, "Unreachable", short(&with_causes(error)));
            }
            None => return Self::new(Kind::Refused, "Request", short(&with_causes(error))),
            Some(CredentialsError::ProviderTimedOut(_)) => {
                let text = "the source of the credentials did not answer in time";
                return Self::new(Kind::Passing, "Credentials", text);
            }
            Some(CredentialsError::CredentialsNotLoaded(_)) => "there are no credentials",
            Some(CredentialsError::InvalidConfiguration(_)) => {
                "the source of the credentials is configured wrongly"
            }
            Some(_) => "the source of the credentials failed",
        };
        Self::new(Kind::BadCredentials, "Credentials", text)
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
            Kind::UnknownHost => "check how `aws.region` or `aws.endpoint` is written, and that the name servers of this machine \
                                  know the hosts of AWS"
                .to_owned(),
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
