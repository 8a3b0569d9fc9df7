//! What users ask of a job: its end, a savepoint, a checkpoint, another parallelism. Answered by its core.

use thalweg_common::id::JobId;
use thalweg_proto::model::SavepointMode;
use tokio::sync::watch;

use super::Term;
use crate::cluster::Layout;
use crate::job::{CheckpointNews, Input, RescaleNews, SavepointNews};

impl Term {
    pub(in crate::leader) fn cancel(&mut self, job_id: JobId) {
        self.take_new_jobs();
        self.feed(job_id, Input::Cancel);
    }

    /// Asks for a savepoint; what comes of it is told through the receiver, whose sender is dropped behind the last news.
    pub(in crate::leader) fn savepoint(
        &mut self,
        job_id: JobId,
        directory: String,
        mode: SavepointMode,
    ) -> watch::Receiver<SavepointNews> {
        self.take_new_jobs();
        let (request, news) = self.savepoints.begin();
        if self.jobs.contains_key(&job_id) {
            self.feed(job_id, Input::Savepoint { request, directory, mode });
        } else {
            let reason = "the job has ended; a savepoint can be taken while it runs".to_string();
            self.savepoints.tell(request, SavepointNews::Failed(reason));
        }
        news
    }

    /// Asks for a checkpoint, in the same way.
    pub(in crate::leader) fn checkpoint(&mut self, job_id: JobId) -> watch::Receiver<CheckpointNews> {
        self.take_new_jobs();
        let (request, news) = self.requested.begin();
        if self.jobs.contains_key(&job_id) {
            self.feed(job_id, Input::Checkpoint { request });
        } else {
            let reason = "the job has ended; a checkpoint can be taken while it runs".to_string();
            self.requested.tell(request, CheckpointNews::Failed(reason));
        }
        news
    }

    /// Asks for another layout, in the same way.
    pub(in crate::leader) fn rescale(
        &mut self,
        job_id: JobId,
        layout: Layout,
    ) -> watch::Receiver<RescaleNews> {
        self.take_new_jobs();
        let (request, news) = self.rescalings.begin();
        if self.jobs.contains_key(&job_id) {
            let offers = self.connections.offers(&self.slots_of_others(job_id));
            self.feed(job_id, Input::Rescale { request, layout, offers });
        } else {
            let reason = "the job has ended; it can be rescaled while it runs".to_string();
            self.rescalings.tell(request, RescaleNews::Failed(reason));
        }
        news
    }
}
