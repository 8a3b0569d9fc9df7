//! The failover regions of a job, computed from its plan as job managers and workers do.

use serde::Serialize;
use thalweg_common::graph::{JobGraph, Regions};
use thalweg_common::id::{RegionId, SubtaskId};

/// A failover region: subtasks that channels connect, which are restarted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegionDetails {
    /// Its number.
    pub region: RegionId,
    /// Its subtasks.
    pub subtasks: Vec<SubtaskId>,
}

/// The regions of a plan.
pub(super) fn of(graph: &JobGraph) -> Vec<RegionDetails> {
    let regions = Regions::of(graph);
    let mut all: Vec<RegionDetails> =
        (0..regions.count()).map(|region| RegionDetails { region, subtasks: Vec::new() }).collect();
    for subtask in graph.subtasks() {
        if let Some(region) = all.get_mut(regions.region(subtask) as usize) {
            region.subtasks.push(subtask);
        }
    }
    all
}
