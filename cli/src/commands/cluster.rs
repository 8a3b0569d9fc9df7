//! `thalweg cluster`: the machines of the cluster, and changes of its job managers.

use serde::Serialize;
use thalweg_proto::model::{JobManagerSummary, JobManagers, TaskManagerSummary};

use super::Session;
use crate::arguments::ClusterChange;
use crate::exit::Exit;
use crate::human::{ago, count};
use crate::table::{Align, Table};

/// Both kinds of machines.
#[derive(Debug, Serialize)]
struct Cluster {
    #[serde(flatten)]
    job_managers: JobManagers,
    task_managers: Vec<TaskManagerSummary>,
}

/// A change of the cluster's members that was made.
#[derive(Debug, Serialize)]
struct Change {
    action: &'static str,
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

pub(super) async fn run(session: &Session, change: Option<ClusterChange>) -> anyhow::Result<Exit> {
    let client = session.client().await?;
    let change = match change {
        None => {
            let job_managers = client.job_managers().await?;
            let cluster = Cluster { job_managers, task_managers: client.task_managers().await? };
            session.output.result(&cluster, |cluster| text(cluster, session.now_ms()))?;
            return Ok(Exit::Success);
        }
        Some(ClusterChange::Add { id, address }) => {
            client.add_job_manager(id, &address).await?;
            Change { action: "added", id, address: Some(address) }
        }
        Some(ClusterChange::Remove { id }) => {
            client.remove_job_manager(id).await?;
            Change { action: "removed", id, address: None }
        }
    };
    session.output.result(&change, |change| match &change.address {
        Some(address) => format!("Job manager {} at {address} {}\n", change.id, change.action),
        None => format!("Job manager {} {}\n", change.id, change.action),
    })?;
    Ok(Exit::Success)
}

fn text(cluster: &Cluster, now_ms: i64) -> String {
    let mut text = format!("Job managers (term {})\n", cluster.job_managers.term);
    text.push_str(&job_managers(&cluster.job_managers.job_managers));
    if !cluster.job_managers.job_managers.iter().any(|manager| manager.leader) {
        text.push_str("  no leader is known at the moment\n");
    }
    text.push_str("\nTask managers\n");
    if cluster.task_managers.is_empty() {
        text.push_str(
            "  none is connected; `taskmanager --jobmanagers HOST:PORT --data-dir DIR` starts one\n",
        );
    } else {
        text.push_str(&task_managers(&cluster.task_managers, now_ms));
    }
    text
}

fn job_managers(managers: &[JobManagerSummary]) -> String {
    let headings = [("ID", Align::Right), ("ADDRESS", Align::Left), ("ROLE", Align::Left)];
    let mut table = Table::new(&headings).indented("  ");
    for manager in managers {
        let role = match (manager.leader, manager.voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        table.row([manager.id.to_string(), manager.address.clone(), role.into()]);
    }
    table.render()
}

fn task_managers(managers: &[TaskManagerSummary], now_ms: i64) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("HOST", Align::Left),
        ("SLOTS", Align::Right),
        ("FREE", Align::Right),
        ("LABELS", Align::Left),
        ("CONNECTED", Align::Left),
        ("LAST HEARTBEAT", Align::Left),
    ])
    .indented("  ");
    for manager in managers {
        table.row([
            manager.id.clone(),
            manager.host.clone(),
            count(manager.slots_total.into()),
            count(manager.slots_free.into()),
            manager.labels.join(","),
            ago(now_ms, manager.connected_since_ms),
            ago(now_ms, manager.last_heartbeat_ms),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn cluster() -> Cluster {
        let manager =
            |id, leader, voter| JobManagerSummary { id, address: format!("10.0.0.{id}:6123"), leader, voter };
        Cluster {
            job_managers: JobManagers {
                term: 7,
                job_managers: vec![manager(1, false, true), manager(2, true, true), manager(3, false, false)],
            },
            task_managers: vec![TaskManagerSummary {
                id: "tm-1".into(),
                host: "10.0.1.1".into(),
                slots_total: 4,
                slots_free: 1,
                labels: vec!["ssd".into(), "zone-a".into()],
                connected_since_ms: NOW - 63_000,
                last_heartbeat_ms: NOW - 2_000,
            }],
        }
    }

    #[test]
    fn machines_are_listed_with_their_roles() {
        let expected = "\
Job managers (term 7)
  ID  ADDRESS        ROLE
   1  10.0.0.1:6123  follower
   2  10.0.0.2:6123  leader
   3  10.0.0.3:6123  learner

Task managers
  ID    HOST      SLOTS  FREE  LABELS      CONNECTED   LAST HEARTBEAT
  tm-1  10.0.1.1      4     1  ssd,zone-a  1m 03s ago  2 s ago
";
        assert_eq!(text(&cluster(), NOW), expected);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut cluster = cluster();
        cluster.task_managers.clear();
        cluster.job_managers.job_managers.remove(1);
        let text = text(&cluster, NOW);
        assert!(text.contains("no leader is known") && text.contains("`taskmanager --jobmanagers"), "{text}");
    }
}
