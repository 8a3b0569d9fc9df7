//! Windows: finite pieces of the records of a key, and what is made of them.
//!
//! Stands behind `key_by`. What is decided is pure: which windows a record belongs to ([`WindowAssigner`], [`Slicing`]), what is kept
//! of them ([`slices`], [`sessions`], [`count`]), when a window fires ([`Trigger`]) and what it then shows ([`Evictor`]). Four keyed
//! functions act on that: `sliced`, `session`, `counted`, and `general` for everything that a trigger, an evictor or a function over all
//! elements decides. Their states are declared and their timers registered as those of every other keyed function.
//!
//! Invariants, those of Flink: a window `[start, end)` fires when the watermark (or the clock) reaches `end - 1`; it is forgotten at
//! `end - 1` plus the allowed lateness, and a record all of whose windows are forgotten is late; between the two every late record
//! fires its windows again. What a window emits carries `end - 1` as its timestamp.

mod aggregate;
mod assigner;
mod contents;
pub mod count;
mod counted;
mod evictor;
mod general;
mod late;
mod output;
mod session;
pub mod sessions;
mod sliced;
pub mod slices;
mod slicing;
mod time_window;
mod trigger;
mod triggers;

pub use aggregate::{Alone, Merged, Reduced, WindowAggregate};
pub use assigner::{
    CountWindows, CumulateWindows, DynamicSessionWindows, GlobalWindows, InvalidWindows, NoMerging,
    SessionWindows, SlidingCountWindows, SlidingWindows, TumblingWindows, WindowAssigner, WindowTime,
};
pub use contents::{Accumulated, Contents, Element, Evicted, EvictedAggregate, Listed};
pub use evictor::{CountEvictor, DeltaEvictor, Evictor, KeepAll, TimeEvictor};
pub use general::{GeneralWindows, Pane};
pub use late::Lateness;
pub use output::{
    ByKey, Mapped, Plain, ProcessWindowFunction, Processed, ProcessedOne, WindowContext, WindowOutput,
};
pub use slicing::Slicing;
pub use time_window::TimeWindow;
pub use trigger::{TimerAction, Trigger, TriggerContext, TriggerResult};
pub use triggers::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountTrigger, DefaultTrigger, DeltaTrigger,
    EventTimeTrigger, ProcessingTimeTrigger, PurgingTrigger,
};
