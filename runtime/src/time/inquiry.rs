//! What a task knows of event time, told when somebody asks: how `thalweg why` learns it.
//!
//! Beside a watermark's way: the loop of a task asks, the next flush passes head and operators, and each adds what it knows. So a task answers
//! between its turns, and nobody pays for it who was not asked but for a look at a flag at each flush.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::Timestamp;
use thalweg_common::id::{ChannelId, OperatorId};

/// Questions that wait for the next flush; further ones are not answered.
const MOST_QUESTIONS: usize = 16;

/// What one task knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TaskTime {
    /// The questions that it answers.
    pub(crate) request_ids: Vec<u64>,
    /// Of all inputs together, if there was one.
    pub(crate) watermark: Option<Timestamp>,
    pub(crate) inputs: Vec<InputTime>,
    pub(crate) origins: Vec<OriginTime>,
    pub(crate) operators: Vec<OperatorTime>,
}

/// A channel into the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputTime {
    pub(crate) channel: ChannelId,
    pub(crate) watermark: Option<Timestamp>,
    pub(crate) is_idle: bool,
    pub(crate) has_ended: bool,
    pub(crate) idle_since_ms: Option<Timestamp>,
}

/// What has a watermark of its own behind a strategy: a split, or all of the subtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginTime {
    /// The operator that makes its watermarks.
    pub(crate) operator_id: OperatorId,
    pub(crate) split: Option<String>,
    pub(crate) watermark: Option<Timestamp>,
    pub(crate) is_idle: bool,
    /// When its last record came, or when it began.
    pub(crate) last_record_ms: Timestamp,
    /// Behind which time it counts as idle, if it ever does.
    pub(crate) idleness_ms: Option<u64>,
    /// Whether it is not read because it is ahead of other sources.
    pub(crate) waits_for_others: bool,
}

/// An operator that may have timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorTime {
    pub(crate) operator_id: OperatorId,
    /// The earliest timer of event time that has not fired.
    pub(crate) earliest_timer: Option<Timestamp>,
}

/// Shared by a task's loop, which asks, and its operators, which answer. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inquiry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_open: AtomicBool,
    told: Mutex<TaskTime>,
}

impl Inquiry {
    /// The next flush is to answer this question.
    pub(crate) fn ask(&self, request_id: u64) {
        let mut told = self.told();
        if told.request_ids.len() < MOST_QUESTIONS {
            told.request_ids.push(request_id);
        }
        self.shared.is_open.store(true, Ordering::Relaxed);
    }

    /// Adds something to the answer, if there is a question.
    #[inline]
    pub(crate) fn tell(&self, add: impl FnOnce(&mut TaskTime)) {
        if self.shared.is_open.load(Ordering::Relaxed) {
            add(&mut self.told());
        }
    }

    /// Behind a flush: the answer, if there was a question.
    pub(crate) fn answer(&self) -> Option<TaskTime> {
        let is_open = self.shared.is_open.swap(false, Ordering::Relaxed);
        is_open.then(|| std::mem::take(&mut *self.told()))
    }

    fn told(&self) -> MutexGuard<'_, TaskTime> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
