//! Whether a job can go on with its state at another parallelism. Pure.
//!
//! On a command's way this stands behind the plan at the new parallelism and before anything of the running job is touched. Operators that
//! set their parallelism in the program keep it, as the plan says.

use std::collections::BTreeMap;

use thalweg_common::graph::{JobGraph, Operator, Vertex};
use thalweg_common::id::OperatorId;

/// Why a job cannot go on at another parallelism. Each message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The program declares other operators with state.
    #[error(
        "`{operator}` is not the same at another parallelism: the topology must not depend on the parallelism, nor on anything else that \
         changes between two plans"
    )]
    OtherState {
        /// The operator's name.
        operator: String,
    },
    /// The key groups of an operator cannot change.
    #[error(
        "the state of `{operator}` has max parallelism {kept}, and the program sets {planned}; set it to {kept} in the program"
    )]
    MaxParallelism {
        /// The operator's name.
        operator: String,
        /// That of its state.
        kept: u32,
        /// That of the plan.
        planned: u32,
    },
    /// Records on their way would not find their channels.
    #[error(
        "`{vertex}` would have other operators chained with it or other key groups, and with unaligned checkpoints records on their way \
         have to find their channels again; set `pipeline.operator-chaining.enabled` to false and `pipeline.max-parallelism`, or \
         `execution.checkpointing.unaligned` to false, when you submit the job"
    )]
    Chains {
        /// The vertex of the plan.
        vertex: String,
    },
    /// A source without splits would have another number of subtasks.
    #[error(
        "`{operator}` would run with parallelism {planned} in place of {present}, and as a source without splits it has positions that \
         cannot be divided; keep its parallelism with `set_parallelism({present})` in the program, and the other operators can change theirs"
    )]
    Items {
        /// The operator's name.
        operator: String,
        /// That of the running job.
        present: u32,
        /// That of the plan.
        planned: u32,
    },
}

/// Whether what `planned` declares can continue what `present` has.
///
/// # Errors
/// The first operator that cannot.
pub fn check(present: &JobGraph, planned: &JobGraph) -> Result<(), Misfit> {
    if present.checkpointing.overtakes_after().is_some()
        && let Some(vertex) = chained_otherwise(present, planned)
    {
        return Err(Misfit::Chains { vertex });
    }
    let (present, planned) = (with_state(present), with_state(planned));
    let other_state = |operator: &Operator| Misfit::OtherState { operator: operator.name.clone() };
    if let Some((_, (_, added))) = planned.iter().find(|(id, _)| !present.contains_key(*id)) {
        return Err(other_state(added));
    }
    for (id, (vertex, operator)) in &present {
        let Some((other, declared)) = planned.get(id) else { return Err(other_state(operator)) };
        if (&operator.states, &operator.key_schema) != (&declared.states, &declared.key_schema) {
            return Err(other_state(operator));
        }
        let name = || operator.name.clone();
        if is_keyed(operator) && vertex.max_parallelism != other.max_parallelism {
            let (kept, planned) = (vertex.max_parallelism, other.max_parallelism);
            return Err(Misfit::MaxParallelism { operator: name(), kept, planned });
        }
        if !operator.has_parts() && vertex.parallelism != other.parallelism {
            let (present, planned) = (vertex.parallelism, other.parallelism);
            return Err(Misfit::Items { operator: name(), present, planned });
        }
    }
    Ok(())
}

/// The first vertex of the plan that is not, but for its parallelism, the present one in its place.
fn chained_otherwise(present: &JobGraph, planned: &JobGraph) -> Option<String> {
    let chain = |vertex: &Vertex| {
        let operators: Vec<OperatorId> = vertex.operators.iter().map(|operator| operator.id).collect();
        (vertex.max_parallelism, operators)
    };
    let mut presents = present.vertices.iter();
    let other = planned.vertices.iter().find(|vertex| presents.next().map(chain) != Some(chain(vertex)));
    let missing = presents.next().filter(|_| other.is_none());
    other.or(missing).map(|vertex| vertex.name.clone())
}

/// The setting of max parallelism with which a job keeps its key groups, if the plan has others.
#[must_use]
pub fn max_parallelism_to_keep(present: &JobGraph, planned: &JobGraph) -> Option<u32> {
    let planned = with_state(planned);
    let keyed = with_state(present).into_iter().filter(|(_, (_, operator))| is_keyed(operator));
    keyed
        .filter_map(|(id, (vertex, _))| Some((vertex.max_parallelism, planned.get(&id)?.0.max_parallelism)))
        .find_map(|(kept, planned)| (kept != planned).then_some(kept))
}

fn is_keyed(operator: &Operator) -> bool {
    operator.states.iter().any(|state| state.kind.is_keyed())
}

/// The operators that remember something, each with the vertex that it runs in.
fn with_state(graph: &JobGraph) -> BTreeMap<OperatorId, (&Vertex, &Operator)> {
    let operators =
        graph.vertices.iter().flat_map(|vertex| vertex.operators.iter().map(move |one| (vertex, one)));
    let with_state = operators.filter(|(_, operator)| !operator.states.is_empty());
    with_state.map(|(vertex, operator)| (operator.id, (vertex, operator))).collect()
}

#[cfg(test)]
mod tests {
    use thalweg_common::graph::StateKind;

    use super::*;
    use crate::testing::{at, checkpointed_graph, state};

    #[test]
    fn all_but_sources_without_splits_change_their_parallelism() {
        let graph = checkpointed_graph();
        assert_eq!(check(&graph, &at(&graph, &[2, 7])), Ok(()));
        for kind in [StateKind::Splits, StateKind::Sink, StateKind::Map] {
            let mut graph = graph.clone();
            graph.vertices[0].operators[0].states = vec![state("parts", kind)];
            assert_eq!(check(&graph, &at(&graph, &[1, 7])), Ok(()), "{kind}");
            graph.vertices[0].operators[0].states.push(state("position", StateKind::Source));
            assert!(matches!(check(&graph, &at(&graph, &[1, 7])), Err(Misfit::Items { .. })), "{kind}");
        }
        type Change = fn(&mut JobGraph);
        let table: [(Change, &str); 5] = [
            (|graph| graph.vertices[0].parallelism = 4, "`set_parallelism(2)`"),
            (
                |graph| graph.vertices[1].max_parallelism = 64,
                "`count` has max parallelism 128, and the program sets 64",
            ),
            (|graph| graph.vertices[1].operators[0].id = OperatorId(7), "`count` is not the same"),
            (|graph| drop(graph.vertices.pop()), "`count` is not the same"),
            (|graph| graph.vertices[1].operators[0].states[0].name = "sum".into(), "`count` is not the same"),
        ];
        for (change, expected) in table {
            let mut planned = graph.clone();
            change(&mut planned);
            let misfit = check(&graph, &planned).expect_err(expected).to_string();
            assert!(misfit.contains(expected), "{misfit}");
        }
    }

    #[test]
    fn with_unaligned_checkpoints_chains_stay_as_they_are() {
        let mut graph = checkpointed_graph();
        graph.checkpointing.unaligned = true;
        assert_eq!(check(&graph, &at(&graph, &[2, 7])), Ok(()));
        type Change = fn(&mut JobGraph);
        let table: [(Change, usize); 3] = [
            (|graph| graph.vertices[0].max_parallelism = 256, 0),
            (|graph| graph.vertices[1].operators[0].id = OperatorId(7), 1),
            (|graph| drop(graph.vertices.pop()), 1),
        ];
        for (change, vertex) in table {
            let mut planned = graph.clone();
            change(&mut planned);
            let vertex = graph.vertices[vertex].name.clone();
            assert_eq!(check(&graph, &planned), Err(Misfit::Chains { vertex }));
        }
    }

    #[test]
    fn the_key_groups_of_state_are_kept() {
        let graph = checkpointed_graph();
        let mut planned = at(&graph, &[2, 100]);
        assert_eq!(max_parallelism_to_keep(&graph, &planned), None);
        planned.vertices[1].max_parallelism = 256;
        assert_eq!(max_parallelism_to_keep(&graph, &planned), Some(128));
        planned.vertices[1].max_parallelism = 128;
        planned.vertices[0].max_parallelism = 256;
        assert_eq!(max_parallelism_to_keep(&graph, &planned), None, "a source has no keys");
    }
}
