//! Questions how the tasks of a job keep time: who has not answered, and who wants to know.
//!
//! Bounded in number; whoever asks waits for so long as it likes and goes. Invariant: each task answers a question once.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_common::id::{JobId, SubtaskId};
use thalweg_proto::v1;
use tokio::sync::mpsc;
use tracing::debug;

/// Questions that may be open; the oldest is given up for one more.
const MAX_REQUESTS: usize = 64;

struct TimeRequest {
    job_id: JobId,
    waiting: BTreeSet<SubtaskId>,
    /// Dropped when all have answered.
    sink: mpsc::Sender<v1::TaskTime>,
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct TimeRequests {
    requests: BTreeMap<u64, TimeRequest>,
    last: u64,
}

impl TimeRequests {
    /// A question to these tasks, by its number.
    pub(super) fn begin(
        &mut self,
        job_id: JobId,
        waiting: BTreeSet<SubtaskId>,
        sink: mpsc::Sender<v1::TaskTime>,
    ) -> u64 {
        self.requests.retain(|_, request| !request.sink.is_closed());
        if self.requests.len() >= MAX_REQUESTS {
            self.requests.pop_first();
        }
        self.last += 1;
        if !waiting.is_empty() {
            self.requests.insert(self.last, TimeRequest { job_id, waiting, sink });
        }
        self.last
    }

    /// A task has answered.
    pub(super) fn arrived(&mut self, job_id: JobId, subtask: SubtaskId, told: v1::TaskTime) {
        let number = told.request_id;
        let Some(request) = self.requests.get_mut(&number).filter(|request| request.job_id == job_id) else {
            return;
        };
        if request.waiting.remove(&subtask) && request.sink.try_send(told).is_err() {
            debug!("What a task told of time was dropped: nobody reads it.");
        }
        if request.waiting.is_empty() {
            self.requests.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subtask(index: u32) -> SubtaskId {
        SubtaskId { vertex: 0, index }
    }

    fn told(request_id: u64, index: u32) -> v1::TaskTime {
        v1::TaskTime { request_id, subtask: Some(subtask(index).into()), ..v1::TaskTime::default() }
    }

    #[test]
    fn each_task_answers_once_and_behind_the_last_there_are_no_more() {
        let mut requests = TimeRequests::default();
        let (sink, mut answers) = mpsc::channel(10);
        let number = requests.begin(JobId(1), [subtask(0), subtask(1)].into(), sink);
        for (job, request_id, index) in [(2, number, 0), (1, number + 1, 0), (1, number, 0), (1, number, 0)] {
            requests.arrived(JobId(job), subtask(index), told(request_id, index));
        }
        assert_eq!(answers.try_recv(), Ok(told(number, 0)));
        assert_eq!(answers.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        requests.arrived(JobId(1), subtask(1), told(number, 1));
        assert_eq!(answers.try_recv(), Ok(told(number, 1)));
        assert_eq!(answers.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn open_questions_are_bounded_and_without_tasks_there_is_none() {
        let mut requests = TimeRequests::default();
        let mut kept = Vec::new();
        for _ in 0..MAX_REQUESTS + 5 {
            let (sink, answers) = mpsc::channel(1);
            requests.begin(JobId(1), [subtask(0)].into(), sink);
            kept.push(answers);
        }
        assert_eq!(requests.requests.len(), MAX_REQUESTS);
        assert_eq!(kept[0].try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        let (sink, mut answers) = mpsc::channel(1);
        requests.begin(JobId(1), BTreeSet::new(), sink);
        assert_eq!(answers.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
