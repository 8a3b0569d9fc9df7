//! Reports the metrics of all jobs four times a minute: to CloudWatch, and as log lines in its embedded metric format.
//!
//! Runs on every job manager; only the leading one has something to report. What a snapshot takes to send holds up the next one, never
//! the cluster.

use std::io::Write;
use std::time::Duration;

use thalweg_common::config::{Configuration, keys};
use thalweg_common::task_scope::blocking;
#[cfg(feature = "cloudwatch")]
use thalweg_metrics::cloudwatch::client::{CloudWatch, CloudWatchSettings};
#[cfg(feature = "cloudwatch")]
use thalweg_metrics::cloudwatch::connect::Place;
use thalweg_metrics::cloudwatch::embedded;
use thalweg_metrics::report::{Datum, report};
use thalweg_metrics::table::Level;
use tokio::time::MissedTickBehavior;

use super::Collector;
use crate::job_manager::StartError;

/// The time between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(15);

/// What sends snapshots, and where they go.
pub(super) struct Push {
    collector: Collector,
    level: Level,
    namespace: String,
    writes_lines: bool,
    #[cfg(feature = "cloudwatch")]
    cloudwatch: Option<CloudWatch>,
    /// Whether the last snapshot did not arrive: that is told once.
    #[cfg(feature = "cloudwatch")]
    has_failed: bool,
}

impl Push {
    /// As the settings say; nothing if they want no snapshots.
    ///
    /// # Errors
    /// When they want what this program was built without.
    pub(super) async fn new(
        configuration: &Configuration,
        collector: Collector,
    ) -> Result<Option<Self>, StartError> {
        let writes_lines = configuration.boolean(&keys::EMF_ENABLED).unwrap_or_default();
        let to_cloudwatch = configuration.boolean(&keys::CLOUDWATCH_ENABLED).unwrap_or_default();
        if to_cloudwatch && !cfg!(feature = "cloudwatch") {
            let key = keys::CLOUDWATCH_ENABLED.name;
            let message =
                format!("`{key}` is true, and this program was built without the feature `cloudwatch`");
            return Err(StartError::Metrics(message));
        }
        if !to_cloudwatch && !writes_lines {
            return Ok(None);
        }
        let text = |key| configuration.text(key).map(str::to_string);
        let namespace = text(&keys::CLOUDWATCH_NAMESPACE).unwrap_or_default();
        let level = configuration.text(&keys::METRICS_LEVEL).and_then(Level::named);
        #[cfg(feature = "cloudwatch")]
        let settings = CloudWatchSettings {
            namespace: namespace.clone(),
            place: Place {
                region: text(&keys::CLOUDWATCH_REGION),
                endpoint: text(&keys::CLOUDWATCH_ENDPOINT),
                credentials_file: None,
            },
        };
        Ok(Some(Self {
            collector,
            level: level.unwrap_or(Level::Application),
            namespace,
            writes_lines,
            #[cfg(feature = "cloudwatch")]
            cloudwatch: if to_cloudwatch { Some(CloudWatch::connect(&settings).await) } else { None },
            #[cfg(feature = "cloudwatch")]
            has_failed: false,
        }))
    }

    /// Sends snapshots without end.
    pub(super) async fn run(mut self) {
        let mut due = tokio::time::interval(SNAPSHOT_INTERVAL);
        // A late snapshot does not make the next ones come faster: there are four in a minute.
        due.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for snapshot in 0.. {
            due.tick().await;
            self.send(snapshot).await;
        }
    }

    async fn send(&mut self, snapshot: u64) {
        // A node that does not lead has nothing to say.
        let Ok(collected) = self.collector.collect().await else { return };
        let of_job = |job| report(job, self.level, snapshot, collected.now_ms);
        let data: Vec<Datum> = collected.jobs.iter().flat_map(of_job).collect();
        if self.writes_lines {
            let lines = embedded::lines(&self.namespace, &data);
            // Whoever reads them may be slow; no other thread waits for that.
            drop(blocking("write metrics", move || write_lines(&lines)).await);
        }
        #[cfg(feature = "cloudwatch")]
        if let Some(cloudwatch) = &self.cloudwatch {
            let result = cloudwatch.put(data).await;
            self.note(result);
        }
    }

    /// Tells once that metrics do not arrive, and once that they do again.
    #[cfg(feature = "cloudwatch")]
    fn note(&mut self, result: Result<(), thalweg_metrics::cloudwatch::client::PutError>) {
        let had_failed = std::mem::replace(&mut self.has_failed, result.is_err());
        match result {
            Ok(()) if had_failed => tracing::info!("Metrics arrive at CloudWatch again."),
            Err(error) if !had_failed => tracing::warn!("{error}"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Writes lines to standard output. Whoever started the program may not read what it says.
fn write_lines(lines: &[String]) {
    let mut output = std::io::stdout().lock();
    for line in lines {
        let _ = writeln!(output, "{line}");
    }
}
