//! Evictors: what takes elements out of a window that fires, before its function sees them or behind that.

use std::time::Duration;

use thalweg_common::Timestamp;

use super::assigner::milliseconds;
use super::contents::Element;
use super::time_window::TimeWindow;
use crate::batch::NO_TIMESTAMP;

/// Takes elements out of a window when it fires: Flink's `Evictor`. What it takes out stays out.
pub trait Evictor<T>: Clone + Send + Sync + 'static {
    /// Before the function of the window sees the elements, which are in the order in which they came.
    fn evict_before(&self, elements: &mut Vec<Element<T>>, window: TimeWindow) {
        let _ = (elements, window);
    }

    /// When the function has seen them.
    fn evict_after(&self, elements: &mut Vec<Element<T>>, window: TimeWindow) {
        let _ = (elements, window);
    }
}

/// Takes nothing out.
#[derive(Debug, Clone, Copy)]
pub struct KeepAll;

impl<T> Evictor<T> for KeepAll {}

/// Keeps the last elements.
#[derive(Debug, Clone, Copy)]
pub struct CountEvictor {
    elements: usize,
    is_after: bool,
}

impl CountEvictor {
    /// As many as this.
    pub fn of(elements: usize) -> Self {
        Self { elements, is_after: false }
    }

    /// Only when the function has seen them all.
    #[must_use]
    pub fn after(self) -> Self {
        Self { is_after: true, ..self }
    }

    fn evict<T>(&self, elements: &mut Vec<Element<T>>) {
        elements.drain(..elements.len().saturating_sub(self.elements));
    }
}

impl<T> Evictor<T> for CountEvictor {
    fn evict_before(&self, elements: &mut Vec<Element<T>>, _: TimeWindow) {
        if !self.is_after {
            self.evict(elements);
        }
    }

    fn evict_after(&self, elements: &mut Vec<Element<T>>, _: TimeWindow) {
        if self.is_after {
            self.evict(elements);
        }
    }
}

/// Keeps the elements that are less than a duration older than the youngest one.
#[derive(Debug, Clone, Copy)]
pub struct TimeEvictor {
    keep_ms: i64,
    is_after: bool,
}

impl TimeEvictor {
    /// By timestamps; if the first element has none, nothing is taken out.
    pub fn of(keep: Duration) -> Self {
        Self { keep_ms: milliseconds(keep), is_after: false }
    }

    /// Only when the function has seen them all.
    #[must_use]
    pub fn after(self) -> Self {
        Self { is_after: true, ..self }
    }

    fn evict<T>(&self, elements: &mut Vec<Element<T>>) {
        if elements.first().is_none_or(|element| element.timestamp == NO_TIMESTAMP) {
            return;
        }
        let youngest: Timestamp =
            elements.iter().map(|element| element.timestamp).max().unwrap_or(NO_TIMESTAMP);
        let limit = youngest.saturating_sub(self.keep_ms);
        elements.retain(|element| element.timestamp > limit);
    }
}

impl<T> Evictor<T> for TimeEvictor {
    fn evict_before(&self, elements: &mut Vec<Element<T>>, _: TimeWindow) {
        if !self.is_after {
            self.evict(elements);
        }
    }

    fn evict_after(&self, elements: &mut Vec<Element<T>>, _: TimeWindow) {
        if self.is_after {
            self.evict(elements);
        }
    }
}

/// Keeps the elements that are near the last one.
#[derive(Debug, Clone)]
pub struct DeltaEvictor<F> {
    threshold: f64,
    delta: F,
    is_after: bool,
}

impl<F> DeltaEvictor<F> {
    /// Those for which `delta(element, last)` is less than `threshold`.
    pub fn of<T>(threshold: f64, delta: F) -> Self
    where
        F: Fn(&T, &T) -> f64 + Clone + Send + Sync + 'static,
    {
        Self { threshold, delta, is_after: false }
    }

    /// Only when the function has seen them all.
    #[must_use]
    pub fn after(self) -> Self {
        Self { is_after: true, ..self }
    }

    fn evict<T>(&self, elements: &mut Vec<Element<T>>)
    where
        F: Fn(&T, &T) -> f64,
    {
        let near = |element: &Element<T>, last: &Element<T>| {
            (self.delta)(&element.record, &last.record) < self.threshold
        };
        let Some(last) = elements.last() else { return };
        let keep: Vec<bool> = elements.iter().map(|element| near(element, last)).collect();
        let mut keep = keep.into_iter();
        elements.retain(|_| keep.next().unwrap_or(true));
    }
}

impl<T, F> Evictor<T> for DeltaEvictor<F>
where
    F: Fn(&T, &T) -> f64 + Clone + Send + Sync + 'static,
{
    fn evict_before(&self, elements: &mut Vec<Element<T>>, _: TimeWindow) {
        if !self.is_after {
            self.evict(elements);
        }
    }

    fn evict_after(&self, elements: &mut Vec<Element<T>>, _: TimeWindow) {
        if self.is_after {
            self.evict(elements);
        }
    }
}
