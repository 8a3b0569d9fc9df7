//! Watermark merging: from the watermarks of many inputs to that of one. Pure; Flink's `StatusWatermarkValve`.
//!
//! On a watermark's way this stands in the gate, behind the channels and before the chain. The rules:
//!
//! - the watermark is the minimum over the inputs that are active and have caught up: an input that was idle, and comes back with an
//!   older watermark than was passed on, holds nobody back until it has reached it;
//! - idle inputs hold nobody back; when no input is active any more, the watermark rises to the latest that any of them has had, and
//!   then the whole counts as idle;
//! - an input that has ended (its watermark is [`MAX_WATERMARK`]) holds nobody back; when all have, the watermark is that one;
//! - where inputs come and go (the splits of a source), those that are gone hold nobody back, and without any the whole is idle.
//!
//! Invariant: what is passed on only grows. One rule differs from Flink's: there an input that has ended counts as an active one, so
//! that time ends as soon as all others are idle, and whatever these read later is late. Here they are idle, all of them.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;

use super::{MAX_WATERMARK, NO_WATERMARK};
use crate::event::WatermarkStatus;
use crate::link::Link;

/// What an event of one input has changed for all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "what has changed is to be passed on"]
pub struct Merged {
    /// The watermark, if it has risen.
    pub watermark: Option<Timestamp>,
    /// The status, if it has changed. `Active` comes before the watermark, `Idle` behind it.
    pub status: Option<WatermarkStatus>,
}

impl Merged {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// This change and a later one. At most one of them is about the status.
    pub(crate) fn and(self, later: Self) -> Self {
        debug_assert!(self.status.is_none() || later.status.is_none());
        Self { watermark: later.watermark.or(self.watermark), status: later.status.or(self.status) }
    }

    /// Tells a link, in the right order.
    ///
    /// # Errors
    /// What the link fails with.
    pub fn pass_to<T>(self, link: &mut dyn Link<T>) -> Result<(), Failure> {
        if self.status == Some(WatermarkStatus::Active) {
            link.watermark_status(WatermarkStatus::Active)?;
        }
        if let Some(watermark) = self.watermark {
            link.watermark(watermark)?;
        }
        if self.status == Some(WatermarkStatus::Idle) {
            link.watermark_status(WatermarkStatus::Idle)?;
        }
        Ok(())
    }
}

/// The watermarks of several inputs.
#[derive(Debug, Clone)]
pub struct WatermarkMerger {
    inputs: Vec<Input>,
    /// Whether inputs come and go, so that time does not end with the last of them.
    is_open: bool,
    /// The latest watermark of inputs whose place another one has.
    past: Timestamp,
    /// The last watermark that was passed on.
    watermark: Timestamp,
    status: WatermarkStatus,
}

#[derive(Debug, Clone, Copy)]
struct Input {
    /// Its last watermark, but for that of the end.
    watermark: Timestamp,
    state: State,
}

impl Input {
    const NEW: Self = Self { watermark: NO_WATERMARK, state: State::Active };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Idle,
    Ended,
}

impl WatermarkMerger {
    /// Inputs from 0, all of them active and without a watermark.
    #[must_use]
    pub fn new(inputs: usize) -> Self {
        Self {
            inputs: vec![Input::NEW; inputs],
            is_open: false,
            past: NO_WATERMARK,
            watermark: NO_WATERMARK,
            status: WatermarkStatus::Active,
        }
    }

    /// Without inputs, which may come and go.
    pub(super) fn open() -> Self {
        Self { is_open: true, ..Self::new(0) }
    }

    /// A new input comes. It is active and has no watermark. Behind all that come and go at a time, [`settle`](Self::settle).
    pub(super) fn add(&mut self) -> usize {
        match self.inputs.iter().position(|input| input.state == State::Ended) {
            Some(free) => {
                self.past = self.past.max(self.inputs[free].watermark);
                self.inputs[free] = Input::NEW;
                free
            }
            None => {
                self.inputs.push(Input::NEW);
                self.inputs.len() - 1
            }
        }
    }

    /// An input goes, and holds nobody back any more.
    pub(super) fn remove(&mut self, input: usize) {
        self.inputs[input].state = State::Ended;
    }

    /// What has changed by inputs that came and went.
    pub(super) fn settle(&mut self) -> Merged {
        self.merge()
    }

    /// The last status that was passed on.
    #[must_use]
    pub fn status(&self) -> WatermarkStatus {
        self.status
    }

    /// The last watermark that was passed on, or [`NO_WATERMARK`].
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The last watermark of an input, and whether it is idle or has ended.
    pub(crate) fn input(&self, input: usize) -> (Timestamp, bool, bool) {
        let Input { watermark, state } = self.inputs[input];
        (watermark, state == State::Idle, state == State::Ended)
    }

    /// An input has a watermark. One that is not later than its last one means nothing.
    pub fn on_watermark(&mut self, input: usize, watermark: Timestamp) -> Merged {
        let input = &mut self.inputs[input];
        if input.state == State::Ended {
            return Merged::default();
        }
        if watermark == MAX_WATERMARK {
            input.state = State::Ended;
            return self.merge();
        }
        if watermark <= input.watermark {
            return Merged::default();
        }
        input.watermark = watermark;
        self.merge()
    }

    /// An input is idle, or active again.
    pub fn on_status(&mut self, input: usize, status: WatermarkStatus) -> Merged {
        let input = &mut self.inputs[input];
        input.state = match (input.state, status) {
            (State::Active, WatermarkStatus::Idle) => State::Idle,
            (State::Idle, WatermarkStatus::Active) => State::Active,
            _ => return Merged::default(),
        };
        self.merge()
    }

    /// An input has ended: the same as its last watermark.
    pub fn on_end(&mut self, input: usize) -> Merged {
        self.on_watermark(input, MAX_WATERMARK)
    }

    /// What is so now, and was not before.
    fn merge(&mut self) -> Merged {
        let (mut active, mut idle) = (0, 0);
        let (mut earliest, mut latest) = (MAX_WATERMARK, self.past);
        for input in &self.inputs {
            latest = latest.max(input.watermark);
            match input.state {
                State::Active => {
                    active += 1;
                    if input.watermark >= self.watermark {
                        earliest = earliest.min(input.watermark);
                    }
                }
                State::Idle => idle += 1,
                State::Ended => {}
            }
        }
        let (reached, status) = match (active, idle) {
            (0, 0) if !self.is_open => (MAX_WATERMARK, WatermarkStatus::Active),
            (0, _) => (latest, WatermarkStatus::Idle),
            // None of them has caught up.
            _ if earliest == MAX_WATERMARK => (self.watermark, WatermarkStatus::Active),
            _ => (earliest, WatermarkStatus::Active),
        };
        let merged = Merged {
            watermark: (reached > self.watermark).then_some(reached),
            status: (status != self.status).then_some(status),
        };
        self.watermark = self.watermark.max(reached);
        self.status = status;
        merged
    }
}

#[cfg(test)]
#[path = "merger_tests.rs"]
mod tests;
