//! What processes have used: CPU seconds and resident memory, from the kernel's own accounts.

use std::fs;

use anyhow::{Context, Result};
use thalweg_chaos_tests::process::ProcessId;

/// CPU seconds of this process's children that have ended and been waited for.
///
/// # Errors
/// When the kernel's accounts cannot be read.
pub fn cpu_seconds_of_children() -> Result<f64> {
    let fields = stat("self")?;
    Ok(ticks(&fields, 13)? + ticks(&fields, 14)?)
}

/// CPU seconds of a process and of its children that have ended.
///
/// # Errors
/// When the process is gone.
pub fn cpu_seconds(process: ProcessId) -> Result<f64> {
    let fields = stat(&process.0.to_string())?;
    (11..=14).map(|field| ticks(&fields, field)).sum()
}

/// Resident memory in MiB.
///
/// # Errors
/// When the process is gone.
pub fn resident_mib(process: ProcessId) -> Result<f64> {
    memory_mib(process, "VmRSS:")
}

/// The most resident memory that a process ever had, in MiB.
///
/// # Errors
/// When the process is gone.
pub fn peak_resident_mib(process: ProcessId) -> Result<f64> {
    memory_mib(process, "VmHWM:")
}

fn memory_mib(process: ProcessId, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("process {} has no {field}", process.0))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// The fields of `/proc/<process>/stat` behind the command's name.
fn stat(process: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("an unknown form of /proc/<pid>/stat")?;
    Ok(rest.split_whitespace().map(str::to_string).collect())
}

fn ticks(fields: &[String], field: usize) -> Result<f64> {
    let ticks: f64 = fields.get(field).context("an unknown form of /proc/<pid>/stat")?.parse()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
