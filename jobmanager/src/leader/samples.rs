//! What was reported of a task's counters: the last two reports, from whose difference its rates are computed.
//!
//! Nothing older is kept, so a job costs the leader two reports per task, however long it runs.

use thalweg_proto::v1;

/// The reports of one task's execution.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    pub(crate) latest: v1::TaskCounters,
    /// The one before, if there was one.
    pub(crate) earlier: Option<v1::TaskCounters>,
}

impl Samples {
    /// Takes a report. One that repeats the last, as when heartbeats come faster than the worker reports, replaces it.
    pub(super) fn add(&mut self, counters: v1::TaskCounters) {
        let before_ns = time_ns(&self.latest);
        if before_ns > 0 && time_ns(&counters) > before_ns {
            self.earlier = Some(std::mem::take(&mut self.latest));
        }
        self.latest = counters;
    }
}

/// How long the task had run.
fn time_ns(counters: &v1::TaskCounters) -> u64 {
    counters.busy_ns.saturating_add(counters.idle_ns).saturating_add(counters.back_pressured_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(records_in: u64, busy_ns: u64, idle_ns: u64) -> v1::TaskCounters {
        v1::TaskCounters { records_in, busy_ns, idle_ns, ..Default::default() }
    }

    #[test]
    fn the_last_two_that_differ_in_time_are_kept() {
        let mut samples = Samples::default();
        for (reported, earlier) in [
            (counters(0, 0, 0), None),
            (counters(1, 10, 0), None),
            (counters(1, 10, 0), None),
            (counters(2, 20, 0), Some(1)),
            (counters(2, 20, 0), Some(1)),
            (counters(2, 20, 5), Some(2)),
        ] {
            samples.add(reported.clone());
            assert_eq!(samples.latest, reported);
            assert_eq!(samples.earlier.as_ref().map(|earlier| earlier.records_in), earlier, "{reported:?}");
        }
    }
}
