//! What a checkpoint cannot be restored with: its state is read as it was written, so each operator that goes on must declare it as it did.
//!
//! Beside `check`, which says what a savepoint can be restored with. Operators may come and go in both. Pure.

use super::check::{compare_states, has_splits_now};
use super::report::StateVerdict;
use super::{OperatorManifest, StateManifest};

/// Each difference between the states that operators had (`found`) and those that they declare now, as a sentence that names operator,
/// state and field. Operators that only one of the two has are no difference.
#[must_use]
pub fn differences(found: &StateManifest, declared: &StateManifest) -> Vec<String> {
    let both = declared.operators.iter().filter_map(|now| Some((found.operator(now.id)?, now)));
    both.flat_map(|(before, now)| of_operator(before, now)).collect()
}

fn of_operator(before: &OperatorManifest, now: &OperatorManifest) -> Vec<String> {
    let mut differences = Vec::new();
    let fingerprint = |operator: &OperatorManifest| operator.key_schema.as_ref().map(|key| key.fingerprint());
    if before.is_keyed() && now.is_keyed() && fingerprint(before) != fingerprint(now) {
        differences.push(format!("the type of the keys of {} has changed", now.label()));
    }
    for state in &now.states {
        let subject = format!("state `{}` of {}", state.name, now.label());
        let Some(old) = before.state(&state.name) else {
            differences.push(format!("{subject} is new"));
            continue;
        };
        if (old.kind, old.fingerprint) == (state.kind, state.fingerprint) {
            continue;
        }
        match compare_states(old, state) {
            StateVerdict::Migrated(changes) => {
                differences.extend(changes.iter().map(|change| format!("{subject}: {change}")));
            }
            StateVerdict::Incompatible(problems) => {
                differences.extend(problems.iter().map(|problem| format!("{subject}: {problem}")));
            }
            _ if old.kind != state.kind && !has_splits_now(old, state) => differences
                .push(format!("{subject} was a {} state and is a {} state now", old.kind, state.kind)),
            _ => differences.push(format!("{subject} is stored in another form now")),
        }
    }
    let gone = before.states.iter().filter(|state| now.state(&state.name).is_none());
    let gone =
        gone.map(|state| format!("state `{}` of {} is not declared any more", state.name, now.label()));
    differences.extend(gone);
    differences
}
