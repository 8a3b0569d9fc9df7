//! What a job looks like at another parallelism: its program is planned once more, with `parallelism.default` set to it.
//!
//! On a command's way this stands in front of a rescaling. Invariant: what it gives is a layout in which the key groups of all state are as
//! they were, as far as the program lets settings decide about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::config::keys;
use thalweg_common::failure::Failure;
use thalweg_common::limits::MAX_CONCURRENT_SUBMISSIONS;
use thalweg_common::properties::RuntimeProperties;
use tokio::sync::Semaphore;

use super::{BlobStore, PlanRequest, PlanRunner, Replicator, check};
use crate::cluster::{Binary, Layout};
use crate::consensus::Consensus;
use crate::scheduler::rescale;

/// Plans jobs at other parallelisms. Clones share their limit.
#[derive(Clone)]
pub(crate) struct Planner {
    runner: PlanRunner,
    blobs: BlobStore,
    replicator: Replicator,
    /// So many at the same time.
    permits: Arc<Semaphore>,
}

impl Planner {
    pub(crate) fn new(runner: PlanRunner, blobs: BlobStore, replicator: Replicator) -> Self {
        Self { runner, blobs, replicator, permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SUBMISSIONS)) }
    }

    /// The job of `present` at this parallelism. Operators that set theirs in the program keep it.
    ///
    /// # Errors
    /// When the binary cannot be had, or prints no usable plan.
    pub(crate) async fn layout(
        &self,
        consensus: &dyn Consensus,
        binary: Binary,
        (arguments, properties): (&[String], &RuntimeProperties),
        present: &Layout,
        parallelism: u32,
    ) -> Result<Layout, Failure> {
        let _permit = self.permits.acquire().await;
        self.replicator.hold(binary.sha256, binary.size_bytes, &consensus.members()).await?;
        let path = self.blobs.path(binary.sha256);
        let mut configuration: BTreeMap<String, String> = present.configuration.clone();
        configuration.insert(keys::PARALLELISM_DEFAULT.name.to_string(), parallelism.to_string());
        let request = |configuration: &BTreeMap<String, String>| PlanRequest {
            arguments: arguments.to_vec(),
            configuration: configuration.clone(),
            properties: properties.clone(),
        };
        let mut graph = check(&path, &self.runner, request(&configuration)).await?;
        if let Some(kept) = rescale::max_parallelism_to_keep(&present.graph, &graph) {
            configuration.insert(keys::PIPELINE_MAX_PARALLELISM.name.to_string(), kept.to_string());
            graph = check(&path, &self.runner, request(&configuration)).await?;
        }
        Ok(Layout { graph: Arc::new(graph), configuration })
    }
}
