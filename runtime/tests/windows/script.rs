//! What the tests have in common: kinds of windows, records, and scripts of what happens. Made at random.

use proptest::prelude::*;

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub key: u8,
    pub id: u64,
    pub at: i64,
    pub value: i64,
}

impl Record {
    /// How long it keeps a dynamic session open, in milliseconds.
    pub fn gap(&self) -> i64 {
        10 * (1 + self.value.rem_euclid(4))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Event,
    Clock,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Tumbling { size: i64, offset: i64 },
    Sliding { size: i64, slide: i64, offset: i64 },
    Cumulate { steps: i64, step: i64, offset: i64 },
    Session { gap: i64 },
    DynamicSession,
    Global,
    Count { records: u64 },
    CountSliding { records: u64, slide: u64 },
}

impl Kind {
    pub fn is_session(&self) -> bool {
        matches!(self, Self::Session { .. } | Self::DynamicSession)
    }

    pub fn is_global(&self) -> bool {
        matches!(self, Self::Global | Self::Count { .. } | Self::CountSliding { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trig {
    Default,
    Purging,
    Count(u64),
    ContinuousEvent(i64),
    ContinuousClock(i64),
    Delta(f64),
}

/// Each with whether it takes out behind the function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evict {
    None,
    Count(usize, bool),
    Time(i64, bool),
    Delta(f64, bool),
}

/// What a window shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An aggregate that can be merged: the records' numbers, in any order.
    Collected,
    /// An aggregate that can be inverted, too.
    Summed,
    /// All elements, in their order.
    Elements,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub kind: Kind,
    pub time: Time,
    pub lateness: i64,
    pub trigger: Trig,
    pub evict: Evict,
    pub shape: Shape,
    /// Whether late records have a side output; otherwise they are counted.
    pub has_late_output: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Step {
    Record(Record),
    Watermark(i64),
    Clock(i64),
    /// A snapshot is taken, and the engine goes on.
    Checkpoint,
    /// A snapshot is taken, and the engine goes on from it with so many subtasks.
    Rescale(u32),
    /// The engine is lost, and begins again with the last snapshot.
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    Ids(Vec<u64>),
    Sum(u64, i64),
}

/// What comes of a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Key, start, end, result, timestamp.
    Fired(u8, i64, i64, Shown, i64),
    Late(Record),
}

/// Times are multiples of 10, ends of windows therefore too: no record comes in the very millisecond in which a window fires by the clock.
const GRID: i64 = 10;

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1..8_i64, 0..8_i64)
            .prop_map(|(size, offset)| Kind::Tumbling { size: GRID * size, offset: GRID * (offset % size) }),
        (1..12_i64, 1..6_i64, 0..6_i64).prop_map(|(size, slide, offset)| Kind::Sliding {
            size: GRID * size,
            slide: GRID * slide,
            offset: GRID * (offset % slide)
        }),
        (1..6_i64, 1..4_i64, 0..4_i64).prop_map(|(steps, step, offset)| Kind::Cumulate {
            steps,
            step: GRID * step,
            offset: GRID * (offset % step)
        }),
        (1..6_i64).prop_map(|gap| Kind::Session { gap: GRID * gap }),
        Just(Kind::DynamicSession),
    ]
}

fn times() -> impl Strategy<Value = Time> {
    prop_oneof![3 => Just(Time::Event), 1 => Just(Time::Clock)]
}

fn latenesses() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), (1..12_i64).prop_map(|lateness| GRID * lateness)]
}

/// Windows with their default trigger, which take the short ways.
pub fn plain() -> impl Strategy<Value = Spec> {
    let counted = prop_oneof![
        (1..6_u64).prop_map(|records| Kind::Count { records }),
        (1..8_u64, 1..6_u64).prop_map(|(records, slide)| Kind::CountSliding { records, slide }),
    ];
    let shapes = prop_oneof![Just(Shape::Collected), Just(Shape::Summed), Just(Shape::Elements)];
    (prop_oneof![6 => kinds(), 1 => counted], times(), latenesses(), shapes, any::<bool>()).prop_map(
        |(kind, time, lateness, shape, has_late_output)| Spec {
            kind,
            time,
            lateness,
            trigger: Trig::Default,
            evict: Evict::None,
            shape,
            has_late_output,
        },
    )
}

/// Windows with any trigger and evictor.
pub fn custom() -> impl Strategy<Value = Spec> {
    let kinds = prop_oneof![5 => kinds(), 1 => Just(Kind::Global)];
    let triggers = prop_oneof![
        Just(Trig::Default),
        Just(Trig::Purging),
        (1..5_u64).prop_map(Trig::Count),
        (1..5_i64).prop_map(|interval| Trig::ContinuousEvent(7 * interval)),
        (1..5_i64).prop_map(|interval| Trig::ContinuousClock(7 * interval)),
        (0..5_i64).prop_map(|threshold| Trig::Delta(threshold as f64)),
    ];
    let evictors = prop_oneof![
        2 => Just(Evict::None),
        1 => (0..4_usize, any::<bool>()).prop_map(|(records, after)| Evict::Count(records, after)),
        1 => (1..6_i64, any::<bool>()).prop_map(|(keep, after)| Evict::Time(GRID * keep, after)),
        1 => (1..5_i64, any::<bool>()).prop_map(|(threshold, after)| Evict::Delta(threshold as f64, after)),
    ];
    let shapes = prop_oneof![Just(Shape::Collected), Just(Shape::Elements)];
    (kinds, times(), latenesses(), triggers, evictors, shapes, any::<bool>())
        .prop_map(|(kind, time, lateness, trigger, evict, shape, has_late_output)| Spec {
            kind,
            time,
            lateness,
            trigger,
            evict,
            shape,
            has_late_output,
        })
        .prop_filter("a delta trigger cannot merge", |spec| {
            !(spec.kind.is_session() && matches!(spec.trigger, Trig::Delta(_)))
        })
}

/// What happens: records around the watermark, which moves by small steps and by large ones.
pub fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        30 => (0..4_u8, -9..14_i64, -3..6_i64).prop_map(|(key, ahead, value)| (0, key, ahead, value)),
        8 => (1..5_i64).prop_map(|ahead| (1, 0, ahead, 0)),
        1 => (10..40_i64).prop_map(|ahead| (1, 0, ahead, 0)),
        6 => (1..5_i64).prop_map(|ahead| (2, 0, ahead, 0)),
        1 => Just((3, 0, 0, 0)),
        1 => (0..3_u8).prop_map(|power| (4, power, 0, 0)),
        1 => Just((5, 0, 0, 0)),
    ];
    prop::collection::vec(step, 1..length).prop_map(|steps| {
        let (mut watermark, mut clock) = (0, 0);
        let place = |(number, (kind, small, ahead, value)): (usize, (i32, u8, i64, i64))| match kind {
            0 => {
                let at = watermark + GRID * ahead;
                Step::Record(Record { key: small, id: number as u64, at, value })
            }
            1 => {
                // Ends of windows are one less than a multiple: half of the watermarks come just to there.
                watermark += GRID * ahead;
                Step::Watermark(if number % 2 == 0 { watermark } else { watermark - 1 })
            }
            2 => {
                clock += GRID * ahead;
                Step::Clock(clock)
            }
            3 => Step::Checkpoint,
            4 => Step::Rescale(1 << small),
            _ => Step::Kill,
        };
        let mut steps: Vec<Step> = steps.into_iter().enumerate().map(place).collect();
        // Everything fires that ever will.
        steps.extend([Step::Clock(clock + 1_000), Step::Watermark(i64::MAX)]);
        steps
    })
}
