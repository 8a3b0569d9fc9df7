//! Real processes, killed, cut off and starved, and what must hold all the same.
//!
//! [`cluster::Cluster`] starts job managers and task managers as processes on loopback with their data in a temporary
//! directory, [`process::Process`] is one of them, [`wait`] waits for states, [`disk`] makes disks that fail, and [`oracle`] says
//! what the jobs' output must be; a [`trial::Trial`] is a job that has to live through all that.

pub mod cluster;
pub mod disk;
pub mod oracle;
pub mod process;
pub mod trial;
pub mod wait;
