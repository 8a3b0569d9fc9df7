//! A cluster of one small job manager in this process, and the real `thalweg` program run against it.

use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_common::clock::SystemClock;
use thalweg_common::id::JobId;
use thalweg_common::status::{JobStatus, TaskStatus};
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use thalweg_proto::v1::job_service_server::{JobService, JobServiceServer};
use thalweg_proto::v1::submit_job_request::Message as Submit;
use thalweg_proto::v1::submit_job_response::Message as Answer;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Far longer than any of these tests takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the job manager has and what it was asked.
#[derive(Default)]
pub struct Script {
    pub jobs: Vec<v1::JobSummary>,
    pub details: Option<v1::JobDetails>,
    pub time: Option<v1::JobTime>,
    pub checkpoints: v1::ListCheckpointsResponse,
    pub events: Vec<v1::JobEvent>,
    /// Whether a watch stays open after the events.
    pub goes_on: bool,
    /// Why submissions are refused.
    pub refusal: Option<String>,
    pub task_managers: Vec<v1::TaskManagerSummary>,
    pub submitted: Vec<(v1::SubmitHeader, usize)>,
    pub canceled: Vec<JobId>,
    pub tails: Vec<u64>,
    pub members: Vec<(u64, Option<String>)>,
    /// What is told of a savepoint; without any news it is refused.
    pub savepoint_news: Vec<v1::SavepointEvent>,
    pub savepoints: Vec<v1::SavepointSummary>,
    pub asked_savepoints: Vec<v1::TriggerSavepointRequest>,
}

pub struct Cluster {
    pub address: String,
    pub script: Arc<Mutex<Script>>,
    /// A list is answered only with a permit of it.
    pub list_gate: Arc<Semaphore>,
    scope: TaskScope,
}

impl Cluster {
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Mutex::new(script));
        let list_gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let manager =
            JobManager { script: script.clone(), list_gate: list_gate.clone(), address: address.clone() };
        let scope = TaskScope::new("job manager");
        scope.spawn_fallible(
            "serve",
            tonic::transport::Server::builder()
                .add_service(JobServiceServer::new(manager))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { address, script, list_gate, scope }
    }

    /// The program, told where this cluster is.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = thalweg(arguments);
        command.env("THALWEG_JOBMANAGER", &self.address);
        command
    }

    /// Runs the program to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        run(self.command(arguments)).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

/// The program, told of no cluster.
pub fn thalweg(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(arguments).env_remove("THALWEG_JOBMANAGER").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub async fn run(mut command: Command) -> Ended {
    tokio::time::timeout(PATIENCE, command.output()).await.expect("the program does not end").unwrap().into()
}

/// A file to submit; its content matters to nobody here.
pub fn binary(test: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::File::create(&path).unwrap().write_all(content).unwrap();
    path
}

pub fn summary(id: u128, name: &str, status: JobStatus) -> v1::JobSummary {
    let now_ms = thalweg_common::clock::Clock::now_ms(&SystemClock::new());
    v1::JobSummary {
        job_id: JobId(id).to_wire(),
        name: name.into(),
        status: v1::JobStatus::from(status).into(),
        attempt: 1,
        start_time_ms: now_ms - 63_000,
        end_time_ms: if status.is_terminal() { now_ms } else { 0 },
        tasks_total: 4,
        tasks_running: 4,
        reason: String::new(),
    }
}

/// The present state, or a change to it.
pub fn event(id: u128, from: Option<JobStatus>, to: JobStatus) -> v1::JobEvent {
    let change = from.map(|from| v1::StatusChange {
        time_ms: 1_700_000_000_000,
        from: v1::JobStatus::from(from).into(),
        to: v1::JobStatus::from(to).into(),
        attempt: 1,
        reason: String::new(),
    });
    v1::JobEvent { summary: Some(summary(id, "word_count", to)), change, failure: None }
}

pub fn failure(message: &str, details: &str) -> v1::Failure {
    v1::Failure {
        fault: v1::Fault::User.into(),
        retryable: false,
        message: message.into(),
        details: details.into(),
    }
}

pub fn details(id: u128) -> v1::JobDetails {
    let counters = v1::TaskCounters {
        subtask: Some(v1::SubtaskId { vertex: 0, index: 0 }),
        status: v1::TaskStatus::from(TaskStatus::Running).into(),
        records_in: 1_234_567,
        records_out: 42,
        bytes_in: 1_258_291,
        bytes_out: 0,
        late_records_dropped: 0,
        records_in_errors: 0,
        state_bytes: 1_536,
        unassigned_splits: None,
        busy_ns: 4_000_000_000,
        idle_ns: 1_000_000_000,
        back_pressured_ns: 1_000_000_000,
        input_queue_length: 8,
        output_queue_length: 0,
        available_credit_bytes: 262_144,
        ..Default::default()
    };
    let second_ns = 1_000_000_000;
    let earlier = v1::TaskCounters {
        records_in: 234_567,
        busy_ns: 0,
        back_pressured_ns: 0,
        idle_ns: second_ns,
        ..counters.clone()
    };
    v1::JobDetails {
        summary: Some(summary(id, "word_count", JobStatus::Running)),
        vertices: vec![v1::VertexDetails {
            vertex: 0,
            name: "source -> split".into(),
            parallelism: 1,
            max_parallelism: 128,
            subtasks: vec![v1::SubtaskDetails {
                counters: Some(counters),
                task_manager: "tm-1".into(),
                attempt: 1,
                earlier: Some(earlier),
            }],
        }],
        checkpoints: Some(v1::CheckpointSummary { completed: 3, latest_id: 3, ..Default::default() }),
        failures: vec![v1::FailureRecord {
            time_ms: 1_700_000_000_000,
            attempt: 1,
            task: "split 0/0".into(),
            task_manager: "tm-1".into(),
            failure: Some(failure("killed by signal 9", "last line")),
        }],
        ..Default::default()
    }
}

struct JobManager {
    script: Arc<Mutex<Script>>,
    list_gate: Arc<Semaphore>,
    address: String,
}

impl JobManager {
    fn known(&self, job_id: &[u8]) -> Result<JobId, Status> {
        let known = self.script.lock().unwrap().jobs.iter().any(|job| job.job_id == job_id);
        let id = JobId::from_wire("job_id", job_id)?;
        if known {
            Ok(id)
        } else {
            Err(Status::not_found(format!("there is no job {id}; `thalweg list` shows all")))
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::Sender<Result<v1::SubmitJobResponse, Status>>;

async fn answer(answers: &Sender, message: Answer) {
    answers.send(Ok(v1::SubmitJobResponse { message: Some(message) })).await.unwrap();
}

async fn take_submission(
    mut requests: Streaming<v1::SubmitJobRequest>,
    script: &Mutex<Script>,
    answers: &Sender,
) -> Result<(), Status> {
    let message = requests.message().await?.and_then(|request| request.message);
    let Some(Submit::Header(header)) = message else { return Err(Status::invalid_argument("no header")) };
    answer(answers, Answer::UploadWanted(v1::UploadWanted { from_byte: 0 })).await;
    let mut received = 0;
    while received < header.size_bytes as usize {
        match requests.message().await?.and_then(|request| request.message) {
            Some(Submit::Chunk(chunk)) => received += chunk.len(),
            _ => return Err(Status::invalid_argument("the upload ended early")),
        }
    }
    let step = "checking the job's plan".into();
    answer(answers, Answer::Progress(v1::SubmitProgress { step, received_bytes: 0 })).await;
    let refusal = script.lock().unwrap().refusal.clone();
    if let Some(refusal) = refusal {
        return Err(Status::invalid_argument(refusal));
    }
    let name = header.configuration.get("pipeline.name").cloned().unwrap_or_else(|| "word_count".into());
    script.lock().unwrap().submitted.push((header, received));
    let result = v1::SubmitResult {
        job_id: JobId(7).to_wire(),
        name,
        repeated: false,
        warnings: vec!["main.rs:7: `reduce` has no uid".into()],
        report: String::new(),
    };
    answer(answers, Answer::Result(result)).await;
    Ok(())
}

#[tonic::async_trait]
impl JobService for JobManager {
    type SubmitJobStream = Answers<v1::SubmitJobResponse>;
    type TriggerSavepointStream = Answers<v1::SavepointEvent>;
    type RescaleJobStream = Answers<v1::RescaleEvent>;
    type WatchJobStream = Answers<v1::JobEvent>;
    type GetLogsStream = Answers<v1::LogChunk>;

    async fn submit_job(
        &self,
        request: Request<Streaming<v1::SubmitJobRequest>>,
    ) -> Result<Response<Self::SubmitJobStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        let script = self.script.clone();
        let scope = TaskScope::new("submission");
        let task_scope = scope.clone();
        scope.spawn("serve", async move {
            if let Err(status) = take_submission(request.into_inner(), &script, &answers).await {
                answers.send(Err(status)).await.ok();
            }
            drop(task_scope);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let permit = self.list_gate.acquire().await.map_err(|error| Status::internal(error.to_string()))?;
        drop(permit);
        Ok(Response::new(v1::ListJobsResponse { jobs: self.script.lock().unwrap().jobs.clone() }))
    }

    async fn describe_job(
        &self,
        request: Request<v1::DescribeJobRequest>,
    ) -> Result<Response<v1::JobDetails>, Status> {
        let id = self.known(&request.into_inner().job_id)?;
        let details = self.script.lock().unwrap().details.clone();
        details.map(Response::new).ok_or_else(|| Status::not_found(format!("nothing is known about {id}")))
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        self.known(&request.into_inner().job_id)?;
        Ok(Response::new(self.script.lock().unwrap().checkpoints.clone()))
    }

    async fn trigger_savepoint(
        &self,
        request: Request<v1::TriggerSavepointRequest>,
    ) -> Result<Response<Self::TriggerSavepointStream>, Status> {
        let mut script = self.script.lock().unwrap();
        script.asked_savepoints.push(request.into_inner());
        if script.savepoint_news.is_empty() {
            let refusal = "the job is RESTARTING; a savepoint can be taken while all its tasks run";
            return Err(Status::aborted(refusal));
        }
        let news = script.savepoint_news.clone().into_iter().map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(news))))
    }

    async fn rescale_job(
        &self,
        _: Request<v1::RescaleJobRequest>,
    ) -> Result<Response<Self::RescaleJobStream>, Status> {
        Err(Status::aborted("the job is RESTARTING; it can be rescaled while all its tasks run"))
    }

    async fn list_savepoints(
        &self,
        _: Request<v1::ListSavepointsRequest>,
    ) -> Result<Response<v1::ListSavepointsResponse>, Status> {
        let savepoints = self.script.lock().unwrap().savepoints.clone();
        Ok(Response::new(v1::ListSavepointsResponse { savepoints }))
    }

    async fn dispose_savepoint(
        &self,
        request: Request<v1::DisposeSavepointRequest>,
    ) -> Result<Response<v1::DisposeSavepointResponse>, Status> {
        let path = request.into_inner().path;
        let mut script = self.script.lock().unwrap();
        if !script.savepoints.iter().any(|savepoint| savepoint.path == path) {
            return Err(Status::invalid_argument("there are files but no savepoint; check the path"));
        }
        script.savepoints.retain(|savepoint| savepoint.path != path);
        Ok(Response::new(v1::DisposeSavepointResponse::default()))
    }

    async fn trigger_checkpoint(
        &self,
        request: Request<v1::TriggerCheckpointRequest>,
    ) -> Result<Response<v1::TriggerCheckpointResponse>, Status> {
        self.known(&request.into_inner().job_id)?;
        let script = self.script.lock().unwrap();
        let completed = script.checkpoints.retained.last();
        let checkpoint_id = completed.map(|completed| completed.checkpoint_id);
        let checkpoint_id = checkpoint_id.ok_or_else(|| Status::aborted("the job is CREATED; ask again"))?;
        Ok(Response::new(v1::TriggerCheckpointResponse { checkpoint_id }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let id = self.known(&request.into_inner().job_id)?;
        self.script.lock().unwrap().canceled.push(id);
        Ok(Response::new(v1::CancelJobResponse {}))
    }

    async fn watch_job(
        &self,
        _: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let (events, goes_on) = {
            let script = self.script.lock().unwrap();
            (script.events.clone(), script.goes_on)
        };
        let told = tokio_stream::iter(events.into_iter().map(Ok));
        Ok(Response::new(match goes_on {
            true => Box::pin(told.chain(tokio_stream::pending())),
            false => Box::pin(told),
        }))
    }

    async fn list_task_managers(
        &self,
        _: Request<v1::ListTaskManagersRequest>,
    ) -> Result<Response<v1::ListTaskManagersResponse>, Status> {
        let task_managers = self.script.lock().unwrap().task_managers.clone();
        Ok(Response::new(v1::ListTaskManagersResponse { task_managers }))
    }

    async fn list_job_managers(
        &self,
        _: Request<v1::ListJobManagersRequest>,
    ) -> Result<Response<v1::ListJobManagersResponse>, Status> {
        let manager =
            v1::JobManagerSummary { id: 1, address: self.address.clone(), leader: true, voter: true };
        Ok(Response::new(v1::ListJobManagersResponse { job_managers: vec![manager], term: 7 }))
    }

    async fn add_job_manager(
        &self,
        request: Request<v1::AddJobManagerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        let request = request.into_inner();
        self.script.lock().unwrap().members.push((request.id, Some(request.address)));
        Ok(Response::new(v1::MembershipResponse {}))
    }

    async fn remove_job_manager(
        &self,
        request: Request<v1::RemoveJobManagerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        self.script.lock().unwrap().members.push((request.into_inner().id, None));
        Ok(Response::new(v1::MembershipResponse {}))
    }

    async fn get_time(&self, request: Request<v1::GetTimeRequest>) -> Result<Response<v1::JobTime>, Status> {
        self.known(&request.into_inner().job_id)?;
        Ok(Response::new(self.script.lock().unwrap().time.clone().unwrap_or_default()))
    }

    async fn get_logs(
        &self,
        request: Request<v1::GetLogsRequest>,
    ) -> Result<Response<Self::GetLogsStream>, Status> {
        let request = request.into_inner();
        self.known(&request.job_id)?;
        self.script.lock().unwrap().tails.push(request.tail_bytes);
        let part = |source: &str, text: &'static str| {
            Ok(v1::LogChunk {
                task_manager: "tm-1".into(),
                source: source.into(),
                data: text.as_bytes().into(),
            })
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([part("stdout", "hello\n"), part("stderr", "oh")]))))
    }
}
