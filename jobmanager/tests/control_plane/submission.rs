//! Submitting binaries: what is accepted, what is refused and why. `/bin/echo` is a fine job: it prints what it is given.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thalweg_common::config::Configuration;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::{JobId, SubmissionId};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::task_scope::TaskScope;
use thalweg_jobmanager::JobManagerHandle;
use thalweg_jobmanager::consensus::local::LocalLog;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::client::{ClientError, GivenProperties, JobClient, SubmitOptions};
use thalweg_proto::convert::properties_from_wire;
use thalweg_proto::model::SubmitResult;
use thalweg_proto::transport::{Dialer, blob_service, endpoint};
use thalweg_proto::v1;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::fake::*;

/// A job manager that runs plans.
pub struct Checked {
    directory: tempfile::TempDir,
    pub manager: JobManagerHandle,
    client: JobClient,
    _scope: TaskScope,
}

impl Checked {
    pub async fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log = std::sync::Arc::new(LocalLog::new(listener.local_addr().unwrap().to_string()));
        let scope = TaskScope::new("test");
        let configuration = Configuration::from_yaml(settings).unwrap();
        let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_jobmanager")));
        let data = directory.path().join("data");
        let manager = start(1, listener, log, configuration, data, program, Routes::default(), &scope).await;
        let client = JobClient::connect(vec![manager.address.clone()]).await.unwrap();
        Self { directory, manager, client, _scope: scope }
    }

    async fn submit(&self, binary: &Path, arguments: &[&str]) -> Result<SubmitResult, ClientError> {
        self.submit_as(SubmissionId::random().unwrap(), binary, arguments, &mut Vec::new()).await
    }

    async fn submit_as(
        &self,
        submission_id: SubmissionId,
        binary: &Path,
        arguments: &[&str],
        steps: &mut Vec<String>,
    ) -> Result<SubmitResult, ClientError> {
        let options = SubmitOptions {
            properties: Default::default(),
            binary: binary.to_path_buf(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            configuration: BTreeMap::new(),
            submission_id,
        };
        soon("an answer", self.client.submit(options, |step| steps.push(step.to_string()))).await
    }

    async fn refusal(&self, binary: &Path, arguments: &[&str]) -> String {
        match self.submit(binary, arguments).await.unwrap_err() {
            ClientError::Refused { message, .. } => message,
            other => panic!("expected a refusal: {other}"),
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub fn plan(graph: &JobGraph) -> String {
    format!("THALWEG-PLAN {}", serde_json::to_string(graph).unwrap())
}

#[tokio::test]
async fn a_binary_is_uploaded_once_checked_and_started() {
    let cluster = Checked::start("").await;
    let echo = std::fs::read("/bin/echo").unwrap();
    let plan = plan(&graph(1, None));
    let (submission, mut steps) = (SubmissionId::random().unwrap(), Vec::new());
    let result = cluster.submit_as(submission, Path::new("/bin/echo"), &[&plan], &mut steps).await.unwrap();
    assert_eq!((result.name.as_str(), result.repeated), ("word_count", false));
    assert!(steps.iter().any(|step| step == "checking the job's plan"), "{steps:?}");
    let stored = cluster.directory.path().join("data/blobs").join(BlobHash::of(&echo).to_string());
    assert_eq!(std::fs::read(&stored).unwrap(), echo);

    // The task manager is told which binary to fetch, and gets it.
    let mut a = FakeTaskManager::connect(&cluster.manager.address, "a", 1, vec![]).await.unwrap();
    let start = a.until(start_worker).await;
    assert_eq!((start.sha256.clone(), start.size_bytes), (BlobHash::of(&echo).to_wire(), echo.len() as u64));
    assert_eq!(start.arguments, std::slice::from_ref(&plan));
    let mut blobs =
        blob_service(Dialer::default().connect_lazy(&endpoint(&cluster.manager.address).unwrap()));
    let mut chunks = blobs.get_blob(v1::GetBlobRequest { sha256: start.sha256 }).await.unwrap().into_inner();
    let mut fetched = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        fetched.extend_from_slice(&chunk.data);
    }
    assert_eq!(fetched, echo);

    // The same wish again is the same job; another wish with a known binary is another one, without an upload.
    let again =
        cluster.submit_as(submission, Path::new("/bin/echo"), &[&plan], &mut Vec::new()).await.unwrap();
    assert_eq!((again.job_id, again.repeated), (result.job_id, true));
    let other = cluster.submit(Path::new("/bin/echo"), &[&plan]).await.unwrap();
    assert_ne!(other.job_id, result.job_id);
    assert_eq!(cluster.client.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn runtime_properties_reach_the_program_and_are_told_to_nobody_else() {
    const GROUPS: &str =
        r#"[{"PropertyGroupId": "A", "PropertyMap": {"aws.region": "eu-west-1", "some.secret": "hidden"}}]"#;
    let cluster = Checked::start("").await;
    let properties = RuntimeProperties::from_json(GROUPS).unwrap();
    // A shell is a fine job, too: this one has a plan only if it was given the properties.
    let script = "case $THALWEG_RUNTIME_PROPERTIES in *hidden*) echo \"$0\";; esac";
    let arguments = vec!["-c".to_owned(), script.to_owned(), plan(&graph(1, None))];
    let options = |properties| SubmitOptions {
        properties,
        binary: PathBuf::from("/bin/sh"),
        arguments: arguments.clone(),
        configuration: BTreeMap::new(),
        submission_id: SubmissionId::random().unwrap(),
    };
    let submit = async |properties| cluster.client.submit(options(properties), |_| ()).await;
    let first = submit(GivenProperties::These(properties.clone())).await.unwrap().job_id;
    assert!(submit(GivenProperties::default()).await.is_err(), "without them it has no plan");
    let shown = cluster.client.describe(first).await.unwrap().properties;
    assert_eq!(shown, properties.shown());
    assert!(!serde_json::to_string(&shown).unwrap().contains("hidden"));

    let mut a = FakeTaskManager::connect(&cluster.manager.address, "a", 2, vec![]).await.unwrap();
    let started = a.until(start_worker).await;
    assert_eq!(properties_from_wire(started.properties).unwrap(), properties);
    // Another version of the job goes on with those of the first one, whoever submits it.
    let second = submit(GivenProperties::Of(first)).await.unwrap().job_id;
    assert_ne!(second, first);
    assert_eq!(properties_from_wire(a.until(start_worker).await.properties).unwrap(), properties);
    // What is wrong with them is said before the binary is sent.
    let other = cluster.file("other", b"#!/bin/sh\n");
    let options = SubmitOptions { binary: other.clone(), ..options(GivenProperties::Of(JobId(7))) };
    let unknown = cluster.client.submit(options, |_| ()).await.unwrap_err().to_string();
    assert!(unknown.contains("there is no job") || unknown.contains("unknown"), "{unknown}");
    let hash = BlobHash::of(&std::fs::read(other).unwrap()).to_string();
    assert!(!cluster.directory.path().join("data/blobs").join(hash).exists(), "it was sent");
}

#[tokio::test]
async fn a_job_without_a_checkpoint_directory_is_warned() {
    let cluster = Checked::start("").await;
    let mut graph = graph(1, None);
    graph.checkpointing.interval_ms = Some(1_000);
    let result = cluster.submit(Path::new("/bin/echo"), &[&plan(&graph)]).await.unwrap();
    assert!(result.warnings[0].contains("execution.checkpointing.dir"), "{:?}", result.warnings);
    let cluster = Checked::start("execution.checkpointing.dir: /tmp/shared").await;
    let result = cluster.submit(Path::new("/bin/echo"), &[&plan(&graph)]).await.unwrap();
    assert_eq!(result.warnings, [""; 0]);
}

#[tokio::test]
async fn every_refusal_says_why() {
    let cluster = Checked::start("").await;
    let echo = std::fs::read("/bin/echo").unwrap();
    let mut other_machine = echo.clone();
    other_machine[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let truncated = cluster.file("truncated", &echo[..echo.len() / 2]);
    let other_machine = cluster.file("other-machine", &other_machine);
    let script = cluster.file("script", b"#!/bin/sh\necho THALWEG-PLAN\n");
    let (echo, truth, falsehood) = (Path::new("/bin/echo"), Path::new("/bin/true"), Path::new("/bin/false"));
    let mut other_protocol = graph(1, None);
    other_protocol.protocol_version = 99;
    let mut wide = graph(1, None);
    wide.vertices[1].parallelism = 1_000;
    let table: [(&Path, String, &str); 8] = [
        (&truncated, String::new(), "the executable is truncated"),
        (&other_machine, String::new(), "this cluster runs on"),
        (&script, String::new(), "the file is a script"),
        (truth, String::new(), "is `thalweg::run` called in main"),
        (falsehood, String::new(), "exit status 1"),
        (echo, "THALWEG-PLAN {\"rubbish\": 1".into(), "its plan is damaged"),
        (echo, plan(&other_protocol), "protocol version 99"),
        (echo, plan(&wide), "parallelism 1000"),
    ];
    for (binary, argument, expected) in table {
        let message = cluster.refusal(binary, &[&argument]).await;
        assert!(message.contains(expected), "{}: `{message}` should contain `{expected}`", binary.display());
    }
    assert!(cluster.client.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_plan_has_limits_of_time_and_memory() {
    let cluster = Checked::start("jobmanager.plan.timeout: 200 ms\njobmanager.plan.memory: 16 mb").await;
    let message = cluster.refusal(Path::new("/bin/sleep"), &["1000"]).await;
    assert!(message.contains("jobmanager.plan.timeout"), "{message}");
    // Asks for a buffer of a gigabyte.
    let message = cluster.refusal(Path::new("/bin/dd"), &["if=/dev/zero", "bs=1G", "count=1"]).await;
    assert!(message.contains("memory"), "{message}");
}

#[tokio::test]
async fn a_wrong_setting_is_refused_before_the_upload() {
    let cluster = Checked::start("").await;
    let options = SubmitOptions {
        properties: Default::default(),
        binary: "/bin/echo".into(),
        arguments: vec![],
        configuration: [("paralelism.default".to_string(), "2".to_string())].into(),
        submission_id: SubmissionId::random().unwrap(),
    };
    let error = cluster.client.submit(options, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `parallelism.default`?"), "{error}");
    assert_eq!(std::fs::read_dir(cluster.directory.path().join("data/blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn local_mode_takes_no_binaries() {
    let cluster = Cluster::start().await;
    let options = SubmitOptions {
        properties: Default::default(),
        binary: "/bin/echo".into(),
        arguments: vec![],
        configuration: BTreeMap::new(),
        submission_id: SubmissionId::random().unwrap(),
    };
    let error = cluster.client().await.submit(options, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("start the jobmanager program"), "{error}");
}
