//! The pace of a shard, step by step.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const NOTHING: Brought = Brought { records: 0, bytes: 0 };

fn polling(change: impl FnOnce(&mut Options)) -> Polling {
    let mut options = Options::default();
    change(&mut options);
    Polling::new(&options, Duration::ZERO)
}

fn reads(polling: &mut Polling, now: Duration) -> Option<u32> {
    match polling.ask(now, &Position::TrimHorizon)? {
        Ask::Records { limit, .. } => Some(limit),
        Ask::Iterator(_) => None,
    }
}

fn with_iterator(polling: &mut Polling) {
    assert_eq!(
        polling.ask(Duration::ZERO, &Position::TrimHorizon),
        Some(Ask::Iterator(Position::TrimHorizon))
    );
    assert_eq!(
        (polling.ask(9 * MS, &Position::TrimHorizon), polling.due_at()),
        (None, None),
        "one at a time"
    );
    polling.on_iterator("a".into());
}

#[test]
fn reads_begin_the_interval_apart_and_later_behind_many_bytes() {
    let mut polling = polling(|_| {});
    with_iterator(&mut polling);
    assert_eq!(reads(&mut polling, Duration::ZERO), Some(10_000));
    polling.on_records(Some("b".into()), NOTHING, 30 * MS);
    assert_eq!((polling.due_at(), reads(&mut polling, 199 * MS)), (Some(200 * MS), None));
    assert_eq!(reads(&mut polling, 200 * MS), Some(10_000));
    // 4 MiB are what the shard gives in two seconds.
    polling.on_records(Some("c".into()), Brought { records: 1, bytes: 4 << 20 }, 250 * MS);
    assert_eq!(polling.due_at(), Some(2_200 * MS));
    assert!(reads(&mut polling, 2_300 * MS).is_some());
    polling.on_records(None, NOTHING, 2_310 * MS);
    assert_eq!((polling.has_ended(), polling.due_at()), (true, None));
}

#[test]
fn throttling_is_never_given_up_and_asks_for_less_until_it_is_over() {
    let mut polling = polling(|_| {});
    with_iterator(&mut polling);
    let (mut now, mut limits) = (Duration::ZERO, Vec::new());
    for _ in 0..1_000 {
        limits.extend(reads(&mut polling, now));
        assert_eq!(polling.on_trouble(Kind::Throttled, now, u64::MAX), Verdict::Again);
        let pause = polling.next_at - now;
        assert!(pause >= 300 * MS && pause <= 1_000 * MS, "{pause:?}");
        now = polling.next_at;
    }
    assert_eq!(limits[..8], [10_000, 5_000, 2_500, 1_250, 625, 312, 156, 100]);
    for expected in [100, 200, 400] {
        assert_eq!(reads(&mut polling, now), Some(expected));
        polling.on_records(Some("b".into()), NOTHING, now);
        now += 200 * MS;
    }
}

#[test]
fn an_expired_iterator_is_replaced_where_the_last_read_ended() {
    let mut polling = polling(|_| {});
    with_iterator(&mut polling);
    let behind = Position::After { sequence_number: "7".into() };
    assert!(reads(&mut polling, Duration::ZERO).is_some());
    assert_eq!(polling.on_trouble(Kind::ExpiredIterator, MS, 0), Verdict::Again);
    assert_eq!(polling.ask(MS, &behind), Some(Ask::Iterator(behind.clone())), "at once");
}

#[test]
fn other_trouble_is_given_up_after_some_tries_in_a_row() {
    let mut polling = polling(|_| {});
    with_iterator(&mut polling);
    for _ in 0..3 {
        let now = polling.next_at;
        assert!(reads(&mut polling, now).is_some());
        assert_eq!(polling.on_trouble(Kind::Passing, now, 1), Verdict::Again);
    }
    let now = polling.next_at;
    assert!(reads(&mut polling, now).is_some());
    polling.on_records(Some("b".into()), NOTHING, now);
    // A success begins the count anew.
    for _ in 0..2 {
        assert_eq!(polling.on_trouble(Kind::Passing, now, 1), Verdict::Again);
    }
    assert_eq!(polling.on_trouble(Kind::ExpiredIterator, now, 1), Verdict::Again);
    // Requests for an iterator are counted on their own, and do not make reads succeed.
    for _ in 0..3 {
        assert_eq!(polling.on_trouble(Kind::Passing, now, 1), Verdict::Again);
    }
    polling.on_iterator("c".into());
    assert_eq!(
        polling.on_trouble(Kind::ExpiredIterator, now, 1),
        Verdict::GiveUp,
        "the fourth read in a row"
    );
    polling.iterator = None;
    for _ in 0..3 {
        assert_eq!(polling.on_trouble(Kind::Passing, now, 1), Verdict::Again);
    }
    assert_eq!(polling.on_trouble(Kind::Passing, now, 1), Verdict::GiveUp);
    for kind in [Kind::NotFound, Kind::Denied, Kind::BadCredentials, Kind::Refused] {
        assert_eq!(polling.on_trouble(kind, now, 1), Verdict::GiveUp, "{kind:?}");
    }
}

#[test]
fn adaptive_reads_ask_for_what_fits_the_quota() {
    let mut polling = polling(|options| options.adaptive_reads = true);
    with_iterator(&mut polling);
    assert_eq!(reads(&mut polling, Duration::ZERO), Some(10_000), "nothing is known of the size");
    assert_eq!(polling.bytes_to_ask(), 0);
    // 2 MiB/s in 200 ms are 419,430 bytes: 409 records of 1 KiB.
    polling.on_records(Some("b".into()), Brought { records: 10, bytes: 10_240 }, MS);
    assert_eq!(reads(&mut polling, 200 * MS), Some(409));
    assert_eq!(polling.bytes_to_ask(), 409 << 10);
    polling.on_records(Some("c".into()), Brought { records: 1, bytes: 1 << 20 }, 210 * MS);
    assert_eq!(reads(&mut polling, 1_000 * MS), Some(1), "at least one");
}

proptest! {
    /// At most five reads and, on average, 2 MiB in any second.
    #[test]
    fn a_shard_is_never_asked_for_more_than_its_quota(sizes in proptest::collection::vec(0..20_000_000_u64, 1..50), took_ms in 0..400_u64) {
        let mut polling = polling(|_| {});
        with_iterator(&mut polling);
        let (mut began, mut all): (Vec<Duration>, u64) = (Vec::new(), 0);
        for bytes in sizes {
            let now = polling.due_at().unwrap_or_default();
            prop_assert!(all == 0 || (all as f64) <= KINESIS_READ_BYTES_PER_SECOND as f64 * now.as_secs_f64() + 1_000.0);
            prop_assert!(reads(&mut polling, now).is_some());
            began.push(now);
            all += bytes;
            polling.on_records(Some("b".into()), Brought { records: 1, bytes }, now + Duration::from_millis(took_ms));
        }
        for six in began.windows(6) {
            prop_assert!(six[5] - six[0] >= Duration::from_secs(1));
        }
    }
}
