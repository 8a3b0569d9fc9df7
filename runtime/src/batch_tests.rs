//! Tests of batches: whatever is done with one, each record keeps its timestamp.

use proptest::prelude::*;

use super::*;

/// A record and its timestamp.
type Pair = (u16, Option<Timestamp>);

fn batch(pairs: &[Pair]) -> Batch<u16> {
    let mut batch = Batch::default();
    for (record, timestamp) in pairs {
        match timestamp {
            Some(timestamp) => batch.push_with_timestamp(*record, *timestamp),
            None => batch.push(*record),
        }
    }
    checked(&batch);
    batch
}

/// What is in a batch, whose invariant is checked.
fn checked(batch: &Batch<u16>) -> Vec<Pair> {
    let timestamps = batch.timestamps().len();
    assert!(timestamps == 0 || timestamps == batch.len(), "{timestamps} for {} records", batch.len());
    let pairs = batch.records().iter().enumerate();
    pairs.map(|(index, record)| (*record, batch.timestamp(index))).collect()
}

/// Batches with a timestamp for all records, for none, and for some.
fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let none = any::<u16>().prop_map(|record| (record, None)).boxed();
    let all = (any::<u16>(), (-5i64..5).prop_map(Some)).boxed();
    let some = prop_oneof![none.clone(), all.clone()].boxed();
    prop_oneof![Just(none), Just(all), Just(some)]
        .prop_flat_map(|pair| proptest::collection::vec(pair, 0..20))
}

proptest! {
    #[test]
    fn records_keep_their_timestamps(one in pairs(), two in pairs(), size in 1usize..8) {
        prop_assert_eq!(checked(&batch(&one)), one.clone());
        let both = [one.clone(), two.clone()].concat();

        let (mut front, mut back) = (batch(&one), batch(&two));
        front.append_copy(&back);
        prop_assert_eq!((checked(&front), checked(&back)), (both.clone(), two.clone()));
        front = batch(&one);
        front.append(&mut back);
        prop_assert_eq!((checked(&front), checked(&back)), (both.clone(), vec![]));

        let pieces: Vec<_> = front.clone().into_pieces(size).collect();
        prop_assert!(pieces.iter().all(|piece| (1..=size).contains(&piece.len())));
        prop_assert_eq!(pieces.iter().flat_map(checked).collect::<Vec<_>>(), both.clone());

        let mut rest = front.clone();
        rest.drop_front(size);
        prop_assert_eq!(checked(&rest), both.iter().skip(size).copied().collect::<Vec<_>>());

        let even = |record: &u16| record.is_multiple_of(2);
        let mut kept = front.clone();
        kept.retain(even);
        let expected: Vec<Pair> = both.iter().filter(|(record, _)| even(record)).copied().collect();
        prop_assert_eq!(checked(&kept), expected);

        let mut mapped = batch(&one);
        batch(&two).map_into(&mut mapped, |record| record ^ 1);
        let changed = two.iter().map(|(record, timestamp)| (record ^ 1, *timestamp));
        prop_assert_eq!(checked(&mapped), one.iter().copied().chain(changed).collect::<Vec<_>>());

        let mut left = size;
        let mut mapped = batch(&one);
        let failed: Result<(), ()> = batch(&two).try_map_into(&mut mapped, |record| {
            left = left.checked_sub(1).ok_or(())?;
            Ok(record)
        });
        let made = two.iter().take(size).copied();
        prop_assert_eq!(checked(&mapped), one.iter().copied().chain(made).collect::<Vec<_>>());
        prop_assert_eq!(failed.is_err(), two.len() > size);

        let drained: Vec<Pair> = front.clone().drain_with_timestamps().collect();
        prop_assert_eq!(drained, both.clone());
        let (records, timestamps) = front.clone().into_parts();
        prop_assert_eq!(checked(&Batch::from_parts(records, timestamps)), both);

        front.drain();
        prop_assert_eq!(checked(&front), vec![]);
        front.push(7);
        prop_assert_eq!(checked(&front), vec![(7, None)], "no timestamp of those before is left");
        front.extend([8]);
        front.clear();
        prop_assert!(front.is_empty() && front.timestamps().is_empty() && front.capacity() > 0);
    }

    #[test]
    fn records_are_scattered_with_their_timestamps(before in pairs(), pairs in pairs(), targets in 1u32..4) {
        let mut batches: Vec<Batch<u16>> = (0..targets).map(|_| batch(&before)).collect();
        let chosen: Vec<u32> = pairs.iter().map(|(record, _)| u32::from(*record) % targets).collect();
        let mut scattered = batch(&pairs);
        scattered.scatter(&chosen, &mut batches);
        prop_assert_eq!(checked(&scattered), vec![]);
        for (target, batch) in batches.iter().enumerate() {
            let there = pairs.iter().zip(&chosen).filter(|(_, chosen)| **chosen as usize == target);
            let expected: Vec<Pair> = before.iter().chain(there.map(|(pair, _)| pair)).copied().collect();
            prop_assert_eq!(checked(batch), expected);
        }
    }
}

#[test]
fn batches_are_equal_if_records_and_times_are() {
    let (plain, filled) = (Batch::from(vec![1, 2]), Batch::from_parts(vec![1, 2], vec![NO_TIMESTAMP]));
    assert_eq!(filled.timestamps(), [NO_TIMESTAMP; 2]);
    assert_eq!(plain, filled);
    assert_ne!(plain, Batch::from_parts(vec![1, 2], vec![NO_TIMESTAMP, 5]));
    assert_eq!(Batch::from_parts(vec![1], vec![3, 4]), Batch::from_parts(vec![1], vec![3]));
}

#[test]
fn without_timestamps_no_memory_is_taken_for_them() {
    let mut batch = Batch::from(vec![1, 2]);
    batch.push(3);
    batch.push_with_timestamp(4, NO_TIMESTAMP);
    batch.append(&mut Batch::from(vec![5]));
    batch.extend([6]);
    assert_eq!((batch.len(), batch.into_parts().1.capacity()), (6, 0));
}

#[test]
fn large_records_fill_a_batch_sooner() {
    for (bytes, records) in [(0, 1_024), (8, 1_024), (64, 1_024), (65, 1_008), (200, 327), (4_096, 64)] {
        assert_eq!(full_records(bytes), records, "{bytes} bytes");
    }
    assert_eq!(Batch::<[u8; 128]>::FULL_RECORDS, 512);
}
