//! Aggregations over so many records of a key.

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};

use super::aggregate::WindowAggregate;
use super::count::{Counting, Panes};
use super::output::WindowOutput;
use super::time_window::TimeWindow;
use crate::operator::{Context, Key, KeyedProcess};

/// The name of the state, as the plan shows it.
const STATE: &str = "panes";

/// Aggregates over windows of so many records. As in Flink their window is the global one, so that their results have the
/// end of time as timestamp.
#[derive(Clone)]
pub(crate) struct CountedWindows<In, A: WindowAggregate<In>, O> {
    panes: ValueState<Panes<A::Accumulator>>,
    counting: Counting,
    aggregate: A,
    output: O,
}

impl<In, A: WindowAggregate<In>, O> CountedWindows<In, A, O> {
    pub(crate) fn new(counting: Counting, aggregate: A, output: O) -> Self {
        Self { panes: ValueState::default(), counting, aggregate, output }
    }
}

impl<In, A: WindowAggregate<In>, O> State for CountedWindows<In, A, O> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.panes.declare(STATE, declarations);
    }
}

impl<K, In, A, O> KeyedProcess<K, In> for CountedWindows<In, A, O>
where
    K: Key,
    In: Record,
    A: WindowAggregate<In>,
    O: WindowOutput<K, A::Out>,
{
    type Out = O::Out;

    const TIMERS: bool = false;

    fn on_record(&mut self, record: In, context: &mut Context<'_, K, O::Out>) -> Result<(), Failure> {
        let panes = self.panes.get_or_insert_with(context, Panes::default);
        let Some(window) = panes.add(self.counting, record, &self.aggregate)? else { return Ok(()) };
        if panes.is_empty() {
            self.panes.clear(context);
        }
        self.output.emit(TimeWindow::GLOBAL, self.aggregate.result(window), context)
    }
}
