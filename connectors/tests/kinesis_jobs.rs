//! The Kinesis source and sink in whole jobs: shards that split and merge under load while the job fails and goes on, and the example of the
//! guide with sixteen shards of which most are idle.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kinesis/mod.rs"]
mod kinesis;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use kinesis::{Peer, Reading, credentials, until};
use thalweg::prelude::*;
use thalweg::testing::LocalCluster;
use thalweg_connectors::{KinesisSink, KinesisSource};

/// What ends a job whose input does not end: its restarts are used up.
const OVER: &str = "over";

/// Ends the job that reads a stream when it goes, also if that is because a check has failed.
struct Ending<'a>(&'a Peer, &'static str);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.model.put_at(self.1, OVER, OVER, 0).unwrap();
    }
}

/// A cluster whose job may fail so often, and writes checkpoints all the time.
fn cluster(failures: u32) -> LocalCluster {
    LocalCluster::new()
        .configure("restart-strategy.type", "fixed-delay")
        .configure("restart-strategy.fixed-delay.attempts", failures)
        .configure("restart-strategy.fixed-delay.delay", "1 ms")
        .configure("execution.checkpointing.interval", "20 ms")
}

#[test]
fn a_stream_split_and_merged_under_load_loses_and_doubles_nothing_through_failures_and_restores() {
    let read =
        |peer: &Peer| peer.configured(KinesisSource::strings("s")).read_interval(Duration::from_millis(200));
    split_and_merged_under_load(read, |_| {});
}

#[test]
fn fan_out_loses_and_doubles_nothing_of_a_stream_split_and_merged_under_load_while_subscriptions_end() {
    split_and_merged_under_load(
        |peer| peer.pushed(KinesisSource::strings("s")),
        |peer| peer.model.end_subscriptions(),
    );
}

/// Reads a stream whose shards change while the job fails, with a disturbance now and then.
fn split_and_merged_under_load(
    read: impl Fn(&Peer) -> KinesisSource<String> + Send + Sync,
    disturb: impl Fn(&Peer),
) {
    const RECORDS: u64 = 1_500;
    const FAILURES: u32 = 2;
    let peer = Peer::with_stream(2);
    peer.model.rule(|rules| rules.read_quotas = true);
    let counted: Arc<OnceLock<Collected<(String, u64)>>> = Arc::default();
    let committed = || counted.get().map_or(0, Collected::len);
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let source = read(&peer);
            let failed = Arc::new(AtomicU32::new(0));
            let ended = cluster(FAILURES).configure("parallelism.default", 3).run(|env| {
                let so_far = Arc::clone(&counted);
                let numbers = env.source("numbers", source).map(move |text: String| {
                    let (done, before) =
                        (so_far.get().map_or(0, Collected::len), failed.load(Ordering::Relaxed));
                    // Behind a checkpoint, with records that were read since.
                    if before < FAILURES && done > 300 * (before as usize + 1) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        panic!("failure {before} when {done} are committed");
                    }
                    assert_ne!(text, OVER);
                    text
                });
                let counts = numbers.key_by(|text| text.clone()).count().uid("count").collect();
                counted.get_or_init(|| counts);
                Ok(())
            });
            // Shown if a check fails because of it.
            eprintln!("the job has ended: {ended:?}");
            ended
        });
        let ending = Ending(&peer, "s");
        for number in 0..RECORDS {
            peer.put(number);
            match number {
                200 => peer.model.split_shard("s", 0).unwrap(),
                600 => peer.model.merge_shards("s", 3, 1).unwrap(),
                900 => peer.model.split_shard("s", 4).unwrap(),
                _ => {}
            }
            if number % 100 == 99 {
                disturb(&peer);
                // Load goes on while shards change and the job fails.
                let before = committed();
                until("the job goes on", || {
                    peer.breathe();
                    committed() > before || committed() as u64 > number
                });
            }
        }
        until("everything is committed", || {
            peer.breathe();
            committed() as u64 >= RECORDS
        });
        drop(ending);
        let ended = job.join().unwrap().unwrap_err().to_string();
        assert!(ended.contains(OVER), "{ended}");
    });
    let mut found = counted.get().unwrap().take();
    found.sort();
    let mut expected: Vec<(String, u64)> = (0..RECORDS).map(|number| (number.to_string(), 1)).collect();
    expected.sort();
    assert_eq!(found, expected);
}

/// Value and arrival of the guide's eight events, and where its log has them.
const EVENTS: [(&str, i64); 8] = [
    ("6", 1_648_030_822_428),
    ("4", 1_648_030_809_282),
    ("3", 1_648_030_797_697),
    ("5", 1_648_030_810_871),
    ("7", 1_648_030_834_105),
    ("1", 1_648_030_794_441),
    ("2", 1_648_030_796_122),
    ("8", 1_648_030_887_171),
];

/// Runs the example with this idleness; what its sessions print, until there are `sessions` of them.
fn idle_shard_sessions(per_shard: bool, sessions: usize, more: &[(&str, i64)]) -> BTreeSet<BTreeSet<String>> {
    let peer = Peer::new();
    peer.model.create_stream("hp-16", 16);
    // The key is the value's digit.
    let put =
        |(value, at): &(&str, i64)| peer.model.put_at("hp-16", &value[..1], *value, *at).map(drop).unwrap();
    EVENTS.iter().for_each(put);
    more.iter().for_each(put);
    let printed: Arc<Mutex<Vec<BTreeSet<String>>>> = Arc::default();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let source = peer.configured(KinesisSource::strings("hp-16"));
            LocalCluster::new()
                .configure("parallelism.default", 8)
                .configure("restart-strategy.type", "none")
                .run(|env| {
                    let strategy = monotonous_timestamps().with_idleness(Duration::from_secs(2));
                    let read = env.source("hp-16", source);
                    let timed = match per_shard {
                        true => read.watermarks(strategy),
                        // Behind another operator, as in the guide: for each subtask.
                        false => read.map(|value: String| value).watermarks(strategy),
                    };
                    let printed = Arc::clone(&printed);
                    timed
                        .map(|value: String| {
                            assert_ne!(value, OVER);
                            value
                        })
                        .key_by(|_| 0_u8)
                        .window(session(Duration::from_secs(10)))
                        .apply(move |_, _, values| {
                            printed.lock().unwrap().push(values.iter().cloned().collect());
                            Some(values.len() as u64)
                        })
                        .uid("sessions")
                        .print();
                    Ok(())
                })
        });
        let ending = Ending(&peer, "hp-16");
        until("the sessions are printed", || {
            peer.breathe();
            printed.lock().unwrap().len() >= sessions
        });
        drop(ending);
        assert!(job.join().unwrap().is_err());
    });
    let printed = printed.lock().unwrap();
    assert_eq!(printed.len(), sessions, "{printed:?}");
    printed.iter().cloned().collect()
}

fn sets(sessions: &[&[&str]]) -> BTreeSet<BTreeSet<String>> {
    let set = |values: &&[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    sessions.iter().map(set).collect()
}

#[test]
fn idle_shard_example_prints_four_sessions_and_the_last_stays_open() {
    let expected = sets(&[&["1", "2", "3"], &["4", "5"], &["6"], &["7"]]);
    assert_eq!(idle_shard_sessions(false, 4, &[]), expected);
}

#[test]
fn idle_shard_example_with_time_per_shard_prints_the_same_and_a_later_event_closes_the_last() {
    let expected = sets(&[&["1", "2", "3"], &["4", "5"], &["6"], &["7"], &["8"]]);
    // One millisecond behind what would still touch the session of 8; the key of 8 leads to its subtask.
    let ninth = [("8 again", 1_648_030_897_172)];
    let found = idle_shard_sessions(true, 5, &ninth);
    assert_eq!(found, expected);
}

#[test]
fn what_one_stream_has_is_copied_to_another() {
    const RECORDS: u64 = 500;
    let peer = Peer::with_stream(2);
    peer.model.create_stream("copy", 3);
    peer.model.rule(|rules| rules.refuses_one_in = 7);
    (0..RECORDS).for_each(|number| peer.put(number));
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let source = peer.configured(KinesisSource::strings("s"));
            let sink = KinesisSink::strings("copy")
                .endpoint(peer.model.endpoint())
                .credentials(credentials())
                .in_order();
            cluster(0).configure("parallelism.default", 2).run(|env| {
                let read = env.source("s", source).map(|text: String| {
                    assert_ne!(text, OVER);
                    text
                });
                read.sink("copy", sink);
                Ok(())
            })
        });
        let ending = Ending(&peer, "s");
        let written = || peer.model.records("copy").unwrap().concat();
        until("everything is copied", || {
            peer.breathe();
            written().len() as u64 >= RECORDS
        });
        drop(ending);
        assert!(job.join().unwrap().is_err());
        let mut numbers: Vec<u64> =
            written().iter().map(|record| String::from_utf8_lossy(&record.data).parse().unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..RECORDS), "each once, as nothing failed");
    });
}

/// What lets the copying job fail once.
const FAIL: &str = "fail";

/// Copies the numbers of `s` to `between`, each with itself as its id, and writes all of them again behind a failure; a shard is split in
/// between.
fn copied_twice(peer: &Peer, records: u64) {
    let written = || peer.model.records("between").unwrap().concat().len() as u64;
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let source = peer.configured(KinesisSource::strings("s"));
            let sink = KinesisSink::strings("between")
                .endpoint(peer.model.endpoint())
                .credentials(credentials())
                .record_ids(|text| format!("number {text}"));
            let failed = Arc::new(AtomicBool::new(false));
            // No checkpoint: the next attempt begins anew.
            cluster(1)
                .configure("execution.checkpointing.interval", "1 h")
                .configure("parallelism.default", 2)
                .run(|env| {
                    let failed = Arc::clone(&failed);
                    let read = env.source("s", source).filter(move |text: &String| {
                        assert!(text != OVER && (text != FAIL || failed.swap(true, Ordering::Relaxed)));
                        text != FAIL
                    });
                    read.sink("between", sink);
                    Ok(())
                })
        });
        let ending = Ending(peer, "s");
        (0..records).for_each(|number| peer.put(number));
        until("everything is written", || {
            peer.breathe();
            written() >= records
        });
        peer.model.split_shard("between", 0).unwrap();
        peer.model.put("s", FAIL, FAIL).unwrap();
        until("everything is written again", || {
            peer.breathe();
            written() >= 2 * records
        });
        drop(ending);
        assert!(job.join().unwrap().is_err());
    });
    assert_eq!(written(), 2 * records);
}

#[test]
fn what_a_job_writes_again_behind_a_failure_the_next_job_reads_once() {
    const RECORDS: u64 = 300;
    let peer = Peer::with_stream(2);
    peer.model.create_stream("between", 2);
    copied_twice(&peer, RECORDS);
    for is_pushed in [false, true] {
        let stream = KinesisSource::strings("between");
        let source =
            if is_pushed { peer.pushed(stream) } else { peer.configured(stream).records_per_read(25) };
        let source = source.read_interval(Duration::from_millis(5)).deduplicated(Duration::from_secs(600));
        // It fails too, and goes on from its checkpoints, with what it remembers, at another parallelism.
        let mut reading = Reading::of(&peer, source.clone(), 1, None);
        for (read, readers) in [(40, 3), (200, 2), (290, 1)] {
            reading.read_to(read);
            let snapshot = reading.checkpoint();
            let kept = reading.at(&snapshot);
            drop(reading);
            reading = Reading::of(&peer, source.clone(), readers, Some(&snapshot));
            reading.read = kept;
        }
        reading.read_to(RECORDS as usize);
        let shards_are_ended = || peer.model.requests("ListShards");
        let before = shards_are_ended();
        until("it goes on looking, and finds nothing more", || {
            reading.turn();
            reading.read.extend(reading.harness.output());
            shards_are_ended() > before + 1
        });
        reading.expect_each_once(RECORDS);
    }
    // Who does not ask for it reads everything, as it was written.
    let twice = peer.configured(KinesisSource::new("between", |record| {
        let text = String::from_utf8_lossy(record.data).into_owned();
        assert_eq!(record.record_id, Some(format!("number {text}").as_str()));
        Ok(Some(text))
    }));
    let mut reading = Reading::of(&peer, twice, 2, None);
    reading.read_to(2 * RECORDS as usize);
}

#[test]
fn a_bounded_job_ends_when_all_of_its_output_is_taken() {
    let peer = Peer::with_stream(2);
    peer.model.rule(|rules| rules.refuses_one_in = 3);
    let sink = KinesisSink::strings("s").endpoint(peer.model.endpoint()).credentials(credentials());
    LocalCluster::new()
        .configure("parallelism.default", 2)
        .run(|env| {
            env.from_iter((0..300_u64).map(|number| number.to_string())).rebalance().sink("s", sink);
            Ok(())
        })
        .unwrap();
    assert_eq!(peer.model.records("s").unwrap().concat().len(), 300);
}
