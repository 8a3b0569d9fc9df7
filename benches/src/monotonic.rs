//! The kernel's monotonic clock, whose origin all processes of one machine share.
//!
//! A [`Clock`](thalweg_common::clock::Clock) has an origin of its own in every process. What is measured from one process
//! to another needs this one.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`. Costs a few dozen nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is negative: the clock begins when the machine starts.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let times: Vec<u64> = (0..1_000).map(|_| now_ns()).collect();
        assert!(times.is_sorted());
        assert!(times[0] > 0);
    }
}
