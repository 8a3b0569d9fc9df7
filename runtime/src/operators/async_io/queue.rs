//! The elements of an asynchronous operator in the order in which they came, and which of them may leave. Pure.
//!
//! Stands between the records that wait for their requests and the output. Follows Flink's `StreamElementQueue`. Invariants: in order, each
//! element leaves behind all that came before it; out of order, no record passes a watermark or a change of status, in either
//! direction; what has not left is part of every snapshot.

use std::collections::VecDeque;

use thalweg_common::Timestamp;

use crate::event::WatermarkStatus;

/// A number for each element, in the order in which they came.
pub(super) type Number = u64;

/// What flows between records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Watermark(Timestamp),
    Status(WatermarkStatus),
}

/// What may leave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ready<Out> {
    /// The results of a record with this timestamp.
    Results(Timestamp, Vec<Out>),
    Marker(Marker),
}

#[derive(Debug)]
enum Element<In, Out> {
    Record {
        input: In,
        timestamp: Timestamp,
        results: Option<Vec<Out>>,
    },
    Marker(Marker),
    /// It has left before others that came earlier.
    Left,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<In, Out> {
    is_ordered: bool,
    elements: VecDeque<Element<In, Out>>,
    /// The number of the first one.
    first: Number,
    /// Where the markers are.
    markers: VecDeque<Number>,
    /// Out of order: records before the first marker that have results, in the order in which these came.
    ready: VecDeque<Number>,
}

impl<In, Out> Queue<In, Out> {
    pub(super) fn new(is_ordered: bool) -> Self {
        let (elements, markers, ready) = Default::default();
        Self { is_ordered, elements, first: 0, markers, ready }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Adds a record, which waits for its results.
    pub(super) fn push(&mut self, input: In, timestamp: Timestamp) -> Number {
        self.elements.push_back(Element::Record { input, timestamp, results: None });
        self.last()
    }

    /// Adds what flows between records.
    pub(super) fn push_marker(&mut self, marker: Marker) {
        self.elements.push_back(Element::Marker(marker));
        self.markers.push_back(self.last());
    }

    fn last(&self) -> Number {
        self.first + self.elements.len() as Number - 1
    }

    fn get(&self, number: Number) -> Option<&Element<In, Out>> {
        self.elements.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, number: Number) -> Option<&mut Element<In, Out>> {
        self.elements.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The record of this number, if it still waits for its results.
    pub(super) fn waiting(&self, number: Number) -> Option<&In> {
        match self.get(number) {
            Some(Element::Record { input, results: None, .. }) => Some(input),
            _ => None,
        }
    }

    /// The record of this number has its results. Those of one that does not wait are dropped.
    pub(super) fn complete(&mut self, number: Number, found: Vec<Out>) {
        let Some(Element::Record { results: results @ None, .. }) = self.get_mut(number) else { return };
        *results = Some(found);
        if !self.is_ordered && self.markers.front().is_none_or(|marker| number < *marker) {
            self.ready.push_back(number);
        }
    }

    /// Takes out what may leave next.
    pub(super) fn next(&mut self) -> Option<Ready<Out>> {
        if let Some(number) = self.ready.pop_front() {
            let left = self.get_mut(number).map(|element| std::mem::replace(element, Element::Left))?;
            while let Some(Element::Left) = self.elements.front() {
                self.pop_front();
            }
            return ready(left);
        }
        let leaves = match self.elements.front()? {
            Element::Record { results, .. } => self.is_ordered && results.is_some(),
            Element::Marker(_) | Element::Left => true,
        };
        if !leaves {
            return None;
        }
        let left = self.pop_front()?;
        if let Element::Marker(_) = left {
            self.markers.pop_front();
            self.release();
        }
        ready(left)
    }

    fn pop_front(&mut self) -> Option<Element<In, Out>> {
        let front = self.elements.pop_front()?;
        self.first += 1;
        Some(front)
    }

    /// A marker has left: the results behind it, up to the next one, may follow.
    fn release(&mut self) {
        if self.is_ordered {
            return;
        }
        let end = self.markers.front().map_or(self.elements.len(), |marker| (marker - self.first) as usize);
        let numbered = (self.first..).zip(self.elements.iter().take(end));
        let complete =
            numbered.filter(|(_, element)| matches!(element, Element::Record { results: Some(_), .. }));
        self.ready.extend(complete.map(|(number, _)| number));
    }

    /// The records that have not left, with their timestamps, in the order in which they came.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (&In, Timestamp)> {
        self.elements.iter().filter_map(|element| match element {
            Element::Record { input, timestamp, .. } => Some((input, *timestamp)),
            Element::Marker(_) | Element::Left => None,
        })
    }
}

fn ready<In, Out>(element: Element<In, Out>) -> Option<Ready<Out>> {
    match element {
        Element::Record { timestamp, results, .. } => Some(Ready::Results(timestamp, results?)),
        Element::Marker(marker) => Some(Ready::Marker(marker)),
        Element::Left => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What leaves: a record's own number as its result, or a watermark.
    fn left(queue: &mut Queue<u64, u64>) -> Vec<String> {
        std::iter::from_fn(|| queue.next())
            .map(|ready| match ready {
                Ready::Results(_, results) => results[0].to_string(),
                Ready::Marker(Marker::Watermark(at)) => format!("w{at}"),
                Ready::Marker(Marker::Status(status)) => format!("{status:?}"),
            })
            .collect()
    }

    /// Records 0, 1, a watermark, records 3, 4.
    fn queue(is_ordered: bool) -> Queue<u64, u64> {
        let mut queue = Queue::new(is_ordered);
        for input in [0, 1] {
            assert_eq!(queue.push(input, 0), input);
        }
        queue.push_marker(Marker::Watermark(7));
        for input in [3, 4] {
            assert_eq!(queue.push(input, 0), input);
        }
        queue
    }

    #[test]
    fn order_is_kept_or_only_that_around_watermarks() {
        let table: [(bool, &[(u64, &str)]); 2] = [
            (true, &[(4, ""), (1, ""), (0, "0 1 w7"), (3, "3 4")]),
            (false, &[(4, ""), (1, "1"), (0, "0 w7 4"), (3, "3")]),
        ];
        for (is_ordered, steps) in table {
            let mut queue = queue(is_ordered);
            for (number, expected) in steps {
                queue.complete(*number, vec![*number]);
                assert_eq!(left(&mut queue).join(" "), *expected, "ordered: {is_ordered}, behind {number}");
            }
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn what_has_not_left_is_there_once_and_late_results_are_dropped() {
        let mut queue = queue(false);
        queue.complete(1, vec![1]);
        queue.complete(3, vec![3]);
        let inputs = |queue: &Queue<u64, u64>| queue.inputs().map(|(input, _)| *input).collect::<Vec<_>>();
        assert_eq!(inputs(&queue), [0, 1, 3, 4]);
        assert_eq!(left(&mut queue), ["1"]);
        assert_eq!(inputs(&queue), [0, 3, 4]);
        assert_eq!((queue.waiting(0), queue.waiting(1), queue.waiting(3)), (Some(&0), None, None));
        queue.complete(1, vec![9]);
        queue.complete(3, vec![9]);
        queue.complete(0, vec![0]);
        assert_eq!(left(&mut queue), ["0", "w7", "3"]);
        assert_eq!(inputs(&queue), [4]);
    }

    proptest! {
        /// Elements that come and complete in any order: all leave once, none too early.
        #[test]
        fn every_element_leaves_once_and_records_never_pass_markers(
            is_ordered: bool,
            kinds in proptest::collection::vec(proptest::bool::weighted(0.8), 1..40),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let mut queue = Queue::<u64, u64>::new(is_ordered);
            let mut open = Vec::new();
            for (number, is_record) in (0..).zip(&kinds) {
                if *is_record {
                    open.push(queue.push(number, 0));
                } else {
                    queue.push_marker(Marker::Watermark(number as Timestamp));
                }
            }
            let (mut complete, mut all) = (Vec::new(), Vec::new());
            let mut steps = order.into_iter();
            loop {
                for element in left(&mut queue) {
                    let marker = element.strip_prefix('w');
                    let number: u64 = marker.unwrap_or(&element).parse().expect("a number");
                    prop_assert!(marker.is_some() || complete.contains(&number));
                    all.push((number, marker.is_some()));
                }
                if open.is_empty() {
                    break;
                }
                let number = open.remove(steps.next().map_or(0, |step| step.index(open.len())));
                complete.push(number);
                queue.complete(number, vec![number]);
            }
            prop_assert_eq!(all.len(), kinds.len());
            for (place, (number, is_marker)) in all.iter().enumerate() {
                let before = |other: &u64| all[..place].iter().any(|(earlier, _)| earlier == other);
                if is_ordered {
                    prop_assert_eq!(*number as usize, place);
                } else if *is_marker {
                    prop_assert_eq!(all[..place].iter().filter(|(other, _)| other < number).count(), place);
                    prop_assert!((0..*number).all(|other| before(&other)));
                }
            }
        }
    }
}
