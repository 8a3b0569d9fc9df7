//! Where a service is and who asks it: Flink's keys `aws.*`, and the same in types.
//!
//! Invariant: nothing that is secret is part of what `Debug` shows.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use thalweg_common::failure::Failure;

use crate::properties::wrong;

/// How to reach a service of AWS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AwsSettings {
    /// The region, as `eu-west-1`; by default that of the environment, the profile or the machine.
    pub region: Option<String>,
    /// The address of a service that is not at AWS, as `http://127.0.0.1:4568`.
    pub endpoint: Option<String>,
    /// The address of the service that gives credentials for roles, if it is not the one of the region.
    pub sts_endpoint: Option<String>,
    /// Who asks.
    pub credentials: CredentialsProvider,
}

/// Where credentials come from: Flink's `aws.credentials.provider`.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum CredentialsProvider {
    /// From where every program of AWS takes them: the environment, the profile, a token, the machine's role.
    #[default]
    Auto,
    /// From the environment variables alone.
    EnvironmentVariables,
    /// These. Better not: who reads the job's settings reads them.
    Basic {
        /// The id of the key.
        access_key_id: String,
        /// The key.
        secret_key: String,
    },
    /// From a profile of the files in `~/.aws`, or of this credentials file.
    Profile {
        /// Its name, `default` if there is none.
        name: Option<String>,
        /// The credentials file.
        path: Option<PathBuf>,
    },
    /// Those of a role, perhaps in another account.
    AssumeRole(AssumeRole),
    /// Those of a role, by a token in a file, as Kubernetes writes one.
    WebIdentityToken(WebIdentity),
}

/// A role to take on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumeRole {
    /// Its ARN.
    pub role_arn: String,
    /// The session's name, which the other account's logs show.
    pub session_name: String,
    /// What the other account asks for, if it does.
    pub external_id: Option<String>,
    /// Who takes the role on.
    pub provider: Box<CredentialsProvider>,
}

/// A role to take on by a token. What is left out comes from the environment, as with every program of AWS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebIdentity {
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The role's ARN.
    pub role_arn: Option<String>,
    /// The session's name.
    pub session_name: Option<String>,
}

impl fmt::Debug for CredentialsProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("Auto"),
            Self::EnvironmentVariables => formatter.write_str("EnvironmentVariables"),
            Self::Basic { .. } => formatter.write_str("Basic { .. }"),
            Self::Profile { name, path } => {
                formatter.debug_struct("Profile").field("name", name).field("path", path).finish()
            }
            Self::AssumeRole(role) => formatter.debug_tuple("AssumeRole").field(role).finish(),
            Self::WebIdentityToken(token) => formatter.debug_tuple("WebIdentityToken").field(token).finish(),
        }
    }
}

/// The keys in the form of SQL; that of DataStream programs has `credentials.provider.` in place of `credentials.`.
const KEYS: [&str; 13] = [
    "aws.region",
    "aws.endpoint",
    "aws.sts.endpoint",
    "aws.credentials.provider",
    "aws.credentials.basic.accesskeyid",
    "aws.credentials.basic.secretkey",
    "aws.credentials.profile.name",
    "aws.credentials.profile.path",
    "aws.credentials.role.arn",
    "aws.credentials.role.sessionName",
    "aws.credentials.role.externalId",
    "aws.credentials.role.provider",
    "aws.credentials.webIdentityToken.file",
];

/// All keys, in their [canonical] form.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter()
}

/// The form of SQL of a key.
pub(crate) fn canonical(key: &str) -> String {
    match key.strip_prefix("aws.credentials.provider.") {
        Some(rest) => format!("aws.credentials.{rest}"),
        None => key.to_owned(),
    }
}

impl AwsSettings {
    /// From properties with [canonical] keys; other keys are not looked at.
    pub(crate) fn from_properties(properties: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let text = |key: &str| properties.get(key).filter(|value| !value.is_empty()).cloned();
        let provider = text("aws.credentials.provider").unwrap_or_default();
        let settings = Self {
            region: text("aws.region"),
            endpoint: text("aws.endpoint"),
            sts_endpoint: text("aws.sts.endpoint"),
            credentials: provider_named(&provider, &text)?,
        };
        for (key, endpoint) in
            [("aws.endpoint", &settings.endpoint), ("aws.sts.endpoint", &settings.sts_endpoint)]
        {
            let is_address =
                |address: &String| address.starts_with("http://") || address.starts_with("https://");
            if endpoint.as_ref().is_some_and(|address| !is_address(address)) {
                return Err(wrong(format!("`{key}` must begin with `http://` or `https://`")));
            }
        }
        Ok(settings)
    }
}

fn provider_named(
    name: &str,
    text: &impl Fn(&str) -> Option<String>,
) -> Result<CredentialsProvider, Failure> {
    let needed = |key: &str| {
        text(key).ok_or_else(|| wrong(format!("credentials of the kind {name} need `{key}`; set it")))
    };
    Ok(match name {
        "" | "AUTO" => CredentialsProvider::Auto,
        "ENV_VAR" => CredentialsProvider::EnvironmentVariables,
        "BASIC" => CredentialsProvider::Basic {
            access_key_id: needed("aws.credentials.basic.accesskeyid")?,
            secret_key: needed("aws.credentials.basic.secretkey")?,
        },
        "PROFILE" => CredentialsProvider::Profile {
            name: text("aws.credentials.profile.name"),
            path: text("aws.credentials.profile.path").map(PathBuf::from),
        },
        "ASSUME_ROLE" => {
            let base = text("aws.credentials.role.provider").unwrap_or_default();
            if base == "ASSUME_ROLE" {
                return Err(wrong(
                    "`aws.credentials.role.provider` says who takes a role on, so it cannot be ASSUME_ROLE itself",
                ));
            }
            CredentialsProvider::AssumeRole(AssumeRole {
                role_arn: needed("aws.credentials.role.arn")?,
                session_name: needed("aws.credentials.role.sessionName")?,
                external_id: text("aws.credentials.role.externalId"),
                provider: Box::new(provider_named(&base, text)?),
            })
        }
        "WEB_IDENTITY_TOKEN" => CredentialsProvider::WebIdentityToken(WebIdentity {
            token_file: text("aws.credentials.webIdentityToken.file").map(PathBuf::from),
            role_arn: text("aws.credentials.role.arn"),
            session_name: text("aws.credentials.role.sessionName"),
        }),
        "SYS_PROP" => {
            return Err(wrong(
                "SYS_PROP means system properties of a Java program, which there are none of here; use ENV_VAR",
            ));
        }
        other => {
            return Err(wrong(format!(
                "`aws.credentials.provider` cannot be `{other}`; it is one of AUTO, ENV_VAR, BASIC, PROFILE, ASSUME_ROLE, WEB_IDENTITY_TOKEN"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<AwsSettings, Failure> {
        let properties = pairs.iter().map(|(key, value)| (canonical(key), (*value).to_owned())).collect();
        AwsSettings::from_properties(&properties)
    }

    #[test]
    fn both_forms_of_keys_are_read() {
        let expected = AwsSettings {
            region: Some("eu-west-1".into()),
            endpoint: Some("http://127.0.0.1:4568".into()),
            sts_endpoint: None,
            credentials: CredentialsProvider::AssumeRole(AssumeRole {
                role_arn: "arn:aws:iam::1:role/reader".into(),
                session_name: "ksassumedrolesession".into(),
                external_id: Some("42".into()),
                provider: Box::new(CredentialsProvider::EnvironmentVariables),
            }),
        };
        for form in ["aws.credentials.provider.role", "aws.credentials.role"] {
            let (arn, session) = (format!("{form}.arn"), format!("{form}.sessionName"));
            let (external, provider) = (format!("{form}.externalId"), format!("{form}.provider"));
            let found = read(&[
                ("aws.region", "eu-west-1"),
                ("aws.endpoint", "http://127.0.0.1:4568"),
                ("aws.credentials.provider", "ASSUME_ROLE"),
                (&arn, "arn:aws:iam::1:role/reader"),
                (&session, "ksassumedrolesession"),
                (&external, "42"),
                (&provider, "ENV_VAR"),
            ]);
            assert_eq!(found.unwrap(), expected, "{form}");
        }
        assert_eq!(read(&[]).unwrap(), AwsSettings::default());
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        for (pairs, expected) in [
            (&[("aws.credentials.provider", "BASIC")][..], "need `aws.credentials.basic.accesskeyid`"),
            (&[("aws.credentials.provider", "SYS_PROP")], "use ENV_VAR"),
            (&[("aws.credentials.provider", "auto")], "is one of AUTO, ENV_VAR"),
            (&[("aws.endpoint", "localhost:4568")], "must begin with `http://`"),
        ] {
            let failure = read(pairs).unwrap_err();
            assert!(failure.message.contains(expected) && !failure.retryable, "{failure}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = read(&[
            ("aws.credentials.provider", "BASIC"),
            ("aws.credentials.basic.accesskeyid", "AKIAEXAMPLE"),
            ("aws.credentials.basic.secretkey", "very-secret"),
        ]);
        let shown = format!("{:?}", settings.unwrap());
        assert!(shown.contains("Basic") && !shown.contains("AKIA") && !shown.contains("secret"), "{shown}");
    }
}
