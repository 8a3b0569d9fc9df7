//! The reference model of windows: all records of each window in a list, each window with its timers, everything recomputed when it fires.
//!
//! Written from the semantics of Flink's window operator, and as plainly as possible: no slices, no shared state, nothing incremental. It uses
//! nothing of the engine.

use std::collections::BTreeSet;

use crate::script::{Event, Evict, Kind, Record, Shape, Shown, Spec, Step, Time, Trig};

/// A window of one key.
struct Window {
    key: u8,
    start: i64,
    end: i64,
    contents: Vec<Record>,
    /// What the trigger remembers.
    count: u64,
    next: Option<i64>,
    last: Option<i64>,
    /// Its timers, also that of its clean-up.
    event_timers: BTreeSet<i64>,
    clock_timers: BTreeSet<i64>,
}

impl Window {
    fn new(key: u8, start: i64, end: i64) -> Self {
        let (contents, event_timers, clock_timers) = Default::default();
        Self { key, start, end, contents, count: 0, next: None, last: None, event_timers, clock_timers }
    }

    fn max(&self) -> i64 {
        if self.end == i64::MAX { i64::MAX } else { self.end - 1 }
    }

    fn timers(&mut self, time: Time) -> &mut BTreeSet<i64> {
        if time == Time::Event { &mut self.event_timers } else { &mut self.clock_timers }
    }
}

#[derive(PartialEq, Clone, Copy)]
enum Verdict {
    Continue,
    Fire,
}

/// The model of one operator at parallelism 1, whatever the engine has.
pub struct Model<'a> {
    spec: &'a Spec,
    windows: Vec<Window>,
    watermark: i64,
    clock: i64,
    /// What happened in this step.
    events: Vec<Event>,
}

/// What comes of each step.
pub fn run(spec: &Spec, steps: &[Step]) -> Vec<Vec<Event>> {
    let mut model = Model { spec, windows: Vec::new(), watermark: i64::MIN, clock: 0, events: Vec::new() };
    let mut all = Vec::new();
    for step in steps {
        match step {
            Step::Record(record) => model.record(*record),
            Step::Watermark(at) => model.watermark(*at),
            Step::Clock(at) => model.clock(*at),
            // Timers behind the watermark fire with the next one, which is the same once more: behind a restore it comes again.
            Step::Checkpoint | Step::Rescale(_) => {
                model.fire(Time::Event, model.watermark);
                model.fire(Time::Clock, model.clock);
            }
            Step::Kill => {}
        }
        all.push(std::mem::take(&mut model.events));
    }
    all
}

impl Model<'_> {
    fn is_event_time(&self) -> bool {
        self.spec.time == Time::Event && !self.spec.kind.is_global()
    }

    fn lateness(&self) -> i64 {
        if self.is_event_time() { self.spec.lateness } else { 0 }
    }

    fn cleanup(&self, window: &Window) -> i64 {
        window.max().saturating_add(self.lateness())
    }

    fn assign(&self, record: &Record, at: i64) -> Vec<(i64, i64)> {
        let aligned = |unit: i64, offset: i64| {
            (at - 2_000..=at).filter(move |start| (start - offset).rem_euclid(unit) == 0)
        };
        let over = |(start, end): &(i64, i64)| *start <= at && at < *end;
        match self.spec.kind {
            Kind::Tumbling { size, offset } => {
                aligned(size, offset).map(|start| (start, start + size)).filter(over).collect()
            }
            Kind::Sliding { size, slide, offset } => {
                aligned(slide, offset).map(|start| (start, start + size)).filter(over).collect()
            }
            Kind::Cumulate { steps, step, offset } => {
                let grow = |start: i64| (1..=steps).map(move |steps| (start, start + steps * step));
                aligned(step * steps, offset).flat_map(grow).filter(over).collect()
            }
            Kind::Session { gap } => vec![(at, at + gap)],
            Kind::DynamicSession => vec![(at, at + record.gap())],
            Kind::Global | Kind::Count { .. } | Kind::CountSliding { .. } => vec![(i64::MIN, i64::MAX)],
        }
    }

    fn record(&mut self, record: Record) {
        let at = if self.is_event_time() { record.at } else { self.clock };
        let assigned = self.assign(&record, at);
        let mut is_taken = false;
        for (start, end) in assigned {
            let Some(index) = self.window(record.key, start, end) else { continue };
            is_taken = true;
            self.add(index, record, at);
        }
        if !is_taken && self.is_event_time() && at + self.lateness() <= self.watermark {
            self.events.push(Event::Late(record));
        }
    }

    /// The window that a record goes to; nothing if it is late.
    fn window(&mut self, key: u8, start: i64, end: i64) -> Option<usize> {
        let mut found = Window::new(key, start, end);
        if self.spec.kind.is_session() {
            let touches = |window: &Window| window.key == key && window.start <= end && window.end >= start;
            let mut joined: Vec<Window> = Vec::new();
            while let Some(at) = self.windows.iter().position(touches) {
                joined.push(self.windows.remove(at));
            }
            joined.sort_by_key(|window| window.start);
            found.start = joined.iter().map(|window| window.start).chain([start]).min()?;
            found.end = joined.iter().map(|window| window.end).chain([end]).max()?;
            if let [only] = &joined[..]
                && (only.start, only.end) == (found.start, found.end)
            {
                found = joined.pop()?;
            } else if !joined.is_empty() {
                self.merge(&mut found, joined);
            }
        } else if let Some(at) =
            self.windows.iter().position(|window| (window.key, window.start, window.end) == (key, start, end))
        {
            found = self.windows.remove(at);
        }
        if self.is_event_time() && self.cleanup(&found) <= self.watermark {
            return None;
        }
        self.windows.push(found);
        Some(self.windows.len() - 1)
    }

    fn merge(&self, found: &mut Window, joined: Vec<Window>) {
        found.count = joined.iter().map(|window| window.count).sum();
        found.next = joined.iter().filter_map(|window| window.next).min();
        found.contents = joined.into_iter().flat_map(|window| window.contents).collect();
        let end = found.max();
        match self.spec.trigger {
            Trig::Default | Trig::Purging => {
                let now = if self.spec.time == Time::Event { self.watermark } else { self.clock };
                if end > now {
                    found.timers(self.spec.time).insert(end);
                }
            }
            Trig::ContinuousEvent(_) => found.event_timers.extend(found.next),
            Trig::ContinuousClock(_) => found.clock_timers.extend(found.next),
            Trig::Count(_) | Trig::Delta(_) => {}
        }
    }

    fn add(&mut self, index: usize, record: Record, at: i64) {
        let cleanup = self.cleanup(&self.windows[index]);
        let time = if self.is_event_time() { Time::Event } else { Time::Clock };
        let window = &mut self.windows[index];
        window.contents.push(record);
        if cleanup != i64::MAX {
            window.timers(time).insert(cleanup);
        }
        let verdict = self.on_element(index, &record, at);
        self.act(index, verdict);
    }

    fn on_element(&mut self, index: usize, record: &Record, at: i64) -> Verdict {
        let (spec, watermark, clock) = (self.spec, self.watermark, self.clock);
        let window = &mut self.windows[index];
        let end = window.max();
        match spec.trigger {
            Trig::Default | Trig::Purging => match spec.kind {
                Kind::Count { records } | Kind::CountSliding { slide: records, .. } => {
                    window.count += 1;
                    if window.count < records {
                        return Verdict::Continue;
                    }
                    window.count = 0;
                    Verdict::Fire
                }
                Kind::Global => Verdict::Continue,
                _ if spec.time == Time::Clock => {
                    window.clock_timers.insert(end);
                    Verdict::Continue
                }
                _ if end <= watermark => Verdict::Fire,
                _ => {
                    window.event_timers.insert(end);
                    Verdict::Continue
                }
            },
            Trig::Count(records) => {
                window.count += 1;
                if window.count < records {
                    return Verdict::Continue;
                }
                window.count = 0;
                Verdict::Fire
            }
            Trig::ContinuousEvent(interval) => {
                if end <= watermark {
                    return Verdict::Fire;
                }
                window.event_timers.insert(end);
                if window.next.is_none() {
                    let next = (at - at.rem_euclid(interval) + interval).min(end);
                    window.next = Some(next);
                    window.event_timers.insert(next);
                }
                Verdict::Continue
            }
            Trig::ContinuousClock(interval) => {
                if window.next.is_none() {
                    let next = (clock - clock.rem_euclid(interval) + interval).min(end);
                    window.next = Some(next);
                    window.clock_timers.insert(next);
                }
                Verdict::Continue
            }
            Trig::Delta(threshold) => match window.last {
                None => {
                    window.last = Some(record.value);
                    Verdict::Continue
                }
                Some(last) if (record.value - last) as f64 > threshold => {
                    window.last = Some(record.value);
                    Verdict::Fire
                }
                Some(_) => Verdict::Continue,
            },
        }
    }

    fn on_timer(&mut self, index: usize, time: Time, at: i64) -> Verdict {
        let spec = self.spec;
        let window = &mut self.windows[index];
        let end = window.max();
        let fire = |is_it: bool| if is_it { Verdict::Fire } else { Verdict::Continue };
        match (spec.trigger, time) {
            (Trig::Default | Trig::Purging, Time::Event) => {
                fire(spec.time == Time::Event && at == end && !spec.kind.is_global())
            }
            (Trig::Default | Trig::Purging, Time::Clock) => {
                fire(spec.time == Time::Clock && !spec.kind.is_global())
            }
            (Trig::ContinuousEvent(_), Time::Event) if at == end => Verdict::Fire,
            (Trig::ContinuousEvent(interval), Time::Event)
            | (Trig::ContinuousClock(interval), Time::Clock) => {
                if window.next != Some(at) {
                    return Verdict::Continue;
                }
                // In a window that never ends the last watermark lets it fire once more, and not for ever.
                let is_last = time == Time::Event && (end, self.watermark) == (i64::MAX, i64::MAX);
                window.next = (at < end).then(|| if is_last { end } else { (at + interval).min(end) });
                let next = window.next;
                window.timers(time).extend(next);
                Verdict::Fire
            }
            _ => Verdict::Continue,
        }
    }

    fn act(&mut self, index: usize, verdict: Verdict) {
        if verdict == Verdict::Continue || self.windows[index].contents.is_empty() {
            return;
        }
        let (spec, window) = (self.spec, &mut self.windows[index]);
        evict(spec, &mut window.contents, false);
        if let Kind::CountSliding { records, .. } = spec.kind
            && spec.trigger == Trig::Default
        {
            let surplus = window.contents.len().saturating_sub(records as usize);
            window.contents.drain(..surplus);
        }
        let shown = show(spec, &window.contents);
        let timestamp = window.max();
        if let Some(shown) = shown {
            self.events.push(Event::Fired(window.key, window.start, window.end, shown, timestamp));
        }
        evict(spec, &mut window.contents, true);
        let purges = spec.trigger == Trig::Purging || matches!(spec.kind, Kind::Count { .. });
        if purges && (spec.trigger == Trig::Purging || spec.trigger == Trig::Default) {
            window.contents.clear();
        }
    }

    fn watermark(&mut self, at: i64) {
        if at <= self.watermark {
            return;
        }
        self.watermark = at;
        self.fire(Time::Event, at);
        // Timers behind the clock, too.
        self.fire(Time::Clock, self.clock);
    }

    fn clock(&mut self, at: i64) {
        self.clock = at;
        self.fire(Time::Clock, at);
    }

    fn fire(&mut self, time: Time, until: i64) {
        loop {
            let first = |window: &mut Window| window.timers(time).first().copied();
            let next = self
                .windows
                .iter_mut()
                .enumerate()
                .filter_map(|(index, window)| Some((first(window)?, index)))
                .min();
            let Some((at, index)) = next.filter(|(at, _)| *at <= until) else { return };
            self.windows[index].timers(time).remove(&at);
            let verdict = self.on_timer(index, time, at);
            self.act(index, verdict);
            let own = if self.is_event_time() { Time::Event } else { Time::Clock };
            if time == own && self.cleanup(&self.windows[index]) == at {
                self.windows.remove(index);
            }
        }
    }
}

fn evict(spec: &Spec, contents: &mut Vec<Record>, behind: bool) {
    match spec.evict {
        Evict::None => {}
        Evict::Count(records, after) if after == behind => {
            contents.drain(..contents.len().saturating_sub(records));
        }
        Evict::Time(keep, after) if after == behind => {
            let youngest = contents.iter().map(|record| record.at).max().unwrap_or(0);
            contents.retain(|record| record.at > youngest - keep);
        }
        Evict::Delta(threshold, after) if after == behind => {
            let last = contents.last().map_or(0, |record| record.value);
            contents.retain(|record| ((last - record.value) as f64) < threshold);
        }
        Evict::Count(..) | Evict::Time(..) | Evict::Delta(..) => {}
    }
}

fn show(spec: &Spec, contents: &[Record]) -> Option<Shown> {
    match spec.shape {
        Shape::Collected | Shape::Elements => {
            let mut ids: Vec<u64> = contents.iter().map(|record| record.id).collect();
            if spec.shape == Shape::Collected {
                // In which order slices are merged is open.
                ids.sort_unstable();
            }
            (spec.shape == Shape::Elements || !ids.is_empty()).then_some(Shown::Ids(ids))
        }
        Shape::Summed => {
            let sum = contents.iter().map(|record| record.value).sum();
            (!contents.is_empty()).then_some(Shown::Sum(contents.len() as u64, sum))
        }
    }
}
