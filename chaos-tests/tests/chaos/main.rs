//! Real processes, killed, cut off and starved: one program of tests, so that what they share is compiled and linked once.

mod binaries;
mod checkpoint_restores;
mod checkpoints;
mod counting;
mod damaged_files;
mod dashboard;
mod disk_faults;
mod exactly_once;
mod failover;
mod faults;
mod flink_client;
mod local_recovery;
mod regions;
mod rescale;
mod rocksdb;
mod s3_faults;
mod savepoint_restores;
mod savepoints;
mod security;
mod state_tool;
mod unaligned;
mod watched_directory;
