//! Tests of barriers that overtake what an output keeps.

use thalweg_common::clock::ManualClock;

use super::*;
use crate::exchange::local_channel_with_room;
use crate::in_flight::Recorded;

/// An output to one channel with room for two batches, whose barriers overtake after so many milliseconds.
fn overtaking(after_ms: u64) -> (Output<u64>, InputGate<u64>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let (sender, receiver) = local_channel_with_room(ChannelId { edge: 3, from: 1, to: 0 }, 2, 1);
    let overtakes = Overtakes { after: Duration::from_millis(after_ms), clock: clock.clone() };
    let output = Output::new(Box::new(Forward), vec![sender]).overtaking(Some(overtakes));
    (output, InputGate::new(vec![receiver], CheckpointMode::ExactlyOnce, TaskParker::new().waker()), clock)
}

/// Takes a snapshot and says what will be recorded, and for how long the barrier is held.
fn recording(output: &mut Output<u64>, id: CheckpointId) -> (Option<Recorded>, Option<Duration>) {
    let barrier = Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false };
    let mut builder = SnapshotBuilder::of(1);
    output.snapshot(barrier, &mut builder).expect("no channel has failed");
    let held_for = builder.held_for();
    (builder.take_recorded(), held_for)
}

/// Five batches of one record: two find room.
fn crowd(output: &mut Output<u64>) {
    for record in 1..=5 {
        process(output, vec![record]);
        output.flush(true).expect("no channel has failed");
    }
}

/// The records that were recorded.
fn recorded(recorded: Option<Recorded>) -> Option<Vec<u64>> {
    let in_flight = recorded?.try_take().ok()??;
    assert!(in_flight.inputs.is_empty());
    let batches = in_flight.outputs.into_iter().flat_map(|(channel, batches)| {
        assert_eq!(channel, ChannelId { edge: 3, from: 1, to: 0 });
        batches
    });
    Some(batches.flat_map(|batch| batch.decode::<u64>().expect("decodes").into_parts().0).collect())
}

#[test]
fn a_barrier_overtakes_what_no_channel_takes_and_it_is_recorded() {
    let (mut output, mut gate, _) = overtaking(0);
    crowd(&mut output);
    let (recording, held_for) = recording(&mut output, 1);
    assert_eq!((recorded(recording), held_for), (Some(vec![3, 4, 5]), None));
    let mut seen = receive_all(&mut gate);
    while output.flush(true).expect("no channel has failed") == Flushed::Blocked {
        seen.extend(receive_all(&mut gate));
    }
    seen.extend(receive_all(&mut gate));
    let records = |range: std::ops::RangeInclusive<u64>| range.map(Seen::Record);
    assert_eq!(seen, records(1..=2).chain([Seen::Barrier(1)]).chain(records(3..=5)).collect::<Vec<_>>());
}

#[test]
fn a_barrier_is_held_until_its_time_has_come_or_its_turn() {
    // Its time comes first.
    let (mut output, mut gate, clock) = overtaking(50);
    crowd(&mut output);
    let (mut recording, held_for) = recording(&mut output, 1);
    assert_eq!(held_for, Some(Duration::from_millis(50)));
    process(&mut output, vec![6]);
    clock.advance(Duration::from_millis(49));
    assert_eq!(output.flush(true), Ok(Flushed::Blocked));
    assert_eq!(recording.as_mut().map(Recorded::try_take), Some(Ok(None)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(output.flush(true), Ok(Flushed::Blocked));
    assert_eq!(recorded(recording), Some(vec![3, 4, 5]), "what was processed behind it is not");
    assert_eq!(receive_all(&mut gate), [Seen::Record(1), Seen::Record(2), Seen::Barrier(1)]);

    // Its turn comes first.
    let (mut output, mut gate, _) = overtaking(50);
    crowd(&mut output);
    let (recording, _) = self::recording(&mut output, 1);
    let mut seen = Vec::new();
    while output.flush(true).expect("no channel has failed") == Flushed::Blocked {
        seen.extend(receive_all(&mut gate));
    }
    seen.extend(receive_all(&mut gate));
    assert_eq!((seen.len(), seen.last(), recorded(recording)), (6, Some(&Seen::Barrier(1)), Some(vec![])));

    // Nothing is in its way.
    let (none, held_for) = self::recording(&mut output, 2);
    assert!(none.is_none() && held_for.is_none());
}

#[test]
fn a_barrier_that_is_held_is_given_up_with_its_checkpoint() {
    for is_aborted in [true, false] {
        let (mut output, _gate, clock) = overtaking(50);
        crowd(&mut output);
        let (first, _) = recording(&mut output, 1);
        clock.advance(Duration::from_millis(50));
        if is_aborted {
            output.aborted(1).expect("nothing can fail");
        } else {
            assert_eq!(recorded(recording(&mut output, 2).0), Some(vec![3, 4, 5]));
        }
        output.flush(true).expect("no channel has failed");
        assert_eq!(recorded(first), None);
    }
}

#[test]
fn what_is_restored_leaves_first() {
    let (mut output, mut gate, _) = overtaking(0);
    let id = ChannelId { edge: 3, from: 1, to: 0 };
    for record in [1_u64, 2] {
        output
            .restore(Route::Channel(id), &StoredBatch::of(&Batch::from(vec![record])))
            .expect("its own channel");
    }
    output.restore(Route::Anew, &StoredBatch::of(&Batch::from(vec![3_u64]))).expect("any channel");
    assert_eq!(output.flush(true), Ok(Flushed::Blocked));
    let mut seen = receive_all(&mut gate);
    assert_eq!(output.flush(true), Ok(Flushed::All));
    seen.extend(receive_all(&mut gate));
    assert_eq!(seen, [1, 2, 3].map(Seen::Record));
    let strange = ChannelId { to: 1, ..id };
    assert!(output.restore(Route::Channel(strange), &StoredBatch::of(&Batch::from(vec![1_u64]))).is_err());
}
