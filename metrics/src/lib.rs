//! What every metric of a cluster means, and its ways out.
//!
//! Tasks count in totals, which travel to their task manager and on to the leader; there they become [sights](sight) of jobs. The
//! [table] is the one place that knows each metric: its name, unit, levels, and how it is read from a sight; what connectors tell of the parts of
//! their input has [one](connector) of its own. A [report] reads the
//! whole table for a job, at the level that is wanted, and every reporter writes such reports. Everything but [`process`] is pure.

pub mod cloudwatch;
pub mod connector;
pub mod process;
#[cfg(feature = "prometheus")]
pub mod prometheus;
pub mod report;
pub mod scope;
pub mod sight;
pub mod table;
pub mod window;
