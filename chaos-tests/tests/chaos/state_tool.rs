//! `thalweg state` on checkpoints of real jobs whose cluster is gone: what it counts and prints is what the job had.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::oracle;
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::wait;
use thalweg_common::status::JobStatus;

const NUMBERS: u64 = 200_000;
const KEYS: u64 = 2_000;

fn state(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary("thalweg")?).arg("state").args(arguments).output()?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "thalweg state {arguments:?}: {stdout}{stderr}");
    Ok(stdout)
}

/// The newest checkpoint in a job's directory.
fn newest(directory: &Path) -> Result<String> {
    let names = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().display().to_string()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    let number = |name: &String| name.strip_prefix("chk-")?.parse::<u64>().ok();
    let complete = names.iter().filter(|name| directory.join(name).join("_metadata").is_file());
    let newest = complete.filter_map(number).max().context("no checkpoint is retained")?;
    Ok(directory.join(format!("chk-{newest}")).display().to_string())
}

/// Takes checkpoints of a counting job, and cancels it when it has state of all keys. The newest checkpoint, and the highest count of
/// each key that it had written for good.
async fn checkpoint(backend: &str, cluster: &Cluster) -> Result<(String, BTreeMap<String, u64>)> {
    let (output, checkpoints) = (cluster.folder().join("output"), cluster.folder().join("checkpoints"));
    let (output_text, checkpoints_text) = (output.display().to_string(), checkpoints.display().to_string());
    let (numbers, keys) = (NUMBERS.to_string(), KEYS.to_string());
    let arguments = ["--count", &numbers, "--rate", "8000", "--keys", &keys, "--output", &output_text];
    let configuration = [
        ("state.backend.type", backend),
        ("execution.checkpointing.interval", "200 ms"),
        ("execution.checkpointing.dir", checkpoints_text.as_str()),
        ("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION"),
        ("parallelism.default", "2"),
    ];
    let job = cluster.submit(binary("chaos_job")?, &arguments, &configuration).await?;
    // A second count of every key, so that each has been there at a checkpoint, and has changed since.
    let second =
        |lines: BTreeMap<String, u64>| lines.keys().filter(|line| line.ends_with(" 2")).count() as u64;
    let is_there = || oracle::committed_lines(&output).is_ok_and(|lines| second(lines) == KEYS);
    wait::until_true("updates of all keys", is_there).await?;
    cluster.client().await?.cancel(job).await?;
    cluster.reaches(job, JobStatus::Canceled).await?;
    let mut counts = BTreeMap::new();
    for line in oracle::committed_lines(&output)?.keys() {
        let (key, count) = line.split_once(' ').with_context(|| format!("a line is {line:?}"))?;
        let (key, count) = (key.to_string(), count.parse::<u64>()?);
        counts.entry(key).and_modify(|most: &mut u64| *most = count.max(*most)).or_insert(count);
    }
    Ok((newest(&checkpoints.join(job.to_string()))?, counts))
}

async fn is_read(backend: &str) -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    let (checkpoint, written) = checkpoint(backend, &cluster).await?;
    // Offline: nobody is there to be asked.
    cluster.kill_job_manager(1)?;

    let inspected: Value = serde_json::from_str(&state(&["inspect", &checkpoint, "--output", "json"])?)?;
    ensure!(inspected["uri"].as_str().is_some_and(|uri| uri.ends_with(&checkpoint)), "{inspected}");
    let is_shared = inspected["checkpoint"]["shared_files"].as_u64().is_some_and(|files| files > 0);
    ensure!(is_shared == (backend == "rocksdb"), "{inspected}");
    let operators = inspected["operators"].as_array().context("no operators")?;
    let states = operators.iter().filter_map(|operator| operator["states"].as_array()).flatten();
    let counts: Vec<&Value> =
        states.map(|state| &state["counts"]).filter(|counts| !counts.is_null()).collect();
    let [counts] = counts.as_slice() else { anyhow::bail!("one state is keyed: {inspected}") };
    ensure!(counts["keys"] == KEYS && counts["entries"] == KEYS, "{counts}");
    let groups = counts["groups"].as_array().context("no groups")?;
    let in_groups: u64 = groups.iter().filter_map(|group| group["keys"].as_u64()).sum();
    ensure!(groups.len() == 128 && in_groups == KEYS, "{counts}");
    let shown = state(&["inspect", &checkpoint])?;
    ensure!(shown.starts_with("Checkpoint") && shown.contains("As savepoint"), "{shown}");

    let exported = state(&["export", &checkpoint])?;
    let lines: Vec<Value> = exported.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let entries = lines.iter().filter(|line| !line["key"].is_null());
    let stored: BTreeMap<String, u64> = entries
        .map(|entry| Ok((entry["key"].to_string(), entry["value"].as_u64().context("no count")?)))
        .collect::<Result<_>>()?;
    ensure!(stored.len() as u64 == KEYS, "{} keys", stored.len());
    // What was written for good belongs to this checkpoint or an earlier one, and there are no more numbers than these.
    for (key, count) in &written {
        ensure!(
            stored.get(key).is_some_and(|stored| stored >= count),
            "key {key}: {count} in {:?}",
            stored.get(key)
        );
    }
    let total = stored.values().sum::<u64>();
    ensure!(total < NUMBERS, "{total} numbers");

    let same = state(&["diff", &checkpoint, &checkpoint])?;
    ensure!(same == "All state is the same.\n", "{same}");
    Ok(())
}

#[tokio::test]
async fn checkpoints_of_state_in_memory_are_read_offline() -> Result<()> {
    is_read("hashmap").await
}

#[tokio::test]
async fn checkpoints_of_state_in_rocksdb_are_read_offline() -> Result<()> {
    is_read("rocksdb").await
}
