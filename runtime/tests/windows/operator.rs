//! The operator under test, made of what a script says.

use std::sync::Arc;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_runtime::operator::MergeAggregate;
use thalweg_runtime::operators;
use thalweg_runtime::program::OperatorFactory;
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::windows::{
    Accumulated, Contents, ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountEvictor,
    CountTrigger, CountWindows, CumulateWindows, DefaultTrigger, DeltaEvictor, DeltaTrigger,
    DynamicSessionWindows, Element, Evicted, EvictedAggregate, Evictor, GeneralWindows, GlobalWindows,
    Lateness, Listed, Mapped, Merged, PurgingTrigger, SessionWindows, SlidingCountWindows, SlidingWindows,
    TimeEvictor, TimeWindow, Trigger, TriggerContext, TriggerResult, TumblingWindows, WindowAssigner,
    WindowTime,
};

use crate::script::{Evict, Kind, Record, Shape, Spec, Time, Trig};

pub const LATE: OutputTag<In> = OutputTag::new("late");

/// Key, number, time, value.
pub type In = (u8, u64, i64, i64);
/// Key, start, end, numbers, count, sum.
pub type Out = (u8, TimeWindow, Vec<u64>, u64, i64);

#[derive(Clone)]
struct Collect;

impl MergeAggregate<In> for Collect {
    type Accumulator = Vec<u64>;
    type Out = Vec<u64>;

    fn create(&self) -> Vec<u64> {
        Vec::new()
    }

    fn add(&self, ids: &mut Vec<u64>, (_, id, ..): In) {
        ids.push(id);
    }

    fn merge(&self, ids: &mut Vec<u64>, later: Vec<u64>) {
        ids.extend(later);
    }

    fn result(&self, ids: &Vec<u64>) -> Vec<u64> {
        let mut ids = ids.clone();
        ids.sort_unstable();
        ids
    }
}

#[derive(Clone)]
struct Sum;

impl MergeAggregate<In> for Sum {
    type Accumulator = (u64, i64);
    type Out = (u64, i64);

    fn create(&self) -> (u64, i64) {
        (0, 0)
    }

    fn add(&self, (count, sum): &mut (u64, i64), (.., value): In) {
        (*count, *sum) = (*count + 1, *sum + value);
    }

    fn merge(&self, (count, sum): &mut (u64, i64), later: (u64, i64)) {
        (*count, *sum) = (*count + later.0, *sum + later.1);
    }

    fn subtract(&self, (count, sum): &mut (u64, i64), earlier: &(u64, i64)) -> bool {
        (*count, *sum) = (*count - earlier.0, *sum - earlier.1);
        true
    }

    fn result(&self, accumulator: &(u64, i64)) -> (u64, i64) {
        *accumulator
    }
}

/// Any trigger, so that the general operator is compiled for one.
#[derive(Clone)]
enum AnyTrigger {
    Default(DefaultTrigger),
    Purging(PurgingTrigger<DefaultTrigger>),
    Count(CountTrigger),
    ContinuousEvent(ContinuousEventTimeTrigger),
    ContinuousClock(ContinuousProcessingTimeTrigger),
    Delta(DeltaTrigger<fn(&In, &In) -> f64>),
}

type AnyState = (u64, Option<i64>, Option<In>);

/// Calls a method of the trigger with its part of the state.
macro_rules! with {
    ($self:expr, $state:expr, $trigger:ident, $part:ident => $call:expr) => {
        match $self {
            AnyTrigger::Default($trigger) => {
                let $part = &mut ();
                $call
            }
            AnyTrigger::Purging($trigger) => {
                let $part = &mut ();
                $call
            }
            AnyTrigger::Count($trigger) => {
                let $part = &mut $state.0;
                $call
            }
            AnyTrigger::ContinuousEvent($trigger) => {
                let $part = &mut $state.1;
                $call
            }
            AnyTrigger::ContinuousClock($trigger) => {
                let $part = &mut $state.1;
                $call
            }
            AnyTrigger::Delta($trigger) => {
                let $part = &mut $state.2;
                $call
            }
        }
    };
}

impl Trigger<In> for AnyTrigger {
    type State = AnyState;

    fn on_element(
        &self,
        state: &mut AnyState,
        record: &In,
        at: i64,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        with!(self, state, trigger, part => trigger.on_element(part, record, at, context))
    }

    fn on_event_time(
        &self,
        state: &mut AnyState,
        at: i64,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        with!(self, state, trigger, part => Trigger::<In>::on_event_time(trigger, part, at, context))
    }

    fn on_processing_time(
        &self,
        state: &mut AnyState,
        at: i64,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        with!(self, state, trigger, part => Trigger::<In>::on_processing_time(trigger, part, at, context))
    }

    fn can_merge(&self) -> bool {
        !matches!(self, Self::Delta(_))
    }

    fn merge(&self, states: Vec<AnyState>, context: &mut TriggerContext<'_>) -> AnyState {
        let (counts, times): (Vec<u64>, Vec<Option<i64>>) =
            states.iter().map(|(count, next, _)| (*count, *next)).unzip();
        let nothing = vec![(); states.len()];
        match self {
            Self::Default(trigger) => Trigger::<In>::merge(trigger, nothing, context),
            Self::Purging(trigger) => Trigger::<In>::merge(trigger, nothing, context),
            Self::Count(trigger) => return (Trigger::<In>::merge(trigger, counts, context), None, None),
            Self::ContinuousEvent(trigger) => {
                return (0, Trigger::<In>::merge(trigger, times, context), None);
            }
            Self::ContinuousClock(trigger) => {
                return (0, Trigger::<In>::merge(trigger, times, context), None);
            }
            Self::Delta(_) => unreachable!("it cannot merge"),
        }
        AnyState::default()
    }

    fn clear(&self, state: &mut AnyState, context: &mut TriggerContext<'_>) {
        with!(self, state, trigger, part => Trigger::<In>::clear(trigger, part, context));
    }
}

#[derive(Clone)]
enum AnyEvictor {
    Count(CountEvictor),
    Time(TimeEvictor),
    Delta(DeltaEvictor<fn(&In, &In) -> f64>),
}

impl Evictor<In> for AnyEvictor {
    fn evict_before(&self, elements: &mut Vec<Element<In>>, window: TimeWindow) {
        match self {
            Self::Count(evictor) => evictor.evict_before(elements, window),
            Self::Time(evictor) => evictor.evict_before(elements, window),
            Self::Delta(evictor) => evictor.evict_before(elements, window),
        }
    }

    fn evict_after(&self, elements: &mut Vec<Element<In>>, window: TimeWindow) {
        match self {
            Self::Count(evictor) => evictor.evict_after(elements, window),
            Self::Time(evictor) => evictor.evict_after(elements, window),
            Self::Delta(evictor) => evictor.evict_after(elements, window),
        }
    }
}

fn ms(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds as u64)
}

fn difference(from: &In, to: &In) -> f64 {
    (to.3 - from.3) as f64
}

/// The operator that `spec` describes.
pub fn factory(spec: &Spec) -> Arc<dyn OperatorFactory> {
    let by_clock = spec.time == Time::Clock;
    macro_rules! in_time {
        ($windows:expr) => {{
            let windows = $windows;
            with_windows(spec, if by_clock { windows.processing_time() } else { windows })
        }};
    }
    match spec.kind {
        Kind::Tumbling { size, offset } => in_time!(TumblingWindows::of(ms(size)).offset(ms(offset))),
        Kind::Sliding { size, slide, offset } => {
            in_time!(SlidingWindows::of(ms(size), ms(slide)).offset(ms(offset)))
        }
        Kind::Cumulate { steps, step, offset } => {
            in_time!(CumulateWindows::of(ms(steps * step), ms(step)).offset(ms(offset)))
        }
        Kind::Session { gap } => in_time!(SessionWindows::with_gap(ms(gap))),
        Kind::DynamicSession => {
            let gap = |record: &In| ms(from_wire(*record).gap());
            in_time!(DynamicSessionWindows::with_gap(gap))
        }
        Kind::Global => with_windows(spec, GlobalWindows),
        Kind::Count { records } => with_windows(spec, CountWindows::of(records)),
        Kind::CountSliding { records, slide } => with_windows(spec, SlidingCountWindows::of(records, slide)),
    }
}

fn with_windows<W: WindowAssigner<In>>(spec: &Spec, windows: W) -> Arc<dyn OperatorFactory> {
    windows.check().unwrap();
    let mut lateness = Lateness::default().allowed(spec.lateness);
    if spec.has_late_output {
        lateness = lateness.output(LATE);
    }
    let key = |record: &In| record.0;
    let ids = Mapped(|key: &u8, window, ids: Vec<u64>| [(*key, window, ids, 0, 0)]);
    let sum =
        Mapped(|key: &u8, window, (count, sum): (u64, i64)| [(*key, window, Vec::<u64>::new(), count, sum)]);
    let elements = Mapped(|key: &u8, window, elements: Vec<In>| {
        [(*key, window, elements.into_iter().map(|(_, id, ..)| id).collect::<Vec<u64>>(), 0, 0)]
    });
    if spec.trigger == Trig::Default && spec.evict == Evict::None && spec.kind != Kind::Global {
        return match spec.shape {
            Shape::Collected => {
                operators::keyed_process(key, windows.aggregated(Merged::new(Collect), ids, lateness))
            }
            Shape::Summed => {
                operators::keyed_process(key, windows.aggregated(Merged::new(Sum), sum, lateness))
            }
            Shape::Elements => operators::keyed_process(key, windows.listed(elements, lateness)),
        };
    }
    let trigger = match spec.trigger {
        Trig::Default => AnyTrigger::Default(windows.default_trigger()),
        Trig::Purging => AnyTrigger::Purging(PurgingTrigger::of(windows.default_trigger())),
        Trig::Count(records) => AnyTrigger::Count(CountTrigger::of(records)),
        Trig::ContinuousEvent(interval) => {
            AnyTrigger::ContinuousEvent(ContinuousEventTimeTrigger::every(ms(interval)))
        }
        Trig::ContinuousClock(interval) => {
            AnyTrigger::ContinuousClock(ContinuousProcessingTimeTrigger::every(ms(interval)))
        }
        Trig::Delta(threshold) => AnyTrigger::Delta(DeltaTrigger::new(threshold, difference)),
    };
    let evictor = match spec.evict {
        Evict::None => None,
        Evict::Count(records, after) => {
            let evictor = CountEvictor::of(records);
            Some(AnyEvictor::Count(if after { evictor.after() } else { evictor }))
        }
        Evict::Time(keep, after) => {
            let evictor = TimeEvictor::of(ms(keep));
            Some(AnyEvictor::Time(if after { evictor.after() } else { evictor }))
        }
        Evict::Delta(threshold, after) => {
            let evictor = DeltaEvictor::of(threshold, difference as fn(&In, &In) -> f64);
            Some(AnyEvictor::Delta(if after { evictor.after() } else { evictor }))
        }
    };
    let assigner = AnyAssigner::of(windows);
    match (evictor, spec.shape) {
        (None, Shape::Elements) => general(assigner, trigger, Listed, elements, lateness),
        (None, _) => general(assigner, trigger, Accumulated(Merged::new(Collect)), ids, lateness),
        (Some(evictor), Shape::Elements) => general(assigner, trigger, Evicted(evictor), elements, lateness),
        (Some(evictor), _) => {
            let contents = EvictedAggregate { evictor, aggregate: Merged::new(Collect) };
            general(assigner, trigger, contents, ids, lateness)
        }
    }
}

type Assign = dyn Fn(&In, i64, &mut Vec<TimeWindow>) -> Result<(), Failure> + Send + Sync;

/// Any assigner, so that the general operator is compiled for one.
#[derive(Clone)]
struct AnyAssigner {
    assign: Arc<Assign>,
    time: WindowTime,
    is_merging: bool,
}

impl AnyAssigner {
    fn of<W: WindowAssigner<In>>(windows: W) -> Self {
        let (time, is_merging) = (windows.time(), windows.is_merging());
        let assign = move |record: &In, at, all: &mut Vec<TimeWindow>| windows.assign(record, at, all);
        Self { assign: Arc::new(assign), time, is_merging }
    }
}

impl WindowAssigner<In> for AnyAssigner {
    fn assign(&self, record: &In, at: i64, windows: &mut Vec<TimeWindow>) -> Result<(), Failure> {
        (self.assign)(record, at, windows)
    }

    fn time(&self) -> WindowTime {
        self.time
    }

    fn is_merging(&self) -> bool {
        self.is_merging
    }
}

fn general<C, R, I>(
    assigner: AnyAssigner,
    trigger: AnyTrigger,
    contents: C,
    output: Mapped<impl Fn(&u8, TimeWindow, R) -> I + Clone + Send + Sync + 'static>,
    lateness: Lateness<In>,
) -> Arc<dyn OperatorFactory>
where
    C: Contents<In, Result = R>,
    I: IntoIterator<Item = Out>,
    R: 'static,
{
    operators::keyed_process(
        |record: &In| record.0,
        GeneralWindows::new(assigner, trigger, contents, output, lateness),
    )
}

pub fn to_wire(record: Record) -> In {
    (record.key, record.id, record.at, record.value)
}

pub fn from_wire((key, id, at, value): In) -> Record {
    Record { key, id, at, value }
}
