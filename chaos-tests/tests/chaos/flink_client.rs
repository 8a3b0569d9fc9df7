//! Apache Flink's own command-line client against a real cluster: the requests that it makes, one by one, and the client itself where it is
//! installed. Both ask a job manager that does not lead.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::{oracle, wait};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_test_support::http::{get, request};
use tokio::process::Command;

/// A cluster with three job managers, and jobs that count numbers without end.
struct Bench {
    cluster: Cluster,
    url: String,
    started: u32,
}

impl Bench {
    async fn start() -> Result<Self> {
        let mut cluster =
            Cluster::start(ClusterOptions { job_managers: 3, ..ClusterOptions::default() }).await?;
        let follower = if cluster.leader().await? == 1 { 2 } else { 1 };
        let url = cluster.rest_url(follower).await?;
        Ok(Self { cluster, url, started: 0 })
    }

    fn savepoints(&self) -> String {
        format!("file://{}", self.cluster.folder().join("savepoints").display())
    }

    /// Submits a job and waits until it has written something.
    async fn job(&mut self) -> Result<JobId> {
        self.started += 1;
        let output = self.cluster.folder().join(format!("output-{}", self.started));
        let arguments = ["--output", &output.display().to_string(), "--count", "10000000", "--rate", "1000"];
        let savepoints = self.savepoints();
        let settings = [
            ("execution.checkpointing.interval", "100 ms"),
            ("execution.checkpointing.savepoint-dir", savepoints.as_str()),
        ];
        let job = self.cluster.submit(binary("savepoint_job")?, &arguments, &settings).await?;
        self.cluster.reaches(job, JobStatus::Running).await?;
        let has_output = || oracle::committed_lines(&output).is_ok_and(|lines| !lines.is_empty());
        wait::until_true("output", has_output).await?;
        Ok(job)
    }

    /// As the client asks: with a body, also to read.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let answer = request(&self.url, method, path, body.to_string().as_bytes()).await?;
        Ok((answer.status, answer.json()?))
    }

    /// Begins something and gives what has come of it.
    async fn operate(&self, path: &str, status_path: &str, body: &Value) -> Result<Value> {
        let (status, accepted) = self.ask("POST", path, body).await?;
        ensure!(status == 202, "{path}: {status} {accepted}");
        let trigger = accepted["request-id"].as_str().context("a trigger id")?;
        let path = format!("{status_path}/{trigger}");
        wait::until("the operation", async || {
            let (status, told) = self.ask("GET", &path, &json!({})).await?;
            ensure!(status == 200, "{path}: {status} {told}");
            Ok((told["status"]["id"] == "COMPLETED").then(|| told["operation"].clone()))
        })
        .await
    }
}

fn folder_of(location: &Value) -> Result<PathBuf> {
    let uri = location.as_str().with_context(|| format!("no location: {location}"))?;
    Ok(uri.strip_prefix("file://").context("a local directory")?.into())
}

#[tokio::test]
async fn the_requests_of_flinks_client_are_answered() -> Result<()> {
    let mut bench = Bench::start().await?;
    let job = bench.job().await?;
    let (status, listed) = bench.ask("GET", "/v1/jobs/overview", &json!({})).await?;
    assert_eq!((status, &listed["jobs"][0]["jid"]), (200, &json!(job.to_string())));
    assert_eq!(listed["jobs"][0]["state"], "RUNNING");

    let savepoints = format!("/v1/jobs/{job}/savepoints");
    let body = json!({
        "target-directory": bench.savepoints(), "cancel-job": false, "formatType": "CANONICAL", "triggerId": null,
    });
    let taken = bench.operate(&savepoints, &savepoints, &body).await?;
    let folder = folder_of(&taken["location"])?;
    assert!(folder.join("_metadata").is_file(), "{taken}");
    let checkpoints = get(&bench.url, &format!("/jobs/{job}/checkpoints")).await?;
    assert_eq!(checkpoints["latest"]["savepoint"]["external_path"], taken["location"]);
    let id = &checkpoints["latest"]["completed"]["id"];
    let details = get(&bench.url, &format!("/jobs/{job}/checkpoints/details/{id}")).await?;
    assert_eq!((&details["status"], &details["id"]), (&json!("COMPLETED"), id));

    let path = format!("/v1/jobs/{job}/checkpoints");
    let body = json!({ "checkpointType": "CONFIGURED", "triggerId": null });
    let checkpoint = &bench.operate(&path, &path, &body).await?["checkpointId"];
    let details = get(&bench.url, &format!("{path}/details/{checkpoint}")).await?;
    assert_eq!((&details["status"], &details["id"]), (&json!("COMPLETED"), checkpoint));

    let disposal = "/v1/savepoint-disposal";
    let disposed = bench.operate(disposal, disposal, &json!({ "savepoint-path": taken["location"] })).await?;
    assert_eq!((disposed, folder.exists()), (json!({}), false));

    let body =
        json!({ "targetDirectory": null, "drain": false, "formatType": "CANONICAL", "triggerId": null });
    let stopped = bench.operate(&format!("/v1/jobs/{job}/stop"), &savepoints, &body).await?;
    assert!(folder_of(&stopped["location"])?.join("_metadata").is_file(), "{stopped}");
    assert_eq!(bench.cluster.status(job).await?, JobStatus::Finished, "the operation ends with the job");
    let again = bench.operate(&format!("/v1/jobs/{job}/stop"), &savepoints, &body).await?;
    assert!(again["failure-cause"]["stack-trace"].is_string(), "{again}");
    let (status, refused) = bench.ask("PATCH", &format!("/v1/jobs/{job}?mode=cancel"), &json!({})).await?;
    assert_eq!(status, 409, "{refused}");

    let job = bench.job().await?;
    let body =
        json!({ "target-directory": null, "cancel-job": true, "formatType": "CANONICAL", "triggerId": null });
    let savepoints = format!("/v1/jobs/{job}/savepoints");
    bench.operate(&savepoints, &savepoints, &body).await?;
    bench.cluster.reaches(job, JobStatus::Canceled).await?;

    let job = bench.job().await?;
    let (status, answer) = bench.ask("PATCH", &format!("/v1/jobs/{job}?mode=cancel"), &json!({})).await?;
    assert_eq!((status, answer), (202, json!({})));
    bench.cluster.reaches(job, JobStatus::Canceled).await
}

/// Flink's home: as the environment says, or where the scripts of the peers put it.
fn flink() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let is_there = |home: &PathBuf| home.join("bin/flink").is_file();
    if let Some(home) = set("FLINK_HOME") {
        return Some(home).filter(is_there);
    }
    let peers = set("PEERS_DIR").or_else(|| set("HOME").map(|home| home.join(".cache/thalweg-peers")))?;
    let entries = std::fs::read_dir(peers).ok()?.flatten().map(|entry| entry.path());
    entries.filter(is_there).max()
}

/// What Flink's client says to a command line, and whether it is content.
async fn says(home: &Path, url: &str, command: &str, arguments: &[&str]) -> Result<(bool, String)> {
    let address = url.strip_prefix("http://").context("a URL")?;
    let mut client = Command::new(home.join("bin/flink"));
    client.arg(command).args(["-m", address]).args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), client.output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn flinks_client_lists_takes_checkpoints_and_savepoints_stops_and_cancels() -> Result<()> {
    let Some(home) = flink() else {
        eprintln!("Flink is not installed, so its client is not tried; set FLINK_HOME");
        return Ok(());
    };
    let mut bench = Bench::start().await?;
    let job = bench.job().await?;
    let (url, id) = (bench.url.clone(), job.to_string());
    let says = async |command: &str, arguments: &[&str], expected: &str| {
        let (success, said) = says(&home, &url, command, arguments).await?;
        ensure!(success && said.contains(expected), "{command} {arguments:?}:\n{said}");
        Ok(said)
    };
    let path = |said: &str, before: &str| {
        let path =
            said.lines().find_map(|line| line.split_once(before)).map(|(_, path)| path.trim().to_string());
        path.context("a path")
    };
    let said = says("list", &[], &id).await?;
    assert!(said.contains("(RUNNING)"), "{said}");
    says("checkpoint", &[&id], "resume your program from this checkpoint").await?;
    let directory = bench.savepoints();
    let said = says("savepoint", &[&id, &directory], "Savepoint completed.").await?;
    let savepoint = path(&said, "Savepoint completed. Path: ")?;
    let folder = folder_of(&json!(savepoint))?;
    assert!(folder.join("_metadata").is_file(), "{savepoint}");
    says("savepoint", &["-d", &savepoint], "disposed").await?;
    assert!(!folder.exists());
    let said = says("stop", &["--savepointPath", &directory, &id], "Savepoint completed.").await?;
    let savepoint = path(&said, "Savepoint completed. Path: ")?;
    assert!(folder_of(&json!(savepoint))?.join("_metadata").is_file(), "{savepoint}");
    assert_eq!(bench.cluster.status(job).await?, JobStatus::Finished);

    let job = bench.job().await?;
    says("cancel", &[&job.to_string()], "Cancelled job").await?;
    bench.cluster.reaches(job, JobStatus::Canceled).await?;

    // A failure is told in our words.
    let precious = bench.cluster.folder().display().to_string();
    let (success, said) =
        self::says(&home, &url, "savepoint", &["-d", &format!("file://{precious}")]).await?;
    if success || !said.contains("no savepoint") {
        bail!("a directory that is no savepoint was to be refused:\n{said}");
    }
    Ok(())
}
