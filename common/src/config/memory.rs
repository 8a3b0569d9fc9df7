//! How much memory the state of jobs may take on this machine.

use std::fs;

use super::{Configuration, keys};

/// What is assumed where the system does not tell how much memory there is.
const UNKNOWN_MACHINE_BYTES: u64 = 2 << 30;

/// Managed memory of a task manager in bytes: `taskmanager.memory.managed.size`, or else a part of what this machine, or the
/// control group of this process, has.
#[must_use]
pub fn managed_memory_bytes(configuration: &Configuration) -> u64 {
    if let Some(bytes) = configuration.memory_size(&keys::MANAGED_MEMORY_SIZE) {
        return bytes;
    }
    let fraction = configuration.decimal(&keys::MANAGED_MEMORY_FRACTION).unwrap_or(0.4);
    (machine_bytes() as f64 * fraction) as u64
}

fn machine_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    // Absent or `max` without a limit.
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min().unwrap_or(UNKNOWN_MACHINE_BYTES)
}

/// The bytes in the line `MemTotal: 1234 kB`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_size_wins_over_a_part_of_the_machine() {
        let mut configuration = Configuration::new();
        configuration.set("taskmanager.memory.managed.fraction", "0.5").unwrap();
        let half = managed_memory_bytes(&configuration);
        assert!(half >= 16 << 20 && half <= machine_bytes() / 2, "{half}");
        configuration.set("taskmanager.memory.managed.size", "64 mb").unwrap();
        assert_eq!(managed_memory_bytes(&configuration), 64 << 20);
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 3 kB\n"), Some(16 << 10));
    }
}
