//! Certificates of a test, made by the command that people use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, ensure};
use thalweg_common::clock::{Clock, ManualClock, SharedClock, SystemClock};
use thalweg_common::config::{Configuration, keys};
use thalweg_common::security::pki::{Authority, Issued, Validity};
use thalweg_common::security::{Role, Security};

use crate::process::binary;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The directory in which `thalweg pki` has made an authority and certificates.
#[derive(Debug, Clone)]
pub struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// `thalweg pki init` in `directory`, for these hosts.
    ///
    /// # Errors
    /// When the command fails.
    pub fn init(directory: &Path, hosts: &[&str]) -> Result<Self> {
        let pki = Self { directory: directory.to_path_buf() };
        pki.run(&["init", "--hosts", &hosts.join(",")])?;
        Ok(pki)
    }

    /// `thalweg pki issue HOST --renew`: new files in the place of the old ones.
    ///
    /// # Errors
    /// When the command fails.
    pub fn renew(&self, host: &str) -> Result<()> {
        self.run(&["issue", host, "--renew"])
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(binary("thalweg")?);
        let output = command.arg("pki").args(arguments).arg("--dir").arg(&self.directory).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`thalweg pki {}` failed: {said}", arguments.join(" "));
        Ok(())
    }

    /// A certificate of `host` that was valid until yesterday, as files of another name.
    ///
    /// # Errors
    /// When the authority is not there.
    pub fn expired(&self, host: &str) -> Result<String> {
        let read = |name: &str| std::fs::read_to_string(self.directory.join(name));
        let own = Issued { certificate: read("ca.pem")?, private_key: read("ca.key")? };
        let now_ms = SystemClock::new().now_ms();
        let validity = Validity { from_ms: now_ms - 10 * DAY_MS, until_ms: now_ms - DAY_MS };
        let issued = Authority::from_pem(own)?.issue(&[host.to_string()], validity)?;
        let name = format!("expired-{host}");
        let target = self.directory.join(&name);
        std::fs::create_dir_all(&target)?;
        std::fs::write(target.join("certificate.pem"), issued.certificate)?;
        std::fs::write(target.join("certificate.key"), issued.private_key)?;
        for file in ["trusted-certificates.pem", "token"] {
            std::fs::copy(self.directory.join(host).join(file), target.join(file))?;
        }
        Ok(name)
    }

    /// The settings of a host with the files in this directory of its authority.
    #[must_use]
    pub fn settings(&self, host: &str) -> Vec<(&'static str, String)> {
        let path = |file: &str| self.directory.join(host).join(file).display().to_string();
        vec![
            (keys::SSL_INTERNAL_ENABLED.name, "true".to_string()),
            (keys::SSL_INTERNAL_CERTIFICATE.name, path("certificate.pem")),
            (keys::SSL_INTERNAL_PRIVATE_KEY.name, path("certificate.key")),
            (keys::SSL_INTERNAL_TRUSTED.name, path("trusted-certificates.pem")),
            (keys::TOKEN_FILE.name, path("token")),
        ]
    }

    /// The settings of a client, which has the token and no certificate.
    #[must_use]
    pub fn client_settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.settings("clients");
        settings.retain(|(key, _)| {
            *key != keys::SSL_INTERNAL_CERTIFICATE.name && *key != keys::SSL_INTERNAL_PRIVATE_KEY.name
        });
        settings
    }
}

/// What a process shows and asks with these settings.
///
/// # Errors
/// When their files cannot be used.
pub fn security(settings: &[(&'static str, String)], role: Role) -> Result<Security> {
    at(settings, role, SystemClock::shared())
}

/// The same for a process whose clock is five days late, so that it believes in a certificate that has expired.
///
/// # Errors
/// When its files cannot be used.
pub fn belated_security(settings: &[(&'static str, String)]) -> Result<Security> {
    let now_ms = SystemClock::new().now_ms();
    at(settings, Role::Client, Arc::new(ManualClock::new(now_ms - 5 * DAY_MS)))
}

fn at(settings: &[(&'static str, String)], role: Role, clock: SharedClock) -> Result<Security> {
    let mut configuration = Configuration::new();
    for (key, value) in settings {
        configuration.set(key, value)?;
    }
    Ok(Security::load(&configuration, |_| None, role, &clock)?)
}
