//! The RocksDB store beside the memory store and beside RocksDB without a cache: rates of keyed updates, and what checkpoints of
//! a large state cost.
//!
//! `cargo bench -p thalweg-state --features rocksdb [-- CASE... --json --scale 0.1 --rounds 100 --compaction LEVEL]`. A line, or a JSON object, per figure. The
//! directory is made below `TMPDIR`.
#![allow(clippy::unwrap_used, clippy::panic)]
#![expect(
    clippy::disallowed_methods,
    reason = "the writer of an epoch is a thread beside the one that measures"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rocksdb::{BlockBasedOptions, Cache, DB, Options, WriteOptions};
use thalweg_common::clock::{Stopwatch, SystemClock};
use thalweg_common::config::{Configuration, keys};
use thalweg_common::key_group::groups_of;
use thalweg_state::{
    CacheOptions, Declarations, Declare as _, Drained, KeyedStore, RocksDb, RocksDbMemory, RocksDbOptions,
    RocksDbSettings, StoreFiles, ValueState,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
const MAX_PARALLELISM: u32 = 128;
/// Large enough that a row of the cache is not inline memory alone: a key of 8 bytes and a value of 100.
type Large = [u64; 12];

struct Bench {
    json: bool,
    scale: f64,
    cases: Vec<String>,
    style: Option<String>,
    rounds: u64,
}

fn main() {
    let mut options = Bench { json: false, scale: 1.0, cases: Vec::new(), style: None, rounds: 100 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => options.json = true,
            "--scale" => options.scale = arguments.next().unwrap().parse().unwrap(),
            "--rounds" => options.rounds = arguments.next().unwrap().parse().unwrap(),
            "--compaction" => options.style = arguments.next(),
            "--bench" => {}
            case => options.cases.push(case.to_string()),
        }
    }
    let wanted = |case: &str| options.cases.is_empty() || options.cases.iter().any(|name| name == case);
    if wanted("fits") {
        fits(&options);
    }
    if wanted("skewed") {
        against_direct(&options, "skewed_cache_a_tenth", 10, self_similar);
    }
    if wanted("uniform") {
        against_direct(&options, "uniform_cache_a_quarter", 4, below);
    }
    if wanted("checkpoint") {
        checkpoints(&options);
    }
}

impl Bench {
    fn print(&self, case: &str, value: f64, unit: &str, baseline: Option<f64>) {
        let ratio = baseline.map(|baseline| value / baseline);
        if self.json {
            let figure = serde_json::json!({
                "bench": "rocksdb", "case": case, "value": value, "unit": unit, "baseline": baseline, "ratio": ratio,
            });
            println!("{figure}");
        } else {
            print!("rocksdb/{case:<40} {value:>14.2} {unit:<10}");
            match (baseline, ratio) {
                (Some(baseline), Some(ratio)) => println!(" baseline {baseline:.2}, ratio {ratio:.2}"),
                _ => println!(),
            }
        }
    }

    fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(BATCH as u64)
    }

    fn settings(&self) -> RocksDbSettings {
        let mut configuration = Configuration::new();
        if let Some(style) = &self.style {
            configuration.set(keys::ROCKSDB_COMPACTION_STYLE.name, style).unwrap();
        }
        RocksDbSettings::from_configuration(&configuration)
    }
}

fn stopwatch() -> Stopwatch {
    Stopwatch::start(&SystemClock::shared())
}

/// A well mixed number for each number.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn below(random: u64, keys: u64) -> u64 {
    ((u128::from(random) * u128::from(keys)) >> 64) as u64
}

/// 80 % of all records have 20 % of the keys, and so on within these. Which keys they are is mixed.
fn self_similar(random: u64, keys: u64) -> u64 {
    let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let rank = (keys as f64 * uniform.powf(0.2_f64.ln() / 0.8_f64.ln())) as u64;
    // A permutation: odd factor, and keys a power of two or the few collisions do not matter.
    mixed(rank.min(keys - 1)) % keys
}

fn store<T: thalweg_common::record::Record>(
    directory: &Path,
    settings: &RocksDbSettings,
    memory_bytes: u64,
    budget_bytes: u64,
) -> (ValueState<T>, KeyedStore<u64>, Arc<RocksDb>) {
    let (mut state, mut declarations) = (ValueState::<T>::default(), Declarations::default());
    state.declare("value", &mut declarations);
    let memory = Arc::new(RocksDbMemory::new(memory_bytes, settings));
    let options = RocksDbOptions {
        operator: "bench".into(),
        directory: directory.to_path_buf(),
        descriptors: declarations.descriptors().unwrap(),
        settings: settings.clone(),
        memory,
        clock: SystemClock::shared(),
    };
    let backend = Arc::new(RocksDb::create(&options).unwrap());
    let cache = CacheOptions::with_budget(budget_bytes);
    let groups = groups_of(0, 1, MAX_PARALLELISM);
    let store =
        KeyedStore::with_backend("bench", declarations, MAX_PARALLELISM, groups, backend.clone(), cache)
            .unwrap();
    (state, store, backend)
}

/// Counts by key; updates per second.
fn count(
    state: &ValueState<u64>,
    store: &mut KeyedStore<u64>,
    records: u64,
    key: impl Fn(u64) -> u64,
) -> f64 {
    let watch = stopwatch();
    let mut keys = Vec::with_capacity(BATCH);
    for first in (0..records).step_by(BATCH) {
        keys.extend((first..first + BATCH as u64).map(&key));
        store.look_up(&keys).unwrap();
        for (index, key) in keys.drain(..).enumerate() {
            let mut at = store.select_next(index, key).unwrap();
            state.update(&mut at, |count| Some(count.unwrap_or(0) + 1));
        }
    }
    records as f64 / watch.elapsed().as_secs_f64()
}

fn fits(options: &Bench) {
    let keys = options.scaled(1_000_000);
    let records = options.scaled(20_000_000);
    let directory = tempfile::tempdir().unwrap();
    let (mut in_memory, mut declarations) = (ValueState::<u64>::default(), Declarations::default());
    in_memory.declare("value", &mut declarations);
    let groups = groups_of(0, 1, MAX_PARALLELISM);
    let mut memory = KeyedStore::new("bench", declarations, MAX_PARALLELISM, groups).unwrap();
    let (cached, mut cache, _) =
        store::<u64>(&directory.path().join("store"), &options.settings(), 64 << 20, 256 << 20);
    let key = |event| below(mixed(event), keys);
    count(&in_memory, &mut memory, keys * 2, key);
    count(&cached, &mut cache, keys * 2, key);
    let (mut best, mut baseline) = (0_f64, 0_f64);
    for _ in 0..3 {
        baseline = baseline.max(count(&in_memory, &mut memory, records, key));
        best = best.max(count(&cached, &mut cache, records, key));
    }
    options.print("state_fits_cache", best, "updates/s", Some(baseline));
}

/// A cache with one key in `share` beside a read and a write of RocksDB for each record.
fn against_direct(options: &Bench, case: &str, share: u64, key: impl Fn(u64, u64) -> u64 + Copy) {
    // The cache is full when five of eight places of its table, a power of two, are taken; a row has 32 bytes.
    let places = (options.scaled(1_000_000) / share * 8 / 5).next_power_of_two();
    let keys = share * places * 5 / 8;
    let budget = places * 33;
    let records = options.scaled(2_000_000);
    let directory = tempfile::tempdir().unwrap();
    let memory = 256 << 20;
    let (state, mut store, _) =
        store::<u64>(&directory.path().join("store"), &options.settings(), memory, budget);
    count(&state, &mut store, keys, |event| event);
    let of_event = |event| key(mixed(event), keys);
    count(&state, &mut store, records / 4, |event| of_event(event + (1 << 40)));
    let rate = count(&state, &mut store, records, of_event);
    let (rows, bytes) = (store.cache_rows(), store.cache_bytes());
    drop(store);

    let direct = Direct::open(&directory.path().join("direct"), memory as usize);
    (0..keys).for_each(|event| direct.increment(event));
    (0..records / 4).for_each(|event| direct.increment(of_event(event + (1 << 40))));
    let watch = stopwatch();
    (0..records).for_each(|event| direct.increment(of_event(event)));
    let baseline = records as f64 / watch.elapsed().as_secs_f64();
    options.print(case, rate, "updates/s", Some(baseline));
    options.print(&format!("{case}_cached_keys"), rows as f64 / keys as f64, "of all", None);
    options.print(&format!("{case}_cache"), bytes as f64 / 1e6, "MB", None);
}

/// What a stream processor without a cache does.
struct Direct {
    db: DB,
    write: WriteOptions,
}

impl Direct {
    fn open(directory: &Path, memory: usize) -> Self {
        let (mut options, mut blocks) = (Options::default(), BlockBasedOptions::default());
        options.create_if_missing(true);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(memory / 4);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_block_cache(&Cache::new_hyper_clock_cache(memory, 0));
        options.set_block_based_table_factory(&blocks);
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Self { db: DB::open(&options, directory).unwrap(), write }
    }

    fn increment(&self, key: u64) {
        let mut stored = [0; 10];
        stored[0] = mixed(key) as u8 & 127;
        stored[2..].copy_from_slice(&key.to_le_bytes());
        let count = self.db.get_pinned(stored).unwrap();
        let count = count.map_or(0, |count| u64::from_le_bytes(count.as_ref().try_into().unwrap()));
        self.db.put_opt(stored, (count + 1).to_le_bytes(), &self.write).unwrap();
    }
}

/// What the load has left to merge does not belong to what the changes cost.
fn wait_for_compactions(backend: &RocksDb) {
    let watch = stopwatch();
    let is_busy = || {
        backend.metrics(keys::ROCKSDB_METRICS).iter().any(|(name, value)| {
            matches!(*name, "num-running-compactions" | "compaction-pending") && *value > 0
        })
    };
    while is_busy() {
        assert!(watch.elapsed() < Duration::from_secs(300), "compactions come to an end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One per cent of 1 GB changes between two checkpoints, which are taken one after the other.
fn checkpoints(options: &Bench) {
    let keys = options.scaled(9_000_000);
    let changed = keys / 100;
    let rounds = options.rounds;
    let directory = tempfile::tempdir().unwrap();
    let settings = options.settings();
    let (state, mut store, backend) =
        store::<Large>(&directory.path().join("store"), &settings, 512 << 20, 4 << 30);
    let update = |store: &mut KeyedStore<u64>, events: std::ops::Range<u64>| {
        for event in events {
            let key = if event < keys { event } else { below(mixed(event), keys) };
            let value: Large = std::array::from_fn(|index| mixed(event * 16 + index as u64));
            state.set(&mut store.select(key).unwrap(), value);
        }
    };
    let mut next = keys;
    update(&mut store, 0..keys);
    let (mut pauses, mut durable, mut uploaded, mut known) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut slices, mut encodings) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let watch = stopwatch();
        let epoch = store.freeze(round).unwrap().unwrap();
        let pause = watch.elapsed();
        let target = directory.path().join(format!("checkpoint-{round}"));
        let (done, files): (_, Receiver<StoreFiles>) = sync_channel(1);
        let writer = std::thread::spawn(move || done.send(epoch.finish(&target).unwrap()).unwrap());
        let (mut drained, mut encoded) = (Drained::Some, Duration::ZERO);
        // The task goes on: a batch of records, then a slice of the epoch.
        let files = loop {
            let has_records = next < keys + (round + 1) * changed;
            let wait = if has_records || drained == Drained::Some {
                Duration::ZERO
            } else {
                Duration::from_millis(1)
            };
            if let Ok(files) = files.recv_timeout(wait) {
                break files;
            }
            if has_records {
                update(&mut store, next..next + 256);
                next += 256;
            }
            if drained != Drained::All {
                let slice = stopwatch();
                drained = store.drain(64 << 10).unwrap();
                slices.push(slice.elapsed());
                if drained == Drained::All {
                    encoded = watch.elapsed();
                }
            }
        };
        let elapsed = watch.elapsed();
        if round > 0 {
            encodings.push(encoded);
        }
        writer.join().unwrap();
        let files: Vec<_> =
            files.files.into_iter().map(|file| (file.name, file.checksum, file.size_bytes)).collect();
        let new: u64 = files.iter().filter(|file| !known.contains(*file)).map(|file| file.2).sum();
        known = files;
        let old = directory.path().join(format!("checkpoint-{}", round.wrapping_sub(1)));
        drop(std::fs::remove_dir_all(old));
        if round == 0 {
            options.print("checkpoint_full", elapsed.as_secs_f64() * 1e3, "ms", None);
            options.print("checkpoint_full_size", new as f64 / 1e6, "MB", None);
            wait_for_compactions(&backend);
        } else {
            pauses.push(pause);
            durable.push(elapsed);
            uploaded.push(new as f64);
        }
        update(&mut store, next..(keys + (round + 1) * changed).max(next));
        next = next.max(keys + (round + 1) * changed);
    }
    drop(backend);
    let bytes = changed as f64 * (size_of::<Large>() + 8) as f64;
    for times in [&mut pauses, &mut durable, &mut slices, &mut encodings] {
        times.sort_unstable();
    }
    let ms = |times: &[Duration], share: f64| {
        times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
    };
    options.print("checkpoint_pause_p99", ms(&pauses, 0.99), "ms", None);
    options.print("checkpoint_slice_p99", ms(&slices, 0.99), "ms", None);
    options.print("checkpoint_slice_max", ms(&slices, 1.0), "ms", None);
    options.print("checkpoint_encoded_p50", ms(&encodings, 0.5), "ms", None);
    options.print("checkpoint_durable_p50", ms(&durable, 0.5), "ms", None);
    options.print("checkpoint_durable_p90", ms(&durable, 0.9), "ms", None);
    options.print("checkpoint_durable_max", ms(&durable, 1.0), "ms", None);
    options.print("checkpoint_changed", bytes / 1e6, "MB", None);
    let sum: f64 = uploaded.iter().sum();
    options.print("checkpoint_uploaded_per_changed", sum / (bytes * rounds as f64), "", None);
    uploaded.sort_by(f64::total_cmp);
    options.print("checkpoint_uploaded_p50", uploaded[uploaded.len() / 2] / 1e6, "MB", None);
    options.print("checkpoint_uploaded_max", uploaded[uploaded.len() - 1] / 1e6, "MB", None);
}
