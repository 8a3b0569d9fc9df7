//! Tasks on the threads of their slots: one that blocks, and where the time of each goes.

use super::*;

/// Its first subtask does not return from its first poll until the test says so; the second one gives pairs without end.
#[derive(Clone)]
struct Stuck {
    released: Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>,
    blocks: Arc<std::sync::atomic::AtomicBool>,
    left: Vec<Pair>,
    is_stuck: bool,
}

impl Source for Stuck {
    type Out = Pair;

    fn open(&mut self, context: &SourceContext, _: Option<&[u8]>) -> Result<(), Failure> {
        self.is_stuck = context.subtask_index == 0;
        Ok(())
    }

    fn poll(&mut self, out: &mut Batch<Pair>, max: usize) -> Result<SourceStatus, Failure> {
        if self.is_stuck {
            self.blocks.store(true, Ordering::SeqCst);
            let (released, called) = &*self.released;
            drop(called.wait_while(released.lock().unwrap(), |released| !*released).unwrap());
        }
        out.extend(self.left.drain(..max.min(self.left.len())));
        Ok(if self.left.is_empty() { SourceStatus::Finished } else { SourceStatus::Ready })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_task_that_blocks_holds_up_its_own_slot_only() {
    let released = Arc::<(std::sync::Mutex<bool>, std::sync::Condvar)>::default();
    // So few that those for the slot that does not read fit into the channel to it.
    let blocks = Arc::default();
    let source = Stuck {
        released: Arc::clone(&released),
        blocks: Arc::clone(&blocks),
        left: pairs(200).skip(1).step_by(2).collect(),
        is_stuck: false,
    };
    let program = Arc::new(sums(source, 2, &Collected::default()));
    let mut running = Running::all(&program, 1, &NOTHING);
    let slot_of = |subtask: SubtaskId| subtask.index;
    // The other slot comes to the end of its input, and its sums arrive.
    while running.report().await.news != News::Status(TaskStatus::Drained) {}
    let sum = SubtaskId { vertex: SUMS, index: 1 };
    let wait = async {
        while running.tasks[&sum].1.read().records_in == 0 || !blocks.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("records go on in the other slot");
    // It takes a snapshot of its source and can be cancelled.
    running.tell(Mail::Trigger(Barrier { id: 1, timestamp_ms: 0, is_final: false, is_savepoint: false }));
    let (mut canceled, mut has_snapshot) = (0, false);
    while canceled < 2 {
        let Report { subtask, news, .. } = running.report().await;
        match news {
            News::Snapshot(_) => {
                assert_eq!((subtask.vertex, slot_of(subtask)), (SOURCES, 1));
                has_snapshot = true;
                running.request_cancellation();
            }
            News::Status(TaskStatus::Canceled) => {
                assert_eq!(slot_of(subtask), 1);
                canceled += 1;
            }
            News::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(has_snapshot);
    *released.0.lock().unwrap() = true;
    released.1.notify_all();
    while canceled < 4 {
        canceled += usize::from(running.report().await.news == News::Status(TaskStatus::Canceled));
    }
    running.join().await;
}

#[tokio::test]
async fn time_is_accounted() {
    let program = Arc::new(sums(CollectionSource::new(pairs(1_000_000)), 1, &Collected::default()));
    // Nobody reads what the source sends: it fills the channel and then waits.
    let mut running = Running::start(&program, 1, &NOTHING, &[SOURCES]);
    running.all_are(TaskStatus::Running).await;
    let counters = running.counters(SOURCES);
    for id in 1.. {
        // The mail ends its wait, whose time is accounted then.
        running.checkpoint(id, false).await;
        if counters.read().back_pressured_ns > 0 {
            break;
        }
    }
    running.cancel().await;
    let counted = counters.read();
    assert!(counted.busy_ns > 0 && counted.back_pressured_ns > 0, "{counted:?}");
    assert_eq!(counted.idle_ns, 0, "it always had something to read");

    let source = Gated::new(1, 0);
    let program = Arc::new(sums(source, 1, &Collected::default()));
    let mut running = Running::all(&program, 1, &NOTHING);
    running.all_are(TaskStatus::Running).await;
    let counters = [running.counters(SOURCES), running.counters(SUMS)];
    for id in 1.. {
        running.checkpoint(id, false).await;
        if counters.iter().all(|counters| counters.read().idle_ns > 0) {
            break;
        }
    }
    running.cancel().await;
    for counted in counters.map(|counters| counters.read()) {
        assert!(counted.busy_ns > 0 && counted.idle_ns > 0, "{counted:?}");
        assert_eq!(counted.back_pressured_ns, 0, "{counted:?}");
    }
}

/// A head that a test writes, to look at the loop alone.
struct Scripted {
    polls: Vec<Polled>,
    calls: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Scripted {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }
}

impl Head for Scripted {
    fn poll(&mut self) -> Result<Polled, Failure> {
        self.note("poll");
        Ok(if self.polls.is_empty() { Polled::EndOfInput } else { self.polls.remove(0) })
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.note("finish");
        Ok(())
    }

    fn snapshot(&mut self, barrier: Barrier, _: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.note(format!("snapshot {}", barrier.id));
        Ok(())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.note(format!("completed {checkpoint}"));
        if checkpoint == 13 { Err(Failure::external("the commit failed")) } else { Ok(()) }
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.note(format!("aborted {checkpoint}"));
        Ok(())
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.note(format!("flush {partial}"));
        Ok(Flushed::All)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.note("drop");
        // A destructor of user code: a task survives it.
        panic!("the destructor panicked");
    }
}

struct ScriptedFactory {
    calls: Arc<std::sync::Mutex<Vec<String>>>,
}

impl SourceFactory for ScriptedFactory {
    fn build(&self, _: &mut OperatorContext, _: AnyLink) -> Result<Box<dyn Head>, Failure> {
        let polls = vec![Polled::Progress, Polled::Idle { retry_after: Some(Duration::ZERO) }];
        Ok(Box::new(Scripted { polls, calls: Arc::clone(&self.calls) }))
    }
}

fn scripted() -> (Running, Arc<std::sync::Mutex<Vec<String>>>) {
    let calls = Arc::default();
    let sum = operators::reduce(|pair: &Pair| pair.0, |a: Pair, _| a);
    let sink = operators::sink(Collected::<Pair>::default().sink());
    let source = Arc::new(ScriptedFactory { calls: Arc::clone(&calls) });
    let program = Arc::new(program(source, sum, sink, 1));
    (Running::start(&program, 1, &NOTHING, &[SOURCES]), calls)
}

#[tokio::test]
async fn the_loop_calls_its_head_in_order() {
    let (mut running, calls) = scripted();
    running.all_are(TaskStatus::Drained).await;
    running.tell(Mail::Aborted { checkpoint: 1 });
    running.checkpoint(2, true).await;
    running.tell(Mail::Completed { checkpoint: 2, is_final: true });
    running.all_are(TaskStatus::Finished).await;
    running.join().await;
    let calls = calls.lock().unwrap();
    let expected = ["poll", "flush false", "poll", "flush true", "poll", "finish", "flush true"];
    assert_eq!(calls[..expected.len()], expected);
    let after: Vec<_> = calls[expected.len()..].iter().filter(|call| !call.starts_with("flush")).collect();
    assert_eq!(after, ["aborted 1", "snapshot 2", "completed 2", "drop"]);
}

#[tokio::test]
async fn a_commit_that_fails_fails_the_task() {
    let (mut running, _) = scripted();
    running.all_are(TaskStatus::Drained).await;
    running.checkpoint(13, true).await;
    running.tell(Mail::Completed { checkpoint: 13, is_final: true });
    assert_eq!(running.report().await.news, News::Failed(Failure::external("the commit failed")));
    running.request_cancellation();
    running.join().await;
}

/// Fails its first commits.
#[derive(Clone, Default)]
struct Unwilling {
    commits: Arc<AtomicU64>,
}

impl Sink<Pair> for Unwilling {
    type Committable = CheckpointId;

    fn open(&mut self, _: &SinkContext) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch<Pair>) -> Result<(), Failure> {
        batch.clear();
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<CheckpointId>, Failure> {
        Ok(vec![checkpoint])
    }

    fn commit(&mut self, _: &[CheckpointId]) -> Result<(), Failure> {
        if self.commits.fetch_add(1, Ordering::SeqCst) < 2 { Err(Failure::external("no")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_task_is_finished_when_its_last_commit_has_succeeded_however_often_it_failed_before() {
    let sink = Unwilling::default();
    let sum = operators::reduce(|pair: &Pair| pair.0, |a: Pair, _| a);
    let source = operators::source(CollectionSource::new(pairs(10)));
    let program = Arc::new(program(source, sum, operators::sink(sink.clone()), 1));
    let mut running = Running::all(&program, 1, &NOTHING);
    running.all_are(TaskStatus::Drained).await;
    running.checkpoint(1, true).await;
    running.tell(Mail::Completed { checkpoint: 1, is_final: true });
    running.all_are(TaskStatus::Finished).await;
    assert_eq!(sink.commits.load(Ordering::SeqCst), 3);
    running.join().await;
}
