//! Who waits for what becomes of something that they have asked for: savepoints, checkpoints, other parallelisms.
//!
//! Only the newest news of each counts, so that nobody who is slow to read holds up the leader. Invariant: a request is forgotten behind
//! its last news, and with the term.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::job::{CheckpointNews, RescaleNews, SavepointNews};

/// News that say whether they are the last.
pub(crate) trait News: Clone {
    /// Before anything has happened.
    fn first() -> Self;
    /// Whether nothing follows.
    fn is_last(&self) -> bool;
}

impl News for SavepointNews {
    fn first() -> Self {
        Self::Progress { id: None, acknowledged: 0, subtasks: 0 }
    }

    fn is_last(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }
}

impl News for CheckpointNews {
    fn first() -> Self {
        Self::Progress
    }

    fn is_last(&self) -> bool {
        !matches!(self, Self::Progress)
    }
}

impl News for RescaleNews {
    fn first() -> Self {
        Self::Progress("taking a checkpoint".to_string())
    }

    fn is_last(&self) -> bool {
        !matches!(self, Self::Progress(_))
    }
}

/// Waits for the last of these news; `None` if the leader that was asked leads no more.
pub(crate) async fn last<N: News>(mut news: watch::Receiver<N>) -> Option<N> {
    loop {
        let now = news.borrow_and_update().clone();
        if now.is_last() {
            return Some(now);
        }
        if news.changed().await.is_err() {
            // The last news may have come just before the end.
            let now = news.borrow().clone();
            return now.is_last().then_some(now);
        }
    }
}

/// All of one kind, by number. Bounded by the jobs: each takes one at a time and refuses others at once.
pub(super) struct Requests<N> {
    requests: BTreeMap<u64, watch::Sender<N>>,
    last: u64,
}

impl<N> Default for Requests<N> {
    fn default() -> Self {
        Self { requests: BTreeMap::new(), last: 0 }
    }
}

impl<N: News> Requests<N> {
    /// The number of a new request, and where its news come from.
    pub(super) fn begin(&mut self) -> (u64, watch::Receiver<N>) {
        let (sender, receiver) = watch::channel(N::first());
        self.last += 1;
        self.requests.insert(self.last, sender);
        (self.last, receiver)
    }

    /// Tells whoever waits. They may have gone: what they asked for is done all the same.
    pub(super) fn tell(&mut self, request: u64, news: N) {
        let is_last = news.is_last();
        if let Some(sender) = self.requests.get(&request) {
            sender.send_replace(news);
        }
        if is_last {
            self.requests.remove(&request);
        }
    }
}
