//! `thalweg pki show`: what certificates say.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use thalweg_common::limits::CERTIFICATE_WARNING_MS;
use thalweg_common::security::pki::{Description, describe};

use super::Session;
use crate::exit::Exit;
use crate::human::date_time;
use crate::notice;
use crate::table::{Align, Table};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// How the beginning of a certificate is marked; other files of PEM are keys.
const MARK: &str = "-----BEGIN CERTIFICATE-----";

/// A certificate as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    subject: String,
    issuer: String,
    names: Vec<String>,
    valid_from_ms: i64,
    valid_until_ms: i64,
    authority: bool,
    for_servers: bool,
    for_clients: bool,
}

pub(super) fn run(session: &Session, paths: &[PathBuf]) -> anyhow::Result<Exit> {
    let mut files = Vec::new();
    for path in paths {
        find(path, &mut files)?;
    }
    let mut shown = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        // In a directory there are keys and tokens, too.
        if text.contains(MARK) || paths.contains(&file) {
            let described = describe(&text).with_context(|| file.display().to_string())?;
            shown.push(Shown::new(&file, described));
        }
    }
    if shown.is_empty() {
        bail!("no certificates are there; `thalweg pki init` makes some");
    }
    session.output.result(&shown, |shown| table(shown))?;
    for certificate in &shown {
        if let Some(warning) = certificate.warning(session.now_ms()) {
            notice::say(&warning);
        }
    }
    Ok(Exit::Success)
}

/// The files of `path`, which is one or a directory, by their names.
fn find(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let listed = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = listed.with_context(|| format!("cannot list {}", path.display()))?;
    let mut listed: Vec<_> = listed.into_iter().map(|entry| entry.path()).collect();
    listed.sort();
    for entry in listed {
        // Keys are not read to see that they are none.
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "pem") {
            find(&entry, files)?;
        }
    }
    Ok(())
}

impl Shown {
    fn new(file: &Path, described: Description) -> Self {
        let (for_servers, for_clients) = described.is_for;
        Self {
            file: file.display().to_string(),
            subject: described.subject,
            issuer: described.issuer,
            names: described.names,
            valid_from_ms: described.validity.from_ms,
            valid_until_ms: described.validity.until_ms,
            authority: described.is_authority,
            for_servers,
            for_clients,
        }
    }

    fn warning(&self, now_ms: i64) -> Option<String> {
        let left_ms = self.valid_until_ms - now_ms;
        let cure = "`thalweg pki issue --renew` makes a new one";
        if left_ms < 0 {
            return Some(format!("warning: {} has expired; {cure}", self.file));
        }
        (left_ms < CERTIFICATE_WARNING_MS)
            .then(|| format!("warning: {} expires in {} days; {cure}", self.file, left_ms / DAY_MS))
    }

    fn use_of(&self) -> &'static str {
        match (self.authority, self.for_servers, self.for_clients) {
            (true, _, _) => "authority",
            (false, true, true) => "server, client",
            (false, true, false) => "server",
            (false, false, true) => "client",
            (false, false, false) => "-",
        }
    }
}

fn table(shown: &[Shown]) -> String {
    let headings = ["FILE", "SUBJECT", "NAMES", "USE", "UNTIL"].map(|heading| (heading, Align::Left));
    let mut table = Table::new(&headings);
    for certificate in shown {
        let names = certificate.names.join(", ");
        table.row([
            certificate.file.clone(),
            certificate.subject.clone(),
            if names.is_empty() { "-".into() } else { names },
            certificate.use_of().into(),
            date_time(certificate.valid_until_ms),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use thalweg_common::security::pki::Validity;

    use super::*;

    #[test]
    fn what_expires_within_thirty_days_is_warned_of() {
        let until = |days: i64| {
            let described = Description {
                subject: "CN=a".into(),
                issuer: "CN=authority".into(),
                names: vec!["a".into(), "10.0.0.1".into()],
                validity: Validity { from_ms: 0, until_ms: days * DAY_MS },
                is_authority: false,
                is_for: (true, true),
            };
            Shown::new(Path::new("a.pem"), described)
        };
        assert_eq!(until(30).warning(0), None);
        let warning = until(29).warning(0).expect("soon");
        assert!(warning.contains("a.pem expires in 29 days") && warning.contains("--renew"), "{warning}");
        assert!(until(29).warning(30 * DAY_MS).expect("over").contains("has expired"));
        let text = table(&[until(365)]);
        assert!(text.contains("a.pem  CN=a     a, 10.0.0.1  server, client  1971-01-01"), "{text}");
    }
}
