//! The programs that measure jobs on a cluster run, with tiny sizes, and report every figure that is expected of them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Runs a program and checks that it reports these cases, each with a value that is a number.
fn reports(program: &str, arguments: &[&str], cases: &[&str]) -> Result<()> {
    let output = Command::new(program).args(["--json", "--runs", "1"]).args(arguments).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} ended with {}: {stderr}", output.status);
    let lines: Vec<Value> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for case in cases {
        let line = lines.iter().find(|line| line["case"] == *case);
        let value = line.and_then(|line| line["value"].as_f64());
        let value = value.with_context(|| format!("{program} does not report {case}: {lines:#?}"))?;
        ensure!(value.is_finite(), "{case} is {value}");
    }
    Ok(())
}

#[test]
fn exchange_reports_the_job_and_what_it_is_compared_with() -> Result<()> {
    let cases = ["raw_tcp", "bare_tonic", "two_workers_100b", "two_workers_100b_records"];
    reports(env!("CARGO_BIN_EXE_exchange"), &["--seconds", "0.5", "--cases", "100b"], &cases)
}

#[test]
fn latency_reports_quantiles_and_an_idle_job() -> Result<()> {
    let cases =
        ["local_1k_p50_ms", "local_1k_p99_ms", "local_1k_p999_ms", "local_1k_peak_mib", "idle_cpu_percent"];
    let arguments = ["--seconds", "0.5", "--warm-up-seconds", "0.2", "--loads", "local_1k,idle"];
    reports(env!("CARGO_BIN_EXE_latency"), &arguments, &cases)
}

#[test]
fn backpressure_reports_memory_sibling_and_checkpoints() -> Result<()> {
    let cases = ["worker_growth_mib", "sibling_rate", "checkpoint_ms"];
    let arguments = ["--seconds", "1", "--workers", "1", "--checkpoint-interval-ms", "100"];
    reports(env!("CARGO_BIN_EXE_backpressure"), &arguments, &cases)
}

#[test]
fn windows_reports_sliding_beside_tumbling_windows() -> Result<()> {
    let cases = ["sliding_60s_1s", "sliding_60s_1s_highest", "sliding_60s_1s_sparse_keys"];
    reports(env!("CARGO_BIN_EXE_windows"), &["--events", "200000"], &cases)
}

#[test]
fn nexmark_reports_queries_in_memory_and_in_rocksdb() -> Result<()> {
    let cases = ["generator_ns", "q18", "q18_exactly_once", "q18_rocksdb_exactly_once"];
    reports(env!("CARGO_BIN_EXE_nexmark"), &["--events", "20000", "--queries", "q18"], &cases)
}

#[test]
fn timers_reports_rates_checkpoints_and_memory() -> Result<()> {
    let cases = [
        "registered_per_cpu_second",
        "fired_per_cpu_second",
        "checkpoint_s",
        "second_checkpoint_s",
        "peak_mib",
    ];
    let size = ["--timers", "30000", "--keys", "3000", "--managed-mib", "2"];
    reports(env!("CARGO_BIN_EXE_timers"), &size, &cases)
}

#[test]
fn checkpoint_reports_pauses_durations_and_bytes() -> Result<()> {
    let cases = [
        "sync_p99_ms",
        "sink_silence_ms",
        "duration_p50_ms",
        "uploaded_per_changed",
        "full_rate_records_per_second",
    ];
    let size = ["--state-mb", "5", "--managed-memory", "8 mb", "--rate", "20000"];
    let arguments = [&size[..], &["--checkpoints", "3", "--interval-ms", "100"]].concat();
    reports(env!("CARGO_BIN_EXE_checkpoint"), &arguments, &cases)
}

#[test]
fn s3_json_to_parquet_reports_the_job_and_a_plain_loop() -> Result<()> {
    let arguments = ["--megabytes", "2", "--interval-ms", "100"];
    reports(env!("CARGO_BIN_EXE_s3_json_to_parquet"), &arguments, &["job", "plain_loop"])
}
