//! What jobs implement for streams that are not keyed: functions with a context.

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;

use crate::batch::known;
use crate::operator::OpenContext;
use crate::operator_state::OperatorStates;
use crate::side_output::{OutputTag, Outputs};

/// A function on a stream that is not keyed: Flink's `ProcessFunction`. It emits any number of records for each one, to its main
/// output and to side outputs. State of keys is found behind `key_by` only, see [`KeyedProcess`](crate::operator::KeyedProcess); what
/// each subtask remembers besides is its [`operator_state`](Self::operator_state).
///
/// ```
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::operators;
/// use thalweg_runtime::process::{Process, ProcessContext};
/// use thalweg_runtime::side_output::OutputTag;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
///
/// const REFUSED: OutputTag<String> = OutputTag::new("refused");
///
/// /// Numbers, and beside them what is none.
/// #[derive(Clone)]
/// struct Parse;
///
/// impl Process<String> for Parse {
///     type Out = u64;
///
///     fn on_record(&mut self, text: String, context: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
///         match text.parse() {
///             Ok(number) => context.emit(number),
///             Err(_) => context.output(&REFUSED, text),
///         }
///         Ok(())
///     }
/// }
///
/// let factory = operators::process(Parse);
/// let mut harness = OperatorHarness::<String, u64>::open(factory.as_ref(), Setup::default()).unwrap();
/// harness.push(["1", "x", "3"].map(String::from).to_vec()).unwrap();
/// assert_eq!(harness.output(), [1, 3]);
/// assert_eq!(harness.side_output(&REFUSED).records(), ["x"]);
/// ```
pub trait Process<In>: Clone + Send + Sync + 'static {
    /// What it emits to its main output.
    type Out: Record;

    /// Called once before the first record.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }

    /// Visits what each subtask remembers of its records: Flink's `CheckpointedFunction`. The same method tells the plan what there is,
    /// writes it at every barrier, and fills it before [`open`](Self::open) when a checkpoint or savepoint is restored. So it must always
    /// visit the same states, under the same names. It is encoded while the task stands still, so it should be small.
    ///
    /// ```
    /// use thalweg_common::failure::Failure;
    /// use thalweg_runtime::operator_state::OperatorStates;
    /// use thalweg_runtime::operators;
    /// use thalweg_runtime::process::{Process, ProcessContext};
    /// use thalweg_runtime::testing::{OperatorHarness, Setup};
    ///
    /// /// Emits records in pairs.
    /// #[derive(Clone, Default)]
    /// struct Pairs {
    ///     waiting: Vec<u64>,
    /// }
    ///
    /// impl Process<u64> for Pairs {
    ///     type Out = (u64, u64);
    ///
    ///     fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
    ///         states.split_list("waiting", &mut self.waiting);
    ///     }
    ///
    ///     fn on_record(&mut self, record: u64, context: &mut ProcessContext<'_, (u64, u64)>) -> Result<(), Failure> {
    ///         match self.waiting.pop() {
    ///             Some(first) => context.emit((first, record)),
    ///             None => self.waiting.push(record),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let pairs = operators::process(Pairs::default());
    /// let mut before = OperatorHarness::<u64, (u64, u64)>::open(pairs.as_ref(), Setup::default()).unwrap();
    /// before.push(vec![1, 2, 3]).unwrap();
    /// assert_eq!(before.output(), [(1, 2)]);
    /// let restoring = Setup::default().restoring(before.barrier(1).unwrap());
    /// let mut after = OperatorHarness::<u64, (u64, u64)>::open(pairs.as_ref(), restoring).unwrap();
    /// after.push(vec![4]).unwrap();
    /// assert_eq!(after.output(), [(3, 4)]);
    /// ```
    fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
        let _ = states;
    }

    /// Processes one record.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_record(&mut self, record: In, context: &mut ProcessContext<'_, Self::Out>) -> Result<(), Failure>;
}

/// What a function on a stream that is not keyed works with: the record's timestamp, and its outputs.
pub struct ProcessContext<'a, Out> {
    timestamp: Timestamp,
    watermark: Timestamp,
    outputs: &'a mut Outputs<Out>,
    open: &'a OpenContext,
}

impl<'a, Out> ProcessContext<'a, Out> {
    pub(crate) fn new(
        timestamp: Timestamp,
        watermark: Timestamp,
        outputs: &'a mut Outputs<Out>,
        open: &'a OpenContext,
    ) -> Self {
        Self { timestamp, watermark, outputs, open }
    }

    /// When the record at hand happened, in milliseconds since the epoch. Nothing if its source did not say so.
    #[inline]
    pub fn timestamp(&self) -> Option<Timestamp> {
        known(self.timestamp)
    }

    /// The last watermark: no record with this timestamp or an earlier one is to be expected any more. `Timestamp::MIN` before
    /// the first.
    #[inline]
    pub fn current_watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Emits a record with the timestamp of the record at hand.
    #[inline]
    pub fn emit(&mut self, record: Out) {
        self.outputs.emit(record, self.timestamp);
    }

    /// Emits a record with a timestamp of its own, in milliseconds since the epoch.
    #[inline]
    pub fn emit_with_timestamp(&mut self, record: Out, at: Timestamp) {
        self.outputs.emit(record, at);
    }

    /// Emits a record to a side output, with the timestamp of the record at hand. If nobody reads that side output, the record
    /// is dropped.
    #[inline]
    pub fn output<T: Record>(&mut self, tag: &OutputTag<T>, record: T) {
        self.outputs.emit_aside(tag, record, self.timestamp);
    }

    /// The time of the machine, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> Timestamp {
        self.open.clock.now_ms()
    }

    /// Where the function runs.
    pub fn open_context(&self) -> &OpenContext {
        self.open
    }
}
