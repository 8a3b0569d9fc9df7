//! Decides what becomes of each operator's state in a new version of a job.

use super::report::{
    KeptMaxParallelism, OperatorProblem, OperatorReport, Report, StateReport, StateVerdict, Verdict,
};
use super::{OperatorManifest, StateManifest};
use crate::entries;
use crate::graph::{StateDescriptor, StateKind};
use crate::schema::{Compatibility, Migration, compare};

/// Compares what a savepoint or checkpoint holds (`found`) with what the job that is to be restored from it declares.
///
/// State that the job does not declare any more is a reason to refuse, unless `allow_non_restored_state` says that it may be
/// dropped. State that it declares anew begins empty.
#[must_use]
pub fn check(found: &StateManifest, declared: &StateManifest, allow_non_restored_state: bool) -> Report {
    let mut operators = Vec::new();
    for operator in &declared.operators {
        operators.push(match found.operator(operator.id) {
            Some(before) => compare_operators(before, operator),
            None => OperatorReport::new(operator, Verdict::Added),
        });
    }
    for operator in found.operators.iter().filter(|operator| declared.operator(operator.id).is_none()) {
        let mut report = OperatorReport::new(operator, Verdict::Removed);
        report.similar = similar(operator, found, declared);
        operators.push(report);
    }
    Report { operators, allow_non_restored_state }
}

fn compare_operators(found: &OperatorManifest, declared: &OperatorManifest) -> OperatorReport {
    let mut report = OperatorReport::new(declared, Verdict::Compatible);
    report.states = declared
        .states
        .iter()
        .map(|state| {
            let verdict =
                found.state(&state.name).map_or(StateVerdict::Added, |before| compare_states(before, state));
            StateReport { name: state.name.clone(), verdict }
        })
        .collect();
    let removed = found.states.iter().filter(|state| declared.state(&state.name).is_none());
    report.states.extend(
        removed.map(|state| StateReport { name: state.name.clone(), verdict: StateVerdict::Removed }),
    );
    if found.is_keyed() && declared.is_keyed() {
        report.problems.extend(key_problem(found, declared));
        max_parallelism(found, declared, &mut report);
    }
    let is_incompatible = |state: &StateReport| {
        matches!(state.verdict, StateVerdict::Incompatible(_) | StateVerdict::OtherKind { .. })
    };
    if !report.problems.is_empty() || report.states.iter().any(is_incompatible) {
        report.verdict = Verdict::Incompatible;
    } else if report.states.iter().any(|state| matches!(state.verdict, StateVerdict::Migrated(_))) {
        report.verdict = Verdict::Migrated;
    }
    report
}

/// Whether a source had a position and has splits. Whether these can go on from it is for the source to say.
pub(super) fn has_splits_now(found: &StateDescriptor, declared: &StateDescriptor) -> bool {
    (found.kind, declared.kind) == (StateKind::Source, StateKind::Splits)
}

pub(super) fn compare_states(found: &StateDescriptor, declared: &StateDescriptor) -> StateVerdict {
    if found.kind != declared.kind && !has_splits_now(found, declared) {
        return StateVerdict::OtherKind { from: found.kind, to: declared.kind };
    }
    match entries::compare_states(found, declared) {
        Compatibility::Same => StateVerdict::Compatible,
        Compatibility::Migratable(changes) => StateVerdict::Migrated(changes),
        Compatibility::Incompatible(problems) => StateVerdict::Incompatible(problems),
    }
}

/// A key's group is a hash of its encoding, so that this may not change; names in it may.
fn key_problem(found: &OperatorManifest, declared: &OperatorManifest) -> Option<OperatorProblem> {
    let (Some(before), Some(now)) = (&found.key_schema, &declared.key_schema) else { return None };
    let same_bytes = || Migration::new(before, now).is_ok_and(|migration| migration.is_identity());
    if before.fingerprint() == now.fingerprint() || same_bytes() {
        return None;
    }
    let mut details = match compare(before, now) {
        Compatibility::Same => Vec::new(),
        Compatibility::Migratable(changes) => changes.iter().map(ToString::to_string).collect(),
        Compatibility::Incompatible(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    details.truncate(1);
    let detail = details.pop().unwrap_or_default();
    Some(OperatorProblem::KeyChanged { from: before.to_string(), to: now.to_string(), detail })
}

/// The number of key groups is fixed with the first state.
fn max_parallelism(found: &OperatorManifest, declared: &OperatorManifest, report: &mut OperatorReport) {
    let restored = found.max_parallelism;
    if declared.parallelism > restored {
        let parallelism = declared.parallelism;
        report.problems.push(OperatorProblem::Parallelism { parallelism, max_parallelism: restored });
    } else if declared.max_parallelism != restored {
        let declared = declared.max_parallelism;
        report.max_parallelism = Some(KeptMaxParallelism { restored, declared });
    }
}

/// The new operator that could be meant by one that is gone: it has the same states, or at least the same name.
fn similar(gone: &OperatorManifest, found: &StateManifest, declared: &StateManifest) -> Option<String> {
    let added = || declared.operators.iter().filter(|operator| found.operator(operator.id).is_none());
    let same_states = |operator: &&OperatorManifest| {
        operator.is_keyed() == gone.is_keyed()
            && operator.states.len() == gone.states.len()
            && gone.states.iter().all(|state| {
                operator.state(&state.name).is_some_and(|other| other.fingerprint == state.fingerprint)
            })
    };
    let same_name = |operator: &&OperatorManifest| operator.name == gone.name;
    let both = added().find(|operator| same_name(operator) && same_states(operator));
    both.or_else(|| added().find(same_name))
        .or_else(|| added().find(same_states))
        .map(OperatorManifest::label)
}
