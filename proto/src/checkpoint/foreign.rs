//! Whether a job can begin with the checkpoint of another one. Pure.
//!
//! On a command's way this stands between `submit --from-savepoint CHECKPOINT` and the log, and again before each attempt that restores it.
//! A checkpoint is read as it was written, where a savepoint is migrated: so operators may come and go, at any parallelism, but those that
//! go on have the states, key types and numbers of key groups that they had; and if records were on their way, all are chained as they were
//! and exchange the same types.

use thalweg_common::graph::JobGraph;
use thalweg_common::manifest::{self, OperatorManifest, Report, StateManifest};

use super::{CheckpointMetadata, Shape};

/// What carries the state over where a checkpoint cannot.
const CURE: &str = "a checkpoint is restored as it was written, and only savepoints are migrated: let the version that took it take a \
                    savepoint, or make one of the checkpoint with `thalweg state write NEW --on CHECKPOINT`, and begin with that";

pub(super) fn check(
    checkpoint: &CheckpointMetadata,
    graph: &JobGraph,
    allow_non_restored_state: bool,
) -> Result<(), String> {
    check_states(checkpoint, &StateManifest::of(graph), allow_non_restored_state)?;
    if checkpoint.in_flight_bytes > 0 && checkpoint.shape.topology != Shape::of(graph).topology {
        return Err(format!(
            "it has {} bytes of records that were on their way, which only find their channels again in a job with the same operators, \
             chains, types and max parallelisms; submit the version that took it, at another parallelism with \
             `pipeline.operator-chaining.enabled` and `pipeline.max-parallelism` as then, or begin with a savepoint or with a \
             checkpoint that is aligned",
            checkpoint.in_flight_bytes
        ));
    }
    Ok(())
}

pub(super) fn check_states(
    checkpoint: &CheckpointMetadata,
    declared: &StateManifest,
    allow_non_restored_state: bool,
) -> Result<(), String> {
    let found = &checkpoint.manifest;
    let report = manifest::check(found, declared, allow_non_restored_state);
    let refusals = report.refusals();
    if !refusals.is_empty() {
        return Err(format!("the state does not fit the job:\n{}", refusals.join("\n")));
    }
    max_parallelism(&report)?;
    let differences = manifest::differences(found, declared);
    if !differences.is_empty() {
        return Err(format!("the state has changed:\n{}\n{CURE}", differences.join("\n")));
    }
    found.operators.iter().try_for_each(|operator| parts(operator, declared))
}

/// Operators keep the number of key groups of their state.
fn max_parallelism(report: &Report) -> Result<(), String> {
    let kept = report.operators.iter().find_map(|operator| Some((operator, operator.max_parallelism?)));
    kept.map_or(Ok(()), |(operator, kept)| {
        Err(format!(
            "the state of `{}` has max parallelism {}, and the job sets {}; set it to {} in the program",
            operator.name, kept.restored, kept.declared, kept.restored
        ))
    })
}

/// Sources whose positions cannot be divided keep their parallelism.
fn parts(operator: &OperatorManifest, declared: &StateManifest) -> Result<(), String> {
    let is_divided = operator.states.iter().all(|state| state.kind.has_parts());
    match declared.operator(operator.id) {
        Some(now) if !is_divided && now.parallelism != operator.parallelism => Err(format!(
            "{} had parallelism {} when the checkpoint was taken and would have {}: its state has no parts that could be divided; \
             keep its parallelism with `set_parallelism({})`, and change that of the other operators",
            operator.label(),
            operator.parallelism,
            now.parallelism,
            operator.parallelism
        )),
        _ => Ok(()),
    }
}
