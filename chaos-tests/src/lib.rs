//! Real processes, killed, cut off and starved, and what must hold all the same.
//!
//! [`cluster::Cluster`] starts job managers and task managers as processes on loopback with their data in a temporary
//! directory, [`process::Process`] is one of them, [`wait`] waits for states, [`disk`] makes disks that fail, and [`oracle`] says
//! what the jobs' output must be; a [`trial::Trial`] is a job that has to live through all that.
//! [`network`] makes hosts, [`pki`] certificates for them.
//! [`versions::Bench`] takes a job from one version to another. [`exactly_once`] is a run of all kinds of kills and faults together, for as long as one likes.

pub mod cluster;
pub mod disk;
pub mod exactly_once;
pub mod network;
pub mod oracle;
pub mod pki;
pub mod process;
pub mod trial;
pub mod versions;
pub mod wait;
