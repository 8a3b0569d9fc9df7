//! The client against job managers that lead, follow, and die at a chosen moment.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use thalweg_common::id::SubmissionId;
use thalweg_common::limits::UPLOAD_CHUNK_BYTES;
use thalweg_common::status::JobStatus;

use super::fake::{Death, Role, Server, Stranger, cluster, event};
use super::*;

/// Far longer than any of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn client(servers: &[&str]) -> JobClient {
    JobClient::connect(servers.iter().map(ToString::to_string).collect()).await.unwrap()
}

/// An address at which nobody listens.
fn dead_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Binary {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn binary(bytes: usize) -> Binary {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("job");
    std::fs::write(&path, vec![42; bytes]).unwrap();
    Binary { _directory: directory, path }
}

fn options(binary: &Binary, id: u128) -> SubmitOptions {
    SubmitOptions {
        properties: Default::default(),
        binary: binary.path.clone(),
        arguments: vec!["--input".into(), "x".into()],
        configuration: BTreeMap::from([("parallelism.default".into(), "4".into())]),
        submission_id: SubmissionId(id),
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what was waited for did not happen")
}

#[tokio::test]
async fn a_follower_leads_to_the_leader_which_is_asked_first_from_then_on() {
    let cluster = cluster();
    let leader = Server::start(Role::Leader, Death::Never, &cluster);
    let follower = Server::start(Role::Follower(Some(leader.address.clone())), Death::Never, &cluster);
    let client = client(&[&follower.address]).await;
    for _ in 0..3 {
        assert_eq!(soon(client.list()).await.unwrap(), []);
    }
    assert_eq!((follower.calls(), leader.calls()), (1, 3));
}

#[tokio::test]
async fn dead_addresses_are_passed_over() {
    let leader = Server::start(Role::Leader, Death::Never, &cluster());
    let client = client(&[&dead_address(), &leader.address]).await;
    assert_eq!(soon(client.list()).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_no_job_manager_is_passed_over_and_told_as_that() {
    let page = Stranger::start();
    let leader = Server::start(Role::Leader, Death::Never, &cluster());
    let passing = client(&[&page.address, &leader.address]).await;
    assert_eq!(soon(passing.list()).await.unwrap(), []);
    let alone =
        JobClient::connect_within(vec![page.address.clone()], Duration::from_millis(200)).await.unwrap();
    let error = soon(alone.list()).await.unwrap_err();
    assert!(error.is_unreachable());
    let text = error.to_string();
    assert!(text.contains(&page.address) && text.contains("no process of a Thalweg cluster"), "{text}");
    assert!(text.contains("404") && text.contains("jobmanager.rpc.port"), "{text}");
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let server = Server::start(Role::Follower(None), Death::Never, &cluster());
    let client = client(&[&server.address]).await;
    let elected = async {
        while server.calls() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await; // not a wait: the pause between two looks
        }
        server.role.send(Role::Leader).unwrap();
    };
    let (jobs, ()) = soon(async { tokio::join!(client.list(), elected) }).await;
    assert_eq!(jobs.unwrap(), []);
}

#[tokio::test]
async fn nobody_leading_is_reported_with_addresses_and_the_last_answer() {
    let server = Server::start(Role::Follower(None), Death::Never, &cluster());
    let dead = dead_address();
    let deadline = Duration::from_millis(200);
    let client =
        JobClient::connect_within(vec![dead.clone(), server.address.clone()], deadline).await.unwrap();
    let error = soon(client.list()).await.unwrap_err();
    assert!(error.is_unreachable());
    let text = error.to_string();
    assert!(text.contains(&dead) && text.contains(&server.address) && text.contains("majority"), "{text}");
    let error = JobClient::connect_within(vec![dead.clone()], deadline).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn wrong_addresses_are_refused_at_once() {
    for addresses in [vec![], vec!["nonsense".to_string()]] {
        assert!(JobClient::connect(addresses).await.unwrap_err().is_unreachable());
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_not_repeated() {
    let server = Server::start(Role::Leader, Death::Never, &cluster());
    let client = client(&[&server.address]).await;
    let error = soon(client.describe(JobId(1))).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no such job; `thalweg list` shows all");
    assert_eq!(server.calls(), 1);
    let error = soon(client.cancel(JobId(1))).await.unwrap_err();
    assert_eq!(error.to_string(), "the job has ended");
    let error = soon(client.task_managers()).await.unwrap_err();
    assert!(error.to_string().contains("cluster's version"), "{error}");
}

#[tokio::test]
async fn logs_of_one_source_are_joined() {
    let server = Server::start(Role::Leader, Death::Never, &cluster());
    let parts = soon(client(&[&server.address]).await.logs(JobId(1), 0)).await.unwrap();
    let parts: Vec<_> = parts.iter().map(|part| (part.source.as_str(), part.data.as_slice())).collect();
    assert_eq!(parts, [("stdout", &b"ab"[..]), ("stderr", b"c")]);
}

#[tokio::test]
async fn a_binary_is_uploaded_once_and_known_from_then_on() {
    let cluster = cluster();
    let server = Server::start(Role::Leader, Death::Never, &cluster);
    let client = client(&[&server.address]).await;
    let binary = binary(2 * UPLOAD_CHUNK_BYTES + 17);
    let mut steps = Vec::new();
    let result = soon(client.submit(options(&binary, 1), |step| steps.push(step.to_string()))).await.unwrap();
    assert_eq!((result.job_id, result.repeated, result.warnings), (JobId(1), false, vec!["w".to_string()]));
    assert_eq!(steps, ["reading the binary", "checking the job's plan"]);
    let again = soon(client.submit(options(&binary, 1), |_| ())).await.unwrap();
    assert_eq!((again.job_id, again.repeated), (JobId(1), true));
    let cluster = cluster.lock().unwrap();
    assert_eq!(cluster.blobs.values().collect::<Vec<_>>(), [&(2 * UPLOAD_CHUNK_BYTES + 17)]);
    assert_eq!(cluster.jobs[&1].arguments, ["--input", "x"]);
    assert_eq!(cluster.jobs[&1].configuration["parallelism.default"], "4");
}

#[tokio::test]
async fn a_leader_that_dies_makes_no_second_job() {
    let binary = binary(3 * UPLOAD_CHUNK_BYTES);
    for death in [Death::AfterBytes(UPLOAD_CHUNK_BYTES), Death::BeforeResult] {
        let cluster = cluster();
        let mut dying = Server::start(Role::Leader, death, &cluster);
        let next = Server::start(Role::Leader, Death::Never, &cluster);
        let client = client(&[&dying.address, &next.address]).await;
        let (result, ()) =
            soon(async { tokio::join!(client.submit(options(&binary, 7), |_| ()), dying.dies()) }).await;
        let result = result.unwrap();
        assert_eq!(result.job_id, JobId(7));
        assert_eq!(result.repeated, death == Death::BeforeResult);
        assert_eq!(cluster.lock().unwrap().jobs.len(), 1);
    }
}

#[tokio::test]
async fn a_binary_that_cannot_be_read_is_named() {
    let server = Server::start(Role::Leader, Death::Never, &cluster());
    let client = client(&[&server.address]).await;
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_path_buf(), directory.path().join("missing")] {
        let options = SubmitOptions { binary: path.clone(), ..options(&binary(1), 1) };
        let error = soon(client.submit(options, |_| ())).await.unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(!error.is_unreachable());
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_the_next_leader() {
    use JobStatus::{Finished, Running};
    let (first, second) = (cluster(), cluster());
    first.lock().unwrap().status = vec![event(None, Running), event(None, Running)];
    second.lock().unwrap().status = vec![event(None, Running), event(Some(Running), Finished)];
    let mut dying = Server::start(Role::Leader, Death::AfterFirstEvent, &first);
    let next = Server::start(Role::Leader, Death::Never, &second);
    let client = client(&[&dying.address, &next.address]).await;
    let mut watch = client.watch(JobId(1));
    let event = soon(watch.next()).await.unwrap().unwrap();
    assert_eq!((event.summary.status, event.change), (Running, None));
    let (event, ()) = soon(async { tokio::join!(watch.next(), dying.dies()) }).await;
    let event = event.unwrap().unwrap();
    assert_eq!(event.summary.status, Finished);
    assert_eq!(event.change.map(|change| (change.from, change.to)), Some((Running, Finished)));
    assert_eq!(soon(watch.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_of_an_unknown_job_is_refused() {
    let server = Server::start(Role::Follower(Some(dead_address())), Death::Never, &cluster());
    let client =
        JobClient::connect_within(vec![server.address.clone()], Duration::from_millis(100)).await.unwrap();
    assert!(soon(client.watch(JobId(1)).next()).await.unwrap_err().is_unreachable());
}

#[test]
fn requests_may_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    fn check(client: &'static JobClient, options: SubmitOptions) {
        is_send(client.list());
        is_send(client.logs(JobId(1), 0));
        is_send(client.submit(options, |_| ()));
        is_send(async { client.watch(JobId(1)).next().await });
    }
    let _ = check;
}
