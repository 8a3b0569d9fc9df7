//! What Prometheus reads of a job manager: its machine, and of the leading one the cluster and its jobs. What tasks do, task managers
//! tell.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::status::JobStatus;
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
    let slots = |of: fn(&crate::leader::TaskManagerView) -> u32| {
        collected.task_managers.iter().map(|manager| f64::from(of(manager))).sum()
    };
    let running = collected.jobs.iter().filter(|job| job.status == JobStatus::Running).count();
    let gauges: BTreeMap<_, (_, f64)> = BTreeMap::from([
        ("numRegisteredTaskManagers", ("Task managers", collected.task_managers.len() as f64)),
        ("numRunningJobs", ("Jobs that run", running as f64)),
        ("taskSlotsTotal", ("Slots of all task managers", slots(|manager| manager.slots_total))),
        ("taskSlotsAvailable", ("Slots that are free", slots(|manager| manager.slots_free))),
    ]);
    let gauges = gauges
        .into_iter()
        .map(|(name, (help, value))| Sample::gauge(format!("flink_jobmanager_{name}"), help, labels, value));
    let jobs = collected.jobs.iter().flat_map(|job| scope::of_job(job, collected.now_ms, labels));
    gauges.chain(jobs).collect()
}
