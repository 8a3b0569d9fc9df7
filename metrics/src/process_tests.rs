//! Measurements of made-up machines, and of this one.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use std::sync::Arc;
use thalweg_common::clock::{ManualClock, SystemClock};

/// A file system with these files.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

/// Four cores and 16 GiB, 4 of them free.
const MACHINE: [(&str, &str); 2] = [
    ("proc/stat", "cpu  100 0 200 900 50 0 0 0 7 7\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 1\n"),
    ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n"),
];

#[test]
fn without_limits_the_machine_is_the_container() {
    let root = machine(&MACHINE);
    let found = Container::read(root.path());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let expected =
        Container { cpu_seconds: 300.0 / ticks, cores: 4.0, memory_used: 12 << 30, memory_limit: 16 << 30 };
    assert_eq!(found, expected);
}

#[test]
fn control_groups_of_either_version_limit_it() {
    let unified = [
        ("proc/self/cgroup", "0::/system.slice/taskmanager.service\n"),
        ("sys/fs/cgroup/system.slice/taskmanager.service/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/system.slice/taskmanager.service/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ("sys/fs/cgroup/system.slice/taskmanager.service/memory.current", "900\n"),
        ("sys/fs/cgroup/system.slice/taskmanager.service/memory.max", "1000\n"),
        ("sys/fs/cgroup/system.slice/taskmanager.service/memory.stat", "anon 1\ninactive_file 200\n"),
    ];
    let separate = [
        ("proc/self/cgroup", "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "2500000000\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
        ("sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 200\n"),
    ];
    let expected = Container { cpu_seconds: 2.5, cores: 1.5, memory_used: 700, memory_limit: 1_000 };
    for files in [&unified[..], &separate[..]] {
        let root = machine(&[&MACHINE, files].concat());
        assert_eq!(Container::read(root.path()), expected);
    }

    let unlimited = [
        ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/memory.current", "900\n"),
        ("sys/fs/cgroup/memory.max", "max\n"),
    ];
    let root = machine(&[&MACHINE[..], &unlimited].concat());
    assert_eq!(Container::read(root.path()), Container::machine(root.path()));
}

#[test]
fn cpu_time_is_measured_between_two_samples() {
    let stat = |ticks: u64| format!("7 (a) b c) S 1 7 7 0 -1 4194560 1 0 0 0 {ticks} {ticks} 5 5 20 0 3 0");
    let status = "Name: x\nRssAnon:\t    1024 kB\nThreads:\t3\n";
    let files = [("proc/7/stat", stat(50)), ("proc/7/status", status.into())];
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let root = machine(&[&MACHINE[..], &files].concat());
    let clock = Arc::new(ManualClock::new(0));
    let mut sampler = ProcessSampler::new(root.path().to_path_buf(), clock.clone());
    sampler.root = root.path().to_path_buf();

    let first = sampler.sample(&[7, 8], (24, 1 << 30));
    assert_eq!((first.cpu_percent, first.container_cpu_percent), (0.0, 0.0), "there was nothing before");
    assert_eq!((first.threads, first.heap_used_bytes), (3, (1 << 20) - 24));
    assert_eq!((first.heap_total_bytes, first.container_memory_percent), (15 << 30, 75.0));
    assert!((0.0..=100.0).contains(&first.container_disk_percent));

    // As much time as one of four cores has in two seconds.
    let two_seconds = 2 * rustix::param::clock_ticks_per_second();
    fs::write(root.path().join("proc/7/stat"), stat(50 + two_seconds / 2)).unwrap();
    clock.advance(Duration::from_secs(2));
    let second = sampler.sample(&[7], (0, 0));
    assert_eq!((second.cpu_percent, second.container_cpu_percent), (25.0, 0.0));
}

#[test]
fn this_process_can_be_measured() {
    let mut sampler = ProcessSampler::new(std::env::temp_dir(), SystemClock::shared());
    let metrics = sampler.sample(&[std::process::id()], (0, 0));
    assert!(
        metrics.threads >= 1 && metrics.heap_used_bytes > 0 && metrics.heap_total_bytes > 0,
        "{metrics:?}"
    );
    assert!(metrics.container_memory_percent > 0.0 && metrics.container_disk_percent > 0.0, "{metrics:?}");
}
