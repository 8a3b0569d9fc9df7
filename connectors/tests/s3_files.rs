//! Files on S3: what the sink writes over checkpoints and failures, and what the source reads, against a store on this machine.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/kills.rs"]
mod kills;

use std::time::Duration;

use kills::{Kills, visible};
use thalweg_common::Record;
use thalweg_common::storage::{StorageFactory, StorageSettings};
use thalweg_connectors::files::{FileSink, FileSource, ReadFormat, RollingPolicy};
use thalweg_connectors::formats::{Json, Parquet, Text};
use thalweg_runtime::io::Io;
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{EnumeratedHarness, OperatorHarness, Setup};
use thalweg_test_support::s3_peer::SECRET_KEY;
use thalweg_test_support::{FaultProxy, S3Peer};
use tokio::runtime::Runtime;

const BUCKET: &str = "thalweg-files";

/// A store, and what reaches it.
struct Store {
    runtime: Runtime,
    settings: StorageSettings,
    storages: StorageFactory,
    peer: S3Peer,
}

impl Store {
    /// With parts so small that a few lines are several.
    fn with_parts_of(bytes: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let peer = runtime.block_on(S3Peer::start()).unwrap_or_else(|error| panic!("{error:#}"));
        runtime.block_on(peer.create_bucket(BUCKET)).unwrap();
        let mut settings = peer.settings();
        settings.s3.part_bytes = bytes;
        Self { runtime, storages: StorageFactory::new(settings.clone()), settings, peer }
    }

    fn setup(&self) -> Setup {
        Setup {
            io: Io::on(self.runtime.handle().clone()),
            storages: self.storages.clone(),
            ..Setup::default()
        }
    }

    fn text(&self, place: &str) -> String {
        self.runtime.block_on(visible(self.storages.open(place).unwrap().as_ref()))
    }

    /// Everything below a place that is not a finished file: hidden objects, and uploads.
    fn unfinished(&self, place: &str) -> (usize, usize) {
        let storage = self.storages.open(place).unwrap();
        self.runtime.block_on(async {
            let hidden = storage.list(".inprogress").await.unwrap().len();
            (hidden, storage.growing().unwrap().begun("").await.unwrap().len())
        })
    }

    fn read<F: ReadFormat>(&self, source: FileSource<F>, readers: u32) -> Vec<F::Out> {
        let mut harness = EnumeratedHarness::open_in(self.setup(), source, readers, None).unwrap();
        for _ in 0..20_000 {
            harness.settle().unwrap();
            if harness.has_ended() {
                return harness.output();
            }
            // not a wait: the loop looks at the state, and its requests need the runtime in between
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
        panic!("the source does not come to its end");
    }
}

fn place(name: &str) -> String {
    format!("s3://{BUCKET}/{name}")
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

#[test]
fn a_part_is_carried_over_checkpoints_as_pieces_and_what_is_behind_them() {
    let store = Store::with_parts_of(64);
    let place = place("carried");
    let sink = FileSink::<String, _>::rows(&place, Text).without_buckets();
    let open = |attempt, restored: Vec<OperatorSnapshot>| {
        let setup = Setup { attempt, restored, ..store.setup() };
        OperatorHarness::open_sink(operators::sink(sink.clone()).as_ref(), setup)
    };
    let mut first = open(1, Vec::new()).unwrap();
    let mut snapshots = Vec::new();
    for checkpoint in 1..4 {
        first.push(lines(checkpoint * 10..checkpoint * 10 + 9)).unwrap();
        first.fire().unwrap();
        snapshots.push(first.barrier(checkpoint).unwrap());
        first.completed(checkpoint).unwrap();
    }
    first.push(lines(90..99)).unwrap();
    assert_eq!(store.text(&place), "");
    let (hidden, uploads) = store.unfinished(&place);
    assert!(hidden > 0 && uploads == 1, "{hidden} {uploads}");
    drop(first);

    // Opening twice is what happens if the first recovery fails behind its half.
    let wanted: String = (1..4).flat_map(|at| lines(at * 10..at * 10 + 9)).map(|line| line + "\n").collect();
    for attempt in 2..4 {
        drop(open(attempt, vec![snapshots[2].clone()]).unwrap());
        assert_eq!(store.text(&place), wanted);
    }
    let mut next = open(4, Vec::new()).unwrap();
    assert_eq!(store.unfinished(&place), (0, 0), "nothing is left of it");
    next.push(lines(0..1)).unwrap();
    next.end().unwrap();
    let last = next.barrier(5).unwrap();
    next.completed(5).unwrap();
    assert_eq!(store.text(&place).lines().count(), 28);

    // An older checkpoint, of which the part has become a longer file.
    let failure = open(5, vec![snapshots[1].clone()]).err().unwrap();
    let message = &failure.message;
    assert!(message.contains("the output of checkpoint 2 cannot be restored"), "{message}");
    assert!(message.contains("carried/part-0-1-0-00000000"), "{message}");
    drop(open(6, vec![last]).unwrap());
}

#[test]
fn a_reader_sees_exactly_the_committed_records_on_s3_whatever_is_killed() {
    let store = Store::with_parts_of(32);
    let place = place("kills");
    let storages = || StorageFactory::new(store.settings.clone());
    Kills { runtime: &store.runtime, storages: &storages, place: place.clone(), seed: 7 }.run();
    assert_eq!(store.unfinished(&place), (0, 0), "nothing is left of failed attempts");
}

/// Requests of a sink make progress only while its task has a turn, and a barrier lets the thread wait: for nothing that another task of it has.
#[test]
fn a_sink_at_a_barrier_waits_for_no_other_one_of_its_thread() {
    let store = Store::with_parts_of(32);
    let mut settings = store.settings.clone();
    settings.s3.parts_under_way = 1;
    let storages = StorageFactory::new(settings);
    let open = |name: &str| {
        let sink = FileSink::<String, _>::rows(place(name), Text).without_buckets();
        let setup = Setup { storages: storages.clone(), ..store.setup() };
        OperatorHarness::open_sink(operators::sink(sink).as_ref(), setup).unwrap()
    };
    let (mut first, mut second) = (open("first"), open("second"));
    first.push(lines(0..1_000)).unwrap();
    second.push(lines(0..10)).unwrap();
    for _ in 0..20 {
        first.flush().unwrap();
        // not a wait: far from all pieces are there behind it
        store.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }
    for sink in [&mut second, &mut first] {
        sink.end().unwrap();
        sink.barrier(1).unwrap();
        sink.completed(1).unwrap();
    }
    for (name, count) in [("first", 1_000), ("second", 10)] {
        assert_eq!(store.text(&place(name)).lines().count(), count, "{name}");
    }
}

#[derive(Record, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
struct Click {
    user: String,
    number: u64,
    spend: Option<f64>,
}

fn click(number: u64) -> Click {
    Click {
        user: format!("u-{}", number % 7),
        number,
        spend: (!number.is_multiple_of(3)).then_some(number as f64 / 4.0),
    }
}

#[test]
fn json_lines_become_parquet_and_both_are_read_again() {
    let store = Store::with_parts_of(64 * 1024);
    let write = |sink: &dyn thalweg_runtime::program::OperatorFactory| {
        let mut sink = OperatorHarness::<Click>::open_sink(sink, store.setup()).unwrap();
        for part in 0..5 {
            sink.push((part * 1_000..(part + 1) * 1_000).map(click).collect()).unwrap();
            sink.fire().unwrap();
        }
        sink.end().unwrap();
        sink.barrier(1).unwrap();
        sink.completed(1).unwrap();
    };
    let (json, parquet) = (place("json"), place("parquet"));
    let policy = RollingPolicy::default().max_part_bytes(100_000);
    write(operators::sink(FileSink::<Click, _>::rows(&json, Json::<Click>::new()).rolling(policy)).as_ref());
    write(
        operators::sink(FileSink::<Click, _>::bulk(
            &parquet,
            Parquet::<Click>::new().row_group_bytes(50_000),
        ))
        .as_ref(),
    );

    let mut read = store.read(FileSource::new(&json, Json::<Click>::new()).split_bytes(10_000), 3);
    read.sort_by_key(|click| click.number);
    assert!(read.into_iter().eq((0..5_000).map(click)));
    let mut read: Vec<Click> =
        store.read(FileSource::parquet(&parquet, Parquet::new()).split_bytes(10_000), 2);
    read.sort_by_key(|click| click.number);
    assert!(read.into_iter().eq((0..5_000).map(click)));
    let none = FileSource::new(&json, Text).matching("*.txt");
    assert!(store.read(none, 1).is_empty());
}

/// A row group is as long as many pieces: one that is lost is to be sent again alone, and several travel at the same time.
#[test]
fn a_file_that_comes_all_at_once_travels_in_pieces() {
    const PIECE_BYTES: u64 = 4_096;
    let store = Store::with_parts_of(PIECE_BYTES);
    let proxy = store.runtime.block_on(FaultProxy::start(store.peer.address(), 1)).unwrap();
    let mut settings = store.peer.settings_at(proxy.address());
    settings.s3.part_bytes = PIECE_BYTES;
    let setup = Setup { storages: StorageFactory::new(settings), ..store.setup() };
    let place = place("at-once");
    let sink = FileSink::<Click, _>::bulk(&place, Parquet::<Click>::new().uncompressed());
    let mut sink = OperatorHarness::<Click>::open_sink(operators::sink(sink).as_ref(), setup).unwrap();
    let before = proxy.requests();
    sink.push((0..5_000).map(click).collect()).unwrap();
    sink.end().unwrap();
    sink.barrier(1).unwrap();
    let requests = proxy.requests() - before;
    sink.completed(1).unwrap();

    let storage = store.storages.open(&place).unwrap();
    let bytes: u64 = store.runtime.block_on(storage.list("")).unwrap().iter().map(|file| file.size).sum();
    assert!(requests >= bytes / (2 * PIECE_BYTES), "{requests} requests for {bytes} bytes");
    assert!(bytes > 10 * PIECE_BYTES, "{bytes}");
    let mut read: Vec<Click> = store.read(FileSource::parquet(&place, Parquet::new()), 1);
    read.sort_by_key(|click| click.number);
    assert!(read.into_iter().eq((0..5_000).map(click)));
}

#[test]
fn a_source_of_files_says_why_s3_refuses_and_does_not_ask_again_and_again() {
    let store = Store::with_parts_of(64);
    let proxy = store.runtime.block_on(FaultProxy::start(store.peer.address(), 1)).unwrap();
    let settings = store.peer.settings_at(proxy.address());
    let refused = |bucket: &str| {
        let setup = Setup { storages: StorageFactory::new(settings.clone()), ..store.setup() };
        let source = FileSource::new(format!("s3://{bucket}/input"), Text);
        let before = proxy.requests();
        // An enumerator has a thread of its own, whose failure comes with one of the next turns.
        let failure = EnumeratedHarness::open_in(setup, source, 1, None).and_then(|mut harness| {
            (0..20_000).try_for_each(|_| {
                // not a wait: the loop looks at the state, and its requests need the runtime in between
                store.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
                harness.settle()
            })
        });
        assert!(proxy.requests() - before <= 3, "{} requests", proxy.requests() - before);
        failure.unwrap_err().message
    };
    let missing = refused("no-such-bucket");
    assert!(missing.contains("NoSuchBucket") && missing.contains("create the bucket"), "{missing}");
    for (code, cure) in [
        ("AccessDenied", "allow these credentials s3:GetObject"),
        ("ExpiredToken", "renew the credentials"),
        ("SignatureDoesNotMatch", "renew the credentials"),
        ("AuthorizationHeaderMalformed", "set `s3.region` to the region of the bucket"),
    ] {
        proxy.deny_with(code, "The store says why");
        let message = refused(BUCKET);
        assert!(message.contains(code) && message.contains(cure), "{message}");
        assert!(!message.contains(SECRET_KEY), "{message}");
    }
}
