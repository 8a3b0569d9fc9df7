//! What processes have used: CPU seconds and resident memory, from the kernel's own accounts.
//!
//! Of other processes the kernel tells CPU time in ticks of 10 ms, of this one in nanoseconds.

use std::fs;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use thalweg_chaos_tests::process::ProcessId;

/// CPU seconds of all threads of this process, those that have ended too, but not of its children.
pub fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Forgets this process's highest resident memory so far: it is what is resident now, until it grows again.
///
/// # Errors
/// When the kernel does not allow it, as in some containers.
pub fn reset_own_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of the resident memory")
}

/// This process's highest resident memory since [`reset_own_peak`], in MiB.
///
/// # Errors
/// When the kernel does not tell.
pub fn own_peak_mib() -> Result<f64> {
    peak_resident_mib(ProcessId(std::process::id()))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_uses_time_and_memory_shows_in_the_peak_until_it_is_forgotten() {
        let before = own_cpu_seconds();
        let bytes = std::hint::black_box(vec![1_u8; 64 << 20]);
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sum, 64 << 20);
        assert!(own_cpu_seconds() > before);
        let peak = own_peak_mib().expect("the kernel tells");
        assert!(peak >= 64.0, "{peak}");
        drop(bytes);
        if reset_own_peak().is_ok() {
            let now = own_peak_mib().expect("the kernel tells");
            assert!(now < peak, "{now} MiB after {peak} MiB");
        }
    }
}
