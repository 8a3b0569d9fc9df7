//! The 16 shards in front of session windows: which sessions come out, by watermarks of eight subtasks of which some become idle.

use thalweg_common::Timestamp;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::event::WatermarkStatus;
use thalweg_runtime::testing::{OperatorHarness, Setup};
use thalweg_runtime::time::{Merged, WatermarkMerger};
use thalweg_runtime::windows::{Lateness, Mapped, SessionWindows, TimeWindow, WindowAssigner};

const SUBTASKS: usize = 8;
const GAP_MS: u64 = 10_000;

/// Value, subtask and event time, in the order in which they were read.
const READ: [(u64, usize, Timestamp); 8] = [
    (6, 0, 1_648_030_822_428),
    (4, 6, 1_648_030_809_282),
    (3, 2, 1_648_030_797_697),
    (5, 2, 1_648_030_810_871),
    (7, 7, 1_648_030_834_105),
    (1, 0, 1_648_030_794_441),
    (2, 0, 1_648_030_796_122),
    (8, 0, 1_648_030_887_171),
];

/// Subtasks with monotonous timestamps, or some disorder, in front of sessions of ten seconds, all under one key.
struct Job {
    /// The latest event of each subtask.
    latest: [Timestamp; SUBTASKS],
    out_of_orderness: i64,
    merger: WatermarkMerger,
    sessions: OperatorHarness<u64, Vec<u64>>,
    /// Values and the watermark with which they came.
    printed: Vec<(Vec<u64>, Timestamp)>,
}

impl Job {
    fn new(out_of_orderness: i64, lateness: i64) -> Self {
        let output = Mapped(|_: &u64, _: TimeWindow, mut values: Vec<u64>| {
            values.sort_unstable();
            [values]
        });
        let windows = SessionWindows::with_gap(std::time::Duration::from_millis(GAP_MS));
        let process = windows.listed(output, Lateness::default().allowed(lateness));
        let sessions = OperatorHarness::keyed(|_: &u64| 0_u64, process, Setup::default()).unwrap();
        let (latest, merger) = ([Timestamp::MIN; SUBTASKS], WatermarkMerger::new(SUBTASKS));
        Self { latest, out_of_orderness, merger, sessions, printed: Vec::new() }
    }

    fn merged(&mut self, merged: Merged) {
        if let Some(watermark) = merged.watermark {
            self.sessions.watermark(watermark).unwrap();
        }
        let watermark = self.merger.watermark();
        self.printed.extend(self.sessions.output().into_iter().map(|values| (values, watermark)));
    }

    fn read(&mut self, value: u64, subtask: usize, at: Timestamp) {
        let merged = self.merger.on_status(subtask, WatermarkStatus::Active);
        self.merged(merged);
        self.sessions.push_batch(Batch::from_parts(vec![value], vec![at])).unwrap();
        self.latest[subtask] = self.latest[subtask].max(at);
        let watermark = self.latest[subtask] - self.out_of_orderness - 1;
        let merged = self.merger.on_watermark(subtask, watermark);
        self.merged(merged);
    }

    fn idle(&mut self, subtasks: &[usize]) {
        for subtask in subtasks {
            let merged = self.merger.on_status(*subtask, WatermarkStatus::Idle);
            self.merged(merged);
        }
    }

    fn read_all(&mut self) {
        READ.into_iter().for_each(|(value, subtask, at)| self.read(value, subtask, at));
    }

    fn values(&self) -> Vec<Vec<u64>> {
        self.printed.iter().map(|(values, _)| values.clone()).collect()
    }
}

fn four_sessions() -> Vec<Vec<u64>> {
    vec![vec![1, 2, 3], vec![4, 5], vec![6], vec![7]]
}

#[test]
fn idle_shard_sessions_with_the_watermarks_of_the_guide() {
    let mut job = Job::new(0, 0);
    job.read_all();
    assert_eq!(job.printed, []);
    // Those that never had an event become idle first, then 6, 2, 7, and 0 at last.
    job.idle(&[1, 3, 4, 5]);
    assert_eq!(job.printed, [(vec![1, 2, 3], 1_648_030_809_281)]);
    job.idle(&[6]);
    assert_eq!((job.merger.watermark(), job.printed.len()), (1_648_030_810_870, 1));
    job.idle(&[2, 7, 0]);
    let expected = [
        (vec![1, 2, 3], 1_648_030_809_281),
        (vec![4, 5], 1_648_030_834_104),
        (vec![6], 1_648_030_834_104),
        (vec![7], 1_648_030_887_170),
    ];
    assert_eq!(job.printed, expected);
    assert_eq!(job.merger.watermark(), 1_648_030_887_170);
    // The subtask that was ahead made nothing late.
    assert_eq!(job.sessions.take_late_records(), 0);
}

#[test]
fn idle_shard_sessions_without_idleness_are_never_printed() {
    let mut job = Job::new(0, 0);
    job.read_all();
    assert_eq!(job.values(), Vec::<Vec<u64>>::new());
}

#[test]
fn idle_shard_sessions_with_bounded_out_of_orderness() {
    let mut job = Job::new(30_000, 0);
    job.read_all();
    job.idle(&[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((job.values(), job.merger.watermark()), (four_sessions(), 1_648_030_857_170));
}

#[test]
fn idle_shard_sessions_with_allowed_lateness_fire_once() {
    let mut job = Job::new(0, 300_000);
    job.read_all();
    job.idle(&[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(job.values(), four_sessions());
}

#[test]
fn idle_shard_sessions_that_touch_merge() {
    for (behind_ms, closed) in [(9_999, false), (10_000, false), (10_001, true)] {
        let mut job = Job::new(0, 0);
        job.read_all();
        job.idle(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(job.values(), four_sessions());
        let at = 1_648_030_887_171 + behind_ms;
        job.read(9, 0, at);
        let mut expected = four_sessions();
        if closed {
            expected.push(vec![8]);
            assert_eq!(job.printed.last(), Some(&(vec![8], 1_648_030_897_171)));
        }
        assert_eq!(job.values(), expected, "{behind_ms} ms behind");
    }
}

#[test]
fn idle_shard_sessions_of_idle_shards_alone() {
    let mut job = Job::new(0, 0);
    job.idle(&[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((job.printed, job.merger.watermark()), (vec![], Timestamp::MIN));
}

#[test]
fn idle_shard_sessions_all_end_with_the_input() {
    let mut job = Job::new(0, 0);
    job.read_all();
    for subtask in 0..SUBTASKS {
        let merged = job.merger.on_end(subtask);
        job.merged(merged);
    }
    let mut expected = four_sessions();
    expected.push(vec![8]);
    assert_eq!(job.values(), expected);
}
