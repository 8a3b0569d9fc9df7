//! The command line of `thalweg pki`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct PkiArguments {
    #[command(subcommand)]
    pub(crate) command: PkiCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make an authority, a certificate for each host, and a token for clients.
    ///
    /// Writes the authority (ca.pem, ca.key), a directory for each host with all that it needs, and one for clients. Says what is to be copied
    /// where and which settings belong to it. Whoever has ca.key can make members of the cluster: keep it away from the nodes.
    #[command(after_help = "\
Examples:
  thalweg pki init --hosts jm-1,jm-2,jm-3,worker-1
  thalweg pki init --dir /secure/pki --hosts jm-1+10.0.0.5,worker-1+10.0.0.7+worker-1.internal --days 180")]
    Init(InitArguments),

    /// Issue the certificate of one more host, or a new one for a host.
    ///
    /// With --renew it takes the place of the one that is there. A node notices new files within seconds and uses them without a restart.
    #[command(after_help = "\
Examples:
  thalweg pki issue worker-8 10.0.0.18
  thalweg pki issue jm-1 10.0.0.5 --renew")]
    Issue(IssueArguments),

    /// Show certificates: whose they are, for which names, until when.
    #[command(after_help = "\
Examples:
  thalweg pki show
  thalweg pki show /etc/thalweg/tls/certificate.pem --json")]
    Show(ShowArguments),
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// Where the files are written; made if it does not exist.
    #[arg(long, value_name = "DIRECTORY", default_value = "pki")]
    pub(crate) dir: PathBuf,

    /// The hosts, as others dial them: names or addresses. Several for the same host with `+` between them; the first names its directory.
    #[arg(long, value_name = "HOST[+NAME...],...", value_delimiter = ',', required = true)]
    pub(crate) hosts: Vec<String>,

    /// For how many days the hosts' certificates are valid. The authority's is valid for ten years.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArguments {
    /// The host, as others dial it: a name or an address. Names its directory.
    #[arg(value_name = "HOST")]
    pub(crate) host: String,

    /// Other names and addresses of the same host.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// Where the authority is.
    #[arg(long, value_name = "DIRECTORY", default_value = "pki")]
    pub(crate) dir: PathBuf,

    /// For how many days it is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,

    /// Replace the certificate and the key that the host has.
    #[arg(long)]
    pub(crate) renew: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Certificates in PEM, or directories of them.
    #[arg(value_name = "PATH", default_value = "pki")]
    pub(crate) paths: Vec<PathBuf>,
}
