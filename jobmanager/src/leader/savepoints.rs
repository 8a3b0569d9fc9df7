//! Who waits for which savepoint.
//!
//! Only the newest news of each counts, so that nobody who is slow to read holds up the leader. Invariant: a request is forgotten behind
//! its last news, and with the term.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::job::SavepointNews;

/// All of them, by number. Bounded by the jobs: each takes one savepoint at a time and refuses others at once.
#[derive(Default)]
pub(super) struct SavepointRequests {
    requests: BTreeMap<u64, watch::Sender<SavepointNews>>,
    last: u64,
}

impl SavepointRequests {
    /// The number of a new request, and where its news come from.
    pub(super) fn begin(&mut self) -> (u64, watch::Receiver<SavepointNews>) {
        let (sender, receiver) =
            watch::channel(SavepointNews::Progress { id: None, acknowledged: 0, subtasks: 0 });
        self.last += 1;
        self.requests.insert(self.last, sender);
        (self.last, receiver)
    }

    /// Tells whoever waits. They may have gone: the savepoint is taken all the same.
    pub(super) fn tell(&mut self, request: u64, news: SavepointNews) {
        let is_last = !matches!(news, SavepointNews::Progress { .. });
        if let Some(sender) = self.requests.get(&request) {
            sender.send_replace(news);
        }
        if is_last {
            self.requests.remove(&request);
        }
    }
}
