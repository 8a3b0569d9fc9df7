//! `thalweg pki`: the authority of a cluster, on the machine of whoever runs the cluster. Asks no cluster.
//!
//! Invariants: nothing is overwritten unless that was said; keys and tokens are readable by their owner alone from the moment at which
//! they exist; neither is ever printed.

mod files;
mod show;

use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use thalweg_common::config::keys;
use thalweg_common::security::pki::{Authority, Issued, Validity};

use self::files::{AUTHORITY, AUTHORITY_KEY, CERTIFICATE, CLIENTS, KEY, TOKEN, TRUSTED};
use super::Session;
use crate::exit::Exit;
use crate::pki_arguments::{InitArguments, IssueArguments, PkiCommand};

/// For how many days an authority's own certificate is valid.
const AUTHORITY_DAYS: u32 = 3_650;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Where the files of a host are expected in what is told about them.
const INSTALLED: &str = "/etc/thalweg/tls";

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    /// Where the authority is.
    directory: String,
    /// The hosts that have a certificate now, by the name of their directory.
    hosts: Vec<String>,
}

pub(super) fn run(session: &Session, command: PkiCommand) -> anyhow::Result<Exit> {
    match command {
        PkiCommand::Init(arguments) => init(session, &arguments),
        PkiCommand::Issue(arguments) => issue(session, &arguments),
        PkiCommand::Show(arguments) => show::run(session, &arguments.paths),
    }
}

fn init(session: &Session, arguments: &InitArguments) -> anyhow::Result<Exit> {
    let directory = &arguments.dir;
    if let Some(there) = files::first_there(directory, &[AUTHORITY, AUTHORITY_KEY, CLIENTS]) {
        bail!(
            "{} is there already, and nothing is overwritten; `thalweg pki issue HOST` makes certificates with that authority, or choose \
             another --dir",
            there.display()
        );
    }
    let hosts: Vec<Vec<String>> = arguments
        .hosts
        .iter()
        .map(|host| host.split('+').map(str::trim).map(str::to_owned).collect())
        .collect();
    let now_ms = session.now_ms();
    let authority = Authority::create(Validity::days(now_ms, AUTHORITY_DAYS))?;
    // Everything is made before anything is written: a wrong name leaves nothing behind.
    let validity = Validity::days(now_ms, arguments.days);
    let issued: Vec<(String, Issued)> = hosts
        .iter()
        .map(|names| Ok((folder(names)?, authority.issue(names, validity)?)))
        .collect::<anyhow::Result<_>>()?;
    let token = files::random_token(TOKEN_BYTES)?;

    files::make_directory(directory)?;
    files::write_secret(&directory.join(AUTHORITY_KEY), &authority.own().private_key)?;
    files::write(&directory.join(AUTHORITY), &authority.own().certificate)?;
    let trusted = &authority.own().certificate;
    for (host, issued) in &issued {
        write_host(&directory.join(host), issued, trusted, Some(&token))?;
    }
    let clients = directory.join(CLIENTS);
    files::make_directory(&clients)?;
    files::write(&clients.join(TRUSTED), trusted)?;
    files::write_secret(&clients.join(TOKEN), &token)?;

    let written = Written {
        directory: directory.display().to_string(),
        hosts: issued.into_iter().map(|(host, _)| host).collect(),
    };
    session.output.result(&written, |written| explained(directory, &written.hosts))?;
    Ok(Exit::Success)
}

fn issue(session: &Session, arguments: &IssueArguments) -> anyhow::Result<Exit> {
    let directory = &arguments.dir;
    let names: Vec<String> = std::iter::once(&arguments.host).chain(&arguments.names).cloned().collect();
    let host = folder(&names)?;
    let own = Issued {
        certificate: files::read(&directory.join(AUTHORITY))?,
        private_key: files::read(&directory.join(AUTHORITY_KEY))?,
    };
    let authority = Authority::from_pem(own)
        .with_context(|| format!("{} has no usable authority", directory.display()))?;
    let issued = authority.issue(&names, Validity::days(session.now_ms(), arguments.days))?;
    let target = directory.join(&host);
    match (files::first_there(&target, &[CERTIFICATE, KEY]), arguments.renew) {
        (Some(there), false) => {
            bail!("{} is there already; --renew puts new files in the place of the old ones", there.display())
        }
        (None, true) => bail!("there is nothing to renew in {}; leave out --renew", target.display()),
        (Some(_), true) => {
            files::replace_secret(&target.join(KEY), &issued.private_key)?;
            files::replace(&target.join(CERTIFICATE), &issued.certificate)?;
        }
        (None, false) => {
            let token = directory.join(CLIENTS).join(TOKEN);
            let token = if token.exists() { Some(files::read(&token)?) } else { None };
            write_host(&target, &issued, &authority.own().certificate, token.as_deref())?;
        }
    }
    let written = Written { directory: directory.display().to_string(), hosts: vec![host] };
    session.output.result(&written, |written| match arguments.renew {
        true => format!(
            "Renewed the certificate of {host}. Copy {CERTIFICATE} and {KEY} of {} over those of the host; it uses them within\n\
             seconds, and nothing has to be restarted.\n",
            target.display(),
            host = written.hosts.join(", "),
        ),
        false => explained(directory, &written.hosts),
    })?;
    Ok(Exit::Success)
}

fn write_host(target: &Path, issued: &Issued, trusted: &str, token: Option<&str>) -> anyhow::Result<()> {
    files::make_directory(target)?;
    files::write_secret(&target.join(KEY), &issued.private_key)?;
    files::write(&target.join(CERTIFICATE), &issued.certificate)?;
    files::write(&target.join(TRUSTED), trusted)?;
    match token {
        Some(token) => files::write_secret(&target.join(TOKEN), token),
        None => Ok(()),
    }
}

/// The directory of a host: its first name.
fn folder(names: &[String]) -> anyhow::Result<String> {
    let name = names.first().map(String::as_str).unwrap_or_default();
    let name = name.replace("*.", "wildcard.").replace(':', "-");
    if name.is_empty() || name == CLIENTS || name.contains('/') || name.starts_with('.') {
        bail!(
            "`{name}` is no name of a host that could have a directory; write it as others dial it, without a port"
        );
    }
    Ok(name)
}

/// What is to be done with the files, in words.
fn explained(directory: &Path, hosts: &[String]) -> String {
    let here = directory.display();
    let mut text = format!("Certificates are in {here}. Copy each host's directory to that host:\n");
    for host in hosts {
        text.push_str(&format!("  scp -r {here}/{host}/. {host}:{INSTALLED}/\n"));
    }
    text.push_str(&format!(
        "There they belong to the user of Thalweg (`chown -R thalweg: {INSTALLED}`). Settings of all hosts, in config.yaml:\n"
    ));
    for (key, file) in [
        (keys::SSL_INTERNAL_CERTIFICATE, CERTIFICATE),
        (keys::SSL_INTERNAL_PRIVATE_KEY, KEY),
        (keys::SSL_INTERNAL_TRUSTED, TRUSTED),
        (keys::TOKEN_FILE, TOKEN),
    ] {
        text.push_str(&format!("  {}: {INSTALLED}/{file}\n", key.name));
    }
    for switch in [keys::SSL_INTERNAL_ENABLED, keys::SSL_REST_ENABLED] {
        text.push_str(&format!("  {}: true\n", switch.name));
    }
    text.push_str(&format!(
        "For people and programs that submit jobs: {here}/{CLIENTS}, with\n  {}: true\n  {}: DIRECTORY/{TRUSTED}\n  {}: DIRECTORY/{TOKEN}\n\
         in config.yaml in $THALWEG_CONF_DIR.\n\
         {here}/{AUTHORITY_KEY} makes members of the cluster: keep it away from the hosts.\n",
        keys::SSL_INTERNAL_ENABLED.name,
        keys::SSL_INTERNAL_TRUSTED.name,
        keys::TOKEN_FILE.name,
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_a_directory_of_its_own() {
        let of = |name: &str| folder(&[name.to_owned()]);
        assert_eq!(of("jm-1").expect("a host"), "jm-1");
        assert_eq!(of("fd00::1").expect("an address"), "fd00--1");
        assert_eq!(of("*.example.com").expect("a wildcard"), "wildcard.example.com");
        for wrong in ["", "clients", "../etc", "a/b", ".hidden"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
