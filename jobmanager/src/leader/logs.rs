//! Requests for workers' logs that are under way: which task managers still have to answer, and who wants to know.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::TaskManagerId;
use thalweg_proto::v1;
use tokio::sync::mpsc;
use tracing::debug;

use super::views::LogPiece;

/// Requests that may be under way; the oldest is given up for one more.
const MAX_REQUESTS: usize = 64;

struct LogRequest {
    waiting: BTreeSet<TaskManagerId>,
    /// Dropped when all have answered: that is the end of the logs.
    sink: mpsc::Sender<LogPiece>,
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct LogRequests {
    requests: BTreeMap<u64, LogRequest>,
    last: u64,
}

impl LogRequests {
    /// Starts a request to `task_managers` and returns its number.
    pub(super) fn begin(
        &mut self,
        task_managers: BTreeSet<TaskManagerId>,
        sink: mpsc::Sender<LogPiece>,
    ) -> u64 {
        self.requests.retain(|_, request| !request.sink.is_closed());
        if self.requests.len() >= MAX_REQUESTS {
            self.requests.pop_first();
        }
        self.last += 1;
        if !task_managers.is_empty() {
            self.requests.insert(self.last, LogRequest { waiting: task_managers, sink });
        }
        self.last
    }

    /// A task manager has answered.
    pub(super) fn arrived(&mut self, name: &TaskManagerId, logs: v1::Logs) {
        let Some(request) = self.requests.get_mut(&logs.request_id) else { return };
        for part in logs.parts {
            if request.sink.try_send(LogPiece { task_manager: name.clone(), part }).is_err() {
                debug!("Logs of task manager {name} were dropped: nobody reads them.");
            }
        }
        request.waiting.remove(name);
        if request.waiting.is_empty() {
            self.requests.remove(&logs.request_id);
        }
    }

    /// A task manager will not answer any more.
    pub(super) fn lost(&mut self, name: &TaskManagerId) {
        for request in self.requests.values_mut() {
            request.waiting.remove(name);
        }
        self.requests.retain(|_, request| !request.waiting.is_empty());
    }
}
