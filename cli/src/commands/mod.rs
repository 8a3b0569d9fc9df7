//! The commands, a file each, and what they share: the way to the cluster and the form of the output.
//!
//! Stands between the command line and the client of the cluster. Each command asks, then makes one value of the answer,
//! which is printed as JSON or made into text by a pure function.

mod cancel;
mod checkpoints;
mod cluster;
mod config;
mod describe;
mod explain;
mod follow;
mod list;
mod load;
mod logs;
mod own;
mod pki;
mod rescale;
mod savepoint;
mod state;
mod submit;
mod time;
mod upgrade;
mod watch;
mod why;

use std::pin::pin;
use std::time::Duration;

use thalweg_common::clock::{SharedClock, SystemClock};
use thalweg_common::id::JobId;
use thalweg_common::security::Security;
use thalweg_proto::client::JobClient;
use thalweg_proto::transport::Dialer;

use crate::arguments::{Arguments, Command};
use crate::exit::Exit;
use crate::notice;
use crate::output::{Format, Output};
use crate::reference::{as_id, resolve};

/// How long a person waits for the cluster before being told what is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What every command works with.
struct Session {
    addresses: Vec<String>,
    timeout: Duration,
    output: Output,
    clock: SharedClock,
}

/// Does what the command line says.
///
/// # Errors
/// When the cluster cannot be reached, refuses, or stdout cannot be written to.
pub(crate) async fn execute(arguments: Arguments) -> anyhow::Result<Exit> {
    let session = Session {
        addresses: arguments.jobmanager,
        timeout: arguments.timeout,
        output: Output::new(if arguments.json { Format::Json } else { arguments.output }),
        clock: SystemClock::shared(),
    };
    match arguments.command {
        Command::Submit(arguments) => submit::run(&session, arguments).await,
        Command::List => list::run(&session).await,
        Command::Describe(job) => describe::run(&session, &job.reference).await,
        Command::Explain(arguments) => explain::run(&session, &arguments).await,
        Command::Why(job) => why::run(&session, &job.reference).await,
        Command::Checkpoint(job) => checkpoints::take(&session, &job.reference).await,
        Command::Checkpoints(arguments) => checkpoints::run(&session, &arguments).await,
        Command::Watch(job) => watch::run(&session, &job.reference).await,
        Command::Cancel(arguments) => cancel::run(&session, &arguments).await,
        Command::Savepoint(arguments) => savepoint::run(&session, arguments).await,
        Command::Stop(arguments) => savepoint::stop(&session, &arguments).await,
        Command::Rescale(arguments) => rescale::run(&session, &arguments).await,
        Command::Upgrade(arguments) => upgrade::run(&session, arguments).await,
        Command::Logs(arguments) => logs::run(&session, &arguments).await,
        Command::Cluster(arguments) => cluster::run(&session, arguments.change).await,
        Command::Config(arguments) => config::run(&session, arguments.command),
        Command::Pki(arguments) => pki::run(&session, arguments.command),
        Command::State(arguments) => state::run(&session, arguments.command).await,
    }
}

impl Session {
    /// A client of the cluster. A person who waits for it is told so.
    async fn client(&self) -> anyhow::Result<JobClient> {
        let dialer = Dialer::new(Security::of_client()?);
        let mut connecting = pin!(JobClient::connect_with(dialer, self.addresses.clone(), self.timeout));
        match tokio::time::timeout(PATIENCE, connecting.as_mut()).await {
            Ok(client) => Ok(client?),
            Err(_) => {
                if notice::is_watched() {
                    notice::say(&format!(
                        "no job manager answers yet at {}; still trying, for {} s in all",
                        self.addresses.join(", "),
                        self.timeout.as_secs()
                    ));
                }
                Ok(connecting.await?)
            }
        }
    }

    /// The job that a person means.
    async fn job(&self, client: &JobClient, reference: &str) -> anyhow::Result<JobId> {
        match as_id(reference) {
            Some(id) => Ok(id),
            None => Ok(resolve(reference, &client.list().await?)?),
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}
