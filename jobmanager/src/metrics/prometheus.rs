//! What Prometheus reads of a job manager: its machine, and of the leading one the cluster and its jobs. What tasks do, task managers
//! tell.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::task_scope::TaskScope;
use thalweg_metrics::process::ProcessSampler;
use thalweg_metrics::prometheus;
use thalweg_metrics::scope::{self, Labels, Sample};
use tokio::sync::Mutex;

use super::Collector;
use super::collector::Collected;

/// Answers at `address` and one of `ports`, as long as `scope` lives.
///
/// # Errors
/// When no port is free.
pub(crate) async fn serve(
    address: &str,
    ports: &str,
    collector: Collector,
    data_directory: PathBuf,
    clock: SharedClock,
    scope: &TaskScope,
) -> io::Result<()> {
    let listener = prometheus::bind(address, ports).await?;
    if let Ok(bound) = listener.local_addr() {
        tracing::info!("metrics for Prometheus are at http://{bound}/metrics");
    }
    let sampler = ProcessSampler::new(data_directory, clock);
    let labels = vec![("host", rustix::system::uname().nodename().to_string_lossy().into_owned())];
    let seen = Arc::new(Mutex::new((collector, sampler)));
    let collect = move || {
        let (seen, labels) = (Arc::clone(&seen), labels.clone());
        async move {
            let (collector, sampler) = &mut *seen.lock().await;
            let process = sampler.sample(&[std::process::id()], (0, 0));
            let mut samples = scope::of_process("jobmanager", &process, &labels);
            // One that does not lead knows nothing of jobs.
            if let Ok(collected) = collector.collect().await {
                samples.extend(of_cluster(&collected, &labels));
            }
            samples
        }
    };
    let stopped = scope.token().cancelled_owned();
    scope.spawn_fallible("prometheus", prometheus::serve(listener, stopped, collect));
    Ok(())
}

/// The cluster and its jobs, under the names that Flink's job manager has for them.
fn of_cluster(collected: &Collected, labels: &Labels) -> Vec<Sample> {
    let jobs = collected.jobs.iter().flat_map(|job| scope::of_job(job, collected.now_ms, labels));
    collected.cluster(labels).into_iter().chain(jobs).collect()
}
