//! The two ways to stop a job with a savepoint: drained, it sends the last watermark and shows all windows; otherwise they stay open.
#![allow(clippy::unwrap_used, clippy::panic)]

use thalweg_common::config::Configuration;
use thalweg_proto::client::JobClient;
use thalweg_proto::model::SavepointMode;
use thalweg_runtime::batch::Batch;
use thalweg_runtime::operator::{Source, SourceContext, SourceStatus};

use super::*;
use crate::aggregates::Count;
use crate::prelude::*;

/// Records at these times, and then nothing more, without an end.
#[derive(Clone)]
struct Times {
    times: Vec<Timestamp>,
    next: usize,
}

impl Source for Times {
    type Out = Timestamp;

    fn open(&mut self, _: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        assert!(restored.is_none(), "nothing fails in these tests");
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Timestamp>, _: usize) -> Result<SourceStatus, Failure> {
        let Some(time) = self.times.get(self.next) else {
            return Ok(SourceStatus::Idle { retry_after: secs(10) });
        };
        out.push(*time);
        self.next += 1;
        Ok(SourceStatus::Ready)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok((self.next as u64).to_le_bytes().to_vec())
    }
}

/// The ends and counts of all windows of a job that is stopped when its first ones have fired.
fn windows_until(mode: SavepointMode) -> Vec<(String, Timestamp, u64)> {
    let environment = Environment::new(&[], true);
    environment.configure("pipeline.auto-watermark-interval", "1 ms").set_parallelism(2);
    let (fired, mut has_fired) = watch::channel(0);
    let fired = Arc::new(fired);
    let source = Times { times: vec![1_000, 5_000, 12_000, 13_000, 24_000], next: 0 };
    let strategy = monotonous_timestamps().timestamps(|time: &Timestamp| *time);
    let times =
        environment.source("times", source).set_parallelism(1).watermarks(strategy).set_parallelism(1);
    let times = times.key_by(|_| 7_u64);
    let shown = |kind: &'static str| {
        move |_: &u64, window: TimeWindow, count: u64| [(kind.to_string(), window.end, count)]
    };
    let tumbling = times.window(tumbling(secs(10))).aggregate_with(Count, shown("tumbling")).uid("tumbling");
    let sliding =
        times.window(sliding(secs(20), secs(10))).aggregate_with(Count, shown("sliding")).uid("sliding");
    let session = times.window(session(secs(5))).aggregate_with(Count, shown("session")).uid("session");
    let all = tumbling.union(&sliding).union(&session).map(move |window| {
        fired.send_modify(|fired| *fired += 1);
        window
    });
    let collected = all.collect();
    let program = environment.build(&Configuration::new(), "stopped").unwrap();
    let savepoints = tempfile::tempdir().unwrap();
    block_on(|scope| async move {
        let running =
            Running::start(program, (&[], &RuntimeProperties::default()), &Configuration::new(), &scope)
                .await?;
        // The watermark is at 24 s: two tumbling and two sliding windows are over, and two sessions.
        tokio::time::timeout(secs(30), has_fired.wait_for(|fired| *fired == 6)).await??;
        let client = JobClient::connect(vec![running.job_manager.address.clone()]).await?;
        // Its tasks run before the job manager has heard from all that they do.
        let mut news = client.watch(running.job_id);
        while news.next().await?.is_some_and(|event| event.summary.status != JobStatus::Running) {}
        client.savepoint(running.job_id, savepoints.path().to_str(), mode, |_| ()).await?;
        let (_never, interrupted) = watch::channel(0);
        follow(&running.job_manager, running.job_id, interrupted).await?;
        running.end().await;
        Ok(())
    })
    .unwrap();
    let mut windows = collected.take();
    windows.sort();
    windows
}

fn expected(windows: &[(&str, Timestamp, u64)]) -> Vec<(String, Timestamp, u64)> {
    windows.iter().map(|(kind, end, count)| (kind.to_string(), *end, *count)).collect()
}

#[test]
fn stop_leaves_windows_open() {
    let windows = [
        ("session", 10_000, 2),
        ("session", 18_000, 2),
        ("sliding", 10_000, 2),
        ("sliding", 20_000, 4),
        ("tumbling", 10_000, 2),
        ("tumbling", 20_000, 2),
    ];
    assert_eq!(windows_until(SavepointMode::Stop), expected(&windows));
}

#[test]
fn stop_with_drain_fires_all_windows() {
    let windows = [
        ("session", 10_000, 2),
        ("session", 18_000, 2),
        ("session", 29_000, 1),
        ("sliding", 10_000, 2),
        ("sliding", 20_000, 4),
        ("sliding", 30_000, 3),
        ("sliding", 40_000, 1),
        ("tumbling", 10_000, 2),
        ("tumbling", 20_000, 2),
        ("tumbling", 30_000, 1),
    ];
    assert_eq!(windows_until(SavepointMode::Drain), expected(&windows));
}
