//! Settings as REST shows them: what may be a secret is hidden, by Flink's rule.

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::Rest;
use super::error::Answer;

/// Parts of names whose values nobody shall read: Flink's.
const SECRET: [&str; 9] = [
    "password",
    "secret",
    "apikey",
    "api-key",
    "auth-params",
    "service-key",
    "token",
    "basic-auth",
    "account.key",
];

/// `GET /jobmanager/config`
pub(super) async fn job_manager(State(rest): State<Rest>) -> Answer {
    let settings = rest.configuration.iter();
    let settings = settings.map(|(key, value)| json!({ "key": key, "value": shown(key, value) }));
    Ok(Json(settings.collect()))
}

/// A value, or stars in its place.
pub(super) fn shown<'a>(key: &str, value: &'a str) -> &'a str {
    let key = key.to_lowercase();
    if SECRET.iter().any(|part| key.contains(part)) { "******" } else { value }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn secrets_are_hidden() {
        assert_eq!(shown("my.Password", "x"), "******");
        assert_eq!(shown("rest.auth.token", "x"), "******");
        assert_eq!(shown("parallelism.default", "2"), "2");
    }
}
