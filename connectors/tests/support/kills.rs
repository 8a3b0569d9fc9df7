//! A file sink that is killed again and again, at changing parallelism, and a reader that looks at its files meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::clock::ManualClock;
use thalweg_common::storage::{ObjectInfo, Storage, StorageFactory};
use thalweg_connectors::files::{FileSink, RollingPolicy};
use thalweg_connectors::formats::Text;
use thalweg_runtime::io::Io;
use thalweg_runtime::operators;
use thalweg_runtime::snapshot::OperatorSnapshot;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use tokio::runtime::Runtime;

/// How often a sink is killed, unless the environment says otherwise.
const KILLS: u64 = 8;

/// Says how often.
pub const KILLS_VARIABLE: &str = "THALWEG_FILE_SINK_KILLS";

/// What one run is made of.
pub struct Kills<'a> {
    pub runtime: &'a Runtime,
    /// What each attempt has of its own, as each process has: what a killed one held is not given back.
    pub storages: &'a dyn Fn() -> StorageFactory,
    pub place: String,
    pub seed: u64,
}

struct State {
    /// The newest checkpoint that is durable, and how many records it covers.
    durable: Vec<OperatorSnapshot>,
    covered: u64,
    attempt: u32,
    checkpoint: u64,
    clock: Arc<ManualClock>,
    random: u64,
    /// The finished files that were read, with their content: they never change.
    read: BTreeMap<String, String>,
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

impl Kills<'_> {
    /// Kills a sink so many times, and counts what a reader sees in the end: records that are lost, and records that are there twice.
    pub fn run(&self) {
        let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
        let clock = Arc::new(ManualClock::new(1_704_449_472_000));
        let random = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut state = State {
            durable: Vec::new(),
            covered: 0,
            attempt: 0,
            checkpoint: 0,
            clock,
            random,
            read: BTreeMap::new(),
        };
        for _ in 0..kills {
            let sinks = self.attempt(&mut state);
            // A killed process tidies nothing up; a task that fails does.
            if state.random(2) == 0 {
                std::mem::forget(sinks)
            } else {
                drop(sinks)
            }
            self.look(&mut state);
        }
        let mut sinks = self.open(&mut state);
        sinks.iter_mut().for_each(|sink| sink.end().unwrap());
        state.checkpoint += 1;
        for sink in &mut sinks {
            sink.barrier(state.checkpoint).unwrap();
            sink.completed(state.checkpoint).unwrap();
        }
        let seen = self.look(&mut state);
        let read: String = state.read.values().map(String::as_str).collect();
        let storage = (self.storages)().open(&self.place).unwrap();
        assert_eq!(self.runtime.block_on(visible(storage.as_ref())), read, "finished files do not change");
        println!(
            "{kills} kills, {} checkpoints, {} files: {} records, lost 0, duplicated 0",
            state.checkpoint,
            state.read.len(),
            seen.len()
        );
        assert_eq!(seen.len() as u64, state.covered, "lost: {}", state.covered - seen.len() as u64);
        assert!(state.covered > 0, "something was written");
    }

    fn open(&self, state: &mut State) -> Vec<OperatorHarness<u64>> {
        state.attempt += 1;
        let parallelism = 1 + state.random(3) as u32;
        let sink = FileSink::rows(&self.place, Text)
            .bucket_by(|number: &u64, _| format!("b={}", number % 2))
            .rolling(RollingPolicy::default().max_part_bytes(150));
        let factory = operators::sink(sink);
        let storages = (self.storages)();
        let open = |subtask| {
            let setup = Setup {
                attempt: state.attempt,
                restored: state.durable.clone(),
                clock: state.clock.clone(),
                io: Io::on(self.runtime.handle().clone()),
                storages: storages.clone(),
                ..Setup::default()
            };
            OperatorHarness::open_sink(factory.as_ref(), setup.subtask(subtask, parallelism)).unwrap()
        };
        (0..parallelism).map(open).collect()
    }

    fn attempt(&self, state: &mut State) -> Vec<OperatorHarness<u64>> {
        let mut sinks = self.open(state);
        let mut position = state.covered;
        for _ in 0..state.random(25) {
            match state.random(10) {
                0..=5 => {
                    for sink in &mut sinks {
                        let count = state.random(20);
                        sink.push((position..position + count).collect()).unwrap();
                        position += count;
                    }
                }
                6 => {
                    let seconds = state.random(70);
                    state.clock.advance(Duration::from_secs(seconds));
                    for sink in &mut sinks {
                        sink.fire().unwrap();
                    }
                }
                _ => {
                    state.checkpoint += 1;
                    let checkpoint = state.checkpoint;
                    let snapshots = sinks.iter_mut().map(|sink| sink.barrier(checkpoint).unwrap()).collect();
                    if state.random(4) == 0 {
                        sinks.iter_mut().for_each(|sink| sink.aborted(checkpoint).unwrap());
                        continue;
                    }
                    (state.durable, state.covered) = (snapshots, position);
                    for sink in &mut sinks {
                        // The news may come late, or to some of them only.
                        if state.random(3) > 0 {
                            sink.completed(checkpoint).unwrap();
                        }
                    }
                    self.look(state);
                }
            }
        }
        sinks
    }

    /// What a reader sees: each record once, and none that no durable checkpoint covers.
    fn look(&self, state: &mut State) -> BTreeSet<u64> {
        let storage = (self.storages)().open(&self.place).unwrap();
        let read = &mut state.read;
        self.runtime.block_on(async {
            let objects: Vec<_> = storage
                .list("")
                .await
                .unwrap()
                .into_iter()
                .filter(|object| is_visible(&object.path))
                .collect();
            for ObjectInfo { path, size } in &objects {
                if let Some(text) = read.get(path) {
                    assert_eq!(text.len() as u64, *size, "{path} has changed");
                } else {
                    read.insert(path.clone(), text_of(storage.as_ref(), path).await);
                }
            }
            assert_eq!(read.len(), objects.len(), "a finished file is gone");
        });
        let mut seen = BTreeSet::new();
        for line in read.values().flat_map(|text| text.lines()) {
            let number: u64 = line.parse().unwrap();
            assert!(number < state.covered, "{number} is not committed");
            assert!(seen.insert(number), "{number} is there twice");
        }
        seen
    }
}

/// The content of all finished files.
pub async fn visible(storage: &dyn Storage) -> String {
    let mut text = String::new();
    for object in storage.list("").await.unwrap() {
        if is_visible(&object.path) {
            text.push_str(&text_of(storage, &object.path).await);
        }
    }
    text
}

fn is_visible(path: &str) -> bool {
    !path.split('/').any(|name| name.starts_with(['.', '_']))
}

async fn text_of(storage: &dyn Storage, path: &str) -> String {
    String::from_utf8(storage.get(path).await.unwrap().to_vec()).unwrap()
}
