//! What processes take of their machine or container: read from `/proc` and from the files of control groups, of either version.
//!
//! The edge beside the [table](crate::table). Whatever a system does not tell is 0, or that of the whole machine; nothing here fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thalweg_common::clock::SharedClock;
use thalweg_proto::model::ProcessMetrics;

/// Limits of memory above this are none: version 1 writes the largest number of pages that there is.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Measures some processes, always the time since the last measurement.
pub struct ProcessSampler {
    /// Where `proc` and `sys` are.
    root: PathBuf,
    /// Where the processes keep their data.
    data_directory: PathBuf,
    clock: SharedClock,
    last: Option<Moment>,
}

/// What counters showed at one moment.
struct Moment {
    at: Duration,
    /// CPU time of each process, in seconds.
    processes: BTreeMap<u32, f64>,
    container_seconds: f64,
}

impl ProcessSampler {
    /// For processes that keep their data in `data_directory`.
    #[must_use]
    pub fn new(data_directory: PathBuf, clock: SharedClock) -> Self {
        Self { root: PathBuf::from("/"), data_directory, clock, last: None }
    }

    /// What these processes and their container take at the moment. CPU time is 0 in the first measurement. `managed` are the bytes of
    /// managed memory in use and in all, which are no part of the heap.
    pub fn sample(&mut self, pids: &[u32], managed: (u64, u64)) -> ProcessMetrics {
        let statistics: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, self.process(*pid)?))).collect();
        let container = Container::read(&self.root);
        let moment = Moment {
            at: self.clock.monotonic(),
            processes: statistics.iter().map(|(pid, process)| (*pid, process.cpu_seconds)).collect(),
            container_seconds: container.cpu_seconds,
        };
        let (used_managed, total_managed) = managed;
        let resident: u64 = statistics.iter().map(|(_, process)| process.anonymous_bytes).sum();
        let metrics = ProcessMetrics {
            cpu_percent: self.cpu_percent(&moment, container.cores, Moment::seconds_of_processes_since),
            container_cpu_percent: self.cpu_percent(&moment, container.cores, |now, before| {
                (now.container_seconds - before.container_seconds).max(0.0)
            }),
            container_memory_percent: percent(container.memory_used as f64, container.memory_limit as f64),
            container_disk_percent: disk_percent(&self.data_directory),
            heap_used_bytes: resident.saturating_sub(used_managed),
            heap_total_bytes: container.memory_limit.saturating_sub(total_managed),
            threads: statistics.iter().map(|(_, process)| process.threads).sum(),
        };
        self.last = Some(moment);
        metrics
    }

    fn cpu_percent(&self, now: &Moment, cores: f64, seconds: fn(&Moment, &Moment) -> f64) -> f64 {
        let Some(before) = &self.last else { return 0.0 };
        let wall_seconds = now.at.saturating_sub(before.at).as_secs_f64();
        percent(seconds(now, before), wall_seconds * cores)
    }

    fn process(&self, pid: u32) -> Option<Process> {
        let directory = self.root.join("proc").join(pid.to_string());
        let status = fs::read_to_string(directory.join("status")).ok()?;
        let stat = fs::read_to_string(directory.join("stat")).ok()?;
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Some(Process {
            cpu_seconds: cpu_ticks(&stat)? as f64 / ticks_per_second as f64,
            anonymous_bytes: kilobytes(&status, "RssAnon:").unwrap_or(0) * 1_024,
            threads: field(&status, "Threads:")?.parse().ok()?,
        })
    }
}

impl Moment {
    /// CPU time of the processes that lived then and live now, and of those that have begun since.
    fn seconds_of_processes_since(&self, before: &Self) -> f64 {
        let since = |(pid, seconds): (&u32, &f64)| seconds - before.processes.get(pid).unwrap_or(&0.0);
        // A number may belong to another process by now.
        self.processes.iter().map(since).map(|seconds| seconds.max(0.0)).sum()
    }
}

struct Process {
    cpu_seconds: f64,
    /// Memory that is no file's.
    anonymous_bytes: u64,
    threads: u64,
}

/// The container around this process; without one, the machine.
#[derive(Debug, PartialEq)]
struct Container {
    cpu_seconds: f64,
    cores: f64,
    memory_used: u64,
    memory_limit: u64,
}

impl Container {
    fn read(root: &Path) -> Self {
        let machine = Self::machine(root);
        let groups = Groups::of(root);
        let cores = groups.quota_cores().filter(|cores| *cores > 0.0 && *cores < machine.cores);
        let limit = groups.memory_limit().filter(|limit| *limit < machine.memory_limit);
        Self {
            // Time and cores are those of the same whole.
            cpu_seconds: cores.and_then(|_| groups.cpu_seconds()).unwrap_or(machine.cpu_seconds),
            cores: cores.unwrap_or(machine.cores),
            memory_used: limit.and_then(|_| groups.memory_used()).unwrap_or(machine.memory_used),
            memory_limit: limit.unwrap_or(machine.memory_limit),
        }
    }

    fn machine(root: &Path) -> Self {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let bytes = |name| kilobytes(&meminfo, name).unwrap_or(0) * 1_024;
        let memory_limit = bytes("MemTotal:");
        let stat = fs::read_to_string(root.join("proc/stat")).unwrap_or_default();
        let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
        Self {
            cpu_seconds: machine_ticks(&stat) as f64 / rustix::param::clock_ticks_per_second() as f64,
            cores: cores.max(1) as f64,
            memory_used: memory_limit.saturating_sub(bytes("MemAvailable:")),
            memory_limit,
        }
    }
}

/// The files of this process's control groups.
struct Groups {
    /// Of version 2: the one directory.
    unified: Option<PathBuf>,
    /// Of version 1: those of CPU time and of memory.
    cpu: PathBuf,
    memory: PathBuf,
}

impl Groups {
    fn of(root: &Path) -> Self {
        let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let base = root.join("sys/fs/cgroup");
        // Inside a container the path may be that outside of it; then the group is the root of what can be seen.
        let directory = |base: PathBuf, path: &str, file: &str| {
            let own = base.join(path.trim_start_matches('/'));
            if own.join(file).exists() { own } else { base }
        };
        let path = |controller: &str| {
            let line = own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|one| one == controller).then_some(path)
            });
            line.unwrap_or("/")
        };
        let unified = directory(base.clone(), path(""), "memory.current");
        Self {
            unified: unified.join("memory.current").exists().then_some(unified),
            cpu: directory(base.join("cpu,cpuacct"), path("cpu"), "cpuacct.usage"),
            memory: directory(base.join("memory"), path("memory"), "memory.usage_in_bytes"),
        }
    }

    fn quota_cores(&self) -> Option<f64> {
        if let Some(unified) = &self.unified {
            let text = fs::read_to_string(unified.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            return Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?);
        }
        let quota: f64 = number(&self.cpu.join("cpu.cfs_quota_us"))?;
        Some(quota / number::<f64>(&self.cpu.join("cpu.cfs_period_us"))?)
    }

    fn cpu_seconds(&self) -> Option<f64> {
        match &self.unified {
            Some(unified) => {
                let text = fs::read_to_string(unified.join("cpu.stat")).ok()?;
                Some(field(&text, "usage_usec ")?.parse::<f64>().ok()? / 1e6)
            }
            None => Some(number::<f64>(&self.cpu.join("cpuacct.usage"))? / 1e9),
        }
    }

    fn memory_limit(&self) -> Option<u64> {
        let file = match &self.unified {
            Some(unified) => unified.join("memory.max"),
            None => self.memory.join("memory.limit_in_bytes"),
        };
        number(&file).filter(|limit| *limit < NO_LIMIT_BYTES)
    }

    /// Without the files that nobody has used for a while, which the system takes back when it needs room.
    fn memory_used(&self) -> Option<u64> {
        let (directory, current, inactive) = match &self.unified {
            Some(unified) => (unified, "memory.current", "inactive_file "),
            None => (&self.memory, "memory.usage_in_bytes", "total_inactive_file "),
        };
        let statistics = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let inactive = field(&statistics, inactive).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(number::<u64>(&directory.join(current))?.saturating_sub(inactive))
    }
}

/// CPU time in a line of `/proc/PID/stat`: of user code and of the system for it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name of the program stands in parentheses, and may have any in it.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// CPU time of the machine in `/proc/stat`, without what it was idle or waited for disks.
fn machine_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0));
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of the first two.
    fields.take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks).sum()
}

/// The word behind a name at the beginning of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse().ok()
}

fn number<N: std::str::FromStr>(file: &Path) -> Option<N> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// How full the file system is on which a directory is, as `df` tells: without what is kept for root.
fn disk_percent(directory: &Path) -> f64 {
    rustix::fs::statvfs(directory).map_or(0.0, |disk| {
        let used = disk.f_blocks.saturating_sub(disk.f_bfree) as f64;
        percent(used, used + disk.f_bavail as f64)
    })
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part * 100.0 / whole } else { 0.0 }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
