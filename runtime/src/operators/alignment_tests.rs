//! A source that is aligned with others, and what it does when it is ahead: all of it, or split by split.

use std::collections::BTreeSet;

use super::*;
use crate::time::NO_WATERMARK;
use crate::time::alignment::Alignment;

/// Has a record for each unit of time in each of its splits, and pauses them one by one.
#[derive(Clone)]
struct Clocks(Vec<(&'static str, i64)>);

struct ClocksReader {
    /// Each split with the time of its next record and how far it goes with each.
    splits: Vec<(&'static str, i64, i64)>,
    paused: BTreeSet<String>,
    read: Vec<&'static str>,
}

impl SplitSource for Clocks {
    type Out = Happening;
    type Split = Named;
    type Reader = ClocksReader;

    fn splits(&self, _: &SourceContext) -> Result<Vec<Named>, Failure> {
        Ok(self.0.iter().map(|(name, _)| Named((*name).into())).collect())
    }

    fn reader(&self, _: &SourceContext) -> Result<ClocksReader, Failure> {
        let splits = self.0.iter().map(|(name, step)| (*name, *step, *step)).collect();
        Ok(ClocksReader { splits, paused: BTreeSet::new(), read: Vec::new() })
    }
}

impl SourceReader for ClocksReader {
    type Out = Happening;
    type Split = Named;

    const TELLS_SPLITS: bool = true;
    const PAUSES_SPLITS: bool = true;

    fn add_splits(&mut self, _: Vec<Named>) -> Result<(), Failure> {
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Happening>, _: usize) -> Result<SourceStatus, Failure> {
        self.read.clear();
        for (name, next, step) in self.splits.iter_mut().filter(|(name, ..)| !self.paused.contains(*name)) {
            out.push(('x', *next));
            *next += *step;
            self.read.push(*name);
        }
        Ok(match self.read.is_empty() {
            true => SourceStatus::Idle { retry_after: Duration::from_secs(1) },
            false => SourceStatus::Ready,
        })
    }

    fn tell_splits(&mut self, report: &mut SplitReport) {
        self.read.iter().for_each(|split| report.records(split, 1));
    }

    fn pause_splits(&mut self, paused: &BTreeSet<String>) {
        self.paused.clone_from(paused);
    }

    fn snapshot(&mut self) -> Result<Vec<Named>, Failure> {
        Ok(Vec::new())
    }
}

const INTERVAL: Duration = Duration::from_millis(200);

/// An aligned source, and the worker's hold on it.
struct Aligned {
    clock: Arc<ManualClock>,
    head: Box<dyn Head>,
    log: Log,
    alignment: Alignment,
}

impl Aligned {
    fn new(splits: &[(&'static str, i64)], max_drift_ms: u64) -> Self {
        let strategy = timed(WatermarkStrategy::for_monotonous_timestamps())
            .with_idleness(Duration::from_secs(5))
            .with_watermark_alignment("g", Duration::from_millis(max_drift_ms), None);
        let (clock, log) = (Arc::new(ManualClock::new(0)), Log::default());
        let mut context = Setup { clock: clock.clone(), ..Setup::default() }.operator_context();
        context.splits = Some(SharedSplits::default());
        let next = AnyLink::new::<Happening>(Box::new(log.clone()));
        let link = watermarks::<Happening, _, _>(strategy).build(&mut context, Some(next)).unwrap();
        let source: Arc<dyn SourceFactory> = crate::operators::source(Clocks(splits.to_vec()));
        let head = source.build(&mut context, link).unwrap();
        let alignment = context.counters.alignment().expect("it is aligned");
        Self { clock, head, log, alignment }
    }

    /// Reads as a task does that has nothing else to do, through one interval. How many records it has read.
    fn interval(&mut self) -> usize {
        for _ in 0..10 {
            let polled = self.head.poll().unwrap();
            self.head.flush(polled != Polled::Progress).unwrap();
        }
        self.clock.advance(INTERVAL);
        self.head.flush(true).unwrap();
        self.log.take().iter().filter(|seen| matches!(seen, Record(..))).count()
    }
}

#[test]
fn a_source_that_is_ahead_reads_nothing_until_the_others_have_come_closer() {
    let mut source = Aligned::new(&[("a", 10)], 100);
    assert_eq!(source.alignment.reported(), NO_WATERMARK);
    assert_eq!(source.interval(), 10, "nobody has said anything of the others");
    assert_eq!((source.alignment.reported(), source.alignment.drift_ms()), (99, None));
    source.alignment.announce(20);
    assert_eq!((source.interval(), source.alignment.reported()), (10, 199), "within what it may");
    assert_eq!((source.interval(), source.alignment.drift_ms()), (0, Some(179)));
    for _ in 0..100 {
        assert_eq!(source.interval(), 0);
    }
    assert!(source.log.take().is_empty(), "who waits for others does not become idle by that");
    assert_eq!(source.alignment.reported(), 199);

    let mut snapshot = SnapshotBuilder::default();
    let barrier = Barrier { id: 1, timestamp_ms: 0, is_final: false, is_savepoint: false };
    source.head.snapshot(barrier, &mut snapshot).unwrap();
    assert_eq!(snapshot.build().operators.len(), 1, "it takes part in checkpoints");

    source.alignment.announce(100);
    assert_eq!((source.interval(), source.alignment.reported()), (10, 299));
    source.alignment.announce(MAX_WATERMARK);
    assert_eq!(source.interval(), 10, "nobody is to be waited for");
    source.alignment.announce(0);
    source.head.finish().unwrap();
    assert_eq!(source.alignment.reported(), MAX_WATERMARK, "at its end it holds nobody back");
}

#[test]
fn time_in_which_it_waits_counts_for_no_idleness_and_time_behind_it_does() {
    let mut source = Aligned::new(&[("a", 10)], 0);
    source.interval();
    source.alignment.announce(50);
    source.head.flush(true).unwrap();
    source.clock.advance(Duration::from_secs(60));
    assert_eq!(source.interval(), 0);
    assert_eq!(source.alignment.reported(), 99, "it is still waited for");
    // Free again, but the split has no more: its idleness begins where it was.
    source.alignment.announce(MAX_WATERMARK);
    source.head.flush(true).unwrap();
    assert!(source.log.take().is_empty());
    source.clock.advance(Duration::from_secs(5));
    source.head.flush(true).unwrap();
    assert_eq!((source.log.take(), source.alignment.reported()), (vec![Status(Idle)], MAX_WATERMARK));
}

#[test]
fn splits_that_are_ahead_wait_each_on_its_own() {
    let mut source = Aligned::new(&[("slow", 1), ("fast", 50)], 100);
    assert_eq!((source.interval(), source.alignment.reported()), (20, 9));
    // The group goes by the slow split, and so does this subtask as a whole.
    source.alignment.announce(9);
    assert_eq!((source.interval(), source.alignment.reported()), (10, 19));
    for least in (19..390).step_by(10) {
        source.alignment.announce(least);
        assert_eq!(source.alignment.drift_ms(), Some(0), "the split that is furthest behind is the subtask");
        assert_eq!(source.interval(), 10, "the other one waits");
    }
    // The fast one stands at 499.
    source.alignment.announce(398);
    assert_eq!(source.interval(), 10);
    source.alignment.announce(399);
    assert_eq!((source.interval(), source.alignment.reported()), (20, 419));
}

#[test]
fn a_source_is_aligned_once_and_only_directly_behind_it() {
    let strategy = || {
        timed(WatermarkStrategy::for_monotonous_timestamps())
            .with_watermark_alignment("g", INTERVAL, INTERVAL)
    };
    let build = |context: &mut crate::program::OperatorContext| {
        let next = AnyLink::new::<Happening>(Box::new(Log::default()));
        watermarks::<Happening, _, _>(strategy()).build(context, Some(next)).map(drop)
    };
    let mut context = Setup::default().operator_context();
    let failure = build(&mut context).unwrap_err();
    assert!(failure.message.contains("directly behind the source") && !failure.retryable, "{failure}");
    context.splits = Some(SharedSplits::default());
    assert_eq!(build(&mut context), Ok(()));
    assert!(build(&mut context).unwrap_err().message.contains("aligned twice"));
}
