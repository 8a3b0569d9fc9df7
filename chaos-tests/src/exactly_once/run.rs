//! A run: the S3 peer behind a proxy that makes requests fail, a cluster, the job, kills and rescalings by schedule, and the verdict.
//!
//! Kills, rescalings and faults begin with the first output and end after the time that was asked for, or when the job has finished; then it is
//! left in peace until it has read all its events. It is bounded, so that the oracle knows every line that there must be, the last
//! ones too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use thalweg_common::clock::{Clock, SystemClock};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{JobClient, Rescaled};
use thalweg_proto::model::JobDetails;
use thalweg_test_support::{FaultProxy, Faults, S3Peer};

use super::output::Output;
use super::report::{Killed, Report, Rescalings, Teller};
use super::schedule::{Kill, Pauses, Target, Variation, kills, rescales};
use super::victims::{bring_back, strike};
use super::{events, oracle};
use crate::cluster::{Cluster, ClusterOptions};
use crate::process::binary;
use crate::wait;

const BUCKET: &str = "chaos";

const TASK_MANAGERS: u32 = 3;
const SLOTS: u32 = 2;

/// Managed memory of a task manager.
const MEMORY_BYTES: u64 = 3 << 20;

/// Time between two looks at the output, and between two lines of progress.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// How long a question about the job may look for a leader: who asks again and again does not want to wait long.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Until a rescaling that was refused is asked for again.
const RESCALE_INTERVAL: Duration = Duration::from_millis(500);

/// A job without output for so long has stopped for good.
const STALLED_AFTER: Duration = Duration::from_secs(240);

/// How a run is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides about kills, about each request to S3, and what else is combined.
    pub seed: u64,
    /// How long there are kills and faults.
    pub duration: Duration,
    /// From one kill to the next.
    pub pauses: Pauses,
    /// How many of a hundred requests to S3 fail.
    pub faults_percent: u16,
    /// Events a second.
    pub rate: u32,
    /// How many events the job reads; without it so many that it does not end before the kills do.
    pub events: Option<u64>,
    /// Keys, each with a kilobyte of state.
    pub keys: u64,
    /// Leaves logs and output where they are, also of a run without findings.
    pub keep: bool,
    /// Tells how it goes.
    pub teller: Teller,
}

impl Default for Options {
    /// A minute, with state of more than four times the memory that is managed.
    fn default() -> Self {
        Self {
            seed: 1,
            duration: Duration::from_secs(60),
            pauses: Pauses::default(),
            faults_percent: 5,
            rate: 5_000,
            events: None,
            keys: 40_000,
            keep: false,
            teller: Teller { json: false },
        }
    }
}

impl Options {
    /// How many events the job reads.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.unwrap_or_else(|| self.duration.as_secs() * u64::from(self.rate))
    }

    /// All kills of the run.
    #[must_use]
    pub fn kills(&self) -> Vec<Kill> {
        kills(self.seed, self.pauses, self.duration.as_millis() as u64)
    }

    /// What the run combines beside kills and faults.
    #[must_use]
    pub fn variation(&self) -> Variation {
        Variation::of(self.seed)
    }

    /// What the state of all keys has at least, in bytes.
    #[must_use]
    pub fn least_state_bytes(&self) -> u64 {
        self.keys * events::PAYLOAD_WORDS * 8
    }
}

/// Runs the job under kills and faults, and judges its output.
///
/// # Errors
/// When something does not start, when the job fails for good, or when it stops to make output.
pub async fn run(options: &Options) -> Result<Report> {
    let peer = S3Peer::start().await?;
    peer.create_bucket(BUCKET).await?;
    let proxy = FaultProxy::start(peer.address(), options.seed).await?;
    let mut cluster = Cluster::start(cluster_options(&peer, &proxy)).await?;
    let folder = cluster.folder().to_path_buf();
    options.teller.progress(&format!("seed {}: {}", options.seed, options.variation()));
    options.teller.progress(&format!("logs and output are in {}", folder.display()));
    let outcome = Run::start(options, &mut cluster, &proxy).await;
    let outcome = match outcome {
        Ok(run) => run.complete(&mut cluster, &peer).await,
        Err(error) => Err(error),
    };
    if options.keep || !matches!(&outcome, Ok(report) if report.is_exact()) {
        cluster.keep_folder();
        options.teller.progress(&format!("logs and output are kept in {}", folder.display()));
    }
    outcome
}

fn cluster_options(peer: &S3Peer, proxy: &FaultProxy) -> ClusterOptions {
    let credentials = peer.credentials_file().display().to_string();
    let environment = [
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_REGION", "us-east-1"),
    ];
    let options = ClusterOptions {
        job_managers: 3,
        task_managers: TASK_MANAGERS,
        slots: SLOTS,
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..ClusterOptions::default()
    };
    options
        // Of a machine that is busy with other things too: a leader that waits for a processor is not to be deposed every few
        // seconds, because each new one begins its checkpoint anew.
        .set("high-availability.heartbeat-interval", "200 ms")
        .set("high-availability.election-timeout.min", "1 s")
        .set("high-availability.election-timeout.max", "2 s")
        .set("s3.endpoint", &format!("http://{}", proxy.address()))
        .set("taskmanager.memory.managed.size", &format!("{MEMORY_BYTES} b"))
}

async fn submit(options: &Options, cluster: &Cluster) -> Result<JobId> {
    let output = cluster.folder().join("output").display().to_string();
    let (events, rate, keys) =
        (options.events().to_string(), options.rate.to_string(), options.keys.to_string());
    let variation = options.variation();
    let mut arguments = vec!["--events", &events, "--rate", &rate, "--keys", &keys, "--output", &output];
    arguments.extend(variation.enumerated.then_some("--enumerated"));
    let checkpoints = format!("s3://{BUCKET}/checkpoints");
    let parallelism = events::PARALLELISM.to_string();
    let mut configuration = vec![
        ("parallelism.default", parallelism.as_str()),
        ("state.backend.type", "rocksdb"),
        ("execution.checkpointing.interval", "1 s"),
        ("execution.checkpointing.incremental", "true"),
        ("execution.checkpointing.dir", checkpoints.as_str()),
        ("execution.checkpointing.num-retained", "2"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "10"),
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "1000000"),
        ("restart-strategy.fixed-delay.delay", "100 ms"),
    ];
    if variation.unaligned {
        configuration.push(("execution.checkpointing.unaligned", "true"));
    }
    if variation.unaligned && variation.rescales {
        // Records on their way find their channels again at every parallelism.
        configuration.push(("pipeline.operator-chaining.enabled", "false"));
        configuration.push(("pipeline.max-parallelism", "128"));
    }
    cluster.submit(binary("exactly_once_job")?, &arguments, &configuration).await
}

/// What is known while the job runs.
struct Run<'a> {
    options: &'a Options,
    proxy: &'a FaultProxy,
    job: JobId,
    /// With a short patience.
    client: JobClient,
    clock: SystemClock,
    /// When the watch started.
    origin: Duration,
    output: RefCell<Output>,
    killed: RefCell<Vec<Killed>>,
    rescaled: RefCell<Rescalings>,
    /// The most that a checkpoint had.
    state_bytes: RefCell<u64>,
}

impl<'a> Run<'a> {
    /// Submits the job and waits for its first output.
    async fn start(options: &'a Options, cluster: &mut Cluster, proxy: &'a FaultProxy) -> Result<Self> {
        let job = submit(options, cluster).await?;
        let output = cluster.folder().join("output");
        wait::until_true("the first output", || {
            crate::oracle::committed_texts(&output).is_ok_and(|texts| !texts.is_empty())
        })
        .await?;
        let clock = SystemClock::new();
        Ok(Self {
            options,
            proxy,
            job,
            client: JobClient::connect_within(cluster.addresses(), ANSWER_WITHIN).await?,
            origin: clock.monotonic(),
            clock,
            output: RefCell::new(Output::new(&output)),
            killed: RefCell::default(),
            rescaled: RefCell::default(),
            state_bytes: RefCell::default(),
        })
    }

    /// Does what the schedule says, lets the job finish, and judges.
    async fn complete(self, cluster: &mut Cluster, peer: &S3Peer) -> Result<Report> {
        let teller = self.options.teller;
        tokio::select! {
            biased;
            failed = self.watch() => failed?,
            failed = self.tell() => failed?,
            killed = async {
                tokio::select! {
                    biased;
                    () = self.finished() => {}
                    // Ends with the time.
                    killed = self.kill_by_schedule(cluster) => killed?,
                    failed = self.rescale_by_schedule() => failed?,
                }
                self.proxy.set_faults(Faults::default());
                teller.progress(&format!("{:7.1} s  no more kills, rescalings and faults", self.seconds()));
                self.finished().await;
                anyhow::Ok(())
            } => killed?,
        }
        let total_seconds = self.seconds();
        self.output.borrow_mut().look(self.now_ms())?;
        let details = cluster.describe(self.job).await?;
        let (objects_left, uploads_left) = left_behind(peer).await?;
        let texts = crate::oracle::committed_texts(&cluster.folder().join("output"))?;
        let lines = texts.iter().flat_map(|text| text.lines());
        let variation = self.options.variation();
        let verdict = oracle::judge(self.options.events(), self.options.keys, variation.is_ordered(), lines);
        let kills = by_target(self.killed.borrow().iter().map(|killed| killed.kill));
        let faults = self.proxy.failed_by_fault();
        let state_bytes = *self.state_bytes.borrow();
        let (records, longest) = (self.output.borrow().records(), self.output.borrow().longest_silence());
        Ok(Report {
            seed: self.options.seed,
            seconds: self.options.duration.as_secs(),
            total_seconds,
            records,
            verdict,
            kills,
            variation,
            rescalings: *self.rescaled.borrow(),
            s3_requests: self.proxy.requests(),
            s3_faults: faults.into_iter().map(|(fault, count)| (fault.name(), count)).collect(),
            checkpoints: details.checkpoints.completed,
            failed_checkpoints: details.checkpoints.failed,
            attempts: u64::from(details.summary.attempt),
            state_bytes,
            memory_bytes: MEMORY_BYTES * u64::from(TASK_MANAGERS),
            longest,
            objects_left,
            uploads_left,
        })
    }

    /// Milliseconds since the watch started.
    fn now_ms(&self) -> u64 {
        (self.clock.monotonic() - self.origin).as_millis() as u64
    }

    fn seconds(&self) -> f64 {
        self.now_ms() as f64 / 1e3
    }

    async fn at(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms.saturating_sub(self.now_ms()))).await; // not a wait: the time of the schedule
    }

    async fn kill_by_schedule(&self, cluster: &mut Cluster) -> Result<()> {
        self.proxy.set_faults(Faults::of_thousand(self.options.faults_percent * 10));
        for kill in self.options.kills() {
            self.at(kill.at_ms).await;
            self.kill(cluster, kill).await?;
        }
        self.at(self.options.duration.as_millis() as u64).await;
        Ok(())
    }

    async fn kill(&self, cluster: &mut Cluster, kill: Kill) -> Result<()> {
        let (victim, down) = strike(cluster, &kill).await?;
        let done_ms = self.now_ms();
        let killed = Killed { kill, done_ms, victim };
        self.options.teller.killed(&killed)?;
        self.killed.borrow_mut().push(killed);
        if let Some(down) = down {
            self.at(done_ms + kill.down_ms).await;
            bring_back(cluster, down).await?;
        }
        Ok(())
    }

    /// Asks for other parallelisms, each until the job runs with it or the next one is due. Returns only when something is broken.
    async fn rescale_by_schedule(&self) -> Result<()> {
        let rescales = match self.options.variation().rescales {
            true => rescales(self.options.seed, self.options.duration.as_millis() as u64),
            false => Vec::new(),
        };
        let due = rescales.iter().skip(1).map(|next| next.at_ms).chain([u64::MAX]);
        for (rescale, until_ms) in rescales.iter().zip(due) {
            self.at(rescale.at_ms).await;
            while self.now_ms() < until_ms && !self.rescale(rescale.parallelism).await? {
                tokio::time::sleep(RESCALE_INTERVAL).await; // not a wait: the pause between two questions
            }
        }
        pending().await
    }

    /// Asks for a parallelism, and answers whether the job runs with it. While something is missing it is refused.
    async fn rescale(&self, parallelism: u32) -> Result<bool> {
        let outcome = self.client.rescale(self.job, parallelism, |_| ()).await;
        let is_done = matches!(outcome, Ok(Rescaled::Running));
        let mut rescaled = self.rescaled.borrow_mut();
        match &outcome {
            Ok(Rescaled::Running) => rescaled.done += 1,
            // It may have come about: the next question is answered accordingly.
            Ok(Rescaled::Unknown) => rescaled.interrupted += 1,
            Err(error) if error.to_string().contains("like that already") => return Ok(true),
            Err(_) => rescaled.refused += 1,
        }
        if is_done {
            let line = format!("{:7.1} s  rescaled to parallelism {parallelism}", self.seconds());
            self.options.teller.progress(&line);
        }
        Ok(is_done)
    }

    /// Looks at the output all the time. Returns only when there is none for too long.
    async fn watch(&self) -> Result<()> {
        loop {
            let now_ms = self.now_ms();
            self.output.borrow_mut().look(now_ms)?;
            let silent = Duration::from_millis(now_ms.saturating_sub(self.output.borrow().last_ms()));
            if silent > STALLED_AFTER {
                let told = self.describe().await.map_or_else(String::new, |details| failures(&details));
                bail!("the job has made no output for {} s; {told}", silent.as_secs());
            }
            tokio::time::sleep(LOOK_INTERVAL).await; // not a wait: the pause between two looks
        }
    }

    /// Tells how far the job is. Returns only when it has ended, and not as it should.
    async fn tell(&self) -> Result<()> {
        let mut next_ms = 0;
        loop {
            if let Some(details) = self.describe().await {
                self.note(&details)?;
                let (summary, checkpoints) = (&details.summary, &details.checkpoints);
                if self.now_ms() >= next_ms {
                    next_ms = self.now_ms() + TELL_INTERVAL.as_millis() as u64;
                    self.options.teller.progress(&format!(
                        "{:7.1} s  {}, attempt {}, {} kills, {} checkpoints ({} failed), {} records of {}",
                        self.seconds(),
                        summary.status,
                        summary.attempt,
                        self.killed.borrow().len(),
                        checkpoints.completed,
                        checkpoints.failed,
                        self.output.borrow().records(),
                        self.options.events(),
                    ));
                }
                if summary.status == JobStatus::Finished {
                    return pending().await;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await; // not a wait: the pause between two lines
        }
    }

    async fn finished(&self) {
        loop {
            if self.describe().await.is_some_and(|details| details.summary.status == JobStatus::Finished) {
                return;
            }
            tokio::time::sleep(LOOK_INTERVAL).await; // not a wait: the pause between two looks
        }
    }

    /// What the cluster tells of the job, if it has a leader.
    async fn describe(&self) -> Option<JobDetails> {
        self.client.describe(self.job).await.ok()
    }

    fn note(&self, details: &JobDetails) -> Result<()> {
        let bytes = details.checkpoints.latest.as_ref().map_or(0, |latest| latest.bytes);
        self.state_bytes.replace_with(|most| bytes.max(*most));
        let status = details.summary.status;
        if status.is_terminal() && status != JobStatus::Finished {
            bail!("the job is {status}; {}", failures(details));
        }
        Ok(())
    }
}

/// How many kills of each kind there are.
pub fn by_target(kills: impl IntoIterator<Item = Kill>) -> BTreeMap<Target, u64> {
    let mut counts = BTreeMap::new();
    for kill in kills {
        *counts.entry(kill.target).or_default() += 1;
    }
    counts
}

fn failures(details: &JobDetails) -> String {
    let reason = &details.summary.reason;
    let failures: Vec<_> = details.failures.iter().map(|one| one.failure.to_string()).collect();
    format!("it is {}: {reason}\nits last failures:\n{}", details.summary.status, failures.join("\n"))
}

/// Objects and uploads that are left on S3 when the job's checkpoints should be gone.
async fn left_behind(peer: &S3Peer) -> Result<(u64, u64)> {
    let count = async || {
        let (_, listed) = peer.ask("GET", &format!("/{BUCKET}?list-type=2")).await?;
        let uploads = peer.unfinished_uploads(BUCKET).await?;
        anyhow::Ok((listed.matches("<Key>").count() as u64, uploads as u64))
    };
    let none =
        wait::until("the job's objects to be deleted", async || Ok((count().await? == (0, 0)).then_some(())))
            .await;
    if none.is_ok() { Ok((0, 0)) } else { count().await.context("cannot list what is left on S3") }
}
