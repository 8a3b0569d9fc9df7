//! Registration, fencing and leadership.

use thalweg_common::id::JobId;
use thalweg_jobmanager::consensus::Consensus;
use thalweg_proto::client::JobClient;
use thalweg_proto::convert::WireId;
use thalweg_proto::leader::redirect;
use thalweg_proto::transport::{Dialer, endpoint, job_service, task_manager_service};
use thalweg_proto::v1;
use thalweg_proto::v1::TaskStatus as Reported;
use thalweg_proto::v1::task_manager_message::Message as Says;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::fake::*;

#[tokio::test]
async fn a_registered_task_manager_is_listed_and_replaced_by_its_next_connection() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut first = cluster.task_manager("a", 3).await;
    let listed = client.task_managers().await.unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].host.as_str()), ("a", "a.example"));
    assert_eq!((listed[0].slots_total, listed[0].slots_free), (3, 3));
    let _second = cluster.task_manager("a", 4).await;
    assert!(first.try_next().await.unwrap().is_none(), "the older connection has ended");
    let listed = client.task_managers().await.unwrap();
    assert_eq!((listed.len(), listed[0].slots_total), (1, 4));
    // What the older one says does not count, and its end is not the end of the newer one.
    drop(first);
    assert_eq!(client.task_managers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_registration_is_refused() {
    let cluster = Cluster::start().await;
    let register = |slots| {
        Says::Register(v1::Register { task_manager_id: "a".into(), slots, ..v1::Register::default() })
    };
    let nameless = Says::Register(v1::Register { slots: 1, ..v1::Register::default() });
    for (first, expected) in [
        (Says::Heartbeat(v1::Heartbeat::default()), "`register` must come first"),
        (register(0), "`register.slots` is 0"),
        (register(100_000), "`register.slots` is 100000"),
        (nameless, "`register.task_manager_id`"),
    ] {
        let channel = Dialer::default().connect_lazy(&endpoint(&cluster.manager.address).unwrap());
        let (says, queue) = tokio::sync::mpsc::channel(1);
        says.try_send(v1::TaskManagerMessage { message: Some(first) }).unwrap();
        let status = task_manager_service(channel).connect(ReceiverStream::new(queue)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
}

#[tokio::test]
async fn a_malformed_message_is_left_out_and_the_next_one_counts() {
    let cluster = Cluster::start().await;
    let mut a = cluster.task_manager("a", 1).await;
    let job = cluster.submit(graph(1, None)).await;
    a.deployed().await;
    a.say(Says::TasksStopped(v1::TasksStopped { job_id: "short".into(), attempt: 1, regions: vec![] })).await;
    a.say(Says::Register(v1::Register::default())).await;
    a.status(job, 1, Reported::Running).await;
    let client = cluster.client().await;
    job_is(&client, job, "running", |job| job.tasks_running == 2).await;
}

#[tokio::test]
async fn tasks_of_unknown_jobs_are_stopped() {
    let cluster = Cluster::start().await;
    let a = cluster.task_manager("a", 1).await;
    let running = a.running(JobId(7), 1, Reported::Running);
    drop(a);
    let mut a = FakeTaskManager::connect(&cluster.manager.address, "a", 1, running).await.unwrap();
    assert_eq!(a.until(stop_worker).await.job_id, JobId(7).to_wire());
}

#[tokio::test]
async fn one_that_does_not_lead_refuses_everything_and_lets_its_task_managers_go() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut a = cluster.task_manager("a", 1).await;
    let job = cluster.submit(graph(1, None)).await;
    a.deployed().await;
    a.status(job, 1, Reported::Running).await;
    job_is(&client, job, "running", |job| job.tasks_running == 2).await;
    cluster.log.shutdown().await;

    let status = loop {
        match a.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the connection ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(redirect(&status), Some(None), "it knows no leader");
    let refused = FakeTaskManager::connect(&cluster.manager.address, "a", 1, vec![]).await.err().unwrap();
    assert_eq!(redirect(&refused), Some(None));

    let channel = Dialer::default().connect_lazy(&endpoint(&cluster.manager.address).unwrap());
    let mut service = job_service(channel);
    let job_id = job.to_wire();
    let answers = [
        service.list_jobs(v1::ListJobsRequest {}).await.err(),
        service.describe_job(v1::DescribeJobRequest { job_id: job_id.clone() }).await.err(),
        service.cancel_job(v1::CancelJobRequest { job_id: job_id.clone() }).await.err(),
        service.watch_job(v1::WatchJobRequest { job_id: job_id.clone() }).await.err(),
        service.list_task_managers(v1::ListTaskManagersRequest {}).await.err(),
        service.list_job_managers(v1::ListJobManagersRequest {}).await.err(),
        service.get_logs(v1::GetLogsRequest { job_id, tail_bytes: 0 }).await.err(),
        service.submit_job(tokio_stream::empty()).await.err(),
    ];
    for status in answers {
        assert_eq!(redirect(&status.unwrap()), Some(None));
    }
    assert!(
        cluster
            .manager
            .submit_embedded(graph(1, None), Default::default(), Default::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_job_manager_stops_with_its_scope() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut a = cluster.task_manager("a", 1).await;
    let job = cluster.submit(graph(1, None)).await;
    let mut watch = client.watch(job);
    watch.next().await.unwrap();
    soon("the end", cluster.scope.shutdown(std::time::Duration::from_secs(30))).await.unwrap();
    while let Ok(Some(_)) = a.try_next().await {}
}

#[tokio::test]
async fn members_are_listed() {
    let cluster = Cluster::start().await;
    let managers = cluster.client().await.job_managers().await.unwrap();
    assert_eq!(managers.job_managers.len(), 1);
    assert!(managers.job_managers[0].leader && managers.job_managers[0].voter);
    let client = JobClient::connect(vec![cluster.manager.address.clone()]).await.unwrap();
    let refused = client.add_job_manager(2, "127.0.0.1:1").await.unwrap_err();
    assert!(refused.to_string().contains("local mode"), "{refused}");
    assert!(client.add_job_manager(0, "127.0.0.1:1").await.is_err());
}
