//! What a job manager reports of its jobs.
//!
//! Beside a command's way: nothing here decides anything. [`sight`] turns what the log and the leader know of a job into what
//! reports are made of (pure); [`collector`] asks for both; the reporters write it where it shall go, and [`last_hour`] keeps some of it for the
//! dashboard.

mod collector;
#[cfg(feature = "rest")]
mod hour;
#[cfg(feature = "rest")]
mod last_hour;
#[cfg(feature = "prometheus")]
mod prometheus;
mod push;
mod sight;

use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::config::Configuration;
use thalweg_common::task_scope::TaskScope;

pub(crate) use self::collector::Collector;
#[cfg(feature = "rest")]
pub(crate) use self::hour::JobFigures;
#[cfg(feature = "rest")]
pub(crate) use self::last_hour::{LastHour, figures};
use crate::consensus::Consensus;
use crate::job_manager::StartError;
use crate::leader::Leader;

/// Starts what reports metrics.
pub(crate) struct Reporters {
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) leader: Leader,
    pub(crate) clock: SharedClock,
    #[cfg(feature = "prometheus")]
    pub(crate) data_directory: std::path::PathBuf,
}

impl Reporters {
    /// Those that the settings name, as far as this program was built with them.
    pub(crate) async fn start(
        &self,
        configuration: &Configuration,
        scope: &TaskScope,
    ) -> Result<(), StartError> {
        #[cfg(feature = "prometheus")]
        self.start_prometheus(configuration, scope).await?;
        if let Some(push) = push::Push::new(configuration, self.collector()).await? {
            let token = scope.token();
            scope.spawn("metrics", async move {
                token.run_until_cancelled(push.run()).await;
            });
        }
        Ok(())
    }

    /// Notes the last hour, as long as `scope` lives.
    #[cfg(feature = "rest")]
    pub(crate) fn note_last_hour(&self, scope: &TaskScope) -> LastHour {
        let last_hour = LastHour::default();
        let (token, following) = (scope.token(), last_hour.clone().follow(self.collector()));
        scope.spawn("last hour", async move {
            token.run_until_cancelled(following).await;
        });
        last_hour
    }

    fn collector(&self) -> Collector {
        Collector::new(Arc::clone(&self.consensus), self.leader.clone(), Arc::clone(&self.clock))
    }

    #[cfg(feature = "prometheus")]
    async fn start_prometheus(
        &self,
        configuration: &Configuration,
        scope: &TaskScope,
    ) -> Result<(), StartError> {
        use thalweg_common::config::keys;
        let address = configuration.text(&keys::PROMETHEUS_HOST);
        let Some((address, ports)) = address.zip(configuration.text(&keys::PROMETHEUS_PORT)) else {
            return Ok(());
        };
        let (directory, clock) = (self.data_directory.clone(), Arc::clone(&self.clock));
        let served = prometheus::serve(address, ports, self.collector(), directory, clock, scope).await;
        served.map_err(|error| {
            StartError::Metrics(format!("{error}; choose another `{}`", keys::PROMETHEUS_PORT.name))
        })
    }
}
