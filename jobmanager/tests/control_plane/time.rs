//! Event time over the control plane: sources that are aligned, and tasks that are asked how they keep it.

use std::collections::BTreeSet;

use thalweg_common::graph::{AlignmentDescriptor, JobGraph, TimeDescriptor};
use thalweg_common::id::{JobId, SubtaskId};
use thalweg_common::status::JobStatus;
use thalweg_proto::convert::WireId;
use thalweg_proto::v1;
use thalweg_proto::v1::TaskStatus as Reported;
use thalweg_proto::v1::task_manager_message::Message as Says;

use super::fake::{
    Cluster, FakeTaskManager, deploy_tasks, graph, group_watermarks, job_is, soon, start_worker, time_request,
};

/// The usual job, whose two sources are aligned with each other.
fn aligned() -> JobGraph {
    let mut graph = graph(2, None);
    let alignment = AlignmentDescriptor { group: "g".into(), max_drift_ms: 10, update_interval_ms: 20 };
    let time = TimeDescriptor { alignment: Some(alignment), ..TimeDescriptor::default() };
    graph.vertices[0].operators[0].time = Some(time);
    graph
}

/// Both task managers run their tasks. In front the one that has the first source.
async fn running(cluster: &Cluster, job: JobId) -> [FakeTaskManager; 2] {
    let (mut a, mut b) = (cluster.task_manager("a", 1).await, cluster.task_manager("b", 1).await);
    for manager in [&mut a, &mut b] {
        let start = manager.until(start_worker).await;
        manager.worker_ready(&start).await;
    }
    for manager in [&mut a, &mut b] {
        let tasks = manager.until(deploy_tasks).await.tasks;
        let subtasks = tasks.iter().filter_map(|task| task.subtask);
        manager.tasks = subtasks.map(|subtask| (subtask.vertex, subtask.index)).collect();
        manager.status(job, 1, Reported::Running).await;
    }
    job_is(&cluster.client().await, job, "all run", |job| job.status == JobStatus::Running).await;
    if a.tasks.contains(&(0, 0)) { [a, b] } else { [b, a] }
}

/// What a source says, and what is answered: nothing if it has no say.
async fn told(from: &mut FakeTaskManager, job: JobId, attempt: u32, watermark: i64) -> Vec<Option<i64>> {
    let (vertex, index) = *from.tasks.first().unwrap();
    let source =
        v1::SourceWatermark { subtask: Some(v1::SubtaskId { vertex, index }), group: "g".into(), watermark };
    from.say(Says::SourceWatermarks(v1::SourceWatermarks {
        job_id: job.to_wire(),
        attempt,
        sources: vec![source],
    }))
    .await;
    let answer = from.until(group_watermarks).await;
    assert_eq!((answer.job_id, answer.attempt), (job.to_wire(), attempt));
    answer.groups.into_iter().map(|said| said.watermark).collect()
}

#[tokio::test]
async fn aligned_sources_are_told_the_least_watermark_of_their_group() {
    let cluster = Cluster::start().await;
    let job = cluster.submit(aligned()).await;
    let [mut a, mut b] = running(&cluster, job).await;
    assert_eq!(told(&mut a, job, 1, 100).await, [None], "the other one was not heard of");
    assert_eq!(told(&mut b, job, 1, 40).await, [Some(40)]);
    assert_eq!(told(&mut a, job, 1, 150).await, [Some(40)]);
    assert_eq!(told(&mut b, job, 7, 500).await, [], "of an attempt that does not run");
    assert_eq!(told(&mut a, job, 1, 160).await, [Some(40)]);
    assert_eq!(told(&mut b, job, 1, i64::MAX).await, [Some(160)], "who has ended is not waited for");
    assert_eq!(told(&mut a, job, 1, i64::MAX).await, [Some(i64::MAX)]);
}

#[tokio::test]
async fn tasks_tell_how_they_keep_time_and_who_does_not_is_named() {
    let cluster = Cluster::start().await;
    let job = cluster.submit(aligned()).await;
    let [mut a, mut b] = running(&cluster, job).await;
    let client = cluster.client().await;
    let (time, ()) = tokio::join!(soon("the answer", client.time(job)), async {
        for manager in [&mut a, &mut b] {
            let request = manager.until(time_request).await;
            assert_eq!((&request.job_id, request.attempt), (&job.to_wire(), 1));
            // Only the sources answer, one of them twice, and one in the name of an older attempt, too.
            for (attempt, watermark) in [(0, 1), (1, 2), (1, 3)] {
                let (vertex, index) = *manager.tasks.first().unwrap();
                let told = v1::TaskTime {
                    request_id: request.request_id,
                    job_id: request.job_id.clone(),
                    attempt,
                    subtask: Some(v1::SubtaskId { vertex, index }),
                    watermark: Some(watermark),
                    ..v1::TaskTime::default()
                };
                manager.say(Says::TaskTime(told)).await;
            }
        }
    });
    let time = time.unwrap();
    let told: Vec<_> = time.tasks.iter().map(|task| (task.subtask, task.watermark)).collect();
    let id = |vertex, index| SubtaskId { vertex, index };
    assert_eq!(told, [(id(0, 0), Some(2)), (id(0, 1), Some(2))]);
    assert_eq!(time.missing.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([id(1, 0), id(1, 1)]));
    assert_eq!((time.graph, time.job.job_id), (aligned(), job));
}
