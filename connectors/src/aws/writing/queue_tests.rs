//! What goes with which request, and in which order it arrives.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::aws::writing::options::ServiceLimits;

const MS: Duration = Duration::from_millis(1);

/// A record with its key, as of Kinesis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keyed {
    key: String,
    data: String,
}

impl Entry for Keyed {
    fn bytes(&self) -> usize {
        self.key.len() + self.data.len()
    }

    fn key(&self) -> &str {
        &self.key
    }
}

const LIMITS: ServiceLimits = ServiceLimits { name: "Test", max_records: 500, max_bytes: 5 * 1024 * 1024 };

fn options(change: impl FnOnce(&mut WriteOptions)) -> WriteOptions {
    let mut options = WriteOptions { max_batch_records: 3, ..WriteOptions::of(&LIMITS) };
    change(&mut options);
    options
}

fn entry(key: &str, data: &str) -> Keyed {
    Keyed { key: key.into(), data: data.into() }
}

fn queue(change: impl FnOnce(&mut WriteOptions), records: &[(&str, &str)]) -> Queue<Keyed> {
    let mut queue = Queue::new(options(change));
    records.iter().for_each(|(key, data)| queue.push(entry(key, data), Duration::ZERO));
    queue
}

/// The request that is due, and the data of its records.
fn request(queue: &mut Queue<Keyed>, now: Duration) -> Option<(u64, String)> {
    let (number, entries) = queue.request(now)?;
    Some((number, entries.into_iter().map(|entry| entry.data).collect()))
}

#[test]
fn a_request_goes_when_it_is_full_or_nothing_more_comes_or_it_is_time() {
    let mut queue = queue(|_| {}, &[("k", "a"), ("k", "b"), ("k", "c"), ("k", "d")]);
    assert_eq!(request(&mut queue, MS), Some((0, "abc".into())));
    assert_eq!((request(&mut queue, MS), queue.again_at(MS)), (None, Some(Duration::from_secs(5))));
    queue.flush();
    assert_eq!(request(&mut queue, MS), None, "what is on its way brings company");
    assert_eq!(request(&mut queue, Duration::from_secs(5)), Some((1, "d".into())), "but not for ever");
    queue.push(entry("k", "e"), Duration::from_secs(5));
    queue.flush();
    assert_eq!(queue.answered(0, |_| false, Duration::from_secs(5), 0), 0);
    assert_eq!(queue.answered(1, |_| false, Duration::from_secs(5), 0), 0);
    assert_eq!(request(&mut queue, Duration::from_secs(5)), Some((2, "e".into())), "nothing is on its way");
    assert_eq!((queue.len(), queue.unsent().len()), (1, 1));
}

#[test]
fn bytes_are_bounded_and_a_full_queue_says_so() {
    let change = |options: &mut WriteOptions| (options.max_batch_bytes, options.max_buffered) = (10, 3);
    let mut queue = queue(change, &[("k", "12345"), ("k", "1234567"), ("k", "1")]);
    assert!(queue.is_full());
    assert_eq!(request(&mut queue, MS), Some((0, "12345".into())), "with its key six bytes");
    assert_eq!(request(&mut queue, MS), Some((1, "12345671".into())));
    assert!(queue.is_full(), "what is on its way counts too");
    queue.answered(0, |_| false, MS, 0);
    assert!(!queue.is_full());
}

#[test]
fn what_was_refused_comes_again_behind_a_pause_and_before_younger_ones() {
    let mut queue = queue(|_| {}, &[("k", "a"), ("l", "b"), ("k", "c"), ("k", "d")]);
    assert_eq!(request(&mut queue, MS), Some((0, "abc".into())));
    assert_eq!(queue.answered(0, |place| place != 1, MS, u64::MAX), 2);
    assert_eq!(request(&mut queue, MS), None, "it pauses");
    let again = queue.again_at(MS).unwrap_or_default();
    assert!(again > MS && again < Duration::from_secs(1), "{again:?}");
    assert_eq!(request(&mut queue, again), Some((1, "acd".into())));
}

#[test]
fn in_order_one_record_of_a_key_is_on_its_way() {
    let records = [("k", "a"), ("k", "b"), ("l", "c"), ("k", "d"), ("l", "e"), ("m", "f")];
    let mut queue = queue(|options| options.is_ordered = true, &records);
    queue.flush();
    assert_eq!(request(&mut queue, MS), Some((0, "acf".into())));
    assert_eq!(request(&mut queue, MS), None);
    // a is refused: b waits on.
    assert_eq!(queue.answered(0, |place| place == 0, MS, 0), 1);
    assert_eq!(request(&mut queue, MS), Some((1, "ae".into())));
    queue.answered(1, |_| false, MS, 0);
    queue.flush();
    assert_eq!(request(&mut queue, MS), Some((2, "b".into())));
    let rest: Vec<_> = queue.unsent().into_iter().map(|entry| entry.data).collect();
    assert_eq!(rest, ["b", "d"]);
}

proptest! {
    /// Whatever is refused: everything arrives once, and in order those of a key as they came.
    #[test]
    fn all_records_arrive_and_keep_the_order_of_their_key(
        keys in proptest::collection::vec(0..4_u8, 1..60), lots in proptest::collection::vec(any::<u64>(), 400), is_ordered: bool,
    ) {
        let mut queue = Queue::new(options(|options| {
            (options.is_ordered, options.max_in_flight) = (is_ordered, 3);
        }));
        for (number, key) in keys.iter().enumerate() {
            queue.push(entry(&key.to_string(), &number.to_string()), Duration::ZERO);
        }
        queue.flush();
        let (mut now, mut under_way, mut arrived) = (Duration::ZERO, Vec::new(), Vec::new());
        for lot in lots.iter().chain(std::iter::repeat_n(&0, 1_000)) {
            while let Some(request) = queue.request(now) {
                under_way.push(request);
            }
            prop_assert!(under_way.len() <= 3);
            if !under_way.is_empty() {
                let (number, entries) = under_way.remove(*lot as usize % under_way.len());
                let refused = |place: usize| lot >> (place + 8) & 1 == 1;
                for (place, entry) in entries.into_iter().enumerate() {
                    if !refused(place) {
                        arrived.push(entry);
                    }
                }
                queue.answered(number, refused, now, *lot);
                queue.flush();
            }
            now += Duration::from_secs(6);
        }
        prop_assert_eq!((queue.len(), arrived.len()), (0, keys.len()));
        let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
        for entry in &arrived {
            let number = entry.data.parse().unwrap_or_default();
            by_key.entry(&entry.key).or_default().push(number);
        }
        for numbers in by_key.values_mut() {
            let in_order = numbers.is_sorted();
            numbers.sort_unstable();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "none twice");
            prop_assert!(in_order || !is_ordered, "{:?}", numbers);
        }
    }
}
