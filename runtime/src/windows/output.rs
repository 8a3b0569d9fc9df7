//! What windows emit: a result by itself, with its key, or what a function makes of it. Always with the window's latest time.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use super::time_window::TimeWindow;
use crate::operator::{Context, Key};
use crate::side_output::OutputTag;

/// Makes output of the result of a window.
pub trait WindowOutput<K: Key, R>: Clone + Send + Sync + 'static {
    /// What is emitted.
    type Out: Record;

    /// Emits what `window` shows.
    ///
    /// # Errors
    /// Those of a function of the job.
    fn emit(
        &mut self,
        window: TimeWindow,
        result: R,
        context: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), Failure>;
}

/// The result by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl<K: Key, R: Record> WindowOutput<K, R> for Plain {
    type Out = R;

    #[inline]
    fn emit(
        &mut self,
        window: TimeWindow,
        result: R,
        context: &mut Context<'_, K, R>,
    ) -> Result<(), Failure> {
        context.emit_with_timestamp(result, window.max_timestamp());
        Ok(())
    }
}

/// The key and the result.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByKey;

impl<K: Key, R: Record> WindowOutput<K, R> for ByKey {
    type Out = (K, R);

    #[inline]
    fn emit(
        &mut self,
        window: TimeWindow,
        result: R,
        context: &mut Context<'_, K, (K, R)>,
    ) -> Result<(), Failure> {
        let key = context.key().clone();
        context.emit_with_timestamp((key, result), window.max_timestamp());
        Ok(())
    }
}

/// What a closure makes of key, window and result.
#[derive(Debug, Clone)]
pub struct Mapped<F>(pub F);

impl<K, R, F, I> WindowOutput<K, R> for Mapped<F>
where
    K: Key,
    F: Fn(&K, TimeWindow, R) -> I + Clone + Send + Sync + 'static,
    I: IntoIterator<Item: Record>,
{
    type Out = I::Item;

    #[inline]
    fn emit(
        &mut self,
        window: TimeWindow,
        result: R,
        context: &mut Context<'_, K, I::Item>,
    ) -> Result<(), Failure> {
        for record in (self.0)(context.key(), window, result) {
            context.emit_with_timestamp(record, window.max_timestamp());
        }
        Ok(())
    }
}

/// What a [`ProcessWindowFunction`] makes of a list.
#[derive(Debug, Clone)]
pub struct Processed<P>(pub P);

impl<K, T, P> WindowOutput<K, Vec<T>> for Processed<P>
where
    K: Key,
    P: ProcessWindowFunction<K, T>,
{
    type Out = P::Out;

    fn emit(
        &mut self,
        window: TimeWindow,
        elements: Vec<T>,
        context: &mut Context<'_, K, P::Out>,
    ) -> Result<(), Failure> {
        self.0.process(elements, &mut WindowContext { window, context })
    }
}

/// What a [`ProcessWindowFunction`] makes of the result of an aggregation.
#[derive(Debug, Clone)]
pub struct ProcessedOne<P>(pub P);

impl<K, R, P> WindowOutput<K, R> for ProcessedOne<P>
where
    K: Key,
    P: ProcessWindowFunction<K, R>,
{
    type Out = P::Out;

    fn emit(
        &mut self,
        window: TimeWindow,
        result: R,
        context: &mut Context<'_, K, P::Out>,
    ) -> Result<(), Failure> {
        self.0.process(vec![result], &mut WindowContext { window, context })
    }
}

/// A function on the elements of a window: Flink's `ProcessWindowFunction`.
///
/// It is called whenever the window fires: with all elements in the order in which they came, as far as an evictor has left them;
/// or, behind an aggregation, with its result as the only element.
pub trait ProcessWindowFunction<K: Key, In>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Record;

    /// Processes a window that fires.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn process(
        &mut self,
        elements: Vec<In>,
        context: &mut WindowContext<'_, '_, K, Self::Out>,
    ) -> Result<(), Failure>;
}

/// What a function on windows works with: key, window, time and output.
pub struct WindowContext<'a, 'b, K: Key, Out> {
    window: TimeWindow,
    context: &'a mut Context<'b, K, Out>,
}

impl<K: Key, Out> WindowContext<'_, '_, K, Out> {
    /// The key of all elements.
    pub fn key(&self) -> &K {
        self.context.key()
    }

    /// The window that fires; [`TimeWindow::GLOBAL`] where there is only one.
    pub fn window(&self) -> TimeWindow {
        self.window
    }

    /// Emits a record with the window's latest time as its timestamp.
    pub fn emit(&mut self, record: Out) {
        self.context.emit_with_timestamp(record, self.window.max_timestamp());
    }

    /// Emits a record to a side output.
    pub fn output<T: Record>(&mut self, tag: &OutputTag<T>, record: T) {
        self.context.output(tag, record);
    }

    /// Up to where event time has come; [`Timestamp::MIN`] before the first watermark.
    pub fn current_watermark(&self) -> Timestamp {
        self.context.current_watermark()
    }

    /// The time of the clock, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> Timestamp {
        self.context.current_processing_time()
    }
}
