//! Aggregations in two stages: combiners, and behind the hash edge the operator that merges what they send.
//!
//! Declared with both stages; the job's settings, which are complete only when the whole topology is, may ask for one.
//! Then the combiners are taken out again and the operator behind them gets the code that needs none.

use thalweg_common::config::{Configuration, keys};
use thalweg_common::limits::MAX_OPERATOR_NAME_BYTES;
use thalweg_runtime::program::Node;

use crate::environment::EdgeMaker;
use crate::graph::{EdgeSpec, NodeSpec};

/// What `table.optimizer.agg-phase-strategy` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AggPhaseStrategy {
    /// Combine while it pays.
    Auto,
    /// Always combine.
    TwoPhase,
    /// Never combine.
    OnePhase,
}

impl AggPhaseStrategy {
    pub(crate) fn from_configuration(configuration: &Configuration) -> Self {
        match configuration.text(&keys::AGG_PHASE_STRATEGY) {
            Some("TWO_PHASE") => Self::TwoPhase,
            Some("ONE_PHASE") => Self::OnePhase,
            _ => Self::Auto,
        }
    }
}

/// Both stages, by their numbers among the operators, and what takes their place.
pub(crate) struct TwoStages {
    /// The combiners, one behind each input.
    pub(crate) combiners: Vec<usize>,
    /// For each combiner one that never gives up.
    pub(crate) tireless: Vec<Node>,
    /// The operator that merges.
    pub(crate) merge: usize,
    /// That operator's inputs, code and edges without combiners.
    pub(crate) one_stage: (Vec<EdgeSpec>, Node, Vec<EdgeMaker>),
}

impl TwoStages {
    /// Gives the stages the form that the strategy asks for, and names the combiners after the operator that they work
    /// for.
    pub(crate) fn apply(
        self,
        strategy: AggPhaseStrategy,
        nodes: &mut Vec<NodeSpec>,
        code: &mut Vec<Node>,
        edges: &mut Vec<Vec<EdgeMaker>>,
    ) {
        if strategy == AggPhaseStrategy::OnePhase {
            (nodes[self.merge].inputs, code[self.merge], edges[self.merge]) = self.one_stage;
            for combiner in self.combiners.into_iter().rev() {
                nodes.remove(combiner);
                drop((code.remove(combiner), edges.remove(combiner)));
                let inputs = nodes.iter_mut().flat_map(|node| &mut node.inputs);
                inputs.filter(|input| input.from > combiner).for_each(|input| input.from -= 1);
            }
            return;
        }
        let name = combiner_name(&nodes[self.merge].name);
        for (combiner, tireless) in self.combiners.into_iter().zip(self.tireless) {
            nodes[combiner].name.clone_from(&name);
            if strategy == AggPhaseStrategy::TwoPhase {
                code[combiner] = tireless;
            }
        }
    }
}

/// The name that the plan shows. A long one would not be allowed any more.
fn combiner_name(name: &str) -> String {
    let long = format!("Combine({name})");
    if long.len() <= MAX_OPERATOR_NAME_BYTES { long } else { "Combine".to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;
    use crate::aggregates::Count;
    use crate::stream::DataStream;
    use thalweg_common::graph::JobGraph;

    /// The graph of a job under a strategy.
    fn graph(strategy: &str, topology: impl Fn(DataStream<u64>) -> DataStream<(u64, u64)>) -> JobGraph {
        let env = Environment::new(&[], true);
        let numbers = env.from_iter(0..10_u64).name("numbers");
        topology(numbers).map(|count| count).collect();
        let mut settings = Configuration::default();
        settings.set(keys::AGG_PHASE_STRATEGY.name, strategy).expect("a right setting");
        settings.set(keys::PARALLELISM_DEFAULT.name, "2").expect("a right setting");
        env.build(&settings, "job").expect("a right topology").graph
    }

    fn chains(graph: &JobGraph) -> Vec<&str> {
        graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
    }

    #[test]
    fn combiners_are_chained_to_what_is_before_them() {
        let counts =
            |numbers: DataStream<u64>| numbers.key_by(|n| n % 3).aggregate(Count).uid("c").name("counts");
        let both = graph("AUTO", counts);
        assert_eq!(chains(&both), ["numbers -> Combine(counts)", "counts -> Map -> Collect"]);
        assert_eq!((both.vertices[0].parallelism, both.vertices[1].parallelism), (1, 2));
        assert_eq!(chains(&graph("two-phase", counts)), chains(&both));

        let one = graph("ONE_PHASE", counts);
        assert_eq!(chains(&one), ["numbers", "counts -> Map -> Collect"]);
        let without = graph("AUTO", |numbers| {
            numbers.key_by(|n| n % 3).without_combining().aggregate(Count).uid("c").name("counts")
        });
        assert_eq!(chains(&without), chains(&one));

        // State is found again, with a uid or without one, whether the job combines or not.
        let ids = |graph: &JobGraph| {
            let operators = graph.vertices.iter().flat_map(|vertex| &vertex.operators);
            let declared = operators.filter(|operator| operator.kind != "combine");
            declared.map(|operator| (operator.id, operator.states.clone())).collect::<Vec<_>>()
        };
        assert_eq!(ids(&both), ids(&one));
        assert_eq!(ids(&without), ids(&one));
    }

    #[test]
    fn each_input_of_a_union_has_a_combiner() {
        let counts = |numbers: DataStream<u64>| {
            let first = numbers.key_by(|n| *n).aggregate(Count).name("first").map(|(number, _)| number);
            first.union(&numbers.rebalance()).key_by(|n| *n).aggregate(Count).name("second")
        };
        assert_eq!(
            chains(&graph("AUTO", counts)),
            [
                "numbers -> Combine(first) -> Combine(second)",
                "first -> Map -> Combine(second)",
                "second -> Map -> Collect"
            ]
        );
        assert_eq!(
            chains(&graph("ONE_PHASE", counts)),
            ["numbers", "first -> Map", "second -> Map -> Collect"]
        );
    }

    #[test]
    fn records_that_do_not_combine_need_no_combiner() {
        let topology = |numbers: DataStream<u64>| numbers.key_by(|n| *n).count();
        assert_eq!(chains(&graph("TWO_PHASE", topology)), ["numbers", "Count -> Map -> Collect"]);
    }

    #[test]
    fn a_combiner_has_the_name_of_its_operator_if_that_leaves_room() {
        assert_eq!(combiner_name("count"), "Combine(count)");
        assert_eq!(combiner_name(&"x".repeat(MAX_OPERATOR_NAME_BYTES)), "Combine");
    }
}
