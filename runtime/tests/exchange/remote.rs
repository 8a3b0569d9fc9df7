//! Channels over real sockets: order, credit, fencing, lost ends.

use std::time::Duration;

use crate::support::*;
use thalweg_common::failure::Fault;
use thalweg_common::id::JobId;
use thalweg_common::limits::MAX_FRAME_BYTES;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::transport::Dialer;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::event::{Barrier, Event};
use thalweg_runtime::exchange::{
    Compression, ExchangeClient, ExchangeSettings, Input, OpenChannel, Sent, TaskParker,
};
use tokio::net::{TcpListener, TcpStream};

const SMALL: ExchangeSettings = ExchangeSettings {
    channel_credit_bytes: 4_096,
    floating_credit_bytes: 16_384,
    debloat_target: Some(Duration::from_secs(1)),
    frame_target_bytes: 512,
    compression: Compression::None,
};

fn barrier(id: u64) -> Barrier {
    Barrier { id, timestamp_ms: 3, is_final: false, is_savepoint: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_events_arrive_in_order_through_little_credit() {
    const BATCHES: u64 = 300;
    let pair = Pair::start(SMALL).await;
    let (mut sender, receiver) = pair.channel::<(u64, String)>(0).await;
    let sending = on_thread(&pair.scope, move || {
        let mut parker = TaskParker::new();
        sender.set_waker(parker.waker());
        for number in 0..BATCHES {
            // From nothing to more than the whole credit.
            let records: Vec<_> =
                (0..number).map(|index| (number, "x".repeat(index as usize % 50))).collect();
            send(&mut sender, &mut parker, records).unwrap();
            sender.send_event(Event::Barrier(barrier(number + 1))).unwrap();
        }
        sender.send_event(Event::EndOfInput).unwrap();
        sender.send_event(Event::Barrier(barrier(BATCHES + 1))).unwrap();
    });
    let receiving = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(receiver);
        let (mut seen, mut epoch, mut has_ended) = (0, 0, false);
        loop {
            match next(&mut gate, &mut parker).unwrap() {
                Input::Batch(batch) => {
                    for (number, text) in batch.into_parts().0 {
                        if number != epoch {
                            // A barrier without records behind it may be passed over.
                            assert_eq!((number, seen), (epoch + 1, epoch), "all of the last epoch are there");
                            (epoch, seen) = (number, 0);
                        }
                        assert_eq!(text.len() as u64, seen % 50);
                        seen += 1;
                    }
                }
                Input::Barrier { barrier, .. } if has_ended => {
                    assert_eq!(barrier.id, BATCHES + 1);
                    return gate.traffic();
                }
                Input::Barrier { barrier, .. } => assert_eq!((barrier.id, seen), (epoch + 1, epoch)),
                Input::EndOfInput => has_ended = true,
                input @ (Input::Time(_) | Input::Idle) => unreachable!("nobody has sent {input:?}"),
            }
        }
    });
    let ((), traffic) = tokio::join!(sending, receiving);
    assert_eq!(traffic.records(), BATCHES * (BATCHES - 1) / 2);
    assert!(traffic.bytes() > traffic.records() * 16);
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_arrive_beside_their_records() {
    for compression in [Compression::None, Compression::Lz4] {
        let pair = Pair::start(ExchangeSettings { compression, ..SMALL }).await;
        let (mut sender, receiver) = pair.channel::<(u64, String)>(0).await;
        // Batches of a fraction of a frame and of many; with a timestamp for each record, for some, and for none.
        let timestamp = |batch: u64, number: u64| match batch % 3 {
            0 => Some(number as i64 - 50),
            1 => number.is_multiple_of(2).then_some(number as i64),
            _ => None,
        };
        let sending = on_thread(&pair.scope, move || {
            let mut parker = TaskParker::new();
            sender.set_waker(parker.waker());
            for number in 0..60 {
                let mut batch = Batch::default();
                for index in 0..number * 5 {
                    let record = (number, "x".repeat(index as usize % 50));
                    match timestamp(number, index) {
                        Some(timestamp) => batch.push_with_timestamp(record, timestamp),
                        None => batch.push(record),
                    }
                }
                send(&mut sender, &mut parker, batch).unwrap();
            }
            sender.send_event(Event::EndOfInput).unwrap();
        });
        let receiving = on_thread(&pair.scope, move || {
            let (mut gate, mut parker) = gate(receiver);
            let mut seen = Vec::new();
            while let Input::Batch(mut batch) = next(&mut gate, &mut parker).unwrap() {
                seen.extend(
                    batch.drain_with_timestamps().map(|((number, _), timestamp)| (number, timestamp)),
                );
                gate.recycle(batch);
            }
            seen
        });
        let ((), seen) = tokio::join!(sending, receiving);
        let expected: Vec<_> = (0..60)
            .flat_map(|number| (0..number * 5).map(move |index| (number, timestamp(number, index))))
            .collect();
        assert_eq!(seen, expected);
        pair.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_larger_than_the_credit_passes_and_one_larger_than_a_frame_does_not() {
    let pair = Pair::start(SMALL).await;
    let (mut sender, receiver) = pair.channel::<String>(0).await;
    let sending = on_thread(&pair.scope, move || {
        let mut parker = TaskParker::new();
        sender.set_waker(parker.waker());
        for _ in 0..5 {
            send(&mut sender, &mut parker, vec!["x".repeat(1 << 20), "y".to_owned()]).unwrap();
        }
        send(&mut sender, &mut parker, vec!["z".repeat(MAX_FRAME_BYTES)]).unwrap_err()
    });
    let receiving = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(receiver);
        let mut lengths = Vec::new();
        loop {
            match next(&mut gate, &mut parker) {
                Ok(Input::Batch(batch)) => lengths.extend(batch.records().iter().map(String::len)),
                Ok(other) => panic!("{other:?}"),
                Err(failure) => return (lengths, failure),
            }
        }
    });
    let (too_large, (lengths, closed)) = tokio::join!(sending, receiving);
    assert_eq!(lengths, [1 << 20, 1].repeat(5));
    assert_eq!(too_large.fault, Fault::User);
    assert!(too_large.message.contains(&format!("{} bytes", MAX_FRAME_BYTES + 8)), "{too_large}");
    assert!(too_large.message.contains(&channel(0).to_string()), "{too_large}");
    assert!(closed.message.contains("closed without an end marker"), "{closed}");
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_sender_waits_for_its_receiver() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let next_attempt = OpenChannel { attempt: ATTEMPT + 1, ..open(0) };
    let address = pair.address();
    let mut opening = std::pin::pin!(pair.client.open::<u64>(&address, next_attempt));
    // Another sender of the same connection goes through, so this one was there and is waiting.
    tokio::select! {
        biased;
        opened = &mut opening => panic!("{opened:?}"),
        (sender, _receiver) = pair.channel::<u64>(0) => drop(sender),
    }
    pair.server.start_attempt(JOB, 0, ATTEMPT + 1).unwrap();
    let receiver = pair.server.register(0, channel(0)).unwrap();
    let mut sender = opening.await.unwrap();
    sender.send_event(Event::EndOfInput).unwrap();
    assert_eq!(on_thread(&pair.scope, move || receive_all::<u64>(receiver)).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_attempts_and_strangers_are_refused() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let (_sender, _receiver) = pair.channel::<u64>(0).await;
    let table = [
        (OpenChannel { attempt: ATTEMPT - 1, ..open(1) }, "stale attempt"),
        (OpenChannel { plan_fingerprint: PLAN + 1, ..open(1) }, "another plan"),
        (OpenChannel { job_id: JobId(1), ..open(1) }, "another job"),
        (open(0), "has a sender already"),
    ];
    for (open, reason) in table {
        let failure = pair.client.open::<u64>(&pair.address(), open).await.unwrap_err();
        assert!(failure.message.contains(reason), "{failure}");
        assert!(failure.message.contains(&open.channel.to_string()), "{failure}");
    }
    pair.server.end_attempt(JOB, 0, ATTEMPT);
    let failure = pair.client.open::<u64>(&pair.address(), open(1)).await.unwrap_err();
    assert!(failure.message.contains("stale attempt"), "{failure}");
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_attempt_closes_the_channels_of_the_old_one() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let (sender, receiver) = pair.channel::<u64>(0).await;
    pair.server.start_attempt(JOB, 0, ATTEMPT + 1).unwrap();
    let received = on_thread(&pair.scope, move || receive_all::<u64>(receiver));
    let (received, sent) = tokio::join!(received, on_thread(&pair.scope, || send_until_failure(sender)));
    for failure in [received.unwrap_err(), sent] {
        assert!(failure.message.contains("a later attempt has started"), "{failure}");
    }
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_worker_is_named() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let failure = pair.client.open::<u64>(&free, open(0)).await.unwrap_err();
    assert_eq!(failure.fault, Fault::External);
    assert!(failure.message.contains(&free), "{failure}");
    let failure = pair.client.open::<u64>("no port", open(0)).await.unwrap_err();
    assert!(failure.message.contains("no port"), "{failure}");
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_goes_without_an_end_fails_its_receiver_only() {
    let pair = Pair::start(ExchangeSettings::default()).await;
    let (sender, receiver) = pair.channel::<u64>(0).await;
    let (mut other_sender, other_receiver) = pair.channel::<u64>(1).await;
    drop(sender);
    let failure = on_thread(&pair.scope, move || receive_all(receiver)).await.unwrap_err();
    assert!(failure.message.contains("closed without an end marker"), "{failure}");
    assert!(failure.message.contains(&channel(0).to_string()), "{failure}");

    assert_eq!(other_sender.try_send(Batch::from(vec![])), Ok(Sent::Done));
    other_sender.send_event(Event::EndOfInput).unwrap();
    drop(other_sender);
    assert_eq!(on_thread(&pair.scope, move || receive_all(other_receiver)).await, Ok(vec![]));
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_goes_fails_its_sender_unless_the_end_was_sent() {
    let pair = Pair::start(SMALL).await;
    let (sender, receiver) = pair.channel::<u64>(0).await;
    // It waits for credit when the receiver goes, and is woken.
    let blocked = on_thread(&pair.scope, move || send_until_failure(sender));
    let gone = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(receiver);
        assert!(matches!(next(&mut gate, &mut parker), Ok(Input::Batch(_))));
    });
    let (failure, ()) = tokio::join!(blocked, gone);
    assert!(failure.message.contains(&channel(0).to_string()), "{failure}");
    assert!(failure.message.contains("look at that task's failure"), "{failure}");

    let (mut sender, receiver) = pair.channel::<u64>(1).await;
    sender.send_event(Event::EndOfInput).unwrap();
    assert_eq!(on_thread(&pair.scope, move || receive_all(receiver)).await, Ok(vec![]));
    sender.send_event(Event::Barrier(barrier(1))).unwrap();
    pair.shutdown().await;
}

/// Passes one connection on until its scope is cancelled, then cuts it, as a dying machine does.
async fn proxy(target: String, scope: &TaskScope) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cut = scope.token();
    scope.spawn("proxy", async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            end = tokio::io::copy_bidirectional(&mut client, &mut server) => panic!("closed by itself: {end:?}"),
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_fails_both_ends_and_the_next_attempt_connects_anew() {
    let pair = Pair::start(SMALL).await;
    let wire = TaskScope::new("wire");
    let address = proxy(pair.address(), &wire).await;
    let receiver = pair.server.register::<u64>(0, channel(0)).unwrap();
    let sender = pair.client.open::<u64>(&address, open(0)).await.unwrap();
    let received = on_thread(&pair.scope, move || {
        let (mut gate, mut parker) = gate(receiver);
        assert!(matches!(next(&mut gate, &mut parker), Ok(Input::Batch(_))), "the channel works");
        wire.cancel();
        loop {
            if let Err(failure) = next(&mut gate, &mut parker) {
                return failure;
            }
        }
    });
    let (received, sent) = tokio::join!(received, on_thread(&pair.scope, || send_until_failure(sender)));
    for failure in [received, sent] {
        assert_eq!(failure.fault, Fault::External, "{failure}");
        assert!(failure.message.contains(&channel(0).to_string()), "{failure}");
    }

    pair.server.start_attempt(JOB, 0, ATTEMPT + 1).unwrap();
    let receiver = pair.server.register::<u64>(0, channel(0)).unwrap();
    let retry = OpenChannel { attempt: ATTEMPT + 1, ..open(0) };
    let mut sender = pair.client.open::<u64>(&pair.address(), retry).await.unwrap();
    sender.send_event(Event::EndOfInput).unwrap();
    assert_eq!(on_thread(&pair.scope, move || receive_all(receiver)).await, Ok(vec![]));
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_the_workers_fails_their_channels() {
    let pair = Pair::start(SMALL).await;
    let (sender, receiver) = pair.channel::<u64>(0).await;
    let tasks = TaskScope::new("tasks");
    let sent = on_thread(&tasks, || send_until_failure(sender));
    let received = on_thread(&tasks, move || receive_all(receiver));
    let (sent, received, ()) = tokio::join!(sent, received, pair.shutdown());
    assert!(sent.message.contains(&channel(0).to_string()), "{sent}");
    let received = received.unwrap_err();
    assert!(received.message.contains(&channel(0).to_string()), "{received}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_the_client_fails_its_senders_at_once() {
    let pair = Pair::start(SMALL).await;
    let worker = TaskScope::new("worker");
    let client = ExchangeClient::new(SMALL, Dialer::default(), &worker);
    let _receiver = pair.server.register::<u64>(0, channel(0)).unwrap();
    let sender = client.open::<u64>(&pair.address(), open(0)).await.unwrap();
    let blocked = on_thread(&pair.scope, || send_until_failure(sender));
    worker.shutdown(DEADLINE).await.unwrap();
    let failure = blocked.await;
    assert!(failure.message.contains("its worker is stopping"), "{failure}");
    pair.shutdown().await;
}

/// More channels than a server allows by default on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_channels_share_one_connection() {
    const CHANNELS: u32 = 600;
    let pair = Pair::start(SMALL).await;
    let wire = TaskScope::new("wire");
    // The proxy takes a single connection.
    let address = proxy(pair.address(), &wire).await;
    let receivers: Vec<_> =
        (0..CHANNELS).map(|to| pair.server.register::<u64>(0, channel(to)).unwrap()).collect();
    let opening = (0..CHANNELS).map(|to| pair.client.open::<u64>(&address, open(to)));
    let senders = futures_util::future::try_join_all(opening).await.unwrap();
    let sending = on_thread(&pair.scope, move || {
        for (to, mut sender) in (0u64..).zip(senders) {
            let mut parker = TaskParker::new();
            sender.set_waker(parker.waker());
            send(&mut sender, &mut parker, vec![to; 10]).unwrap();
            sender.send_event(Event::EndOfInput).unwrap();
        }
    });
    let receiving = on_thread(&pair.scope, move || {
        let parker = TaskParker::new();
        let mode = thalweg_common::config::CheckpointMode::ExactlyOnce;
        let mut gate = thalweg_runtime::exchange::InputGate::new(receivers, mode, parker.waker());
        let (mut counts, mut parker) = (vec![0u32; CHANNELS as usize], parker);
        loop {
            match next(&mut gate, &mut parker).unwrap() {
                Input::Batch(batch) => batch.records().iter().for_each(|to| counts[*to as usize] += 1),
                Input::EndOfInput => return counts,
                other => panic!("{other:?}"),
            }
        }
    });
    let ((), counts) = tokio::join!(sending, receiving);
    assert_eq!(counts, [10; CHANNELS as usize]);
}
