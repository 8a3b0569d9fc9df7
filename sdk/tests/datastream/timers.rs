//! Timers in a job: the clock wakes a task that has nothing to read, and the last watermark fires what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg::batch::Batch;
use thalweg::operator::{Source, SourceContext, SourceStatus};
use thalweg::prelude::*;
use thalweg::testing::LocalCluster;

const KEYS: u64 = 100;

/// Numbers, once; it ends when as many timers of the clock have fired.
#[derive(Clone, Default)]
struct Numbers {
    next: u64,
    fired: Arc<AtomicU64>,
}

impl Source for Numbers {
    type Out = u64;

    fn open(&mut self, _: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure> {
        assert!(restored.is_none(), "nothing fails in this test");
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<u64>, _: usize) -> Result<SourceStatus, Failure> {
        if self.next < KEYS {
            out.push_with_timestamp(self.next, 0);
            self.next += 1;
            return Ok(SourceStatus::Ready);
        }
        let is_done = self.fired.load(Ordering::SeqCst) == KEYS;
        Ok(if is_done { SourceStatus::Finished } else { SourceStatus::Idle { retry_after: millis(5) } })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

/// Fires soon by the clock, at the end by event time, and never a third time.
#[derive(State, Clone, Default)]
struct Twice {
    deadline: ValueState<Timestamp>,
    #[state(skip)]
    fired: Arc<AtomicU64>,
}

impl KeyedProcess<u64, u64> for Twice {
    type Out = (u64, String);

    fn on_record(&mut self, _: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let soon = context.current_processing_time() + 20;
        self.deadline.set(context, soon);
        context.register_processing_time_timer(soon);
        context.register_processing_time_timer(soon + 1_000_000);
        context.register_event_time_timer(1_000_000);
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let key = *context.key();
        if context.time_domain() == Some(TimeDomain::ProcessingTime) {
            assert_eq!(self.deadline.get(context), Some(&at));
            assert!(context.current_processing_time() > at, "its millisecond is over");
            self.fired.fetch_add(1, Ordering::SeqCst);
            context.emit((key, "clock".into()));
        } else {
            assert_eq!((at, context.current_watermark()), (1_000_000, MAX_WATERMARK));
            context.emit((key, "event".into()));
        }
        Ok(())
    }
}

#[test]
fn the_clock_wakes_an_idle_task_and_the_last_watermark_fires_the_rest() {
    let cluster = LocalCluster::new().configure("parallelism.default", 2);
    let collected = cluster.run(|env| {
        env.enable_checkpointing(millis(50));
        let numbers = Numbers::default();
        let twice = Twice { fired: numbers.fired.clone(), ..Twice::default() };
        // One source; its subtasks would all give the same.
        let numbers = env.source("numbers", numbers).set_parallelism(1);
        Ok(numbers.key_by(|number| *number).process(twice).uid("twice").collect())
    });
    let mut told = collected.unwrap().take();
    told.sort();
    let expected = (0..KEYS).flat_map(|key| ["clock", "event"].map(|kind| (key, kind.to_string())));
    assert_eq!(told, expected.collect::<Vec<_>>());
}
