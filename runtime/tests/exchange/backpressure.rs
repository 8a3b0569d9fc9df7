//! A slow consumer beside a fast one, on one connection: memory is bounded by credit, the fast one is unhurt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;
use thalweg_common::limits::FRAME_OVERHEAD_BYTES;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::event::{Barrier, Event};
use thalweg_runtime::exchange::{
    Compression, ExchangeSettings, Forward, Input, InputGate, Output, Sender, TaskParker,
};
use thalweg_runtime::link::{Flushed, Link};
use thalweg_runtime::snapshot::SnapshotBuilder;

const RECORD_BYTES: usize = 1_000;
const BATCH_RECORDS: usize = 100;
const SETTINGS: ExchangeSettings = ExchangeSettings {
    channel_credit_bytes: 256 * 1024,
    floating_credit_bytes: 0,
    debloat_target: None,
    frame_target_bytes: 32 * 1024,
    compression: Compression::None,
};

fn batch(number: usize) -> Batch<String> {
    let record = |index| format!("{:01$}", number * BATCH_RECORDS + index, RECORD_BYTES - 8);
    Batch::from((0..BATCH_RECORDS).map(record).collect::<Vec<_>>())
}

fn output(sender: Sender<String>, parker: &TaskParker) -> Output<String> {
    let mut output = Output::new(Box::new(Forward), vec![sender]);
    output.set_waker(&parker.waker());
    output
}

/// Fills a channel whose consumer reads nothing, until it blocks. Returns the output with what it holds back.
fn fill(sender: Sender<String>) -> (Output<String>, TaskParker, usize) {
    let mut parker = TaskParker::new();
    let mut output = output(sender, &parker);
    for number in 0.. {
        output.process(&mut batch(number)).unwrap();
        // A channel is open before its first credit has come.
        while output.flush(true) == Ok(Flushed::Blocked) {
            if output.traffic().bytes() > 0 {
                return (output, parker, number + 1);
            }
            assert!(parker.park(DEADLINE));
        }
    }
    unreachable!("the channel never blocks")
}

fn send_all(sender: Sender<String>, batches: usize) {
    let mut parker = TaskParker::new();
    let mut output = output(sender, &parker);
    for number in 0..batches {
        output.process(&mut batch(number)).unwrap();
        while output.flush(true).unwrap() == Flushed::Blocked {
            assert!(parker.park(DEADLINE));
        }
    }
    output.finish().unwrap();
}

/// Reads to the end; the records must come in order and complete.
fn read(gate: &mut InputGate<String>, parker: &mut TaskParker) -> usize {
    let mut records = 0;
    loop {
        match next(gate, parker).unwrap() {
            Input::Batch(batch) => {
                for record in batch.records() {
                    assert_eq!(record.parse::<usize>(), Ok(records), "in order, nothing lost");
                    records += 1;
                }
                gate.recycle(batch);
            }
            Input::Barrier { .. } => {}
            Input::EndOfInput => return records,
            input @ (Input::Time(_) | Input::Idle) => unreachable!("nobody has sent {input:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_is_bounded_by_its_credit_and_hurts_no_other() {
    const FAST_BATCHES: usize = 300;
    let pair = Pair::start(SETTINGS).await;
    let (slow_sender, slow_receiver) = pair.channel::<String>(0).await;
    let (fast_sender, fast_receiver) = pair.channel::<String>(1).await;

    // The slow consumer reads nothing: the channel takes its credit and one frame, not a byte more.
    let (mut slow_gate, mut slow_parker) = gate(slow_receiver);
    let (mut slow, mut slow_sender_parker, mut slow_batches) =
        on_thread(&pair.scope, || fill(slow_sender)).await;
    let frame_bytes = (SETTINGS.frame_target_bytes + RECORD_BYTES) as u64;
    let bound = SETTINGS.channel_credit_bytes + frame_bytes;
    let taken = slow.traffic().bytes();
    assert!(taken <= bound, "{taken} bytes were taken, the bound is {bound}");
    assert!(
        taken + 16 * (FRAME_OVERHEAD_BYTES as u64) >= SETTINGS.channel_credit_bytes,
        "all credit is used"
    );
    assert_eq!(slow.traffic().credit(), 0);
    assert!(slow.traffic().queue_length() > 0, "what has no credit waits");

    // Beside it, over the same connection, the fast one moves a hundred times the credit.
    let sending = on_thread(&pair.scope, move || send_all(fast_sender, FAST_BATCHES));
    let reading = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(fast_receiver);
        read(&mut gate, &mut parker)
    });
    let ((), records) = tokio::join!(sending, reading);
    assert_eq!(records, FAST_BATCHES * BATCH_RECORDS);
    assert!((records * RECORD_BYTES) as u64 > 100 * SETTINGS.channel_credit_bytes);

    // Meanwhile not a byte more was taken for the slow one, and barriers still get in line.
    for id in 1..=1_000 {
        let barrier = Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false };
        slow.snapshot(barrier, &mut SnapshotBuilder::default()).unwrap();
        assert_eq!(slow.flush(true), Ok(Flushed::Blocked));
    }
    assert_eq!(slow.traffic().bytes(), taken);

    // When it reads at last, everything is there.
    let sending = on_thread(&pair.scope, move || {
        while slow.flush(true).unwrap() == Flushed::Blocked {
            assert!(slow_sender_parker.park(DEADLINE));
        }
        for _ in 0..20 {
            slow.process(&mut batch(slow_batches)).unwrap();
            slow_batches += 1;
            while slow.flush(true).unwrap() == Flushed::Blocked {
                assert!(slow_sender_parker.park(DEADLINE));
            }
        }
        slow.finish().unwrap();
        slow_batches
    });
    let reading = on_thread(&pair.scope, move || read(&mut slow_gate, &mut slow_parker));
    let (batches, records) = tokio::join!(sending, reading);
    assert_eq!(records, batches * BATCH_RECORDS);
    pair.shutdown().await;
}

/// An event needs neither credit nor room: it arrives while the data behind it waits for a consumer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_passes_without_credit_but_not_before_data() {
    let pair = Pair::start(SETTINGS).await;
    let (mut sender, receiver) = pair.channel::<String>(0).await;
    // Exactly one frame, larger than the whole credit: from here on there is none left.
    let record = "x".repeat(SETTINGS.channel_credit_bytes as usize);
    let mut parker = TaskParker::new();
    sender.set_waker(parker.waker());
    send(&mut sender, &mut parker, vec![record.clone()]).unwrap();
    sender
        .send_event(Event::Barrier(Barrier { id: 1, timestamp_ms: 0, is_final: false, is_savepoint: false }))
        .unwrap();
    sender.send_event(Event::EndOfInput).unwrap();
    let order = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(receiver);
        (0..3).map(|_| next(&mut gate, &mut parker).unwrap()).collect::<Vec<_>>()
    })
    .await;
    assert_eq!(order[0], Input::Batch(Batch::from(vec![record])));
    assert!(matches!(order[1], Input::Barrier { barrier: Barrier { id: 1, .. }, .. }));
    assert_eq!(order[2], Input::EndOfInput);
    pair.shutdown().await;
}

/// A consumer of 100 records a second behind a sender that could give millions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_waits_for_a_slow_consumer_with_debloating() {
    const CONSUMED: usize = 100;
    let pair =
        Pair::start(ExchangeSettings { debloat_target: Some(Duration::from_secs(1)), ..SETTINGS }).await;
    let (sender, receiver) = pair.channel::<u64>(0).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let sending = pair.scope.spawn_thread("sender", move || {
        let (mut sender, mut parker) = (sender, TaskParker::new());
        sender.set_waker(parker.waker());
        // One record at a time: what was taken is then exactly what is on its way. Ends with the receiver.
        while send(&mut sender, &mut parker, vec![1]).is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let most = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(receiver);
        let (mut consumed, mut most, mut work) = (0, 0, TaskParker::new());
        while consumed < CONSUMED {
            let Input::Batch(batch) = next(&mut gate, &mut parker).unwrap() else {
                panic!("only batches come")
            };
            for _ in batch.records() {
                most = most.max(sent.load(Ordering::Relaxed).saturating_sub(consumed));
                consumed += 1;
                // Nobody calls it: this is how slow the consumer is.
                work.park(Duration::from_millis(10));
            }
            gate.recycle(batch);
        }
        most
    })
    .await;
    assert!(most < 200, "{most} records were on their way, more than the consumer takes in two seconds");
    tokio::time::timeout(DEADLINE, sending.join()).await.expect("the sender hears of it").unwrap();
    pair.shutdown().await;
}
