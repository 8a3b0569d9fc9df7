//! Deploys the tasks of a region's attempt: connects their channels, fetches what they restore, and brings them to the threads of
//! their slots.
//!
//! Channels between two tasks of this worker are made here and pass batches as they are; the others go through the
//! exchange. Invariants: every channel of a deployed task exists before the task begins; whatever goes wrong is reported
//! in the task's name, and its other channels stay open until it is cancelled; `Gone` is each task's last report.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, join3};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, EdgeId, JobId, OperatorId, SubtaskId};
use thalweg_common::key_group::{KeyGroupRange, groups_of};
use thalweg_common::limits::SNAPSHOTS_UNDER_WAY;
use thalweg_common::status::TaskStatus;
use thalweg_common::task_scope::{ErrorPolicy, TaskScope, ThreadHandle};
use thalweg_proto::convert::SnapshotHandle;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::info;

use super::messages::Deployment;
use super::wiring::{self, Ends, Outgoing};
use crate::chain::ChainParts;
use crate::erased::{AnyReceiver, AnySender};
use crate::exchange::{ExchangeClient, ExchangeServer, TaskWaker};
use crate::program::Program;
use crate::slot::{self, Seat, SlotId};
use crate::stores::{self, TaskStores, WorkerStores};
use crate::task::copies::Origins;
use crate::task::counters::Counters;
use crate::task::files;
use crate::task::mailbox::{Cancellation, Inbox, Mailbox, mailbox};
use crate::task::savepoint::{self, RestoredSavepoint};
use crate::task::upload::{self, Directory};
use crate::task::{CONSEQUENCE_GRACE, News, Report, Reporter, Task};

/// What every task of the worker shares.
#[derive(Clone)]
pub(crate) struct Deployer {
    pub(crate) program: Arc<Program>,
    pub(crate) job_id: JobId,
    pub(crate) is_local: bool,
    /// Managed memory of each slot, if the task manager has told it.
    pub(crate) managed_bytes_per_slot: Option<u64>,
    /// Where the worker may keep state.
    pub(crate) state_directory: PathBuf,
    pub(crate) plan_fingerprint: u64,
    pub(crate) clock: SharedClock,
    pub(crate) server: ExchangeServer,
    pub(crate) client: ExchangeClient,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) scope: TaskScope,
}

/// The tasks of a region's attempt. Dropping it asks them to end.
pub(crate) struct Running {
    pub(crate) tasks: BTreeMap<SubtaskId, RunningTask>,
    /// Where their snapshots are stored.
    pub(crate) directory: Directory,
    /// Where their state is.
    pub(crate) stores: WorkerStores,
    cancellation: Cancellation,
    scope: TaskScope,
}

/// The worker's hold on a task.
pub(crate) struct RunningTask {
    pub(crate) mailbox: Mailbox,
    pub(crate) counters: Counters,
    pub(crate) stores: TaskStores,
}

impl Running {
    /// Asks all tasks to end.
    pub(crate) fn cancel(&self) {
        self.cancellation.cancel();
        self.tasks.values().for_each(|task| task.mailbox.wake());
        self.scope.cancel();
    }
}

/// One task on its way to the thread of its slot.
struct Deploying {
    seat: Seat,
    thread: ThreadHandle,
    inbox: Inbox,
    reporter: Reporter,
    parts: ChainParts,
    mailbox: Mailbox,
    cancellation: Cancellation,
    snapshots: Vec<SnapshotHandle>,
    savepoint: Option<RestoredSavepoint>,
    /// Where the files of another job's checkpoint are, if such a one is restored.
    foreign: Directory,
    outgoing: BTreeMap<EdgeId, Vec<Outgoing>>,
    /// Why its channels cannot be connected.
    defect: Option<Failure>,
}

impl Deployer {
    /// Starts the tasks of a deployment. What goes wrong with one of them is reported by it.
    pub(crate) fn start(&self, deployment: Deployment) -> Running {
        let Deployment { region, attempt, .. } = deployment;
        let name = format!("region-{region}-attempt-{attempt}");
        let scope = self.scope.child_with_policy(name, ErrorPolicy::LogOnly);
        let threads = scope.child("threads");
        let started = self.server.start_attempt(self.job_id, region, attempt);
        let prepared = started.and_then(|()| self.open_directories(&deployment));
        let (mut wired, (directory, foreign)) = match prepared {
            Ok(directories) => (wiring::connect(self, &deployment), directories),
            Err(failure) => (wiring::broken(&deployment, &failure), (None, None)),
        };
        let cancellation = Cancellation::default();
        let mut seats = self.start_slots(&deployment, &threads);
        let stores = self.stores(&deployment);
        let mut tasks = BTreeMap::new();
        for (subtask, snapshots) in deployment.tasks {
            let Some((seat, thread)) = seats.remove(&subtask) else { continue };
            let Ends { receivers, outgoing, defect } = wired.remove(&subtask).unwrap_or_default();
            let (mailbox, inbox) = mailbox(seat.waker(), cancellation.clone());
            let parts = self.parts(attempt, subtask, receivers, seat.waker(), stores.task(subtask));
            let running = RunningTask {
                mailbox: mailbox.clone(),
                counters: parts.counters.clone(),
                stores: parts.stores.clone(),
            };
            let reporter = Reporter { attempt, subtask, reports: self.reports.clone() };
            let cancellation = cancellation.clone();
            let deploying = Deploying {
                seat,
                thread,
                inbox,
                reporter,
                parts,
                mailbox,
                cancellation,
                snapshots,
                savepoint: deployment.savepoint.clone(),
                foreign: foreign.clone(),
                outgoing,
                defect,
            };
            let deployed = deploying.run(Arc::clone(&self.program), directory.clone(), threads.clone());
            scope.spawn(&format!("task {subtask}"), deployed);
            tasks.insert(subtask, running);
        }
        Running { tasks, directory, stores, cancellation, scope }
    }

    /// Where the tasks keep their state.
    fn stores(&self, deployment: &Deployment) -> WorkerStores {
        let tasks: Vec<SubtaskId> = deployment.tasks.keys().copied().collect();
        let Deployment { region, attempt, .. } = *deployment;
        let directory = stores::attempt_directory(&self.state_directory, region, attempt);
        let Program { state, graph, .. } = &*self.program;
        let stores = WorkerStores::new(state, graph, &tasks, self.managed_bytes_per_slot, directory);
        // In the author's own process nothing outlives a failure of the machine's kind.
        let has_copies = !self.is_local && deployment.checkpoint_directory.is_some();
        if has_copies { stores.with_copies(&state.local_directories, self.job_id) } else { stores }
    }

    /// Where the job's snapshots are stored, if anywhere, and where those are that are restored, if they are another job's.
    fn open_directories(&self, deployment: &Deployment) -> Result<(Directory, Directory), Failure> {
        let open = |uri: &String| self.program.storages.open(uri).map_err(|error| Failure::from(&error));
        let own = deployment.checkpoint_directory.as_ref().map(open).transpose()?;
        Ok((own, deployment.restore_directory.as_ref().map(open).transpose()?))
    }

    /// Starts a thread for each slot, and gives each task its seat: those of earlier vertices first.
    fn start_slots(
        &self,
        deployment: &Deployment,
        threads: &TaskScope,
    ) -> BTreeMap<SubtaskId, (Seat, ThreadHandle)> {
        let graph = &self.program.graph;
        let parts = slot::connected_parts(graph);
        let mut slots = BTreeMap::<_, Vec<SubtaskId>>::new();
        for subtask in deployment.tasks.keys() {
            slots.entry(SlotId::of(graph, &parts, *subtask)).or_default().push(*subtask);
        }
        let mut all = BTreeMap::new();
        for subtasks in slots.into_values() {
            let (slot, seats) = slot::slot(subtasks.len(), Arc::clone(&self.clock));
            let name = subtasks.first().map_or_else(String::new, |first| format!("slot {}", first.index));
            let thread = threads.spawn_thread(&name, move || slot.run());
            let seats = seats.into_iter().map(|seat| (seat, thread.clone()));
            all.extend(subtasks.into_iter().zip(seats));
        }
        all
    }

    fn parts(
        &self,
        attempt: Attempt,
        subtask: SubtaskId,
        receivers: Vec<AnyReceiver>,
        waker: TaskWaker,
        stores: TaskStores,
    ) -> ChainParts {
        ChainParts {
            job_id: self.job_id,
            attempt,
            subtask,
            is_local: self.is_local,
            clock: Arc::clone(&self.clock),
            waker,
            runtime: Handle::try_current().ok(),
            counters: Counters::default(),
            stores,
            restored: Vec::new(),
            receivers,
            senders: BTreeMap::new(),
            kept_open: Vec::new(),
        }
    }
}

impl Deploying {
    /// Brings the task to the thread of its slot and waits for its end.
    async fn run(mut self, program: Arc<Program>, directory: Directory, threads: TaskScope) {
        let reporter = self.reporter.clone();
        let cancelled = threads.token();
        let prepared = tokio::select! {
            biased;
            () = cancelled.cancelled() => None,
            prepared = self.prepare(&program, &directory) => Some(prepared),
        };
        match prepared {
            None => reporter.report_async(News::Status(TaskStatus::Canceled)).await,
            Some(Ok(restored)) => {
                if let Err(failure) = self.run_in_slot(program, restored, &threads).await {
                    reporter.report_async(News::Failed(failure)).await;
                }
            }
            Some(Err(failure)) => {
                if failure.is_consequence {
                    // Cancelled in the meantime or not: the report of a cancelled task is none of a failure.
                    let _ = tokio::time::timeout(CONSEQUENCE_GRACE, cancelled.cancelled()).await;
                }
                reporter.report_async(News::Failed(failure)).await;
                // Its channels stay open until then: see the invariants of `task`.
                cancelled.cancelled().await;
                drop(self);
            }
        }
        reporter.report_async(News::Gone).await;
    }

    /// Opens the channels to other workers and fetches what the task restores, all at the same time.
    async fn prepare(&mut self, program: &Program, directory: &Directory) -> Result<Vec<Bytes>, Failure> {
        if let Some(defect) = self.defect.take() {
            return Err(defect);
        }
        let snapshots = std::mem::take(&mut self.snapshots);
        let vertex = program.graph.vertices.get(self.parts.subtask.vertex as usize);
        let owned = vertex.map_or(KeyGroupRange { start: 0, end: 0 }, |vertex| {
            groups_of(self.parts.subtask.index, vertex.parallelism, vertex.max_parallelism)
        });
        let stores = &self.parts.stores;
        // Of another job's files nobody here may keep copies, or name them.
        let (directory, from) = match self.foreign.take() {
            Some(foreign) => {
                stores.uploads().restores_foreign();
                (Some(foreign), stores.without_copies())
            }
            None => (directory.clone(), stores.clone()),
        };
        let operators = vertex.iter().flat_map(|vertex| &vertex.operators);
        let operators: Arc<BTreeSet<_>> = Arc::new(operators.map(|operator| operator.id).collect());
        let fetched = fetch(snapshots, &operators, owned, directory, &from);
        let (savepoint, subtask) = (self.savepoint.take(), self.reporter.subtask);
        let now_ms = self.parts.clock.now_ms();
        let read = async {
            let vertex = program.graph.vertices.get(subtask.vertex as usize);
            match savepoint.zip(vertex) {
                Some((from, vertex)) => {
                    let read =
                        savepoint::read(from, &program.storages, vertex, subtask.index, stores, now_ms);
                    read.await.map(Some)
                }
                None => Ok(None),
            }
        };
        let edges = std::mem::take(&mut self.outgoing).into_iter();
        let opened = join_all(edges.map(|(edge, outgoing)| async move { (edge, open_all(outgoing).await) }));
        let (fetched, read, opened) = join3(fetched, read, opened).await;
        let mut failed = None;
        for (edge, channels) in opened {
            let senders = self.parts.senders.entry(edge).or_default();
            for channel in channels {
                // The channels that could be opened are kept, also beside one that could not.
                match channel {
                    Ok(sender) => senders.push(sender),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
            }
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        self.parts.restored.extend(read?);
        let (snapshots, origins) = fetched?;
        self.parts.counters.set_restored(origins);
        let Origins { copied_bytes, fetched_bytes } = origins;
        if copied_bytes + fetched_bytes > 0 {
            info!(
                "task {subtask} restores {copied_bytes} bytes from copies on this machine and {fetched_bytes} bytes from the \
                 checkpoint's storage"
            );
        }
        Ok(snapshots)
    }

    /// Lets the task run in its slot, to its end.
    async fn run_in_slot(
        self,
        program: Arc<Program>,
        restored: Vec<Bytes>,
        threads: &TaskScope,
    ) -> Result<(), Failure> {
        let Self { seat, thread, inbox, reporter, parts, mailbox, cancellation, .. } = self;
        let mut ended = seat.take(Task::new(inbox, reporter, program, parts, restored));
        let ended = tokio::select! {
            biased;
            () = threads.cancelled() => {
                cancellation.cancel();
                mailbox.wake();
                ended.await
            }
            has_ended = &mut ended => has_ended,
        };
        if ended.is_ok() {
            return Ok(());
        }
        let reason = thread.join().await.err().unwrap_or_else(|| "ended before its tasks".to_string());
        Err(Failure::internal(format!("the thread of its slot {reason}")))
    }
}

/// Fetches snapshots, and the files of these operators that they share with others.
async fn fetch(
    handles: Vec<SnapshotHandle>,
    operators: &Arc<BTreeSet<OperatorId>>,
    owned: KeyGroupRange,
    directory: Directory,
    stores: &TaskStores,
) -> Result<(Vec<Bytes>, Origins), Failure> {
    let has_files = handles.iter().any(|handle| !handle.shared.is_empty());
    // One snapshot may be as large as the task's own. Of several it has a part, and there may be as many as the vertex had subtasks.
    let divided = (handles.len() > 1).then(|| (Arc::clone(operators), owned));
    let fetched =
        handles.into_iter().map(|handle| fetch_one(handle, divided.clone(), directory.clone(), stores));
    let fetched: Vec<_> = stream::iter(fetched).buffered(SNAPSHOTS_UNDER_WAY).try_collect().await?;
    let (fetched, origins): (Vec<_>, Vec<_>) = fetched.into_iter().unzip();
    let mut origins = origins.into_iter().fold(Origins::default(), Origins::add);
    if has_files {
        // Small: what is large is in the files.
        let mut snapshots = upload::decode(&fetched)?;
        for snapshot in &mut snapshots {
            // At another parallelism the snapshot may be that of a longer chain.
            snapshot.keep(operators, owned);
        }
        origins = origins + files::fetch(&snapshots, owned, &directory, stores).await?;
    }
    Ok((fetched, origins))
}

/// Fetches a snapshot, or the part of it with these operators and key groups.
async fn fetch_one(
    handle: SnapshotHandle,
    divided: Option<(Arc<BTreeSet<OperatorId>>, KeyGroupRange)>,
    directory: Directory,
    stores: &TaskStores,
) -> Result<(Bytes, Origins), Failure> {
    let (bytes, origins) = upload::fetch(&handle, &directory, stores).await?;
    let bytes = match divided {
        Some((operators, owned)) => upload::part_of(bytes, operators, owned).await?,
        None => bytes,
    };
    Ok((bytes, origins))
}

async fn open_all(outgoing: Vec<Outgoing>) -> Vec<Result<AnySender, Failure>> {
    join_all(outgoing.into_iter().map(|channel| async {
        match channel {
            Outgoing::Here(sender) => Ok(sender),
            Outgoing::Elsewhere(opening) => opening.await,
        }
    }))
    .await
}
