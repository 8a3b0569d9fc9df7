//! The token that clients of a cluster show: read from a file or the environment, compared in constant time, never shown.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::SecurityError;
use crate::config::{Configuration, keys};

/// The environment variable that may have a token. It wins over a file, and is taken out of the environment of every program that a node
/// starts.
pub const TOKEN_VARIABLE: &str = "THALWEG_TOKEN";

/// Fewer characters could be guessed.
const MIN_CHARACTERS: usize = 16;

/// Longer ones are not tokens but the wrong file.
const MAX_CHARACTERS: usize = 1_024;

/// A secret that clients show. Its text is given away by [`Token::bearer`] alone.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl Token {
    /// The token of the environment, or of the file that `security.token-file` names.
    ///
    /// # Errors
    /// When the file cannot be read, or has no token.
    pub fn load(
        configuration: &Configuration,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SecurityError> {
        let unusable = |path: &Path, reason| SecurityError::Unusable {
            key: keys::TOKEN_FILE.name,
            path: path.to_owned(),
            reason,
        };
        if let Some(text) = environment(TOKEN_VARIABLE) {
            return Self::new(&text)
                .map(Some)
                .map_err(|reason| unusable(Path::new("$THALWEG_TOKEN"), reason));
        }
        let Some(path) = configuration.text(&keys::TOKEN_FILE).map(Path::new) else { return Ok(None) };
        let unreadable =
            |cause| SecurityError::Unreadable { key: keys::TOKEN_FILE.name, path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
        if mode & 0o007 != 0 {
            tracing::warn!(
                "every user of this machine may read the token in {}; `chmod 600` it, or 640 with the group of Thalweg",
                path.display()
            );
        }
        Self::new(&text).map(Some).map_err(|reason| unusable(path, reason))
    }

    /// A token of this text; white space around it does not count.
    ///
    /// # Errors
    /// When it is too short to be a secret, or has characters that no header may have; says what helps.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let characters = text.chars().count();
        if !(MIN_CHARACTERS..=MAX_CHARACTERS).contains(&characters) {
            return Err(format!(
                "a token has from {MIN_CHARACTERS} to {MAX_CHARACTERS} characters, not {characters}; `thalweg pki init` makes one"
            ));
        }
        if !text.chars().all(|character| character.is_ascii_graphic()) {
            return Err(
                "a token is one line of letters, digits and signs without spaces; `thalweg pki init` makes one".into(),
            );
        }
        Ok(Self(text.into()))
    }

    /// Whether `shown` is this token. How long that takes does not tell how much of it is right.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }

    /// The value of an `authorization` header that shows this token (RFC 6750).
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether this value of an `authorization` header shows the token.
    #[must_use]
    pub fn is_borne_by(&self, header: &[u8]) -> bool {
        let Some((scheme, shown)) = header.split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.is(shown.trim_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef";

    #[test]
    fn a_token_is_recognised_and_never_shown() {
        let token = Token::new(&format!(" {TEXT}\n")).expect("long enough");
        assert!(token.is(TEXT.as_bytes()) && token.is_borne_by(token.bearer().as_bytes()));
        assert!(token.is_borne_by(format!("bearer  {TEXT} ").as_bytes()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeF",
            "Basic 0123456789abcdef",
            TEXT,
            "Bearer 0123456789abcde",
        ] {
            assert!(!token.is_borne_by(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for wrong in
            ["", "short-secret", "with spaces in between", "with\nlines in between", "with-umlauts-äöü-äöü"]
        {
            let error = Token::new(wrong).expect_err(wrong);
            assert!(
                error.contains("thalweg pki init") && (wrong.is_empty() || !error.contains(wrong)),
                "{error}"
            );
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_a_missing_file_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{TEXT}-file\n")).expect("writes");
        let mut configuration = Configuration::new();
        assert!(Token::load(&configuration, |_| None).expect("nothing is set").is_none());
        configuration.set(keys::TOKEN_FILE.name, path.to_str().expect("text")).expect("a known key");
        let token = Token::load(&configuration, |_| None).expect("readable").expect("a token");
        assert!(token.is(format!("{TEXT}-file").as_bytes()));
        let variable = |name: &str| (name == TOKEN_VARIABLE).then(|| TEXT.to_owned());
        let token = Token::load(&configuration, variable).expect("readable").expect("a token");
        assert!(token.is(TEXT.as_bytes()));

        std::fs::remove_file(&path).expect("removes");
        let error = Token::load(&configuration, |_| None).expect_err("no file").to_string();
        assert!(error.contains("`security.token-file`") && error.contains("cannot read"), "{error}");
    }
}
