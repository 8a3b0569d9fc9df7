//! Chaining, parallelism, names and refusals, as tables.

use thalweg_common::config::Configuration;
use thalweg_common::graph::{JobGraph, Partitioning, StateDescriptor, StateKind};
use thalweg_common::schema::Schema;

use super::build::build;
use super::{Chaining, ENUMERATOR, EdgeSpec, NodeSpec, Place, name_enumerators};

fn place(line: u32) -> Place {
    Place { file: "job.rs", line }
}

/// Declares operators one per line.
#[derive(Default)]
struct Job {
    nodes: Vec<NodeSpec>,
    settings: Configuration,
}

impl Job {
    fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.set(key, value).expect("a right setting");
        self
    }

    fn source(self) -> Self {
        self.add("source", &[], |_| {})
    }

    /// A `map` behind the last operator.
    fn map(self, change: impl FnOnce(&mut NodeSpec)) -> Self {
        let last = self.nodes.len() - 1;
        self.add("map", &[(last, None)], change)
    }

    fn sink(self) -> Self {
        let last = self.nodes.len() - 1;
        self.add("sink", &[(last, None)], |node| node.has_output = false)
    }

    fn add(
        mut self,
        kind: &'static str,
        inputs: &[(usize, Option<Partitioning>)],
        change: impl FnOnce(&mut NodeSpec),
    ) -> Self {
        let line = self.nodes.len() as u32 + 1;
        let mut node = NodeSpec::new(kind, kind, place(line));
        node.inputs = inputs
            .iter()
            .map(|(from, partitioning)| EdgeSpec {
                from: *from,
                tag: None,
                partitioning: *partitioning,
                place: place(100 + line),
                schema_fingerprint: 7,
            })
            .collect();
        change(&mut node);
        self.nodes.push(node);
        self
    }

    fn graph(&self) -> JobGraph {
        build(&self.nodes, &self.settings, "job").expect("a right topology").graph
    }

    fn error(&self) -> String {
        build(&self.nodes, &self.settings, "job").expect_err("a wrong topology").to_string()
    }

    /// The vertices' names.
    fn chains(&self) -> Vec<String> {
        self.graph().vertices.into_iter().map(|vertex| vertex.name).collect()
    }
}

#[test]
fn operators_chain_as_in_flink() {
    let pipeline = |change: fn(&mut NodeSpec)| Job::default().source().map(change).sink();
    let together = vec!["source -> map -> sink"];
    let apart = vec!["source", "map", "sink"];
    let table: Vec<(&str, Job, Vec<&str>)> = vec![
        ("by default", pipeline(|_| {}), together.clone()),
        ("disable_chaining", pipeline(|node| node.chaining = Chaining::Never), apart.clone()),
        ("start_new_chain", pipeline(|node| node.chaining = Chaining::Head), vec!["source", "map -> sink"]),
        ("another parallelism", pipeline(|node| node.parallelism = Some(2)), apart.clone()),
        ("another max parallelism", pipeline(|node| node.max_parallelism = Some(4)), apart.clone()),
        (
            "another slot sharing group, which the sink inherits",
            pipeline(|node| node.slot_sharing_group = Some("heavy".into())),
            vec!["source", "map -> sink"],
        ),
        (
            "chaining disabled for all",
            pipeline(|_| {}).set("pipeline.operator-chaining.enabled", "false"),
            apart.clone(),
        ),
        (
            "any partitioning but forward",
            Job::default().source().add("map", &[(0, Some(Partitioning::Rebalance))], |_| {}).sink(),
            vec!["source", "map -> sink"],
        ),
        (
            "an explicit forward",
            Job::default().source().add("map", &[(0, Some(Partitioning::Forward))], |_| {}).sink(),
            together.clone(),
        ),
        (
            "two inputs",
            Job::default().source().source().add("map", &[(0, None), (1, None)], |_| {}).sink(),
            vec!["source", "source", "map -> sink"],
        ),
        (
            "one stream read twice: the chain branches",
            Job::default()
                .source()
                .map(|_| {})
                .sink()
                .add("sink", &[(1, None)], |node| node.has_output = false),
            vec!["source -> map -> sink -> sink"],
        ),
    ];
    for (name, job, expected) in table {
        assert_eq!(job.chains(), expected, "{name}");
    }
}

#[test]
fn a_branching_chain_says_who_feeds_whom() {
    let job =
        Job::default().source().map(|_| {}).sink().add("sink", &[(0, None)], |node| node.has_output = false);
    let graph = job.graph();
    let inputs: Vec<&[u32]> =
        graph.vertices[0].operators.iter().map(|operator| operator.inputs.as_slice()).collect();
    assert_eq!(inputs, [&[][..], &[0], &[1], &[0]]);
    assert!(graph.edges.is_empty());
}

#[test]
fn edges_lead_from_an_operator_of_a_chain_to_the_head_of_another() {
    let job = Job::default()
        .source()
        .map(|_| {})
        .add("count", &[(1, Some(Partitioning::Hash)), (0, None)], |_| {})
        .sink();
    let built = build(&job.nodes, &job.settings, "job").expect("right");
    let edges: Vec<_> = built
        .graph
        .edges
        .iter()
        .map(|edge| (edge.source, edge.source_operator, edge.target, edge.partitioning))
        .collect();
    assert_eq!(edges, [(0, 1, 1, Partitioning::Hash), (0, 0, 1, Partitioning::Forward)]);
    assert_eq!(built.edges, [(2, 0), (2, 1)]);
}

#[test]
fn parallelism_is_the_operators_own_then_the_settings_then_one() {
    let parallelism =
        |job: Job| job.graph().vertices.iter().map(|vertex| vertex.parallelism).collect::<Vec<_>>();
    assert_eq!(parallelism(Job::default().source().sink()), [1]);
    assert_eq!(parallelism(Job::default().set("parallelism.default", "4").source().sink()), [4]);
    let own =
        Job::default().set("parallelism.default", "4").source().map(|node| node.parallelism = Some(2)).sink();
    let graph = own.graph();
    assert_eq!(graph.vertices.iter().map(|vertex| vertex.parallelism).collect::<Vec<_>>(), [4, 2, 4]);
    assert!(graph.edges.iter().all(|edge| edge.partitioning == Partitioning::Rebalance), "{:?}", graph.edges);
}

#[test]
fn max_parallelism_is_flinks_default_unless_it_is_set() {
    let max = |job: Job| job.graph().vertices[0].max_parallelism;
    assert_eq!(max(Job::default().source().sink()), 128);
    assert_eq!(max(Job::default().set("parallelism.default", "200").source().sink()), 512);
    assert_eq!(max(Job::default().set("pipeline.max-parallelism", "64").source().sink()), 64);
    let own = Job::default()
        .set("pipeline.max-parallelism", "64")
        .add("source", &[], |node| node.max_parallelism = Some(8));
    assert_eq!(max(own.sink()), 8);
}

#[test]
fn wrong_declarations_are_refused_with_their_place() {
    let sink = |node: &mut NodeSpec| node.has_output = false;
    let table: Vec<(Job, &str)> = vec![
        (Job::default(), "the job has no sink"),
        (Job::default().source().map(|_| {}), "add .print() or .sink(..)"),
        (
            Job::default()
                .source()
                .map(|node| (node.parallelism, node.max_parallelism) = (Some(5), Some(4)))
                .sink(),
            "job.rs:2: map has parallelism 5; it must be from 1 to the max parallelism, which is 4",
        ),
        (
            Job::default()
                .source()
                .map(|node| (node.parallelism, node.max_parallelism) = (Some(0), Some(1)))
                .sink(),
            "job.rs:2: map has parallelism 0; it must be from 1",
        ),
        (
            Job::default().source().map(|node| node.uid = Some("a".into())).add(
                "sink",
                &[(1, None)],
                |node| (node.uid, node.has_output) = (Some("a".into()), false),
            ),
            "job.rs:3: the uid `a` is already that of the operator at job.rs:2",
        ),
        (
            Job::default().source().add("sink", &[(0, Some(Partitioning::Forward))], |node| {
                sink(node);
                node.parallelism = Some(3);
            }),
            "job.rs:102: forward() cannot connect source (1 subtasks, job.rs:1) with sink (3 subtasks, job.rs:2)",
        ),
        (
            Job::default().source().map(|node| node.name = String::new()).sink(),
            "job.rs:2: a name or uid has from 1",
        ),
        (Job::default().set("pipeline.name", &"x".repeat(300)).source().sink(), "the job's name is longer"),
    ];
    for (job, expected) in table {
        let error = job.error();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

fn stateful(node: &mut NodeSpec) {
    node.states = vec![StateDescriptor::new("count", StateKind::Value, Schema::primitive("u64"))];
}

#[test]
fn state_without_a_uid_is_a_warning_only_with_checkpoints() {
    let job = || Job::default().source().map(stateful).sink();
    assert_eq!(job().graph().warnings, Vec::<String>::new());
    let warnings = job().set("execution.checkpointing.interval", "1 s").graph().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("job.rs:2: map has state but no uid"), "{warnings:?}");
    let named = Job::default().source().map(|node| {
        stateful(node);
        node.uid = Some("counts".into());
    });
    assert!(named.sink().set("execution.checkpointing.interval", "1 s").graph().warnings.is_empty());
}

#[test]
fn an_output_that_nobody_reads_is_a_warning() {
    let job = Job::default().source().map(|_| {}).add("sink", &[(0, None)], |node| node.has_output = false);
    assert_eq!(job.graph().warnings, ["job.rs:2: nothing reads the output of map"]);
}

#[test]
fn ids_follow_uids_and_names_and_otherwise_the_place() {
    let ids = |job: &Job| {
        let operators = job.graph().vertices.into_iter().flat_map(|vertex| vertex.operators);
        operators.map(|operator| operator.id).collect::<Vec<_>>()
    };
    let job = |more: bool| {
        let named = |node: &mut NodeSpec| (node.name, node.is_named) = ("trades".into(), true);
        let job = Job::default().add("source", &[], named).map(|_| {});
        let job = if more { job.map(|_| {}) } else { job };
        job.map(|node| node.uid = Some("counts".into())).sink()
    };
    let (before, after) = (ids(&job(false)), ids(&job(true)));
    assert_eq!(before[0], after[0], "a named source keeps its id");
    assert_eq!(before[2], after[3], "a uid keeps its id");
    assert_ne!(before[3], after[4], "an operator without either does not");
    assert_eq!(before, ids(&job(false)), "the same topology has the same ids");
}

#[test]
fn the_fingerprint_follows_structure_and_settings() {
    let graph = || Job::default().source().map(|_| {}).sink();
    let fingerprint = graph().graph().fingerprint();
    assert_eq!(fingerprint, graph().graph().fingerprint());
    let changed = [
        graph().set("parallelism.default", "2"),
        graph().set("execution.checkpointing.interval", "1 s"),
        graph().set("pipeline.name", "other"),
        Job::default().source().map(stateful).sink(),
        Job::default().source().sink(),
    ];
    for job in changed {
        assert_ne!(job.graph().fingerprint(), fingerprint);
    }
}

#[test]
fn an_enumerator_is_named_after_its_source_and_changes_no_other_id() {
    let job = |uid: Option<&str>, has_enumerator: bool| {
        let mut job = Job::default();
        if has_enumerator {
            job = job.add(ENUMERATOR, &[], |node| node.parallelism = Some(1));
        }
        let inputs: &[_] = if has_enumerator { &[(0, Some(Partitioning::Splits))] } else { &[] };
        let uid = uid.map(str::to_string);
        let mut job = job
            .add("source", inputs, |node| {
                (node.name, node.is_named, node.uid) = ("orders".into(), true, uid);
                node.slot_sharing_group = Some("in".into());
            })
            .set("parallelism.default", "3")
            .map(|_| {})
            .sink();
        name_enumerators(&mut job.nodes);
        job
    };
    let graph = job(Some("o"), true).graph();
    assert_eq!(job(Some("o"), true).chains(), ["orders: enumerator", "orders -> map -> sink"]);
    let enumerator = &graph.vertices[0];
    assert_eq!((enumerator.parallelism, enumerator.slot_sharing_group.as_str()), (1, "in"));
    assert_eq!(enumerator.operators[0].uid.as_deref(), Some("o: enumerator"));
    assert_eq!(graph.edges.len(), 1);
    assert_eq!(graph.edges[0].partitioning, Partitioning::Splits);
    for uid in [None, Some("o")] {
        let ids = |has_enumerator| {
            let vertices = job(uid, has_enumerator).graph().vertices;
            let operators = vertices.into_iter().flat_map(|vertex| vertex.operators);
            operators
                .filter(|operator| operator.kind != ENUMERATOR)
                .map(|operator| operator.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(true), ids(false));
    }
}
