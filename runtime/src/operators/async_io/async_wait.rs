//! The operator itself: queues records, makes their requests, and lets results leave.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::key_group;
use thalweg_common::record::Record;

use super::queue::{Marker, Number, Queue, Ready};
use super::requests::{Answer, Outcome, Requests};
use super::{AsyncOptions, AsyncOrder, STATE};
use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::OpenContext;
use crate::parts::{Part, Parts, Redistribution};
use crate::program::OperatorContext;
use crate::snapshot::SnapshotBuilder;
use crate::stores::Draining;

/// Makes the request of a record.
pub(super) type Request<In, Out> = Arc<dyn Fn(In) -> Answer<Out> + Send + Sync>;

/// What gives the results of a record that waited too long.
pub(super) type OnTimeout<In, Out> = Arc<dyn Fn(In) -> Result<Vec<Out>, Failure> + Send + Sync>;

/// The hash of a record's key.
pub(super) type KeyHash<In> = Arc<dyn Fn(&In, &mut Vec<u8>) -> u64 + Send + Sync>;

/// The code of the user.
pub(super) struct Functions<In, Out> {
    pub(super) request: Request<In, Out>,
    pub(super) on_timeout: Option<OnTimeout<In, Out>>,
    pub(super) key: Option<KeyHash<In>>,
}

/// The link of one subtask.
pub(super) struct AsyncWait<In, Out> {
    functions: Functions<In, Out>,
    options: AsyncOptions,
    queue: Queue<In, Out>,
    /// Records for which there was no room yet.
    later: VecDeque<Number>,
    requests: Requests<Out>,
    /// Records that were taken up and whose results have not left.
    taken_up: usize,
    /// By key: the records that wait for the one whose request is under way.
    busy: HashMap<u64, VecDeque<Number>>,
    scratch: Vec<u8>,
    end: End,
    open: OpenContext,
    alarm: Draining,
    output: Batch<Out>,
    next: Box<dyn Link<Out>>,
}

/// How far the end of the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// Told when everything has left.
    Due,
    Told,
}

impl<In: Record, Out: Record> AsyncWait<In, Out> {
    pub(super) fn open(
        options: AsyncOptions,
        functions: Functions<In, Out>,
        context: &OperatorContext,
        next: Box<dyn Link<Out>>,
    ) -> Result<Self, Failure> {
        let mut link = Self {
            functions,
            queue: Queue::new(options.order == AsyncOrder::Ordered),
            later: VecDeque::new(),
            requests: Requests::new(options.timeout, &context.open.io),
            options,
            taken_up: 0,
            busy: HashMap::new(),
            scratch: Vec::new(),
            end: End::Open,
            open: context.open.clone(),
            alarm: context.stores.draining(),
            output: Batch::default(),
            next,
        };
        for part in context.restored_parts()?.unwrap_or_default() {
            link.restore(part, context)?;
        }
        Ok(link)
    }

    /// Makes the requests of records again whose results had not left.
    fn restore(&mut self, part: Part, context: &OperatorContext) -> Result<(), Failure> {
        let changed = || {
            Failure::user(
                "the records whose requests were under way are of another type than those that come now: let the job run to the end with \
                 its former version (`stop --drain`), or give the operator another uid, so that it begins anew",
            )
            .permanent()
        };
        let Part::List { state, schema, elements, .. } = part else { return Err(changed()) };
        if state != STATE || schema != In::schema().fingerprint() {
            return Err(changed());
        }
        for element in elements {
            let mut bytes = element.as_slice();
            let (timestamp, input) = <(Timestamp, In)>::decode(&mut bytes).map_err(|_| changed())?;
            if let Some(key) = &self.functions.key {
                // All subtasks restore the elements of all, and each goes on with its own keys.
                let group = key_group(key(&input, &mut self.scratch), self.open.max_parallelism);
                if !context.owned.contains(group) {
                    continue;
                }
            }
            let number = self.queue.push(input, timestamp);
            self.later.push_back(number);
        }
        Ok(())
    }

    /// Does all that can be done now.
    fn advance(&mut self) -> Result<Flushed, Failure> {
        let now = self.open.clock.monotonic();
        loop {
            self.take_up(now);
            while let Some(outcome) = self.requests.poll(now) {
                self.settle(outcome, now)?;
            }
            if self.emit()? == Flushed::Blocked {
                self.set_alarm();
                return Ok(Flushed::Blocked);
            }
            let has_room = self.taken_up < self.options.capacity;
            if self.later.is_empty() || !has_room {
                break;
            }
        }
        self.set_alarm();
        Ok(Flushed::All)
    }

    fn set_alarm(&self) {
        if let Some(time) = self.requests.alarm() {
            self.alarm.flush_at(time);
        }
    }

    /// Makes the requests of records for which there is room now.
    fn take_up(&mut self, now: Duration) {
        while self.taken_up < self.options.capacity
            && let Some(number) = self.later.pop_front()
        {
            self.taken_up += 1;
            if let Some(key) = self.key_of(number) {
                if let Some(waiting) = self.busy.get_mut(&key) {
                    waiting.push_back(number);
                    continue;
                }
                self.busy.insert(key, VecDeque::new());
            }
            self.request(number, now);
        }
    }

    fn key_of(&mut self, number: Number) -> Option<u64> {
        let (key, input) = (self.functions.key.as_ref()?, self.queue.waiting(number)?);
        Some(key(input, &mut self.scratch))
    }

    fn request(&mut self, number: Number, now: Duration) {
        if let Some(input) = self.queue.waiting(number) {
            let request = &self.functions.request;
            self.requests.begin(number, now, || request(input.clone()));
        }
    }

    fn settle(&mut self, outcome: Outcome<Out>, now: Duration) -> Result<(), Failure> {
        match outcome {
            Outcome::Answered(number, Ok(results)) => self.complete(number, results, now),
            Outcome::Answered(number, Err(failure)) => {
                let tries = self.requests.tries(number);
                match self.options.retry.pause(tries, &failure) {
                    Some(pause) => self.requests.pause(number, now.saturating_add(pause)),
                    None if tries > 1 => return Err(failure.context(format_args!("after {tries} tries"))),
                    None => return Err(failure),
                }
            }
            Outcome::Again(number) => self.request(number, now),
            Outcome::TimedOut(number, tries) => {
                let results = match (&self.functions.on_timeout, self.queue.waiting(number)) {
                    (Some(function), Some(input)) => function(input.clone())?,
                    (Some(_), None) => return Ok(()),
                    (None, _) => return Err(self.too_slow(tries)),
                };
                self.complete(number, results, now);
            }
        }
        Ok(())
    }

    fn too_slow(&self, tries: u32) -> Failure {
        let times = if tries > 1 { format!(", made {tries} times") } else { String::new() };
        Failure::external(format!(
            "an asynchronous request{times} has not been answered within {} ms: see why the other side is slow, raise `timeout`, or say \
             with `on_timeout` what becomes of such records",
            self.options.timeout.as_millis()
        ))
    }

    /// The record has its results; the next one of its key may go.
    fn complete(&mut self, number: Number, results: Vec<Out>, now: Duration) {
        if let Some(key) = self.key_of(number) {
            match self.busy.get_mut(&key).and_then(VecDeque::pop_front) {
                Some(next) => self.request(next, now),
                None => {
                    self.busy.remove(&key);
                }
            }
        }
        self.requests.end(number);
        self.queue.complete(number, results);
    }

    /// Lets leave what may, as far as there is room behind.
    fn emit(&mut self) -> Result<Flushed, Failure> {
        loop {
            if self.next.flush(false)? == Flushed::Blocked {
                return Ok(Flushed::Blocked);
            }
            while self.output.len() < Batch::<Out>::FULL_RECORDS {
                match self.queue.next() {
                    Some(Ready::Results(timestamp, results)) => {
                        self.taken_up -= 1;
                        for result in results {
                            self.output.push_with_timestamp(result, timestamp);
                        }
                    }
                    Some(Ready::Marker(marker)) => {
                        self.hand_on()?;
                        match marker {
                            Marker::Watermark(timestamp) => self.next.watermark(timestamp)?,
                            Marker::Status(status) => self.next.watermark_status(status)?,
                        }
                    }
                    None => {
                        self.hand_on()?;
                        if self.end == End::Due && self.queue.is_empty() {
                            self.end = End::Told;
                            self.next.finish()?;
                        }
                        return Ok(Flushed::All);
                    }
                }
            }
            self.hand_on()?;
        }
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        if self.output.is_empty() {
            return Ok(());
        }
        let result = self.next.process(&mut self.output);
        self.output.clear();
        result
    }

    fn parts(&self) -> Parts {
        let encoded = |(input, timestamp): (&In, Timestamp)| {
            let mut bytes = Vec::new();
            timestamp.encode(&mut bytes);
            input.encode(&mut bytes);
            bytes
        };
        let how = match self.functions.key {
            Some(_) => Redistribution::Union,
            None => Redistribution::Split,
        };
        let list = Part::List {
            state: STATE.to_string(),
            schema: In::schema().fingerprint(),
            how,
            elements: self.queue.inputs().map(encoded).collect(),
        };
        let OpenContext { subtask_index, parallelism, .. } = self.open;
        Parts { subtask: subtask_index, parallelism, list: vec![list] }
    }

    fn named<R>(&self, result: Result<R, Failure>) -> Result<R, Failure> {
        result.map_err(|failure| failure.context(&self.open.operator_name))
    }
}

impl<In: Record, Out: Record> Link<In> for AsyncWait<In, Out> {
    fn process(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        let (records, mut timestamps) = batch.drain_parts();
        for record in records {
            let number = self.queue.push(record, timestamps.next());
            self.later.push_back(number);
        }
        Ok(())
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.queue.push_marker(Marker::Watermark(timestamp));
        Ok(())
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.queue.push_marker(Marker::Status(status));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.end = End::Due;
        Ok(())
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        snapshot.operator(self.open.operator_id).parts = Some(self.parts());
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        let advanced = self.advance();
        let advanced = self.named(advanced)?;
        let flushed = advanced.and(self.next.flush(partial)?);
        // Until the requests of all records are made, and at the end until they are answered, no more is read.
        let waits = !self.later.is_empty() || self.end == End::Due;
        Ok(if waits { Flushed::Blocked } else { flushed })
    }
}
